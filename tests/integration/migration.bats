#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A container's clocks on machines with other uptimes, as after a migration or a reboot. Another machine is a time namespace here:
# whatever is called in it sees its clocks.

load helpers

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

# PID 1 and a child of its own, each of which notes what its clocks read.
prepare() {
  needs_criu
  mkdir "$ROOTFS/samples"
  cp "$TNS_TOOLS/clocks" "$ROOTFS/bin/clocks"
  edit_config "$BUNDLE" '.process.args = ["sh", "-c", "clocks /samples/child & exec clocks /samples/init"]'
  STOPPED=() RECORDED=() TOOK=()
}

sampler() { # sampler bare|shim NAME: another such process, by exec
  "$1" exec c sh -c "clocks /samples/$2 >/dev/null 2>&1 &"
}

# Until there is something to compare, of every process.
sampled() { # sampled NAME...
  local name file lines
  for name in "$@"; do
    file=$ROOTFS/samples/$name lines=0
    for _ in $(seq 100); do
      if [[ -s $file ]]; then
        if ((lines == 0)); then lines=$(wc -l <"$file"); fi
        if (($(wc -l <"$file") >= lines + 20)); then continue 2; fi
      fi
      sleep 0.05
    done
    fail "$name stands still: $(tail -n 1 "$file")"
  done
}

migrate() { # migrate bare|shim MONOTONIC BOOTTIME
  local image=image${#TOOK[@]} begin
  checkpoint "$1" c "$image"
  [[ $(status_of c) != running ]] || fail "still running"
  STOPPED+=("$(wall)")
  RECORDED+=("$("$TNS_BIN/tnsctl" images --json "$WORK/$image" |
    jq -r '.clocks | "\(.monotonic_ns / 1000 | floor) \(.boottime_ns / 1000 | floor)"')")
  # On the way its clocks stand still.
  sleep 0.5
  machine "$2" "$3"
  begin=$(wall)
  restore "$1" c "$image" || fail "restore: $(tail "$WORK/work-$image/restore.log")"
  TOOK+=("$(($(wall) - begin))")
}

# Over all that a process has seen.
never_back() { # never_back NAME
  awk '
    NR > 1 && ($2 < monotonic || $3 < boottime) { print "line " NR ": back from " last " to " $0; back = 1 }
    { monotonic = $2; boottime = $3; last = $0 }
    END { exit back }' "$ROOTFS/samples/$1" || fail "the clocks of $1 went back"
}

# The clocks of processes go on from what their checkpoint has recorded: not back, and by no more than the restore took. What was
# recorded is true: the clocks had come that far while the checkpoint was made, of which most is waiting for the freezer.
go_on() { # go_on CHECKPOINT NAME...
  local checkpoint=$1 took=${TOOK[$1]} name clock recorded last first made before after largest=0
  shift
  read -ra recorded <<<"- ${RECORDED[$checkpoint]}"
  for name in "$@"; do
    # Not one that the checkpoint has come into.
    read -ra last < <(awk -v stopped="${STOPPED[$checkpoint]}" '$4 < stopped { last = $0 } END { print last }' "$ROOTFS/samples/$name")
    read -ra first < <(awk -v stopped="${STOPPED[$checkpoint]}" '$1 > stopped { print; exit }' "$ROOTFS/samples/$name")
    ((${#last[@]} == 4 && ${#first[@]} == 4)) || fail "$name was not there before or after checkpoint $checkpoint"
    made=$((STOPPED[checkpoint] - last[0]))
    for clock in 1 2; do
      before=$((recorded[clock] - last[clock])) after=$((first[clock] - recorded[clock]))
      ((before >= 0 && before <= made)) || fail "recorded $before us after the last sample of $name, of $made us"
      ((after >= 0 && after < took + 100000)) || fail "the clocks of $name went on by $after us, the restore took $took us"
      if ((after > largest)); then largest=$after; fi
    done
  done
  echo "# checkpoint $checkpoint: the clocks went on by at most $largest us, the restore took $took us" >&3
}

# How far the clocks of some processes are apart, at the same time of the wall clock: "MONOTONIC BOOTTIME" in microseconds. Every
# sample says in which bounds a clock is ahead of the wall clock; apart is what no value can explain.
apart() { # apart FROM TO NAME...
  local from=$1 to=$2
  shift 2
  (cd "$ROOTFS/samples" && awk -v from="$from" -v to="$to" '
    $1 < from || $4 > to { next }
    { for (i = 2; i <= 3; i++) {
        if (!(i in least) || $i - $4 > least[i]) least[i] = $i - $4
        if (!(i in most) || $i - $1 < most[i]) most[i] = $i - $1
      }
      seen[FILENAME] = 1 }
    END {
      for (i = 1; i < ARGC; i++) if (!(ARGV[i] in seen)) { print "no sample of " ARGV[i]; exit }
      printf "%.0f %.0f\n", least[2] - most[2], least[3] - most[3]
    }' "$@")
}

agree() { # agree FROM TO NAME...
  local monotonic boottime
  read -r monotonic boottime <<<"$(apart "$@")"
  ((monotonic < 5000 && boottime < 5000)) || fail "processes ${*:3} disagree by $monotonic and $boottime us"
}

# All that is asked of the shim after a restore, and what it says of the container.
usable() { # usable PROCESSES
  is "$(status_of c)" running
  one_namespace c
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  is "$(namespaces_below "$(pid_of c)" | wc -l)" "$1"
  run shim exec c sh -c 'exit 7'
  is "$status" 7
  is "$(shim state c | jq -r .status)" running
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
