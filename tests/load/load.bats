#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Many containers: no failure that the runtime alone does not have, and nothing left over. How long it takes is told beside
# the runtime alone, and is never a pass or a failure.
#
# TNS_LOAD_CONTAINERS  how many are created, started, entered, deleted, with and without the shim (2000)
# TNS_LOAD_WORKERS     how many at a time (8)
# TNS_LOAD_CYCLES      how many checkpoints and restores of one container (100)
# TNS_LOAD_ALIVE       how many are alive at once (300)

load ../faults/faults

say() { echo "# $TNS_RUNTIME $(runtime_version): $*" >&3; }

# Nanoseconds since some time ago.
now() { echo "${EPOCHREALTIME/./}000"; }

# How many descriptors a process holds.
descriptors() { find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l; }

# One container's life. What went wrong is in a file of its id.
life() { # life bare|shim ID BUNDLE
  "$1" create --bundle "$3" "$2" && "$1" start "$2" && "$1" exec "$2" id && "$1" delete --force "$2"
}

# Every other one with the shim. Writes WITH NANOSECONDS a line, or WITH failed ID.
worker() { # worker NUMBER COUNT
  local turn with id begin
  for ((turn = 0; turn < $2; turn++)); do
    for with in bare shim; do
      id=$with-$1-$turn
      mkdir "$WORK/lives/$id"
      cp -p "$BUNDLE/config.json" "$WORK/lives/$id"
      begin=$(now)
      if life "$with" "$id" "$WORK/lives/$id" </dev/null >"$WORK/errors/$id" 2>&1; then
        echo "$with $(($(now) - begin))"
        rm "$WORK/errors/$id"
      else
        echo "$with failed $id"
        bare delete --force "$id" >/dev/null 2>&1 || true
      fi
      rm -r "$WORK/lives/$id"
    done
  done
}

@test "containers created, started, entered and deleted, eight at a time" {
  local count=${TNS_LOAD_CONTAINERS:-2000} workers=${TNS_LOAD_WORKERS:-8} number with pids=()
  edit_config "$BUNDLE" '.process.args = ["sleep", "1000"]'
  mkdir "$WORK/lives" "$WORK/errors"
  # The control groups that the first one makes stay, with and without the shim.
  life bare first "$BUNDLE" </dev/null >/dev/null 2>&1
  BASE=$(present)
  before=$(descriptors 1)
  for ((number = 0; number < workers; number++)); do
    worker "$number" $((count / workers)) >"$WORK/rates.$number" 3>&- &
    pids+=($!)
  done
  wait "${pids[@]}"
  for with in bare shim; do
    say "$(awk -v with="$with" -v workers="$workers" '
      $1 == with && $2 == "failed" { failed++ } $1 == with && $2 != "failed" { done++; sum += $2 }
      END { printf "%s: %d lives, %d failed, %.1f ms each, %.1f a second", with, done, failed, sum / done / 1e6, workers * done * 1e9 / sum }' "$WORK"/rates.*)"
  done
  # The shim must not fail where the runtime alone does not.
  is "$(cat "$WORK"/rates.* | grep -c '^shim [0-9]')" $((count / workers * workers))
  nothing_is_left
  is "$(descriptors 1)" "$before"
  is "$(ls -A /run/tns-shim | wc -l)" 1
  is "$(ls -A "$STATE")" ""
}

@test "one container, checkpointed and restored again and again, with execs in between" {
  needs_criu
  local cycles=${TNS_LOAD_CYCLES:-100} cycle fds begin
  start shim c
  checkpoint shim c image
  restore shim c image
  fds=$(descriptors "$(pid_of c)")
  BASE=$(present_but_init)
  begin=$(now)
  for ((cycle = 1; cycle <= cycles; cycle++)); do
    rm -rf "$WORK/image" "$WORK/work-image"
    checkpoint shim c image || fail "checkpoint $cycle: $(tail "$WORK/work-image/dump.log")"
    restore shim c image || fail "restore $cycle: $(tail "$WORK/work-image/restore.log")"
    is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")" || fail "cycle $cycle"
    # A child that stays and is dumped the next time, now and then.
    ((cycle % 10)) || background shim c
  done
  say "$cycles cycles of checkpoint, restore and exec in $((($(now) - begin) / 1000000000)) s"
  one_namespace c
  is "$(namespaces_below "$(pid_of c)" | wc -l)" $((2 + cycles / 10))
  is "$(descriptors "$(pid_of c)")" "$fds"
  is "$(present_but_init)" "$BASE"
  is "$(find_temporary)" ""
}

# A restored container has another PID and other namespaces, but as many.
present_but_init() {
  present | sed -E 's/^[0-9]+$/PID/; s/\[[0-9]+\]/[N]/'
}

@test "hundreds of containers alive at once: each with a namespace of its own, and all are inspected" {
  local alive=${TNS_LOAD_ALIVE:-300} number all begin seconds
  BASE=$(present)
  for ((number = 0; number < alive; number++)); do start shim "c$number"; done
  begin=$(now)
  all=$("$TNS_BIN/tnsctl" --json inspect --all --root "$STATE")
  seconds=$(($(now) - begin))
  say "tnsctl inspect --all over $alive containers: $((seconds / 1000000)) ms, $(
    strace -f -c -o "$WORK/calls" "$TNS_BIN/tnsctl" inspect --all --root "$STATE" >/dev/null
    awk '$NF == "total" { print $(NF - 1) == "total" ? $3 : $4 }' "$WORK/calls"
  ) system calls"
  is "$(jq '[.. | objects | select(.verdict? == "agree")] | length' <<<"$all")" "$alive"
  is "$(jq -r '.. | objects | select(.verdict? == "agree") | .namespace' <<<"$all" | sort -u | wc -l)" "$alive"
  for ((number = 0; number < alive; number++)); do bare delete --force "c$number"; done
  nothing_is_left
  is "$(ls -A /run/tns-shim | wc -l)" 1
}
