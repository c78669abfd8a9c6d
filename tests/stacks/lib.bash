# shellcheck shell=bash
# What build, enter and clean share. Sourced, never run.

# shellcheck disable=SC2034
STACKS=${TNS_STACKS:-/var/cache/tns-shim/stacks}

# debian-13 comes first: debian-12 takes its CRIU from there.
STACK_NAMES=(debian-13 debian-unstable debian-12)
# What boots, for tests/vm.
# shellcheck disable=SC2034
MACHINE_NAMES=(machine-debian-12 machine-debian-13 machine-debian-unstable machine-no-timens)
# What contrib/musl/build compiles with: for this machine, and for one of the other kind.
# shellcheck disable=SC2034
COMPILER_NAMES=(musl musl-aarch64 musl-x86_64)
# What tests/packages builds packages in.
# shellcheck disable=SC2034
PACKAGER_NAMES=(packager-debian-13 packager-debian-unstable)

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

need_root() {
  [[ $EUID -eq 0 ]] || die 'must be run as root'
}

# The CRIU of a newer release alone, which `make demo` takes where this machine's does not run.
# shellcheck disable=SC2034
CRIU_NAMES=(criu-debian-13)

known_stack() {
  local name
  for name in "${STACK_NAMES[@]}" "${PACKAGER_NAMES[@]}"; do
    [[ $name == "$1" ]] && return
  done
  return 1
}
