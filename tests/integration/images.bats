#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Checkpoint images: mixed ones are told, repaired and restored for real; others are left as they are.

load helpers

tnsctl() { "$TNS_BIN/tnsctl" "$@"; }

make_mixed() { # make_mixed IMAGE: a container c, restored once, checkpointed with two processes on the host's time
  start bare c
  checkpoint bare c first
  # So that its clocks cannot be taken for the host's.
  sleep 1
  restore bare c first
  BEFORE=$(offset_of "$(pid_of c)")
  stray c 'tail -f /dev/null'
  # On an old runtime this one is a stray as well.
  background bare c
  checkpoint bare c "$1"
  isnt "$(status_of c)" running
  bare delete --force c >/dev/null 2>&1 || true
}

# Nanoseconds that CLOCK_MONOTONIC is ahead of the initial namespace's.
offset_of() { awk '$1 == "monotonic" { printf "%.0f\n", $2 * 1000000000 + $3 }' "/proc/$1/timens_offsets"; }
own_offset() { offset_of self; }

contents() { (cd "$1" && find . -type f -exec sha256sum {} + | sort); }

lives() { # lives COUNT: so many processes, all in one namespace
  one_namespace c
  is "$(namespaces_below "$(pid_of c)" | wc -l)" "$1"
}

# crun starts nothing where a failed restore has left control groups.
clean_cgroups() { find /sys/fs/cgroup -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true; }

@test "a mixed image is told, repaired, and restored with every process in one namespace; undo brings every byte back" {
  needs_criu
  make_mixed image
  before=$(contents "$WORK/image")

  run tnsctl images --json "$WORK/image"
  is "$status" 1
  is "$(jq -r .verdict <<<"$output")" mixed
  is "$(jq '.processes | length' <<<"$output")" 4
  is "$(jq '[.processes[] | select(.agrees)][0].pid' <<<"$output")" 1
  strays=$(jq '[.processes[] | select(.agrees | not)] | length' <<<"$output")
  ((strays >= 1)) || fail "$output"
  # The longer a container is away, the further its clocks lag behind the host's.
  (($(jq .offsets_here.monotonic_ns <<<"$output") < BEFORE)) || fail "$output" "$BEFORE"
  is "$(jq .goes_back_on_host_time <<<"$output")" false
  run tnsctl images "$WORK/image"
  is "$status" 1
  contains "$output" "NO, on the time of the host that it was on"

  run restore bare c image
  isnt "$status" 0
  contains "$(cat "$WORK/work-image/restore.log")" "Can't restore sub-task in NS"
  bare delete --force c >/dev/null 2>&1 || true
  clean_cgroups

  run tnsctl repair --dry-run "$WORK/image"
  is "$status" 1
  is "$(contents "$WORK/image")" "$before"
  run tnsctl repair --json "$WORK/image"
  is "$status" 0
  is "$(jq '.moved | length' <<<"$output")" "$strays"
  # No record tells what clocks the strays had.
  is "$(jq -c '[.moved[].jump] | unique' <<<"$output")" '[null]'
  run tnsctl images "$WORK/image"
  is "$status" 0
  repaired=$(snapshot "$WORK/image")
  run tnsctl repair "$WORK/image"
  is "$status" 0
  contains "$output" "nothing to repair"
  is "$(snapshot "$WORK/image")" "$repaired"

  restore bare c image
  lives 4
  bare delete --force c
  run tnsctl repair --undo "$WORK/image"
  is "$status" 0
  is "$(contents "$WORK/image")" "$before"
  run tnsctl images "$WORK/image"
  is "$status" 1
}

@test "by how much clocks jump is told where the record tells, and on the machine that it is of alone" {
  needs_criu
  start shim c
  checkpoint shim c first
  sleep 1
  restore shim c first
  stray c 'tail -f /dev/null'
  ahead=$(($(offset_of "$(pid_of c)") - $(own_offset)))
  mkdir -p /etc/tns-shim
  printf '[checkpoint]\nmixed = "warn"\n' >/etc/tns-shim/config.toml
  checkpoint shim c image
  bare delete --force c >/dev/null 2>&1 || true
  jump() { "$TNS_BIN/tnsctl" repair --dry-run --json "$WORK/image" | jq -c '[.moved[].jump.monotonic_ns]'; }
  is "$(jump)" "[$ahead]"
  ((ahead < -1000000000)) || fail "$ahead"
  contains "$("$TNS_BIN/tnsctl" repair --dry-run "$WORK/image")" "about monotonic -"

  cp "$WORK/image/tns-shim.json" "$WORK/record"
  sed -i 's/"boot_id": ".*"/"boot_id": "00000000-0000-0000-0000-000000000000"/' "$WORK/image/tns-shim.json"
  is "$(jump)" '[null]'
  contains "$("$TNS_BIN/tnsctl" repair --dry-run "$WORK/image")" "by an unknown time"
  cp "$WORK/record" "$WORK/image/tns-shim.json"
  mkdir -p "$WORK/work"
  shim --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "jump by about monotonic -"
}

@test "restore through the shim shows CRIU a mixed image repaired, says so in the log, and leaves the image as it is" {
  needs_criu
  make_mixed image
  before=$(snapshot "$WORK/image")
  mkdir -p "$WORK/work"
  shim --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null >"$WORK/out" 2>&1
  is "$(cat "$WORK/out")" ""
  warning=$(jq -r 'select(.level == "warning").msg' "$WORK/log" | grep 'was mixed')
  contains "$warning" "(tail)"
  contains "$warning" "jump by an unknown time"
  contains "$warning" "The image itself stays as it is"
  lives 4
  is "$(snapshot "$WORK/image")" "$before"
  # Nothing in it is lost again.
  checkpoint shim c again
  restore shim c again
  lives 4
}

@test "a relative image path is the bundle's, and without one the image is where the runtime looks" {
  needs_criu
  make_mixed image
  cp -a "$WORK/image" "$BUNDLE/relative"
  mkdir -p "$WORK/cwd" "$WORK/work"
  if [[ $TNS_RUNTIME == crun ]]; then default=$BUNDLE/checkpoint; else default=$WORK/cwd/checkpoint; fi
  cp -a "$WORK/image" "$default"
  cd "$WORK/cwd"
  shim restore --detach --image-path relative --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  lives 4
  bare delete --force c
  shim restore --detach --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  lives 4
}

@test "a whole image is restored as it is: no file is written or made" {
  needs_criu
  start shim c
  background shim c
  checkpoint shim c image
  run tnsctl images "$WORK/image"
  is "$status" 0
  before=$(snapshot "$WORK/image")
  run tnsctl repair "$WORK/image"
  is "$status" 0
  is "$(snapshot "$WORK/image")" "$before"
  restore shim c image
  lives 3
  is "$(snapshot "$WORK/image")" "$before"
}

@test "the first checkpoint of an undeclared container, in CRIU's own namespace, is whole" {
  needs_criu
  start bare c
  checkpoint bare c image
  [[ -e $WORK/image/timens-0.img ]] || fail "$(ls "$WORK/image")"
  run tnsctl images --json "$WORK/image"
  is "$status" 0
  is "$(jq -r .verdict <<<"$output")" whole
  isnt "$(jq '.processes[0].time_ns_id' <<<"$output")" 0
}

@test "a zombie has no namespaces, and does not disagree" {
  needs_criu
  # PID 1 here does not wait for the child that it did not start.
  edit_config "$BUNDLE" '.process.args = ["sh", "-c", "sh -c \"sleep 0.1 & exec tail -f /dev/null\" & while :; do wait; done"]'
  start bare c
  sleep 0.5
  checkpoint bare c image
  run tnsctl images --json "$WORK/image"
  is "$status" 0
  is "$(jq -r '[.processes[] | select(.note == "a zombie")] | length' <<<"$output")" 1
  restore shim c image
}

@test "what is not understood is left to CRIU, with a warning; tnsctl refuses it and writes nothing" {
  needs_criu
  start bare c
  checkpoint bare c image
  file=$(ls "$WORK"/image/ids-*.img | tail -n 1)
  # A field that is too long for its message; CRIU cannot read it, either.
  printf '\x30\x00\x00\x00' | dd of="$file" bs=1 seek=8 conv=notrunc 2>/dev/null
  before=$(snapshot "$WORK/image")
  for command in images repair; do
    run tnsctl "$command" "$WORK/image"
    is "$status" 2
    contains "$output" "$(basename "$file"): byte 8: a message is longer than its file"
  done
  mkdir -p "$WORK/work"
  run shim --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c
  isnt "$status" 0
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log" | head -n 1)" "$(basename "$file"): byte 8"
  is "$(snapshot "$WORK/image")" "$before"
  clean_cgroups
}

@test "originals of an earlier checkpoint into the same folder are not put back, even if the inventories are equal" {
  needs_criu
  make_mixed image
  tnsctl repair "$WORK/image"
  [[ -e $WORK/image/clocks.tns-orig ]] || fail "$(ls "$WORK/image")"
  cp "$WORK/image/inventory.img" "$WORK/inventory"
  restore bare c image
  lives 4
  # Before 4.1, CRIU writes equal ones by itself.
  checkpoint bare c image
  cp "$WORK/inventory" "$WORK/image/inventory.img"
  before=$(contents "$WORK/image")
  run tnsctl repair --undo "$WORK/image"
  is "$status" 2
  contains "$output" "of another checkpoint"
  is "$(contents "$WORK/image")" "$before"
  restore bare c image
  lives 4
}

@test "a folder that cannot be written is repaired into a copy, from which it is restored" {
  needs_criu
  make_mixed image
  before=$(snapshot "$WORK/image")
  mount --bind "$WORK/image" "$WORK/image"
  mount -o remount,bind,ro "$WORK/image"
  run tnsctl repair "$WORK/image"
  is "$status" 2
  run tnsctl repair "$WORK/image" --output "$WORK/copy"
  is "$status" 0
  contains "$output" "All processes agree about time in $WORK/copy"
  umount "$WORK/image"
  is "$(snapshot "$WORK/image")" "$before"
  restore bare c copy
  lives 4
}
