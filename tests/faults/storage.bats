#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Storage that is really full or read-only, and fifty callers at once with nothing remembered.

load faults

# A file system of its own, so full that nothing can be added.
full() { # full FOLDER: with what it holds
  local kept=$WORK/kept-${1//\//-}
  cp -a "$1" "$kept"
  mount -t tmpfs -o size=256k tmpfs "$1"
  cp -a "$kept/." "$1"
  dd if=/dev/zero of="$1/ballast" bs=4k 2>/dev/null || true
  ! (echo more >"$1/more") 2>/dev/null || fail "$1 is not full"
  rm -f "$1/more"
}

# The container has its own namespace, and whatever is in the folder is as it was.
starts() {
  local before
  before=$(contents "$BUNDLE")
  start shim c
  one_namespace c
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  is "$(contents "$BUNDLE")" "$before"
  is "$(find_temporary)" ""
}

@test "a bundle on a full file system: the container has its own namespace all the same" {
  full "$BUNDLE"
  starts
}

@test "a bundle on a file system without a free inode" {
  cp -a "$BUNDLE" "$WORK/kept"
  mount -t tmpfs -o nr_inodes=4 tmpfs "$BUNDLE"
  cp -a "$WORK/kept/." "$BUNDLE"
  while (: >"$BUNDLE/$RANDOM$RANDOM") 2>/dev/null; do :; done
  starts
}

@test "nowhere to remember what the runtime can do: full, read-only, or no folder" {
  rm -rf /run/tns-shim
  mkdir -m 700 /run/tns-shim
  full /run/tns-shim
  for id in full read-only no-folder; do
    case $id in
      read-only) mount -o remount,ro /run/tns-shim ;;
      no-folder)
        umount /run/tns-shim
        rmdir /run/tns-shim
        : >/run/tns-shim
        ;;
    esac
    start shim "$id"
    one_namespace "$id"
    is "$(exec_ns shim "$id")" "$(ns_of "$(pid_of "$id")")"
  done
  rm -f /run/tns-shim
}

@test "a checkpoint image on a full or read-only file system: repair says so, the image is as it was, restore works" {
  needs_criu
  make_mixed image
  cp -a "$WORK/image" "$WORK/mixed"
  mount -t tmpfs -o size=16M tmpfs "$WORK/image"
  cp -a "$WORK/mixed/." "$WORK/image"
  dd if=/dev/zero of="$WORK/image/ballast" bs=4k 2>/dev/null || true
  rm -f "$WORK/image/more"
  cp "$WORK/image/ballast" "$WORK/mixed/ballast"
  for how in full read-only; do
    [[ $how == full ]] || mount -o remount,ro "$WORK/image"
    run tnsctl repair "$WORK/image"
    is "$status" 2
    contains "$output" "$WORK/image"
    same_contents "$WORK/image" "$WORK/mixed"
    restore shim c image
    one_namespace c
    same_contents "$WORK/image" "$WORK/mixed"
    bare delete --force c
  done
}

@test "fifty creates at once with nothing remembered: each has a namespace of its own, the memory is whole" {
  local id ids=() pids=() all
  BASE=$(present)
  for id in $(seq 50); do
    mkdir "$WORK/bundle$id"
    cp -p "$BUNDLE/config.json" "$WORK/bundle$id"
    ids+=("c$id")
  done
  rm -rf /run/tns-shim
  for id in "${ids[@]}"; do
    shim --log "$WORK/log.$id" create --bundle "$WORK/bundle${id#c}" "$id" </dev/null >/dev/null 2>&1 3>&- &
    pids+=($!)
  done
  for id in "${!pids[@]}"; do wait "${pids[id]}" || fail "${ids[id]}: $(cat "$WORK/log.${ids[id]}")"; done
  all=$(for id in "${ids[@]}"; do ns_of "$(pid_of "$id")"; done)
  is "$(sort -u <<<"$all" | wc -l)" 50
  [[ $all != *"$HOST_NS"* ]] || fail "one is on the host's time"
  is "$(ls -A /run/tns-shim | wc -l)" 1
  jq -e .answer.kind /run/tns-shim/abilities-*.json
  for id in "${ids[@]}"; do bare delete --force "$id"; done
  nothing_is_left
}
