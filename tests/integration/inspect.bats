#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# tnsctl inspect --all: which containers are at risk now.

load helpers

all() { "$TNS_BIN/tnsctl" inspect --all --root "$STATE" "$@"; }
# What it says of a container, from its JSON.
of() { jq -c --arg id "$1" ".[] | select(.id == \$id) | $2" <<<"$output"; }

stop() { # stop ID: its PID 1 ends, the runtime keeps its folder
  bare kill "$1" KILL
  for _ in $(seq $((50 * SLOW))); do [[ $(status_of "$1") != stopped ]] || return 0; sleep 0.1; done
  fail "$1 is $(status_of "$1")"
}

@test "a healthy, a mixed and a stopped container in one root" {
  start shim healthy
  start shim mixed
  stray mixed
  start shim stopped
  stop stopped
  run all --json
  is "$status" 1
  is "$(jq -c 'map([.id, .verdict])' <<<"$output")" '[["healthy","agree"],["mixed","at_risk"],["stopped","stopped"]]'
  is "$(jq -r 'map(.runtime) | unique[]' <<<"$output")" "$TNS_RUNTIME"
  is "$(jq -r 'map(.root) | unique[]' <<<"$output")" "$STATE"
  is "$(of healthy '[.pid, .namespace, .processes, .disagreeing]')" "[$(pid_of healthy),\"$(ns_of "$(pid_of healthy)")\",2,[]]"
  is "$(of mixed '[.pid, .processes]')" "[$(pid_of mixed),3]"
  is "$(of mixed '.disagreeing[] | [.command, .namespace, .note]')" "[\"sleep 1000\",\"$HOST_NS\",\"on the host's time\"]"
  stray_pid=$(of mixed '.disagreeing[].pid')
  is "$(ns_of "$stray_pid")" "$HOST_NS"

  run all
  is "$status" 1
  contains "${lines[0]}" "ID       RUNTIME  PID"
  for id in healthy mixed stopped; do is "$(grep -c "^$id " <<<"$output")" 1; done
  contains "$(grep '^healthy ' <<<"$output")" "2          agree"
  contains "$(grep '^mixed ' <<<"$output")" "3          AT RISK, 1 of 3 disagree, such as PID $stray_pid (sleep 1000): on the host's time"
  contains "$(grep '^stopped ' <<<"$output")" "stopped"
  contains "$output" "1 of 3 at risk"

  # It is what `inspect ID` says, and it goes when the stray goes.
  run "$TNS_BIN/tnsctl" inspect --root "$STATE" mixed
  is "$status" 1
  kill -KILL "$stray_pid"
  for _ in $(seq $((50 * SLOW))); do [[ -d /proc/$stray_pid ]] || break; sleep 0.1; done
  run all
  is "$status" 0
  contains "$(grep '^mixed ' <<<"$output")" "2          agree"
  contains "$output" "No container is at risk."
}

@test "a container made and restored without the shim: at risk as soon as an old runtime's exec has left a child in it" {
  needs_criu
  start bare c
  checkpoint bare c image
  restore bare c image
  run all
  is "$status" 0
  background bare c
  run all --json
  if [[ $TNS_RUNTIME == runc ]] && ! declares; then
    is "$status" 1
    is "$(of c '.disagreeing[] | [.command, .in_tree]')" '["tail -f /dev/null",true]'
  else
    # This one's own exec joins.
    is "$status" 0
    is "$(of c .verdict)" '"agree"'
  fi
}

@test "one that cannot be looked at is unknown, with the reason; a known risk weighs more" {
  start shim c
  mkdir "$STATE/broken"
  for file in state.json status; do echo '{' >"$STATE/broken/$file"; done
  run all --json
  is "$status" 2
  # Standard error is in the output, after the array.
  output=$(sed '/^]/q' <<<"$output")
  is "$(of broken .verdict)" '"unknown"'
  contains "$(of broken .reason)" "understand $STATE/broken/"
  is "$(of c .verdict)" '"agree"'
  run all
  is "$status" 2
  contains "$(grep '^broken ' <<<"$output")" "unknown: understand"
  contains "$output" "No container is known to be at risk, 1 could not be looked at."
  stray c
  run all
  is "$status" 1
  contains "$output" "1 of 2 at risk"
  rm -r "$STATE/broken"
}

@test "roots: several, one of them twice, an empty one, one that is not there" {
  start shim c
  mkdir "$WORK/empty" "$STATE/no-container"
  ln -s "$STATE" "$WORK/again"
  run "$TNS_BIN/tnsctl" --json inspect --all --root "$WORK/empty" --root "$STATE" --root "$WORK/again"
  is "$status" 0
  is "$(jq -c 'map(.id)' <<<"$output")" '["c"]'
  rmdir "$STATE/no-container"
  run "$TNS_BIN/tnsctl" --json inspect --all --root "$WORK/empty"
  is "$status" 0
  is "$output" "[]"
  run "$TNS_BIN/tnsctl" inspect --all --root "$WORK/empty"
  is "$status" 0
  contains "$output" "$WORK/empty"
  run all --root "$WORK/nowhere"
  is "$status" 2
  contains "$output" "list $WORK/nowhere"
  contains "$(grep '^c ' <<<"$output")" agree
}

@test "without --root: the places where the runtime keeps its containers" {
  "$SHIM" run --detach --bundle "$BUNDLE" tns-c </dev/null >/dev/null 2>&1
  run "$TNS_BIN/tnsctl" --json inspect --all
  "$TNS_RUNTIME" delete --force tns-c
  is "$status" 0
  is "$(of tns-c '[.verdict, .runtime]')" "[\"agree\",\"$TNS_RUNTIME\"]"
}

@test "--all looks at every process once, however many containers there are" {
  for id in a b c; do start bare "$id"; done
  sleep 1000 &
  PIDS+=($!)
  run strace -qq -o "$WORK/trace" -P "/proc/$!/cgroup" -e 'trace=?open,openat' -- "$TNS_BIN/tnsctl" inspect --all --root "$STATE"
  is "$status" 0
  contains "$output" "No container is at risk."
  is "$(grep -c '^open' "$WORK/trace")" 1
}

@test "an id and --all exclude each other, and one of them is needed" {
  run "$TNS_BIN/tnsctl" inspect --all c
  is "$status" 2
  contains "$output" "cannot be used with"
  run "$TNS_BIN/tnsctl" inspect
  is "$status" 2
  contains "$output" "required"
}
