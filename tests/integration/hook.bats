#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# tnsctl hook precreate: the same decision on config.json's way through a hook. And tnsctl config.

load helpers

hook() { "$TNS_BIN/tnsctl" hook precreate --runtime "$TNS_RUNTIME" <"$BUNDLE/config.json"; }
annotate() { edit_config "$BUNDLE" ".annotations[\"org.tns-shim.$1\"] = \"$2\""; }

@test "what the hook prints is config.json with a time namespace where the runtime makes one, else the very same bytes" {
  hook >"$WORK/out" 2>"$WORK/err"
  if declares; then
    is "$(jq -c '.linux.namespaces[-1]' "$WORK/out")" '{"type":"time"}'
    is "$(jq -c 'del(.linux.namespaces[-1])' "$WORK/out")" "$(jq -c . "$BUNDLE/config.json")"
    is "$(cat "$WORK/err")" ""
    cp "$WORK/out" "$BUNDLE/config.json"
    start bare c
    isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
    # A second time there is nothing to do.
    hook >"$WORK/again"
    cmp "$WORK/out" "$WORK/again"
  else
    cmp "$BUNDLE/config.json" "$WORK/out"
    contains "$(cat "$WORK/err")" "a hook cannot: use tns-shim as the runtime"
  fi
}

@test "a declared namespace that an older runtime would refuse goes, so that the container starts" {
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
  hook >"$WORK/out" 2>"$WORK/err"
  if declares; then
    cmp "$BUNDLE/config.json" "$WORK/out"
  else
    cp "$WORK/out" "$BUNDLE/config.json"
    start bare c
    is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  fi
}

@test "annotations hold in the hook as well, and what cannot be done fails without a word on standard output" {
  annotate mode host
  hook >"$WORK/out"
  cmp "$BUNDLE/config.json" "$WORK/out"
  annotate mode private
  status=0
  hook >"$WORK/out" 2>"$WORK/err" || status=$?
  if declares; then
    is "$status" 0
    is "$(jq '[.linux.namespaces[] | select(.type == "time")] | length' "$WORK/out")" 1
  else
    is "$status" 2
    [[ ! -s $WORK/out ]] || fail "$(cat "$WORK/out")"
    contains "$(cat "$WORK/err")" 'tnsctl: mode = "private", and the container cannot be given a time namespace of its own'
  fi
  annotate mode nonsense
  status=0
  hook >"$WORK/out" 2>"$WORK/err" || status=$?
  is "$status" 2
  [[ ! -s $WORK/out ]] || fail "$(cat "$WORK/out")"
  contains "$(cat "$WORK/err")" "org.tns-shim.mode"
}

@test "tnsctl config tells the settings in force and where each comes from" {
  run "$TNS_BIN/tnsctl" config
  is "$status" 0
  contains "$output" "/etc/tns-shim/config.toml (not there)"
  is "$("$TNS_BIN/tnsctl" config --json | jq -r '[.settings[].source] | unique | join(" ")')" default
  mkdir -p /etc/tns-shim
  printf '%s\n' 'mode = "leave"' 'restore.clocks = "host"' >/etc/tns-shim/config.toml
  annotate restore.clocks continue
  annotate offset.boottime 1.5
  of() { "$TNS_BIN/tnsctl" config --json --bundle "$BUNDLE" | jq -r --arg key "$1" '.settings[] | select(.key == $key) | .value + " " + .source'; }
  is "$(of mode)" "leave file"
  is "$(of uptime)" "host default"
  is "$(of restore.clocks)" "continue annotation"
  is "$(of restore.mixed)" "repair default"
  is "$(of offset.boottime)" "+1.500000000 s annotation"
  echo 'mode = 7' >/etc/tns-shim/config.toml
  run "$TNS_BIN/tnsctl" config
  is "$status" 2
  contains "$output" "line 1"
}
