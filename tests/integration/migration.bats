#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A container's clocks on machines with other uptimes, as after a migration or a reboot. Another machine is a time namespace here:
# whatever is called in it sees its clocks.

load helpers
load clocks

YEARS=315360000

# Everything is called on the machine of last.
MACHINE=()
bare() { "${MACHINE[@]}" "$TNS_RUNTIME" --root "$STATE" "$@"; }
shim() { "${MACHINE[@]}" "$SHIM" --root "$STATE" "$@"; }

clocks() { "${MACHINE[@]}" "$TNS_TOOLS/clocks"; }
wall() { clocks | cut -d' ' -f1; }

# A machine that has been up for so many seconds by its two clocks.
machine() { # machine MONOTONIC BOOTTIME
  local offsets=() clock column own uptime holder
  for clock in "monotonic 2 $1" "boottime 3 $2"; do
    read -r clock column uptime <<<"$clock"
    # Offsets count from the initial namespace, and this may be another one already.
    own=$(awk -v clock="$clock" '$1 == clock { print $2 }' /proc/self/timens_offsets)
    offsets+=("--$clock" "$((uptime + own - $("$TNS_TOOLS/clocks" | cut -d' ' -f"$column") / 1000000))")
  done
  unshare --time "${offsets[@]}" sleep 1000 3>&- &
  holder=$!
  PIDS+=("$holder")
  for _ in $(seq $((50 * SLOW))); do [[ $(readlink "/proc/$holder/exe") == */sleep ]] && break; sleep 0.1; done
  MACHINE=(nsenter --time="/proc/$holder/ns/time_for_children")
  # shellcheck disable=SC2034  # The helpers' own.
  HOST_NS=$("${MACHINE[@]}" readlink /proc/self/ns/time)
  read -r _ own uptime _ <<<"$(clocks)"
  ((own / 1000000 - $1 < 3 && uptime / 1000000 - $2 < 3)) || fail "up for $own and $uptime us instead of $1 and $2 s"
}

migrate() { # migrate bare|shim MONOTONIC BOOTTIME
  local image=image${#TOOK[@]} begin
  checkpoint "$1" c "$image"
  [[ $(status_of c) != running ]] || fail "still running"
  STOPPED+=("$(wall)")
  RECORDED+=("$(recorded "$WORK/$image")")
  # On the way its clocks stand still.
  sleep 0.5
  machine "$2" "$3"
  begin=$(wall)
  restore "$1" c "$image" || fail "restore: $(tail "$WORK/work-$image/restore.log")"
  TOOK+=("$(($(wall) - begin))")
}

# Three machines, a process more on each; what every one of them has seen.
journey() { # journey MONOTONIC BOOTTIME MONOTONIC BOOTTIME: of the second and the third machine
  local name
  start shim c
  sampler shim first
  sampled init child first
  usable 3
  migrate shim "$1" "$2"
  sampler shim second
  sampled init child first second
  usable 4
  migrate shim "$3" "$4"
  sampler shim third
  sampled init child first second third
  usable 5
  STOPPED+=("$(wall)")

  for name in init child first second third; do never_back "$name"; done
  go_on 0 init child first
  go_on 1 init child first second
  agree 0 "${STOPPED[0]}" init child first
  agree "${STOPPED[0]}" "${STOPPED[1]}" init child first second
  agree "${STOPPED[1]}" "${STOPPED[2]}" init child first second third
}

@test "from here to a machine that was booted just now, and on to one that has been up for years" {
  prepare
  journey 5 9 "$YEARS" $((YEARS + 7000000))
}

@test "from here to a machine that has been up for years, which is then rebooted" {
  prepare
  journey $((YEARS + 400000)) $((2 * YEARS)) 3 6
}

@test "a container that was made on a machine up for years: two reboots" {
  prepare
  machine "$YEARS" $((YEARS + 86400))
  journey 5 7 2 4
}

@test "without the shim, an old runtime's exec shows another machine's time after a migration; the shim's does not" {
  prepare
  start bare c
  sampled init child
  migrate bare "$YEARS" $((YEARS + 7000000))
  sampler bare astray
  sampled init child astray
  read -r monotonic boottime <<<"$(apart "${STOPPED[0]}" "$(wall)" init astray)"
  echo "# apart without the shim: $monotonic and $boottime us" >&3
  if [[ $TNS_RUNTIME == runc ]] && ! declares; then
    ((monotonic / 1000000 > YEARS / 2 && boottime / 1000000 > YEARS / 2)) || fail "$monotonic and $boottime us"
  else
    # This one's own exec joins.
    ((monotonic < 5000 && boottime < 5000)) || fail "$monotonic and $boottime us"
  fi
  sampler shim joined
  sampled joined
  agree "${STOPPED[0]}" "$(wall)" init child joined
}
