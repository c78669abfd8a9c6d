#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# restore.clocks: a restored container with the host's clocks. restore.mixed, checkpoint.mixed: what becomes of mixed ones.

load helpers

annotate() { edit_config "$BUNDLE" ".annotations[\"org.tns-shim.restore.clocks\"] = \"$1\""; }

boottime_of() { shim exec "$1" cat /proc/uptime | awk '{ print int($1 * 100) }'; }
own_boottime() { awk '{ print int($1 * 100) }' /proc/uptime; }

on_host_time() { # on_host_time ID COUNT: all of its processes
  is "$(namespaces_below "$(pid_of "$1")" | sort | uniq -c | awk '{ print $1, $2 }')" "$2 $HOST_NS"
}

on_another() { elsewhere "$@" </dev/null >/dev/null 2>&1; }

restore_failing() { # restore_failing IMAGE: what it prints
  mkdir -p "$WORK/work"
  run shim restore --detach --image-path "$WORK/$1" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null
  isnt "$status" 0
}

@test "restore.clocks = host keeps a container on the host's time; the next restore goes on from its own clocks again" {
  needs_criu
  # Time passes for the host that does not for the container, so that both can be told apart.
  start shim c
  background shim c
  checkpoint shim c one
  sleep 1
  restore shim c one
  before=$(boottime_of c)
  (($(own_boottime) - before >= 90)) || fail "$before $(own_boottime)"
  checkpoint shim c two
  image=$(snapshot "$WORK/two")
  settings 'restore.clocks = "host"'
  restore shim c two
  on_host_time c 3
  inside=$(boottime_of c)
  difference=$(($(own_boottime) - inside))
  ((difference >= 0 && difference < 100)) || fail "$difference"
  is "$(exec_ns shim c)" "$HOST_NS"
  is "$(snapshot "$WORK/two")" "$image"

  # From there on like any other container.
  background shim c
  checkpoint shim c three
  rm /etc/tns-shim/config.toml
  restore shim c three
  one_namespace c
  is "$(namespaces_below "$(pid_of c)" | wc -l)" 4

  # The image has had its own clocks all the time.
  bare delete --force c
  restore shim c two
  one_namespace c
  now=$(boottime_of c)
  ((now >= before && now - before < 500)) || fail "$before $now"
  is "$(snapshot "$WORK/two")" "$image"
}

@test "the annotation wins over the file, for a checkpoint that CRIU made in the host's namespace as well" {
  needs_criu
  start bare c
  checkpoint bare c image
  [[ -e $WORK/image/timens-0.img ]] || fail "$(ls "$WORK/image")"
  settings '[restore]' 'clocks = "continue"'
  annotate host
  before=$(snapshot "$WORK/image")
  restore shim c image
  on_host_time c 2
  bare delete --force c
  is "$(snapshot "$WORK/image")" "$before"
  settings '[restore]' 'clocks = "host"'
  annotate continue
  restore shim c image
  one_namespace c
}

@test "restore.clocks = host is refused with the numbers if a clock would go back, and host-force goes back" {
  needs_criu
  other_machine 1000
  on_another "$SHIM" --root "$STATE" run --detach --bundle "$BUNDLE" c
  mkdir "$WORK/image"
  on_another "$SHIM" --root "$STATE" checkpoint --image-path "$WORK/image" --work-path "$WORK/image" c
  annotate host
  before=$(cd "$WORK/image" && sha256sum -- *)
  restore_failing image
  contains "$output" "the container's clocks would go back: they would jump by monotonic -9"
  contains "$output" "host-force"
  is "$(cd "$WORK/image" && sha256sum -- *)" "$before"
  [[ ! -e $STATE/c ]] || fail "$(ls "$STATE")"

  annotate host-force
  shim --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c \
    </dev/null >/dev/null 2>&1
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" 'restore.clocks = "host-force": the container'\''s clocks jump by monotonic -9'
  on_host_time c 2
  bare delete --force c

  # Where they would go on, it is done.
  other_machine 2000
  annotate host
  on_another "$SHIM" --root "$STATE" restore --detach --pid-file "$WORK/pid" --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c
  is "$(ns_of "$(cat "$WORK/pid")")" "$(readlink "$THERE")"
  elsewhere "$TNS_RUNTIME" --root "$STATE" delete --force c
}

@test "what restore.clocks cannot do or does not know is an error, and the image stays as it is" {
  needs_criu
  start shim c
  checkpoint shim c image
  before=$(cd "$WORK/image" && sha256sum -- *)
  annotate hots
  restore_failing image
  contains "$output" "org.tns-shim.restore.clocks"
  contains "$output" 'unknown variant `hots`, expected one of `continue`, `host`, `host-force`'
  settings '[restore]' 'clocks = "hots"'
  annotate continue
  restore_failing image
  contains "$output" "line 2"
  rm /etc/tns-shim/config.toml
  annotate host
  cp -a "$WORK/image" "$WORK/damaged"
  truncate -s 20 "$WORK"/damaged/ids-1.img
  restore_failing damaged
  contains "$output" "restore.clocks asks for the host's, and the checkpoint image is not understood"
  contains "$output" "ids-1.img: byte 8"
  is "$(cd "$WORK/image" && sha256sum -- *)" "$before"
  restore shim c image
  on_host_time c 2
}

@test "restore.mixed = refuse: a mixed image is left alone; checkpoint.mixed = warn makes one, which restore repairs" {
  needs_criu
  start shim c
  stray c 'tail -f /dev/null'
  settings '[checkpoint]' 'mixed = "warn"'
  mkdir "$WORK/image"
  shim --log "$WORK/log" --log-format json checkpoint --image-path "$WORK/image" --work-path "$WORK/image" c >"$WORK/out" 2>&1
  is "$(cat "$WORK/out")" ""
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "has to be repaired before CRIU can restore it"
  run "$TNS_BIN/tnsctl" images "$WORK/image"
  is "$status" 1

  settings '[restore]' 'mixed = "refuse"'
  before=$(cd "$WORK/image" && sha256sum -- *)
  restore_failing image
  contains "$output" "1 of 3 processes in the checkpoint image are in another time namespace"
  contains "$output" "tnsctl repair"
  is "$(cd "$WORK/image" && sha256sum -- *)" "$before"

  # On the host's time they all agree, too, but it is as mixed.
  annotate host
  restore_failing image
  settings '[restore]' 'mixed = "repair"'
  restore shim c image
  on_host_time c 3
  bare delete --force c
  annotate continue
  restore shim c image
  one_namespace c
  is "$(namespaces_below "$(pid_of c)" | wc -l)" 3
}
