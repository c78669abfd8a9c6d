#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The record beside a checkpoint: what it says, that nobody is disturbed by it, and what restore tells from it.

load helpers

record() { jq -r "$2" "$WORK/$1/tns-shim.json"; }

boottime_of() { shim exec "$1" cat /proc/uptime | awk '{ printf "%.0f\n", $1 * 1000000000 }'; }

# restore_log ID IMAGE: restores, and prints what the shim has noted about it.
restore_log() {
  mkdir -p "$WORK/work"
  rm -f "$WORK/log"
  shim --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/$2" --work-path "$WORK/work" --bundle "$BUNDLE" "$1" \
    </dev/null >"$WORK/out" 2>&1
  is "$(cat "$WORK/out")" ""
  jq -r 'select(.level == "info").msg' "$WORK/log"
}

@test "a checkpoint leaves a record of what was true, and restores with and without the shim" {
  needs_criu
  start shim c
  background shim c
  pid=$(pid_of c)
  offsets=$(tr -s ' ' <"/proc/$pid/timens_offsets")
  namespace=$(ns_of "$pid")
  before=$(boottime_of c)
  started=$(date +%s%N)
  checkpoint shim c image
  ended=$(date +%s%N)

  is "$(record image .format)" 1
  is "$(record image .container)" c
  is "$(record image .shim)" "$("$TNS_BIN/tnsctl" --version | awk '{ print $2 }')"
  is "$(record image .boot_id)" "$(cat /proc/sys/kernel/random/boot_id)"
  is "$(record image .kernel)" "$(uname -r)"
  is "$(record image .criu)" "$(criu --version | sed -n 's/^Version: //p')"
  contains "$(record image .runtime)" "$TNS_RUNTIME "
  is "$(record image .processes)" 3
  is "$(record image .time_namespace.id)" "$namespace"
  is "$(awk '$1 == "monotonic" { printf "%.0f\n", $2 * 1000000000 + $3 }' <<<"$offsets")" "$(record image .time_namespace.offsets.monotonic_ns)"
  if declares; then mode=declared; else mode=emulated; fi
  is "$(record image .mode)" "$mode"
  wall=$(record image .wall_ns) boottime=$(record image .clocks.boottime_ns)
  ((started <= wall && wall <= ended)) || fail "$started $wall $ended"
  ((before <= boottime && boottime - before <= ended - started + 1000000000)) || fail "$before $boottime"
  is "$(date -u -d "$(record image .time)" +%s)" "$((wall / 1000000000))"

  # Nobody minds: CRIU and the bare runtime restore it, and the image says the same.
  run "$TNS_BIN/tnsctl" images --json "$WORK/image"
  is "$status" 0
  is "$(jq -r .record.container <<<"$output")" c
  # The clocks were dumped shortly after.
  passed=$(jq '.clocks.boottime_ns - .record.clocks.boottime_ns' <<<"$output")
  ((passed >= 0 && passed < ended - started)) || fail "$passed"
  run "$TNS_BIN/tnsctl" images "$WORK/image"
  contains "$(tr -s ' ' <<<"$output")" " time namespace $namespace, made by "
  restore bare c image
  is "$(status_of c)" running
  bare delete --force c
  restore shim c image
  one_namespace c
}

@test "CRIU is asked for its release once, and again when it is another one" {
  needs_criu
  real=$(command -v criu)
  mkdir "$WORK/bin"
  install_criu() { # install_criu RELEASE
    printf '%s\n' '#!/bin/sh' "[ \"\$*\" != --version ] || { echo asked >>$WORK/asked; echo Version: $1; exit; }" "exec $real \"\$@\"" >"$WORK/new"
    chmod 755 "$WORK/new"
    mv "$WORK/new" "$WORK/bin/criu"
  }
  start shim c
  PATH=$WORK/bin:$PATH
  install_criu 1.2.3
  for image in one two; do
    checkpoint shim c "$image" --leave-running
    is "$(record "$image" .criu)" 1.2.3
  done
  is "$(wc -l <"$WORK/asked")" 1
  install_criu 4.5.6
  checkpoint shim c three --leave-running
  is "$(record three .criu)" 4.5.6
  is "$(wc -l <"$WORK/asked")" 2
}

@test "a container restored by CRIU and one on the host's time are recorded as what they are" {
  needs_criu
  start bare c
  checkpoint shim c host --leave-running
  is "$(record host .mode)" host
  is "$(record host .time_namespace.id)" "$HOST_NS"
  checkpoint bare c image
  [[ ! -e $WORK/image/tns-shim.json ]]
  restore bare c image
  checkpoint shim c again
  # A newer runc notes the namespace when it restores.
  if [[ $TNS_RUNTIME == runc ]] && declares; then mode=declared; else mode=emulated; fi
  is "$(record again .mode)" "$mode"
}

@test "the record is where the runtime puts the image, with a relative path and with none" {
  needs_criu
  start shim c
  mkdir -p "$WORK/cwd/relative"
  cd "$WORK/cwd"
  shim checkpoint --image-path relative/deep --work-path "$WORK" --leave-running c
  ls relative/deep/inventory.img relative/deep/tns-shim.json
  shim checkpoint --work-path "$WORK" --leave-running c
  ls checkpoint/inventory.img checkpoint/tns-shim.json
  is "$(find "$WORK" -name tns-shim.json | wc -l)" 2
}

@test "the image folder is there, and as it is, exactly where the runtime alone would leave one" {
  needs_criu
  folders() { # folders bare|shim
    local with=$1 what
    "$with" create --bundle "$BUNDLE" "created-$with" </dev/null >/dev/null 2>&1
    start "$with" "running-$with"
    start "$with" "stopped-$with"
    bare kill "stopped-$with" KILL
    for _ in $(seq $((50 * SLOW))); do
      [[ $(status_of "stopped-$with") != stopped ]] || break
      sleep 0.1
    done
    mkdir -p "$WORK/w" "$WORK/$with"
    # crun makes no folder above it.
    "$with" checkpoint --leave-running --image-path "$WORK/$with/a/b" --work-path "$WORK/w" "running-$with" >/dev/null 2>&1 && echo good || echo bad
    for what in created running stopped absent; do
      "$with" checkpoint --image-path "$WORK/$with/$what" --work-path "$WORK/w" "$what-$with" >/dev/null 2>&1 && echo good || echo bad
    done
    (cd "$WORK" && find "$with" -type d -printf '%P %m\n' | sort)
  }
  is "$(folders shim)" "$(folders bare)"
}

@test "no record where there is no checkpoint: refused, pre-dump, no container" {
  needs_criu
  start shim c
  stray c
  run shim checkpoint --image-path "$WORK/refused" --work-path "$WORK" c
  isnt "$status" 0
  [[ ! -e $WORK/refused ]] || fail "$(ls "$WORK/refused")"
  run shim checkpoint --image-path "$WORK/none" --work-path "$WORK" nobody
  isnt "$status" 0
  [[ ! -e $WORK/none/tns-shim.json ]] || fail "$(ls "$WORK/none")"
  start shim d
  # Works or not, as the kernel can.
  checkpoint shim d pre --pre-dump || true
  [[ ! -e $WORK/pre/tns-shim.json ]] || fail "$(ls "$WORK/pre")"
}

@test "restore tells how long the container was away, by the wall clock and by its own" {
  needs_criu
  start shim c
  before=$(date +%s%N)
  checkpoint shim c image
  sleep 1.5
  noted=$(restore_log c image)
  after=$(date +%s%N)
  contains "$noted" "tns-shim: c was checkpointed "
  contains "$noted" "by its own clocks no time, they go on from monotonic "
  away=$(sed -n 's/.*checkpointed \([0-9]*\)\.\([0-9]*\) s ago.*/\1\2/p' <<<"$noted")
  ((10#$away >= 1500000000 && 10#$away <= after - before)) || fail "$noted"
  [[ $noted != *"another machine"* ]] || fail "$noted"

  # The same image on another machine, as far as the record tells.
  bare delete --force c
  sed -i 's/"boot_id": ".*"/"boot_id": "00000000-0000-0000-0000-000000000000"/' "$WORK/image/tns-shim.json"
  contains "$(restore_log c image)" "on another machine or before this one was started"

  # Without a record the files' time stamps tell about.
  bare delete --force c
  rm "$WORK/image/tns-shim.json"
  contains "$(restore_log c image)" "the container was checkpointed about "

  # And one that is damaged harms nothing.
  bare delete --force c
  echo '{"format": 1' >"$WORK/image/tns-shim.json"
  contains "$(restore_log c image)" "the container was checkpointed about "
  run "$TNS_BIN/tnsctl" images "$WORK/image"
  is "$status" 0
  contains "$output" "unknown: understand tns-shim.json"
}

@test "a record is of its own checkpoint: a later one without the shim is not told by it" {
  needs_criu
  start shim c
  checkpoint shim c image --leave-running
  sleep 0.1
  # Its clocks were dumped after those of a record that lies in the future.
  jq '.clocks.boottime_ns += 3600000000000' "$WORK/image/tns-shim.json" >"$WORK/new"
  checkpoint bare c image
  cp "$WORK/new" "$WORK/image/tns-shim.json"
  contains "$(restore_log c image)" "the container was checkpointed about "
}
