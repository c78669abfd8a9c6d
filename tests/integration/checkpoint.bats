#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# checkpoint and restore: whole, again and again, and never into an image that cannot be restored.

load helpers

# The container's CLOCK_BOOTTIME in hundredths of a second, as a process of it reads it.
uptime_of() { shim exec "$1" cat /proc/uptime | hundredths; }
hundredths() { awk '{ print int($1 * 100) }'; }

@test "without the shim, a tree that an old runtime's exec has mixed is lost at the second checkpoint" {
  needs_criu
  start bare c
  checkpoint bare c one
  restore bare c one
  # On a runtime whose exec joins, a process put in from outside does the same.
  if declares || [[ $TNS_RUNTIME == crun ]]; then stray c; else background bare c; fi
  isnt "$(namespaces_below "$(pid_of c)" | sort -u | wc -l)" 1
  checkpoint bare c two
  isnt "$(status_of c)" running
  run restore bare c two
  isnt "$status" 0
  contains "$(cat "$WORK/work-two/restore.log")" "Can't restore sub-task in NS"
}

@test "five cycles, each with a new background child: one namespace, and clocks that never go back" {
  needs_criu
  start shim c
  before=0
  for cycle in 1 2 3 4 5; do
    background shim c
    begun=$(hundredths </proc/uptime)
    now=$(uptime_of c)
    ((now >= before)) || fail "cycle $cycle: the clock went back from $before to $now"
    before=$now
    checkpoint shim c "image$cycle"
    [[ $(status_of c) != running ]] || fail "cycle $cycle: still running"
    # Time in which the container does not exist and its clocks stand still.
    sleep 0.2
    restore shim c "image$cycle"
    now=$(uptime_of c)
    # No more than passes on the host, however slow that is.
    ((now >= before && now - before <= $(hundredths </proc/uptime) - begun + 1)) || fail "cycle $cycle: the clock jumped from $before to $now"
    before=$now
    one_namespace c
    is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
    # PID 1, its own child, and one of every cycle so far
    is "$(namespaces_below "$(pid_of c)" | wc -l)" "$((cycle + 2))"
  done
}

@test "a mixed tree is refused, names the stray, and the container keeps running" {
  needs_criu
  start shim c
  pid=$(pid_of c)
  stray c
  stray_pid=$(cat "/proc/$pid/task/$pid/children" | tr ' ' '\n' | while read -r child; do
    [[ -n $child && $(ns_of "$child") == "$HOST_NS" ]] && echo "$child"
  done | head -n 1)
  run shim --log "$WORK/log" --log-format json checkpoint --image-path "$WORK/image" --work-path "$WORK/work" c
  is "$status" 1
  contains "$output" "PID $stray_pid (sleep 1000)"
  contains "$output" "host's time namespace, $HOST_NS"
  contains "$output" "$(ns_of "$pid")"
  is "$(jq -r .level "$WORK/log")" error
  contains "$(jq -r .msg "$WORK/log")" "PID $stray_pid (sleep 1000)"
  is "$(status_of c)" running
  is "$(exec_ns shim c)" "$(ns_of "$pid")"

  # What the message advises works.
  kill -KILL "$stray_pid"
  for _ in $(seq $((50 * SLOW))); do [[ -d /proc/$stray_pid ]] || break; sleep 0.1; done
  checkpoint shim c image
  restore shim c image
  one_namespace c
}

@test "a nested time namespace is told apart from a stray" {
  needs_criu
  start shim c
  pid=$(pid_of c)
  # In the container's own time namespace first, then in one below it.
  nsenter --target "$pid" --pid --time -- unshare --time sh -c 'sleep 1000 </dev/null >/dev/null 2>&1 &'
  # The shell's child is called as the shell until it has become what it is to be.
  for _ in $(seq $((50 * SLOW))); do pgrep --exact --full 'sleep 1000' && break; sleep 0.1; done
  run shim checkpoint --image-path "$WORK/image" --work-path "$WORK/work" c
  is "$status" 1
  contains "$output" "(sleep 1000) is in a time namespace of its own"
  contains "$output" "nested"
  [[ $output != *"host's time namespace"* ]] || fail "$output"
  is "$(status_of c)" running
}

@test "CRIU itself stands outside: it would refuse a stray that the shim did not see" {
  needs_criu
  # The container is in the host's namespace. CRIU writes timens-0.img if that is its own, too.
  start bare c
  checkpoint bare c without --leave-running
  [[ -e $WORK/without/timens-0.img ]] || fail "$(ls "$WORK/without")"
  checkpoint shim c with
  [[ ! -e $WORK/with/timens-0.img ]] || fail "$(ls "$WORK/with")"
  ls "$WORK"/with/timens-*.img
  restore shim c with
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

@test "--leave-running and --pre-dump pass through" {
  needs_criu
  start shim c
  pid=$(pid_of c)
  checkpoint shim c image --leave-running
  is "$(pid_of c)" "$pid"
  is "$(status_of c)" running
  [[ -e $WORK/image/inventory.img ]] || fail "$(ls "$WORK/image")"
  # Where the kernel cannot track dirty memory, the runtime says so with and without the shim alike.
  without=0 with=0
  checkpoint bare c pre-without --pre-dump || without=$?
  checkpoint shim c pre-with --pre-dump || with=$?
  is "$with" "$without"
  is "$(status_of c)" running
  is "$(cd "$WORK/pre-with" && ls | sed 's/[0-9]\+/N/' | sort -u)" "$(cd "$WORK/pre-without" && ls | sed 's/[0-9]\+/N/' | sort -u)"
}

@test "a container that was checkpointed without the shim: restored with it, exec joins" {
  needs_criu
  start bare c
  checkpoint bare c image
  restore shim c image
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  background shim c
  one_namespace c
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

@test "restore declares the namespace where the runtime understands it, and takes it out where not" {
  needs_criu
  start shim c
  checkpoint shim c image
  if declares; then
    edit_config "$BUNDLE" '.linux.namespaces |= map(select(.type != "time"))'
    restore shim c image
    is "$(jq -c '.linux.namespaces[-1]' "$BUNDLE/config.json")" '{"type":"time"}'
  else
    edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
    restore shim c image
    is "$(jq '[.linux.namespaces[] | select(.type == "time")] | length' "$BUNDLE/config.json")" 0
  fi
  one_namespace c
}

@test "runtime calls from the host after a restore: state, list, ps, pause, resume, kill, delete" {
  needs_criu
  start shim c
  checkpoint shim c image
  restore shim c image
  background shim c
  is "$(shim state c | jq -r .status)" running
  contains "$(shim list)" running
  contains "$(shim ps c)" "$(pid_of c)"
  shim pause c
  is "$(shim state c | jq -r .status)" paused
  shim resume c
  is "$(status_of c)" running
  pid=$(pid_of c)
  shim kill c KILL
  for _ in $(seq $((50 * SLOW))); do [[ $(status_of c) == stopped ]] && break; sleep 0.1; done
  is "$(status_of c)" stopped
  shim delete c
  [[ ! -e $STATE/c ]] || fail "$(ls "$STATE/c")"
  [[ ! -d /proc/$pid ]] || fail "PID $pid lives"
}
