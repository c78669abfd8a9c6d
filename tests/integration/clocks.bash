# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Processes that note what their clocks read, in $SAMPLES, and what has to hold of that over checkpoints and restores.
# shellcheck disable=SC2034,SC2154  # Read by the test files, and set by bats.

# PID 1 and a child of its own, each of which notes what its clocks read.
prepare() {
  needs_criu
  SAMPLES=$ROOTFS/samples
  mkdir "$SAMPLES"
  cp "$TNS_TOOLS/clocks" "$ROOTFS/bin/clocks"
  edit_config "$BUNDLE" '.process.args = ["sh", "-c", "clocks /samples/child & exec clocks /samples/init"]'
  STOPPED=() RECORDED=() TOOK=()
}

sampler() { # sampler bare|shim NAME: another such process, by exec
  "$1" exec c sh -c "PATH=\$PATH:/tools clocks /samples/$2 >/dev/null 2>&1 &"
}

# Until there is something to compare, of every process.
sampled() { # sampled NAME...
  local name file lines
  for name in "$@"; do
    file=$SAMPLES/$name lines=0
    for _ in $(seq $((100 * SLOW))); do
      if [[ -s $file ]]; then
        if ((lines == 0)); then lines=$(wc -l <"$file"); fi
        if (($(wc -l <"$file") >= lines + 20)); then continue 2; fi
      fi
      sleep 0.05
    done
    fail "$name stands still: $(tail -n 1 "$file")"
  done
}

# Which clocks a checkpoint holds, in microseconds.
recorded() { # recorded PATH
  "$TNS_BIN/tnsctl" images --json "$1" | jq -r '.clocks | "\(.monotonic_ns / 1000 | floor) \(.boottime_ns / 1000 | floor)"'
}

# Over all that a process has seen.
never_back() { # never_back NAME
  awk '
    NR > 1 && ($2 < monotonic || $3 < boottime) { print "line " NR ": back from " last " to " $0; back = 1 }
    { monotonic = $2; boottime = $3; last = $0 }
    END { exit back }' "$SAMPLES/$1" || fail "the clocks of $1 went back"
}

# The clocks of processes go on from what their checkpoint has recorded: not back, and by no more than the restore took. What was
# recorded is true: the clocks had come that far while the checkpoint was made, of which most is waiting for the freezer.
go_on() { # go_on CHECKPOINT NAME...
  local checkpoint=$1 took=${TOOK[$1]} name clock recorded last first made before after largest=0
  shift
  read -ra recorded <<<"- ${RECORDED[$checkpoint]}"
  for name in "$@"; do
    # Not one that the checkpoint has come into.
    read -ra last < <(awk -v stopped="${STOPPED[$checkpoint]}" '$4 < stopped { last = $0 } END { print last }' "$SAMPLES/$name")
    read -ra first < <(awk -v stopped="${STOPPED[$checkpoint]}" '$1 > stopped { print; exit }' "$SAMPLES/$name")
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
  (cd "$SAMPLES" && awk -v from="$from" -v to="$to" '
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
