#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# ENOSPC, EROFS, EACCES, EIO: creation and exec go on, with a warning; what would lose data ends with an error and has
# changed nothing.

load faults

# Where the call ends with an error, that is one of the few without which nothing can go on.
may_fail() { [[ $AT == *'"/proc/self/exe"'* || $AT == *"/etc/tns-shim"* ]] || fail "it must not fail"; }

sweep_create() { # sweep_create NAME
  cp -p "$BUNDLE/config.json" "$WORK/old"
  shim create --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  bare delete --force c
  cp -p "$BUNDLE/config.json" "$WORK/new"
  clear() { bare delete --force c >/dev/null 2>&1 || true; }
  outcome() {
    one_of "$BUNDLE/config.json" "$WORK/old" "$WORK/new" && is "$(find_temporary)" "" || return
    if ((INJECTED)); then may_fail; else one_namespace c 2>/dev/null || says_so; fi
  }
  again() { "${CALL[@]}" </dev/null >/dev/null 2>&1 && one_namespace c && bare delete --force c; }
  CALL=("$SHIM" --root "$STATE" --log "$WORK/log" create --bundle "$BUNDLE" c)
  sweep_errors "$1"
}

@test "create, with an error at every call" {
  prepare() { cp -p "$WORK/old" "$BUNDLE/config.json"; }
  sweep_create create
}

@test "create with nothing remembered of the runtime, with an error at every call" {
  prepare() {
    cp -p "$WORK/old" "$BUNDLE/config.json"
    rm -rf /run/tns-shim
  }
  sweep_create "create, cold"
}

@test "exec in a restored container, with an error at every call" {
  needs_criu
  start_restored
  prepare() { :; }
  clear() { :; }
  outcome() {
    is "$(status_of c)" running || return
    if ((INJECTED)); then may_fail; else is "$(<"$WORK/printed")" "$(ns_of "$(pid_of c)")" 2>/dev/null || says_so; fi
  }
  again() { is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"; }
  CALL=("$SHIM" --root "$STATE" --log "$WORK/log" exec c readlink /proc/self/ns/time)
  sweep_errors exec
}

@test "checkpoint, with an error at every call: a whole image, or a container that goes on" {
  needs_criu
  start_restored
  prepare() { rm -rf "$WORK/image"; }
  clear() { :; }
  outcome() {
    is "$(status_of c)" running || return
    if ((INJECTED)); then
      isnt "$(<"$WORK/printed")" "" && [[ ! -e $WORK/image/inventory.img ]]
    else
      tnsctl images "$WORK/image" >/dev/null && { jq -e .format "$WORK/image/tns-shim.json" >/dev/null 2>&1 || says_so; }
    fi
  }
  again() { "${CALL[@]}" && tnsctl images "$WORK/image" >/dev/null; }
  mkdir "$WORK/work"
  CALL=("$SHIM" --root "$STATE" --log "$WORK/log" checkpoint --leave-running --image-path "$WORK/image" --work-path "$WORK/work" c)
  sweep_errors checkpoint
}

@test "restore of a mixed image, with an error at every call: the image stays as it was" {
  needs_criu
  make_mixed mixed
  cp -p "$BUNDLE/config.json" "$WORK/old"
  mkdir "$WORK/work"
  CALL=("$SHIM" --root "$STATE" --log "$WORK/log" restore --detach --bundle "$BUNDLE" --image-path "$WORK/image" --work-path "$WORK/work" c)
  prepare() {
    cp -p "$WORK/old" "$BUNDLE/config.json"
    copy_of mixed
  }
  clear() {
    bare delete --force c >/dev/null 2>&1 || true
    clear_cgroups
  }
  prepare
  "${CALL[@]}" </dev/null >/dev/null 2>&1
  bare delete --force c
  cp -p "$BUNDLE/config.json" "$WORK/new"
  # Where the kernel makes none, a declared time namespace is taken out, and the log says so.
  undeclared() {
    is "$(jq -c . "$BUNDLE/config.json")" "$(jq -c '.linux.namespaces |= map(select(.type != "time"))' "$WORK/old")" && says_so
  }
  outcome() {
    one_of "$BUNDLE/config.json" "$WORK/old" "$WORK/new" 2>/dev/null || undeclared || return
    same_contents "$WORK/image" "$WORK/mixed" || return
    if ((INJECTED)); then
      isnt "$(<"$WORK/log")" "" && isnt "$(status_of c)" running
    else
      one_namespace c 2>/dev/null || says_so
    fi
  }
  again() { "${CALL[@]}" </dev/null >/dev/null 2>&1 && one_namespace c && bare delete --force c; }
  sweep_errors restore
}

sweep_images() { # sweep_images NAME FROM TO OPTION...
  local name=$1
  FROM=$2 TO=$3
  shift 3
  prepare() { copy_of "$FROM"; }
  clear() { :; }
  outcome() {
    each_old_or_new || return
    if ((INJECTED)); then
      isnt "$(<"$WORK/printed")" ""
    else
      same_contents "$WORK/image" "$WORK/$TO"
    fi
  }
  again() { "${CALL[@]}" >/dev/null && same_contents "$WORK/image" "$WORK/$TO"; }
  CALL=("$TNS_BIN/tnsctl" repair "$@" "$WORK/image")
  sweep_errors "$name"
}

@test "repair and undo, with an error at every call: each file is the old or the new" {
  needs_criu
  make_mixed mixed
  cp -a "$WORK/mixed" "$WORK/repaired"
  tnsctl repair "$WORK/repaired" >/dev/null
  sweep_images repair mixed repaired
  sweep_images undo repaired mixed --undo
}
