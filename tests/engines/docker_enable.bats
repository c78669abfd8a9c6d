#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `tnsctl enable docker` and `tnsctl disable docker`, against the real Docker.

load helpers
load docker

CONFIG=/etc/docker/daemon.json

# What a machine of tests needs, in the hand of somebody who does not count spaces.
somebody_s() { # somebody_s [MEMBERS]
  printf '{\t"data-root":"/run/docker-root" ,"storage-driver" : "vfs",\n\n   "bridge":"none","iptables": false, "ip6tables":false,\r\n'
  printf '%s "exec-opts": [ "native.cgroupdriver=cgroupfs" ] }' "${1:-}"
}

setup_file() {
  install_shim
  mkdir -p /etc/docker
  somebody_s >"$CONFIG"
  start_engine
  make_image "$BATS_FILE_TMPDIR/image.tar"
  docker load --quiet --input "$BATS_FILE_TMPDIR/image.tar"
}

teardown_file() { with_systemd || stop_daemon "$BATS_FILE_TMPDIR/engine.pid"; }

# As `systemctl reload docker` does it.
reload() {
  kill -HUP "$(<"$BATS_FILE_TMPDIR/engine.pid")"
  wait_for knows "$1"
}
default_is() { [[ $(docker info --format '{{.DefaultRuntime}}') == "$1" ]]; }
knows() { docker info --format '{{json .Runtimes}}' | jq --exit-status --arg name "$1" 'has($name)' >/dev/null; }
restart() {
  stop_daemon "$BATS_FILE_TMPDIR/engine.pid"
  start_engine
}
refuses() {
  run shim run --rm --network "$OWN" tns id
  isnt "$status" 0
  [[ $output == *[Uu]nknown*runtime*tns-shim* ]] || fail "$output"
}
refused() { # refused SENTENCE ARGUMENT...
  run tnsctl "${@:2}"
  is "$status" 2
  contains "$output" "$1"
}
validates() { dockerd --help 2>&1 | grep -q -- --validate; }

@test "enabled and reloaded, a container gets its own time namespace through Docker; disabled, all is as before" {
  somebody_s >"$CONFIG"
  # Of a first try
  restart
  chmod 600 "$CONFIG"
  cp -p "$CONFIG" "$WORK/before"
  refuses
  run tnsctl enable docker --dry-run
  is "$status" 1
  contains "$output" "+++ $CONFIG"
  contains "$output" '"tns-shim": { "path": "/usr/local/bin/tns-shim" }'
  cmp "$WORK/before" "$CONFIG"

  pid=$(<"$BATS_FILE_TMPDIR/engine.pid")
  run tnsctl enable docker
  is "$status" 0
  contains "$output" "changed $CONFIG"
  contains "$output" 'for it to take effect: systemctl reload docker'
  if validates; then contains "$output" 'asked by dockerd --validate'; else contains "$output" 'cannot be asked'; fi
  is "$(stat -c %a "$CONFIG")" 600
  is "$(jq -r '.runtimes | keys | join(" ")' "$CONFIG")" 'tns-shim tns-shim-crun tns-shim-runc'
  is "$(jq 'del(.runtimes)' "$CONFIG")" "$(jq . "$WORK/before")"
  # Nobody was restarted or told.
  refuses
  reload tns-shim
  is "$(<"$BATS_FILE_TMPDIR/engine.pid")" "$pid"
  is "$(docker info --format '{{.DefaultRuntime}}')" runc
  start shim cc
  whole cc 2
  isnt "$(ns_of "$(pid_of cc)")" "$HOST_NS"
  docker run --detach --network "$OWN" --name dd tns sh -c "$FIRST"
  is "$(ns_of "$(pid_of dd)")" "$HOST_NS"

  # Once more, with nothing to do
  snapshot /etc/docker >"$WORK/enabled"
  run tnsctl enable docker
  is "$status" 0
  contains "$output" 'there is nothing to do'
  is "$(snapshot /etc/docker)" "$(<"$WORK/enabled")"

  remove_all
  run tnsctl disable docker
  is "$status" 0
  # That a key is gone, dockerd does not take without.
  contains "$output" 'for it to take effect: systemctl restart docker'
  cmp "$WORK/before" "$CONFIG"
  is "$(stat -c %a "$CONFIG")" 600
  restart
  refuses
  docker run --rm --network "$OWN" tns id
  run tnsctl disable docker
  is "$status" 0
  contains "$output" 'there is nothing to do'
}

@test "--default and --runtime, and back to without" {
  somebody_s >"$CONFIG"
  cp -p "$CONFIG" "$WORK/before"
  tnsctl enable docker --default --runtime "$TNS_RUNTIME"
  reload tns-shim
  wait_for default_is tns-shim
  contains "$(docker info --format '{{json .Runtimes}}')" "$SHIM_PATH-$TNS_RUNTIME"
  docker run --detach --network "$OWN" --name cc tns sh -c "$FIRST"
  whole cc 2
  remove_all
  tnsctl enable docker
  is "$(jq '."default-runtime"' "$CONFIG")" null
  tnsctl disable docker
  cmp "$WORK/before" "$CONFIG"
}

@test "runtimes of somebody stay; a file that was not there is made and removed; a link stays a link" {
  somebody_s '"runtimes": {"mine" : {"path":"/usr/bin/mine"}},' >"$CONFIG"
  cp "$CONFIG" "$WORK/before"
  tnsctl enable docker
  is "$(jq -r '.runtimes | keys | join(" ")' "$CONFIG")" 'mine tns-shim tns-shim-crun tns-shim-runc'
  mv "$CONFIG" "$WORK/elsewhere.json"
  ln -s "$WORK/elsewhere.json" "$CONFIG"
  tnsctl disable docker
  [[ -L $CONFIG ]]
  cmp "$WORK/before" "$CONFIG"
  rm "$CONFIG"
  tnsctl enable docker
  is "$(jq -r '.runtimes."tns-shim".path' "$CONFIG")" /usr/local/bin/tns-shim
  tnsctl disable docker
  [[ ! -e $CONFIG ]]
  tnsctl enable docker --config /run/new/daemon.json
  tnsctl disable docker --config /run/new/daemon.json
  [[ ! -e /run/new/daemon.json ]]
}

@test "what cannot be done without doubt, or what Docker refuses, leaves the file as it was" {
  left_alone() { # left_alone SENTENCE TEXT [OPTION...]
    printf '%s' "$2" >"$CONFIG"
    refused "$1" enable docker "${@:3}"
    is "$(<"$CONFIG")" "$2"
  }
  left_alone 'it is no valid JSON' '{"debug": true,}'
  # shellcheck disable=SC2016
  left_alone 'already: write `"default-runtime": "tns-shim"` there' '{"default-runtime": "runc"}' --default
  left_alone 'has written them: take them out by hand' '{"runtimes": {"tns-shim": {"path": "/mine"}}}'
  left_alone 'in other letters' '{"Runtimes": {}}'
  if validates; then
    # In Docker's words
    left_alone 'dockerd --validate: ' '{"no-such": true}'
    contains "$output" "the following directives don't match any configuration option: no-such"
  fi
  somebody_s >"$CONFIG"
  tnsctl enable docker
  sed -i 's|"/usr/local/bin/tns-shim" }|"/usr/local/bin/tns-shim", "runtimeArgs": [] }|' "$CONFIG"
  cp "$CONFIG" "$WORK/changed"
  refused 'take them out by hand' disable docker
  cmp "$WORK/changed" "$CONFIG"
}

# Another one than that of all tests, which does not run meanwhile.
start_with() { # start_with OPTION...
  [[ ! -d /proc/$(<"$BATS_FILE_TMPDIR/engine.pid") ]] || stop_daemon "$BATS_FILE_TMPDIR/engine.pid"
  dockerd "$@" >>"$BATS_FILE_TMPDIR/dockerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/engine.pid"
  wait_for docker version
}

@test "runtimes from options and those of the file are both there; one that is told already is left alone" {
  somebody_s >"$CONFIG"
  cp "$CONFIG" "$WORK/before"
  start_with --add-runtime mine=/usr/bin/mine
  tnsctl enable docker
  start_with --add-runtime mine=/usr/bin/mine
  knows mine
  knows tns-shim
  tnsctl disable docker
  cmp "$WORK/before" "$CONFIG"
  start_with --add-runtime tns-shim=/usr/local/bin/tns-shim
  refused 'it is told of it already' enable docker
  cmp "$WORK/before" "$CONFIG"
  restart
}

@test "what the daemon reads is another file: that one is changed, and the daemon takes it" {
  somebody_s >"$CONFIG"
  cp "$CONFIG" "$WORK/before"
  for form in "--config-file $WORK/own.json" "--config-file=$WORK/own.json"; do
    somebody_s >"$WORK/own.json"
    # shellcheck disable=SC2086  # One word or two.
    start_with $form
    run tnsctl enable docker
    is "$status" 0
    contains "$output" "$WORK/own.json"
    cmp "$WORK/before" "$CONFIG"
    reload tns-shim
    tnsctl disable docker
    cmp "$WORK/before" "$WORK/own.json"
  done
  restart
}

@test "the default for a daemon that does not run: nobody knows its options, and nothing is said to be well" {
  somebody_s >"$CONFIG"
  stop_daemon "$BATS_FILE_TMPDIR/engine.pid"
  run tnsctl enable docker --default
  is "$status" 0
  contains "$output" 'not confirmed by docker: dockerd does not run'
  # What that is about, in Docker's words.
  run timeout 60 dockerd --default-runtime runc
  isnt "$status" 0
  contains "$output" 'specified both as a flag and in the configuration file'
  run tnsctl enable docker
  is "$status" 0
  [[ $output != *'dockerd does not run'* ]]
  tnsctl disable docker
  start_engine
}
