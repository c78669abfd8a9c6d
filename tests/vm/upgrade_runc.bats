#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# runc, and the shim, are replaced by newer ones while containers run that the older ones have made, or restored.

load ../integration/helpers

# What an upgrade would bring; tests/vm/run has put it there.
NEWER=/tns/newer/runc

setup() {
  tell_of_second_try
  note_what_is_there
  WORK=$(mktemp -d /tmp/tns.XXXXXX)
  # As it is installed.
  STATE=/run/runc BUNDLE=$WORK/bundle ROOTFS=$WORK/rootfs SHIM=/usr/local/bin/tns-shim-runc
  HOST_NS=$(readlink /proc/self/ns/time)
  mkdir "$BUNDLE"
  RUNC=$(readlink -f "$(command -v runc)")
  [[ -e /var/lib/tns/older-runc ]] || cp -p "$RUNC" /var/lib/tns/older-runc
  install -m 755 /var/lib/tns/older-runc "$RUNC"
  install -m 755 "$TNS_BIN/tns-shim" /usr/local/bin/tns-shim
  ln -sf tns-shim "$SHIM"
  make_rootfs "$ROOTFS"
  make_config "$BUNDLE"
}

teardown() {
  end_all /
  install -m 755 /var/lib/tns/older-runc "$RUNC"
}

# Of every kind: just made, restored, left as a checkpoint.
older_containers() {
  local id
  for id in made restored left; do
    mkdir "$WORK/$id"
    make_config "$WORK/$id"
    start shim "$id" "$WORK/$id"
    background shim "$id"
  done
  checkpoint shim restored older
  restore shim restored older "$WORK/restored"
  background shim restored
  checkpoint shim left left
}

# What was made before the upgrade goes on after it.
go_on() {
  local id processes
  restore shim left left "$WORK/left"
  for id in made restored left; do
    processes=$(namespaces_below "$(pid_of "$id")" | wc -l)
    for cycle in 1 2; do
      one_namespace "$id"
      is "$(exec_ns shim "$id")" "$(ns_of "$(pid_of "$id")")"
      background shim "$id"
      checkpoint shim "$id" "$id-$cycle"
      restore shim "$id" "$id-$cycle" "$WORK/$id"
      one_namespace "$id"
      is "$(namespaces_below "$(pid_of "$id")" | wc -l)" $((processes + cycle))
    done
    run shim exec "$id" sh -c 'exit 7'
    is "$status" 7
    shim kill "$id" KILL
    for _ in $(seq $((50 * SLOW))); do [[ $(status_of "$id") == stopped ]] && break; sleep 0.1; done
    shim delete "$id"
    is "$(status_of "$id")" ''
  done
}

mode() { "$TNS_BIN/tnsctl" --json doctor --runtime runc | jq -r '.runtimes[].mode'; }

@test "runc is replaced by one that makes declared namespaces: that is noticed, and all containers go on" {
  older_containers
  is "$(mode)" emulate
  install -m 755 "$NEWER" "$RUNC"
  at_least 1.2
  is "$(mode)" declare
  go_on
  start shim new
  is "$(jq '[.linux.namespaces[] | select(.type == "time")] | length' "$BUNDLE/config.json")" 1
  one_namespace new
}

@test "the shim is replaced: all containers go on" {
  older_containers
  # Another build, which differs in no segment.
  { cat "$TNS_BIN/tns-shim"; echo newer; } >"$WORK/newer"
  install -m 755 "$WORK/newer" /usr/local/bin/tns-shim
  go_on
}

@test "without the shim, what the older runc has restored is lost under the newer one, if its exec was there before" {
  start bare c
  checkpoint bare c one
  restore bare c one
  background bare c
  install -m 755 "$NEWER" "$RUNC"
  checkpoint bare c two
  run restore bare c two
  isnt "$status" 0
  contains "$(cat "$WORK/work-two/restore.log")" "Can't restore sub-task in NS"
  # The image is repaired, as any.
  restore shim c two
  one_namespace c
}
