# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The words that the tests of packages assert with.

is() { # is ACTUAL EXPECTED
  [[ $1 == "$2" ]] || { printf 'is: %s\nis to be: %s\n' "$1" "$2"; return 1; }
}

isnt() { # isnt ACTUAL OTHER
  [[ $1 != "$2" ]] || { printf 'is: %s\n' "$1"; return 1; }
}

contains() { # contains TEXT PART
  [[ $1 == *"$2"* ]] || { printf 'is: %s\nis to contain: %s\n' "$1" "$2"; return 1; }
}

same() { # same FILE FILE
  diff -U0 "$1" "$2"
}
