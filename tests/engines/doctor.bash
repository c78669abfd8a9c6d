# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the tests of `tnsctl doctor` share: they ask for JSON, every key of which must be in docs/doctor.md.
# shellcheck disable=SC2034  # The test files read DOCTOR.

# Asks, and keeps the answer and the status.
doctor() {
  DOCTOR=0
  tnsctl --json doctor >"$WORK/report" 2>"$WORK/errors" || DOCTOR=$?
  is "$(<"$WORK/errors")" ''
  as_documented "$WORK/report"
}
as_documented() { # as_documented FILE
  local key kind row kinds
  is "$(jq .schema "$1")" 1
  while IFS=$'\t' read -r key kind; do
    row=$(grep -F "| \`$key\` | " /tns/docs/doctor.md) || fail "docs/doctor.md has no $key"
    kinds=${row#*\` | } kinds=${kinds%% | *} kinds=${kinds%% |}
    [[ " or $kinds or " == *" or $kind or "* ]] || fail "$key is a $kind, and in docs/doctor.md it is $kinds"
  done < <(jq -r 'path(..) as $path | select($path != [])
    | [($path | map(if type == "number" then "[]" else "." + . end) | join("")), (getpath($path) | type)] | @tsv' "$1" | sort -u)
}

# Of the last answer.
said() { jq -rc "$@" "$WORK/report"; }
engine() { said --arg name "$1" ".engines[] | select(.name == \$name) | $2"; } # engine NAME FILTER
step() { said --arg id "$1" ".next[] | select(.id == \$id) | [.needed, .commands[]] | map(tostring) | join(\" \")"; } # step ID
stands() { is "$(engine "$1" '"\(.shim) \(.told_by)"')" "$2"; } # stands NAME 'SHIM TELLER'

# Whoever is asked by doctor was there before, and what is on disk is as it was.
looks_only() { # looks_only FOLDER...
  local folder
  for folder in "$@"; do snapshot "$folder"; done >"$WORK/before"
  daemons >"$WORK/daemons"
  doctor
  for folder in "$@"; do snapshot "$folder"; done | diff "$WORK/before" -
  is "$(daemons)" "$(<"$WORK/daemons")"
}
daemons() { pgrep --list-name '^(dockerd|containerd|crio|podman|conmon|catatonit)$' || true; }

# The report for people: on a screen, and soon.
readable() {
  local begun=${EPOCHREALTIME/./} took
  tnsctl doctor >"$WORK/text" || is "$?" 1
  took=$((${EPOCHREALTIME/./} - begun))
  ((took < 3000000 * SLOW)) || fail "it took $took µs"
  is "$(grep -v '^      ' "$WORK/text" | awk 'length > 80')" ''
  (($(wc -l <"$WORK/text") <= 45)) || fail "$(<"$WORK/text")"
}
