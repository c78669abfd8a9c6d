#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The essence, for `make check`: what is lost on a machine as people have it, and that it is not lost behind the shim.

load ../integration/helpers

@test "without the shim: an exec'd child, the second checkpoint succeeds, and cannot be restored" {
  start bare c
  checkpoint bare c one
  restore bare c one
  background bare c
  checkpoint bare c two
  run restore bare c two
  isnt "$status" 0
  contains "$(cat "$WORK/work-two/restore.log")" "Can't restore sub-task in NS"
}

@test "with it: two cycles with exec'd children, all in one time namespace, in which every process can start others" {
  start shim c
  # execve does not switch namespaces on this kernel: a program whose two links differ could start no thread.
  is "$(readlink "/proc/$(pid_of c)/ns/time_for_children")" "$(ns_of "$(pid_of c)")"
  for cycle in one two; do
    background shim c
    checkpoint shim c "$cycle"
    restore shim c "$cycle"
    one_namespace c
  done
  is "$(namespaces_below "$(pid_of c)" | wc -l)" 4
  run shim exec c sh -c 'for link in self/ns/time self/ns/time_for_children 1/ns/time_for_children; do readlink /proc/$link; done'
  is "$(sort <<<"$output" | uniq -c)" "      3 $(ns_of "$(pid_of c)")"
}

@test "doctor tells what was seen here" {
  run "$TNS_BIN/tnsctl" --json doctor --runtime "$TNS_RUNTIME"
  # But for engines, which nobody here has told.
  is "$(jq -c '[.next[] | select(.needed) | .id] - ["enable_engine", "ask_engine"]' <<<"$output")" '[]'
  is "$(jq -r '.runtimes[].path' <<<"$output")" "$(command -v "$TNS_RUNTIME")"
  is "$(jq -r .kernel.own_namespace <<<"$output")" "$HOST_NS"
  is "$(jq -r '.runtimes[].mode' <<<"$output")" "$(if declares; then echo declare; else echo emulate; fi)"
}
