#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Docker with the shim as a runtime, and as its default one.

load helpers
load docker

setup_file() {
  install_shim
  mkdir -p /etc/docker
  # crun is one that Docker does not know by itself.
  jq --arg crun "$(command -v crun)" '."default-runtime" = "tns-shim" | .runtimes.crun = {path: $crun}' \
    "$CONTRIB/docker/daemon.json" >/etc/docker/daemon.json
  with_systemd || without_systemd
  start_engine
  make_image "$BATS_FILE_TMPDIR/image.tar"
  docker load --quiet --input "$BATS_FILE_TMPDIR/image.tar"
}

teardown_file() { with_systemd || stop_daemon "$BATS_FILE_TMPDIR/engine.pid"; }

@test "docker info: the runtimes, the default one, and what they can" {
  is "$(docker info --format '{{.DefaultRuntime}}')" tns-shim
  docker info --format '{{json .Runtimes}}' >"$WORK/runtimes"
  contains "$(jq -r 'keys | join(" ")' "$WORK/runtimes")" tns-shim
  features() { jq --arg name "$1" '.[$name].status["org.opencontainers.runtime-spec.features"] // "null" | fromjson' "$WORK/runtimes"; }
  # Older ones do not ask, and older runtimes do not say.
  if [[ $(features "$TNS_RUNTIME") != null ]]; then
    is "$(features tns-shim | jq -c '.linux.namespaces | map(select(. == "time"))')" '["time"]'
    is "$(features tns-shim | jq -S 'del(.linux.namespaces)')" "$(features "$TNS_RUNTIME" | jq -S 'del(.linux.namespaces)')"
  fi
}

@test "run and exec: plain, with a terminal, detached, as a user, in a folder" {
  # The default runtime
  docker run --detach --network "$OWN" --name cc tns sh -c "$FIRST"
  is "$(docker inspect --format '{{.HostConfig.Runtime}}' cc)" tns-shim
  whole cc 2
  pid=$(pid_of cc)
  contains "$(docker exec --tty cc sh -c 'tty; readlink /proc/self/ns/time')" /dev/pts/
  contains "$(docker exec --tty cc sh -c 'tty; readlink /proc/self/ns/time')" "$(ns_of "$pid")"
  is "$(echo hello | docker exec --interactive cc cat)" hello
  docker exec --detach cc sh -c 'readlink /proc/self/ns/time >/tmp/detached'
  wait_for docker exec cc ls /tmp/detached
  is "$(docker exec cc cat /tmp/detached)" "$(ns_of "$pid")"
  is "$(docker exec --user user cc sh -c 'id -u; readlink /proc/self/ns/time')" "1000"$'\n'"$(ns_of "$pid")"
  is "$(docker exec --workdir /mnt cc readlink /proc/self/cwd)" /mnt
  run docker exec cc sh -c 'exit 42'
  is "$status" 42
  run shim run --rm --network "$OWN" tns sh -c 'exit 43'
  is "$status" 43
}

@test "under the name that says which runtime" {
  docker run --runtime "tns-shim-$TNS_RUNTIME" --detach --network "$OWN" --name cc tns sh -c "$FIRST"
  whole cc 2
}

@test "logs, top, stats, pause, restart, kill, wait, rm" {
  start shim cc
  shim run --network "$OWN" --name says tns sh -c 'id -u; ls /none' || true
  contains "$(docker logs says 2>&1)" 0
  contains "$(docker logs says 2>&1)" /none
  contains "$(docker top cc)" tail
  contains "$(docker stats --no-stream --format '{{.Name}}' cc)" cc
  docker pause cc
  is "$(docker inspect --format '{{.State.Status}}' cc)" paused
  docker unpause cc
  before=$(pid_of cc)
  docker restart --time 0 cc
  isnt "$(pid_of cc)" "$before"
  whole cc 2
  docker kill cc
  is "$(docker wait cc)" 137
  docker rm cc
}

@test "--pid host: the host's pid namespace, and a time namespace of its own" {
  start shim aa --pid host
  is "$(readlink "/proc/$(pid_of aa)/ns/pid")" "$(readlink /proc/self/ns/pid)"
  whole aa 2
}

@test "--pid container: both in their own time namespaces, exec agrees with PID 1" {
  start shim aa
  start shim bb --pid container:aa
  is "$(readlink "/proc/$(pid_of bb)/ns/pid")" "$(readlink "/proc/$(pid_of aa)/ns/pid")"
  whole aa 2
  whole bb 2
}

@test "errors reach the user as they do without the shim" {
  alike - with run --rm --network "$OWN" tns nope
  alike - with run --rm --network "$OWN" tns /bin/data
  start bare bare-cc
  start shim shim-cc
  alike - docker exec with-cc nope
  alike - docker exec with-cc /bin/data
  alike - docker exec --workdir /bin/data with-cc id
  alike - docker exec --user nobody-there with-cc id
}

@test "a checkpoint and a start end as they do without the shim" {
  needs_criu
  # Known: crun does not make the work folder that containerd names, and takes no -no-subreaper; and newer Dockers look for
  # the network namespace of a process that they do not know yet (/proc/0/ns/net).
  alike - cycle with with-cc host
  remove_all
  alike - cycle with with-cc "$OWN"
}

@test "without the shim, a tree that exec has mixed is lost at the second checkpoint; tnsctl repairs it" {
  needs_checkpoints
  NETWORK=host start bare cc
  docker checkpoint create cc one
  restore cc one
  background bare cc
  # On a runtime whose exec joins, a process put in from outside does the same.
  if [[ $(namespaces_below "$(pid_of cc)" | sort -u | wc -l) == 1 ]]; then stray cc 'tail -f /dev/null'; fi
  before=$(processes cc)
  docker checkpoint create cc two
  run restore cc two
  isnt "$status" 0
  contains "$output" 'criu failed'
  tnsctl repair "$(docker info --format '{{.DockerRootDir}}')/containers/$(docker inspect --format '{{.Id}}' cc)/checkpoints/two"
  restore cc two
  is "$(processes cc)" "$before"
  one_namespace cc
}

@test "checkpoint and start, twice, with exec'd children: all alive, in one namespace" {
  needs_checkpoints
  NETWORK=$(restorable) start shim cc
  for cycle in 1 2; do
    background shim cc
    docker checkpoint create cc "cycle-$cycle"
    restore cc "cycle-$cycle"
    # PID 1, its own child, and one of every cycle
    whole cc $((cycle + 2))
  done
}

@test "left running at a checkpoint" {
  needs_checkpoints
  NETWORK=host start shim cc
  pid=$(pid_of cc)
  background shim cc
  docker checkpoint create --leave-running cc one
  is "$(pid_of cc)" "$pid"
  whole cc 3
  docker kill cc
  restore cc one
  whole cc 3
}

@test "annotations of a container say what it gets" {
  docker run --help | grep -q -- --annotation || skip "this Docker's command line has no annotations"
  start shim cc --annotation org.tns-shim.mode=host
  is "$(ns_of "$(pid_of cc)")" "$HOST_NS"
  is "$(exec_ns shim cc)" "$HOST_NS"
  if start shim dd --annotation org.tns-shim.uptime=zero 2>"$WORK/said"; then
    contains "$(docker exec dd uptime)" "up 0 min"
    whole dd 2
  else
    contains "$(cat "$WORK/said")" "which takes runc 1.2.6 or crun 1.8.4 and later"
  fi
  run start shim ee --annotation org.tns-shim.mode=nonsense
  isnt "$status" 0
  contains "$output" "tns-shim: the annotation org.tns-shim.mode in config.json: unknown variant"
}

@test "what the shim refuses, docker tells in the shim's words" {
  settings 'mode = "none"'
  run start shim bb
  isnt "$status" 0
  contains "$output" "tns-shim: understand /etc/tns-shim/config.toml"
  contains "$output" "line 2"
  settings 'runtime = "/nope"'
  run start shim dd
  isnt "$status" 0
  contains "$output" "tns-shim: "
  contains "$output" "the runtime in the settings"
}

@test "a checkpoint that is refused is told in the shim's words, and the container keeps running" {
  needs_checkpoints
  NETWORK=host start shim cc
  stray cc 'tail -f /dev/null'
  run docker checkpoint create cc one
  isnt "$status" 0
  contains "$output" "refused, the container keeps running"
  contains "$output" "(tail -f /dev/null) is in the host's time namespace"
  is "$(docker inspect --format '{{.State.Status}}' cc)" running
  is "$(exec_ns shim cc)" "$(ns_of "$(pid_of cc)")"
}
