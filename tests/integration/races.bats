#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# exec, and what happens to the container between what the shim does and what the runtime does.

load helpers

# A process with this number in a time namespace of its own: sets STRANGER to that namespace.
take_number() { # take_number PID
  local offset=100000
  for _ in $(seq $((50 * SLOW))); do
    [[ -d /proc/$1 ]] || break
    sleep 0.1
  done
  for _ in $(seq 20); do
    echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
    # Enters by itself: execve does so only since Linux 6.2, and a child would have another number.
    unshare --time --boottime "$offset" -- nsenter --time=/proc/self/ns/time_for_children -- sleep 1000 &
    PIDS+=($!)
    if (($! == $1)); then break; fi
  done
  is "$!" "$1"
  for _ in $(seq $((50 * SLOW))); do
    STRANGER=$(ns_of "$1")
    [[ $STRANGER == "$HOST_NS" ]] || return 0
    sleep 0.1
  done
  fail "no time namespace for the stranger"
}

# An exec that stops for three seconds as soon as it makes a system call; returns when it has. Sets EXECUTING.
exec_held_at() { # exec_held_at ID SYSTEM-CALL [OF-WHICH-FILE]
  local id=$1 call=$2 file=${3:-} tracee='' seen=0
  strace -qq -o "$WORK/trace" ${file:+-P "$file"} -e trace="$call" -e inject="$call:delay_enter=3000000" -- \
    "$SHIM" --root "$STATE" exec "$id" readlink /proc/self/ns/time >"$WORK/seen" 2>&1 3>&- &
  EXECUTING=$!
  PIDS+=("$EXECUTING")
  for _ in $(seq 100); do
    read -r tracee _ <"/proc/$EXECUTING/task/$EXECUTING/children" || true
    # It is stopped for moments at its start, too.
    if [[ -n $tracee ]] && grep -q '^State:.t ' "/proc/$tracee/status" 2>/dev/null; then ((++seen)); else seen=0; fi
    ((seen < 5)) || return 0
    sleep 0.05
  done
  fail "it never came to $call: $(cat "$WORK/seen" "$WORK/trace")"
}

joins_by_itself() { [[ $TNS_RUNTIME == crun ]] || declares; }
legacy_only() {
  if joins_by_itself; then skip "this runtime's exec joins by itself: the shim passes"; fi
}

@test "PID 1 ends while exec looks, and a stranger gets its number: never into the stranger's namespace" {
  legacy_only
  # Before the process is held on to, before its namespace is opened, before that is entered.
  for where in pidfd_open '?open,openat' setns; do
    start shim c
    pid=$(pid_of c)
    isnt "$(ns_of "$pid")" "$HOST_NS"
    # Which of the two it is depends on the C library.
    if [[ $where == *open,* ]]; then exec_held_at c "$where" "/proc/$pid/ns/time"; else exec_held_at c "$where"; fi
    kill -KILL "$pid"
    take_number "$pid"
    ended=0
    wait "$EXECUTING" || ended=$?
    isnt "$ended" 0
    [[ $(cat "$WORK/seen") != *time:* ]] || fail "$where: in $(cat "$WORK/seen"), and $STRANGER is the stranger's"
    # In the runtime's own words.
    run bare exec c true
    is "$(sed 's/^time="[^"]*"//' "$WORK/seen")" "${output#time=\"*\"}"
    kill -KILL "$pid"
    bare delete --force c
    clear_cgroups
  done
}

# A runtime that waits at its exec until it is let go.
slow_runtime() {
  mkdir "$WORK/slow"
  cat >"$WORK/slow/$TNS_RUNTIME" <<END
#!/bin/sh
case " \$* " in *" exec "*) while [ ! -e $WORK/go ]; do sleep 0.1; done ;; esac
exec $(command -v "$TNS_RUNTIME") "\$@"
END
  chmod 755 "$WORK/slow/$TNS_RUNTIME"
}

exec_slowly() { # exec_slowly ID [COMMAND...]; returns when the runtime waits. Sets EXECUTING.
  rm -f "$WORK/go"
  local id=$1
  shift
  (($#)) || set -- readlink /proc/self/ns/time
  env PATH="$WORK/slow:$PATH" "$SHIM" --root "$STATE" exec "$id" "$@" >"$WORK/seen" 2>&1 3>&- &
  EXECUTING=$!
  PIDS+=("$EXECUTING")
  for _ in $(seq 100); do grep -q "$WORK/slow" "/proc/$EXECUTING/cmdline" && return 0; sleep 0.1; done
  fail "the runtime was not called"
}

@test "a checkpoint and a restore between exec's look and the runtime's: in the new namespace, or not at all" {
  needs_criu
  slow_runtime
  start shim c
  checkpoint shim c image0
  restore shim c image0
  for cycle in 1 2; do
    # Enough for the start times to differ by clock ticks.
    sleep 0.1
    exec_slowly c
    checkpoint shim c "image$cycle"
    restore shim c "image$cycle"
    touch "$WORK/go"
    ended=0
    wait "$EXECUTING" || ended=$?
    init=$(ns_of "$(pid_of c)")
    if ((ended == 0)); then is "$(cat "$WORK/seen")" "$init"; else contains "$(cat "$WORK/seen")" stopped; fi
    one_namespace c
    is "$(exec_ns shim c)" "$init"
  done
}

# The clocks of a container that was never restored are the host's, so the runtime is shown nothing, and goes by the state that it
# finds. To have it shown something would take a mount namespace for every exec of every container.
@test "the first checkpoint and a restore between exec's look and the runtime's: what slips in is known to the next checkpoint" {
  needs_criu
  slow_runtime
  start shim c
  exec_slowly c sh -c 'tail -f /dev/null >/dev/null 2>&1 &'
  checkpoint shim c image1
  restore shim c image1
  touch "$WORK/go"
  wait "$EXECUTING" || fail "$(cat "$WORK/seen")"
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  run checkpoint shim c image2
  if ((status == 0)); then
    restore shim c image2
    one_namespace c
  else
    contains "$output" "(tail -f /dev/null) is in "
    contains "$output" "the container keeps running"
    is "$(status_of c)" running
  fi
}

@test "PID 1 ends and the container is restored between exec's look and the runtime's: not at all" {
  needs_criu
  slow_runtime
  start shim c
  checkpoint shim c image --leave-running
  kill -KILL "$(pid_of c)"
  for _ in $(seq $((50 * SLOW))); do [[ $(status_of c) != stopped ]] || break; sleep 0.1; done
  exec_slowly c
  bare delete --force c
  clear_cgroups
  restore shim c image
  touch "$WORK/go"
  wait "$EXECUTING" || true
  init=$(ns_of "$(pid_of c)")
  [[ $(cat "$WORK/seen") == "$init" || $(cat "$WORK/seen") != *time:* ]] || fail "in $(cat "$WORK/seen"), not in $init"
  joins_by_itself || contains "$(cat "$WORK/seen")" stopped
}

@test "a checkpoint while execs start: it restores to one namespace, or the container runs on" {
  needs_criu
  start shim c
  for cycle in 1 2 3; do
    (while [[ ! -e $WORK/end ]]; do shim exec c sh -c 'tail -f /dev/null >/dev/null 2>&1 &'; done) >/dev/null 2>&1 3>&- &
    starting=$!
    PIDS+=("$starting")
    sleep 0.5
    if checkpoint shim c "image$cycle" 2>"$WORK/words"; then done=yes; else done=no; fi
    touch "$WORK/end"
    wait "$starting" || true
    rm "$WORK/end"
    if [[ $done == yes ]]; then
      restore shim c "image$cycle" || fail "cannot be restored: $(tail -n 5 "$WORK/work-image$cycle/restore.log")"
    fi
    is "$(status_of c)" running
    one_namespace c
    is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  done
}

# The view copies every mount. 8,192 of them, in a mount namespace that ends with the function; figures go to the log.
crowded() { # crowded COMMAND: runs it with everything mounted
  export WORK SHIM STATE
  # shellcheck disable=SC2016  # The other shell's.
  unshare --mount bash -c '
    mkdir "$WORK/many" && mount -t tmpfs tmpfs "$WORK/many" && mkdir "$WORK/many"/{1..13}
    for n in {1..13}; do mount --rbind "$WORK/many" "$WORK/many/$n"; done
    (($(wc -l </proc/self/mountinfo) > 8192)) || exit 1
    '"$1"
}

@test "8,000 mounts, and twenty execs at once in a restored container" {
  needs_criu
  start shim c
  checkpoint shim c image
  restore shim c image
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  # shellcheck disable=SC2016  # The other shell's.
  crowded 'begun=$EPOCHREALTIME
    for n in {1..20}; do "$SHIM" --root "$STATE" exec c readlink /proc/self/ns/time >"$WORK/seen.$n" 2>&1 & done
    wait
    ended=$EPOCHREALTIME
    echo $(((${ended/./} - ${begun/./}) / 1000)) >"$WORK/took"'
  for n in {1..20}; do is "$(cat "$WORK/seen.$n")" "$init"; done
  echo "# twenty execs among 8,000 mounts: $(cat "$WORK/took") ms" >&3
  # On two processors at rest, it is one second; on a busy machine some.
  (($(cat "$WORK/took") < 30000)) || fail "it took $(cat "$WORK/took") ms"
}
