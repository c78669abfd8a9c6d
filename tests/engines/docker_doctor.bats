#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What `tnsctl doctor` says of the real Docker: by its daemon where that runs, else by its file.

load helpers
load docker
load doctor

CONFIG=/etc/docker/daemon.json

setup_file() {
  install_shim
  mkdir -p /etc/docker
  echo '{}' >"$CONFIG"
  without_systemd
  cp "$CONFIG" "$BATS_FILE_TMPDIR/daemon.json"
  start_engine
}
teardown_file() { stop_daemon "$BATS_FILE_TMPDIR/engine.pid"; }

default_is() { [[ $(docker info --format '{{.DefaultRuntime}}') == "$1" ]]; }
knows() { docker info --format '{{json .Runtimes}}' | jq --exit-status --arg name "$1" 'has($name)' >/dev/null; }
stop() { [[ ! -d /proc/$(<"$BATS_FILE_TMPDIR/engine.pid") ]] || stop_daemon "$BATS_FILE_TMPDIR/engine.pid"; }
tidy() {
  kill -CONT "$(<"$BATS_FILE_TMPDIR/engine.pid")" 2>/dev/null || true
  cp "$BATS_FILE_TMPDIR/daemon.json" "$CONFIG"
}

# With the file that the tests began with.
afresh() {
  stop
  cp "$BATS_FILE_TMPDIR/daemon.json" "$CONFIG"
  start_engine
}

@test "before, told and not reloaded, after the reload, and as the default" {
  afresh
  looks_only /etc/docker /etc/containerd
  stands docker 'no nobody'
  is "$(engine docker '[.in_force, .default_runtime]')" '[true,{"name":"runc","program":"runc"}]'
  is "$(engine docker .version)" "$(docker version --format '{{.Server.Version}}')"
  contains "$(step enable_engine)" 'tnsctl enable docker'

  tnsctl enable docker
  doctor
  is "$DOCTOR" 1
  stands docker 'no tnsctl'
  is "$(engine docker .in_force)" false
  is "$(step reload_engine)" 'true systemctl reload docker'
  kill -HUP "$(<"$BATS_FILE_TMPDIR/engine.pid")"
  wait_for knows tns-shim
  looks_only /etc/docker /etc/containerd
  stands docker 'by_name tnsctl'
  is "$(engine docker '[.in_force, ([.runtimes[] | "\(.name) \(.works)"] | sort)]')" '[true,["tns-shim true","tns-shim-crun true","tns-shim-runc true"]]'
  is "$(step reload_engine)" ''
  readable
  contains "$(tr -s ' ' <"$WORK/text")" 'and 2 more tnsctl enable'

  tnsctl enable docker --default
  kill -HUP "$(<"$BATS_FILE_TMPDIR/engine.pid")"
  wait_for default_is tns-shim
  doctor
  stands docker 'default tnsctl'
  is "$(engine docker '[.in_force, .default_runtime.program]')" '[true,"/usr/local/bin/tns-shim"]'

  tnsctl disable docker
  doctor
  stands docker 'default nobody'
  is "$(engine docker .in_force)" false
  is "$(step reload_engine)" 'false systemctl restart docker'
  afresh
  doctor
  stands docker 'no nobody'
  is "$(engine docker .in_force)" true
}

@test "a daemon that does not run: its file says it, soon, and nothing is started" {
  stop
  cp "$BATS_FILE_TMPDIR/daemon.json" "$CONFIG"
  looks_only /etc/docker /etc/containerd
  stands docker 'no nobody'
  is "$(engine docker .in_force)" null
  readable
  tnsctl enable docker
  looks_only /etc/docker /etc/containerd
  stands docker 'by_name tnsctl'
  tnsctl enable docker --default --runtime "$TNS_RUNTIME"
  doctor
  stands docker 'default tnsctl'
  is "$(engine docker .default_runtime.program)" "$SHIM_PATH-$TNS_RUNTIME"
  tnsctl disable docker
  doctor
  stands docker 'no nobody'
  # One of no use, as that of a daemon that was killed.
  perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un($ARGV[0]))' /run/docker.sock
  looks_only /etc/docker /etc/containerd
  rm /run/docker.sock
}

@test "a daemon that hangs: its file says it, after some seconds" {
  afresh
  tnsctl enable docker
  kill -STOP "$(<"$BATS_FILE_TMPDIR/engine.pid")"
  begun=$SECONDS
  doctor
  took=$((SECONDS - begun))
  kill -CONT "$(<"$BATS_FILE_TMPDIR/engine.pid")"
  stands docker 'by_name tnsctl'
  is "$(engine docker .in_force)" null
  ((took >= 4 && took < 20 * SLOW)) || fail "it took $took s"
  is "$(pgrep --full 'docker --host' || true)" ''
}

@test "by hand, by an option, with a program that is gone, and what is no JSON" {
  stop
  jq '. + {runtimes: {mine: {path: "/usr/local/bin/tns-shim"}, other: {path: "/usr/bin/runc"}}}' "$BATS_FILE_TMPDIR/daemon.json" >"$CONFIG"
  doctor
  stands docker 'by_name hand'
  is "$(engine docker .runtimes)" '[{"name":"mine","program":"/usr/local/bin/tns-shim","works":true}]'

  jq '. + {runtimes: {"tns-shim": {path: "/usr/bin/gone"}}}' "$BATS_FILE_TMPDIR/daemon.json" >"$CONFIG"
  doctor
  is "$DOCTOR" 1
  is "$(engine docker '.runtimes[].works')" false
  is "$(step repair_engine)" 'true tnsctl enable docker'

  cp "$BATS_FILE_TMPDIR/daemon.json" "$CONFIG"
  echo '{"debug": true,}' >"$CONFIG"
  doctor
  is "$DOCTOR" 1
  is "$(engine docker .shim)" null
  contains "$(engine docker '.troubles[]')" "$CONFIG"
  contains "$(step ask_engine)" 'true dockerd --validate'

  cp "$BATS_FILE_TMPDIR/daemon.json" "$CONFIG"
  dockerd --add-runtime tns-shim=/usr/local/bin/tns-shim >>"$BATS_FILE_TMPDIR/dockerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/engine.pid"
  wait_for docker version
  doctor
  stands docker 'by_name hand'
  is "$(engine docker .in_force)" true
}

@test "a user who may not ask the daemon is told by the file" {
  afresh
  tnsctl enable docker
  # Not yet: only the file has it.
  (cd / && runuser -u nobody -- env HOME=/nonexistent tnsctl --json doctor >"$WORK/report") || is "$?" 1
  as_documented "$WORK/report"
  stands docker 'by_name tnsctl'
  is "$(engine docker .in_force)" null
  chmod 600 "$CONFIG"
  (cd / && runuser -u nobody -- env HOME=/nonexistent tnsctl --json doctor >"$WORK/report") || is "$?" 1
  as_documented "$WORK/report"
  is "$(engine docker .shim)" null
  contains "$(step ask_engine)" 'sudo dockerd --validate'
}
