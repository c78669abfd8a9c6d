#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A kernel without time namespaces: Podman says the same with and without the shim, and does the same.

load ../engines/podman

setup_file() {
  [[ ! -e /proc/self/ns/time ]] || skip "this kernel has time namespaces"
  setup_podman
}

@test "run, exec, and errors" {
  alike 0 with run --rm tns sh -c 'echo out; echo err >&2'
  alike 43 with run --rm tns sh -c 'exit 43'
  alike 127 with run --rm tns nope
  alike 126 with run --rm tns /bin/data
  start bare bare-c
  start shim shim-c
  alike 0 podman exec with-c sh -c 'echo out'
  alike 42 podman exec with-c sh -c 'exit 42'
  alike 127 podman exec with-c nope
  is "$(podman inspect --format '{{.OCIRuntime}} {{.State.Status}}' shim-c)" "tns-shim running"
}

@test "restart, pause, kill, rm" {
  local name before
  start bare bare-c
  start shim shim-c
  for name in bare-c shim-c; do
    before=$(pid_of "$name")
    podman restart --time 0 "$name"
    isnt "$(pid_of "$name")" "$before"
    podman pause "$name"
    podman unpause "$name"
    podman kill "$name"
    is "$(podman wait "$name")" 137
    podman rm "$name"
  done
}

@test "checkpoint and restore: the same outcome" {
  local with outcome=()
  for with in bare shim; do
    start "$with" "$with-c"
    outcome+=("$(if podman container checkpoint "$with-c" >/dev/null 2>&1; then echo dumped; fi
      if podman container restore "$with-c" >/dev/null 2>&1; then echo restored; fi
      podman inspect --format '{{.State.Status}}' "$with-c")")
  done
  echo "# ${outcome[0]//$'\n'/ }" >&3
  is "${outcome[1]}" "${outcome[0]}"
}
