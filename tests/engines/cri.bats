#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# containerd's Kubernetes side with the shim as a runtime handler, driven over its socket by the calls that kubelet makes.

load helpers
load cri

# Always of a container that goes on running.
checkpoint() { # checkpoint NAME ARCHIVE
  cri CheckpointContainer "$(of "$1" | jq -c --arg archive "$2" '.location = $archive')" >/dev/null
}
restore() { # restore NAME ARCHIVE, into the pod of NAME
  create "pod-$1" "$1" '' "$2" && go "$1"
}
cycle() { # cycle bare|shim NAME
  start "$1" "$2" && checkpoint "$2" "$WORK/$2.tar" && remove "$2" && restore "$2" "$WORK/$2.tar"
}

# What the tests need, in the version of the configuration that this containerd writes itself.
configure() {
  local version folder=/etc/containerd/conf.d
  version=$(own_version)
  mkdir -p "$folder"
  case $version in
    2)
      # containerd 1.x puts an import in the place of all that is here for the same plugin.
      cat - <(grep -v '^version' "$CONTRIB/containerd/config-v2.toml") >/etc/containerd/config.toml <<END
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$IMAGE"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
$(handlers io.containerd.grpc.v1.cri)
END
      ;;
    3)
      cp "$CONTRIB/containerd/config-v3.toml" "$folder/50-tns-shim.toml"
      cat >/etc/containerd/config.toml <<END
version = 3
imports = ["$folder/*.toml"]
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$IMAGE"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
$(handlers io.containerd.cri.v1.runtime)
END
      ;;
    *) fail "containerd's configuration is of version $version" ;;
  esac
}

# The runtime itself, the shim under a handler that hands no annotations on, and where no time namespace can be made.
handlers() {
  cat <<END
[plugins."$1".containerd.runtimes.bare]
  runtime_type = "io.containerd.runc.v2"
  options = { BinaryName = "$(command -v "$TNS_RUNTIME")" }
[plugins."$1".containerd.runtimes.silent]
  runtime_type = "io.containerd.runc.v2"
  options = { BinaryName = "$SHIM_PATH" }
[plugins."$1".containerd.runtimes.none]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = ["org.tns-shim.*"]
  options = { BinaryName = "$SHIM_PATH-none" }
END
}

start_engine() {
  containerd >>"$BATS_FILE_TMPDIR/containerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/engine.pid"
  wait_for cri Version
}

setup_file() {
  install_shim
  # That limit may be set in a user namespace.
  cat >"$SHIM_PATH-none" <<END
#!/bin/sh
exec unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_time_namespaces && exec $SHIM_PATH "\$@"' - "\$@"
END
  chmod 755 "$SHIM_PATH-none"
  configure
  start_engine
  read -r type size < <(load_image)
  /tns/engines/registry 5000 "$type" "$size" >/dev/null 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/registry.pid"
}

teardown_file() {
  stop_daemon "$BATS_FILE_TMPDIR/registry.pid"
  stop_daemon "$BATS_FILE_TMPDIR/engine.pid"
}

@test "a pod: sandbox and container in time namespaces of their own, exec in the container's; stopped, removed" {
  start shim c
  whole c 2
  pod=$(ns_of "$(pid_of pod-c)")
  isnt "$pod" "$HOST_NS"
  isnt "$pod" "$(ns_of "$(pid_of c)")"
  is "$(state_of c)" CONTAINER_RUNNING
  # A second container of the same pod
  create pod-c d
  go d
  whole d 2
  isnt "$(ns_of "$(pid_of d)")" "$(ns_of "$(pid_of c)")"
  pids="$(pid_of c) $(pid_of d) $(pid_of pod-c)"
  cri StopContainer "$(of c)"
  is "$(state_of c)" CONTAINER_EXITED
  remove_all
  is "$(cri ListContainers; cri ListPodSandbox)" "{}"$'\n'"{}"
  for pid in $pids; do [[ ! -d /proc/$pid ]] || fail "$pid is left"; done
  is "$(find /run/containerd/runc/k8s.io -mindepth 1)" ''
}

@test "exec: at once and as a stream, with and without a terminal, its input, output and status" {
  start shim c
  ns=$(ns_of "$(pid_of c)")
  is "$(in_container shim c readlink /proc/self/ns/time)" "$ns"
  run in_container shim c sh -c 'echo out; echo err >&2; exit 42'
  is "$status" 42
  is "$output" $'out\nerr'
  is "$(stream c readlink /proc/self/ns/time)" "$ns"
  # shellcheck disable=SC2016  # The container's own shell has $line.
  is "$(echo hello | stream c -i sh -c 'read line; echo "got $line"; readlink /proc/self/ns/time')" "got hello"$'\n'"$ns"
  run stream c sh -c 'exit 43'
  is "$status" 43
  # shellcheck disable=SC2016
  output=$(echo hello | stream c -i -t sh -c 'tty; readlink /proc/self/ns/time; read line; echo "got $line"; exit 44') || status=$?
  is "$status" 44
  contains "$output" /dev/pts/
  contains "$output" "$ns"
  contains "$output" 'got hello'
}

@test "logs, stats, resources, and a container that ends by itself" {
  run_pod shim pod
  create pod c '' '' 'echo said; exit 45'
  cri StartContainer "$(of c)"
  exited() { [[ $(state_of c) == CONTAINER_EXITED ]]; }
  wait_for exited
  is "$(cri ContainerStatus "$(of c)" | jq .status.exitCode)" 45
  contains "$(cat "$WORK/logs/c.log")" 'stdout F said'
  create pod d
  go d
  is "$(cri ContainerStats "$(of d)" | jq -r .stats.attributes.metadata.name)" d
  cri UpdateContainerResources "$(of d | jq -c '.linux = {memory_limit_in_bytes: 100000000}')"
  whole d 2
}

@test "annotations of the pod and of the container are settings, where the handler hands them on" {
  start shim c '{"org.tns-shim.mode": "host"}'
  is "$(ns_of "$(pid_of pod-c)")" "$HOST_NS"
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(exec_ns shim c)" "$HOST_NS"
  # For one container
  run_pod shim pod
  create pod d '{"org.tns-shim.mode": "host"}'
  go d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"
  isnt "$(ns_of "$(pid_of pod)")" "$HOST_NS"
  # A handler that hands none on
  start silent e '{"org.tns-shim.mode": "host"}'
  whole e 2
  run_pod silent wrong '{"org.tns-shim.mode": "wrong"}'
}

# What kubelet and crictl show is the message of the call's error.
fails_with() { # fails_with SENTENCE COMMAND...
  run "${@:2}"
  isnt "$status" 0
  contains "$output" "OCI runtime create failed: tns-shim: $1"
  [[ $output != *'exit status'* ]] || fail "$output"
}

# shellcheck disable=SC2016  # The backticks are the message's.
@test "what is in the way reaches the caller in the shim's own words" {
  mode='the annotation org.tns-shim.mode in config.json: unknown variant `wrong`, expected one of `auto`, `private`, `host`, `leave`'
  fails_with "$mode" run_pod shim pod '{"org.tns-shim.mode": "wrong"}'
  fails_with 'the annotation org.tns-shim.mod in config.json: there is no such setting' run_pod shim pod '{"org.tns-shim.mod": "host"}'
  run_pod shim pod
  create pod c '{"org.tns-shim.offset.monotonic": "soon"}'
  fails_with 'the annotation org.tns-shim.offset.monotonic in config.json: soon is no time in seconds' cri StartContainer "$(of c)"
  is "$(cri ContainerStatus "$(of c)" | jq -r .status.reason)" StartError

  settings 'runtime = "/nowhere/runc"'
  fails_with '' run_pod shim pod2
  contains "$output" /nowhere/runc
  settings 'mod = "host"'
  fails_with 'understand /etc/tns-shim/config.toml: ' run_pod shim pod2
  contains "$output" 'unknown field `mod`'
  settings

  # A kernel that is told to make none
  fails_with '' run_pod none pod2 '{"org.tns-shim.mode": "private"}'
  contains "$output" 'the container cannot be given a time namespace of its own'
  contains "$output" 'max_time_namespaces is 0'
  start shim d '{"org.tns-shim.mode": "private"}'
  whole d 2
}

@test "the runtime's own errors are those without the shim" {
  start bare bare-c
  start shim shim-c
  start_program() { # start_program bare|shim PROGRAM
    local config status=0
    config=$(container_config "$1-d" | jq -c --arg program "$2" '.command = [$program]')
    cri CreateContainer "{\"pod_sandbox_id\": \"$(<"$WORK/pod-$1-c.id")\", \"sandbox_config\": $(<"$WORK/pod-$1-c.config"),
      \"config\": $config}" | jq -r .containerId >"$WORK/$1-d.id"
    cri StartContainer "$(of "$1-d")" || status=$?
    cri RemoveContainer "$(of "$1-d")" >/dev/null
    return "$status"
  }
  alike 1 start_program with nope
  alike 1 start_program with /bin/data
  alike 1 in_container with with-c nope
  alike 1 in_container with with-c /bin/data
}

@test "CheckpointContainer and a restore end as they do without the shim" {
  needs_criu
  alike - cycle with with-c
  if ! cycle shim d >"$WORK/said" 2>&1; then
    # Known: containerd before 2.0 has no such call.
    contains "$(<"$WORK/said")" 'method CheckpointContainer not implemented'
  fi
}

@test "checkpoint, remove, restore, twice, with exec'd children: all alive, in one namespace; tnsctl reads the archives" {
  needs_checkpoints
  start shim c
  background shim c
  for cycle in 1 2; do
    checkpoint c "$WORK/$cycle.tar"
    run tnsctl images "$WORK/$cycle.tar"
    is "$status" 0
    contains "$output" 'All processes agree about time.'
    # PID 1, its own child, and one of every cycle
    is "$(tnsctl images --json "$WORK/$cycle.tar" | jq '.processes | length')" $((cycle + 2))
    # It was left running.
    whole c $((cycle + 2))
    remove c
    restore c "$WORK/$cycle.tar"
    whole c $((cycle + 2))
    background shim c
  done
  contains "$(cri ContainerStatus "$(of c)" | jq -c .status.annotations)" '"restored":"true"'
}

@test "a tree that was mixed from outside is not checkpointed, and goes on running" {
  needs_checkpoints
  start shim c
  stray c 'tail -f /dev/null'
  run checkpoint c "$WORK/mixed.tar"
  isnt "$status" 0
  contains "$output" 'refused, the container keeps running'
  contains "$output" 'tail -f /dev/null) is in the host'
  is "$(state_of c)" CONTAINER_RUNNING
}
