#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Every namespace but time is what the runtime alone gives, whatever config.json lists.

load helpers

# Hundreds of containers each.
setup_file() { export BATS_TEST_TIMEOUT=400; }

matrix() { # matrix VERB PID-NAMESPACE...
  local verb=$1 pid
  shift
  for pid; do
    run env SHIM="$SHIM" TNSCTL="$TNS_BIN/tnsctl" STATE="$STATE" ROOTFS="$ROOTFS" WORK="$WORK" \
      bash "$BATS_TEST_DIRNAME/namespaces.bash" "$verb" "$pid"
    echo "# ${output//$'\n'/$'\n'# }" >&3
    is "$status" 0
    # A driver that tried nothing would have found nothing.
    contains "$output" "combinations accepted, 0 differ"
    [[ $output != *": 0 of "* ]] || fail "nothing was tried"
  done
}

@test "create: no pid namespace listed, and every choice of the others" { matrix create absent; }
@test "create: a new pid namespace, and every choice of the others" { matrix create new; }
@test "create: another container's pid namespace, and every choice of the others" { matrix create joined; }
@test "run and exec: every choice of any two" { matrix run absent new joined; }
@test "the hook, and then the runtime alone: every choice of any two" { matrix hook absent new joined; }

@test "restore and exec: no pid namespace listed" {
  needs_criu
  matrix restore absent
}

@test "restore and exec: a new pid namespace" {
  needs_criu
  matrix restore new
}

@test "restore and exec: another container's pid namespace" {
  needs_criu
  matrix restore joined
}

@test "a declared time namespace beside no pid namespace or another container's: both are as they are listed" {
  start bare other
  declares || skip "this runtime makes no declared time namespace"
  for pid in absent joined; do
    make_config "$BUNDLE"
    edit_config "$BUNDLE" '.linux.namespaces |= map(select(.type != "pid")) + [{type: "time"}]'
    expected=$(readlink /proc/self/ns/pid)
    if [[ $pid == joined ]]; then
      edit_config "$BUNDLE" ".linux.namespaces += [{type: \"pid\", path: \"/proc/$(pid_of other)/ns/pid\"}]"
      expected=$(readlink "/proc/$(pid_of other)/ns/pid")
    fi
    start shim "$pid"
    is "$(readlink "/proc/$(pid_of "$pid")/ns/pid")" "$expected"
    one_namespace "$pid"
    is "$(exec_ns shim "$pid")" "$(ns_of "$(pid_of "$pid")")"
  done
}
