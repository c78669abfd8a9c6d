#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# SIGKILL at every system call of the shim's own: what it writes is the old or the new, whole; a second try succeeds, and
# nothing stays after it.

load faults

absent() { [[ ! -e $STATE/$1 ]] || fail "$1 is there: $(ls -A "$STATE/$1")"; }

# create: config.json is the old or the new.
sweep_create() { # sweep_create NAME
  cp -p "$BUNDLE/config.json" "$WORK/old"
  shim create --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  bare delete --force c
  cp -p "$BUNDLE/config.json" "$WORK/new"
  whole() { absent c && one_of "$BUNDLE/config.json" "$WORK/old" "$WORK/new"; }
  again() {
    "${CALL[@]}" </dev/null >/dev/null 2>&1 && same "$BUNDLE/config.json" "$WORK/new" && one_namespace c &&
      bare delete --force c
  }
  clear() { bare delete --force c >/dev/null 2>&1 || true; }
  CALL=("$SHIM" --root "$STATE" create --bundle "$BUNDLE" c)
  sweep "$1"
}

@test "create, killed at every call" {
  prepare() { cp -p "$WORK/old" "$BUNDLE/config.json"; }
  sweep_create create
}

@test "create with nothing remembered of the runtime, killed at every call" {
  prepare() {
    cp -p "$WORK/old" "$BUNDLE/config.json"
    rm -rf /run/tns-shim
  }
  sweep_create "create, cold"
}

@test "exec in a restored container, killed at every call" {
  needs_criu
  start_restored
  sha256sum "$STATE"/c/* >"$WORK/state.sum" 2>/dev/null || true
  prepare() { :; }
  clear() { :; }
  whole() { sha256sum --check --quiet "$WORK/state.sum" && is "$(status_of c)" running; }
  again() { is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"; }
  CALL=("$SHIM" --root "$STATE" exec c readlink /proc/self/ns/time)
  sweep exec
}

@test "checkpoint, killed at every call: an earlier image stays, the record is the old or the new" {
  needs_criu
  start_restored
  checkpoint shim c old --leave-running
  prepare() {
    rm -rf "$WORK/image"
    cp -a "$WORK/old" "$WORK/image"
  }
  # The record tells when it was written, so no two are equal.
  whole() {
    diff <(contents "$WORK/image" | grep -v tns-shim) <(contents "$WORK/old" | grep -v tns-shim) &&
      is "$(jq -r '.container, .processes' "$WORK/image/tns-shim.json")" $'c\n3' && is "$(status_of c)" running
  }
  again() {
    "${CALL[@]}" && is "$(status_of c)" running && tnsctl images "$WORK/image" >/dev/null &&
      is "$(jq -r '.container, .processes' "$WORK/image/tns-shim.json")" $'c\n3'
  }
  clear() { :; }
  mkdir "$WORK/work"
  CALL=("$SHIM" --root "$STATE" checkpoint --leave-running --image-path "$WORK/image" --work-path "$WORK/work" c)
  sweep checkpoint
  restore_works
}

# The last image of the sweep above is one that brings the container back.
restore_works() {
  checkpoint shim c image
  bare delete --force c >/dev/null 2>&1 || true
  restore shim c image
  one_namespace c
}

# restore: of a mixed image, which is where it has most to do.
sweep_restore() { # sweep_restore NAME
  make_mixed mixed
  cp -p "$BUNDLE/config.json" "$WORK/old"
  clear() { bare delete --force c >/dev/null 2>&1 || true; }
  mkdir "$WORK/work"
  CALL=("$SHIM" --root "$STATE" restore --detach --bundle "$BUNDLE" --image-path "$WORK/image" --work-path "$WORK/work" c)
  prepare() {
    cp -p "$WORK/old" "$BUNDLE/config.json"
    rm -rf "$WORK/image"
    cp -a "$WORK/mixed" "$WORK/image"
  }
  prepare
  "${CALL[@]}" </dev/null >/dev/null 2>&1
  bare delete --force c
  cp -p "$BUNDLE/config.json" "$WORK/new"
  whole() {
    absent c && one_of "$BUNDLE/config.json" "$WORK/old" "$WORK/new" &&
      same_contents "$WORK/image" "$WORK/mixed"
  }
  again() {
    "${CALL[@]}" </dev/null >/dev/null 2>&1 && same "$BUNDLE/config.json" "$WORK/new" && one_namespace c &&
      same_contents "$WORK/image" "$WORK/mixed" && bare delete --force c
  }
  sweep "$1"
}

@test "restore of a mixed image, killed at every call: the image stays as it was" {
  needs_criu
  sweep_restore restore
}

@test "repair, killed at every call: each file is the old or the new" {
  needs_criu
  make_mixed mixed
  cp -a "$WORK/mixed" "$WORK/repaired"
  tnsctl repair "$WORK/repaired" >/dev/null
  isnt "$(contents "$WORK/mixed")" "$(contents "$WORK/repaired")"
  prepare() { copy_of mixed; }
  whole() { each_old_or_new && { tnsctl images "$WORK/image" >/dev/null || (($? == 1)); }; }
  again() {
    tnsctl repair "$WORK/image" >/dev/null && same_contents "$WORK/image" "$WORK/repaired" &&
      tnsctl repair --undo "$WORK/image" >/dev/null && same_contents "$WORK/image" "$WORK/mixed"
  }
  clear() { :; }
  CALL=("$TNS_BIN/tnsctl" repair "$WORK/image")
  sweep repair
}

@test "undo, killed at every call: each file is the old or the new" {
  needs_criu
  make_mixed mixed
  cp -a "$WORK/mixed" "$WORK/repaired"
  tnsctl repair "$WORK/repaired" >/dev/null
  prepare() { copy_of repaired; }
  whole() { each_old_or_new && { tnsctl images "$WORK/image" >/dev/null || (($? == 1)); }; }
  again() {
    tnsctl repair --undo "$WORK/image" >/dev/null && same_contents "$WORK/image" "$WORK/mixed" &&
      tnsctl repair "$WORK/image" >/dev/null && same_contents "$WORK/image" "$WORK/repaired"
  }
  clear() { :; }
  CALL=("$TNS_BIN/tnsctl" repair --undo "$WORK/image")
  sweep undo
}
