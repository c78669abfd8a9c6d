#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# containerd and Docker as services of systemd: the distribution's own configuration and what the guides say to add, restarted while
# containers run.

load ../engines/helpers

# What a guide has in the first block below "By hand".
guide() { # guide NAME
  awk '$0 == "## By hand" { found = 1 } found && /^```$/ { exit } inside { print } found && /^```[a-z]/ { inside = 1 }' "/tns/docs/guides/$1.md"
}

# As each of its tests begins: nothing that a test could have left.
with_containerd() {
  load ../engines/containerd
  guide containerd-kubernetes >"$WORK/snippet"
  append_to_containerd "$WORK/snippet"
  make_image "$WORK/image.tar" "$IMAGE"
  start_engine
  ctr image import --no-unpack "$WORK/image.tar" >/dev/null
}

with_docker() {
  load ../engines/docker
  make_image "$WORK/image.tar"
  # crun is one that Docker does not know by itself.
  guide docker | jq --arg crun "$(command -v crun)" '. + {"live-restore": true} | .runtimes.crun = {path: $crun}' >/etc/docker/daemon.json
  start_engine
  docker load --quiet --input "$WORK/image.tar"
}

setup_file() { install_shim; }

# By the engine's word: its process, and how many it has in all.
seen() {
  local id
  for id in "$@"; do echo "$id $(pid_of "$id") $(processes "$id")"; done
}

# After the end of $1 and its start its containers are the ones that they were: alive, with the same processes.
restarted() { # restarted SERVICE CONTAINER...
  local before service
  before=$(seen "${@:2}")
  service=$(systemctl show --property MainPID "$1")
  start_engine
  isnt "$(systemctl show --property MainPID "$1")" "$service"
  is "$(seen "${@:2}")" "$before"
}

ends() { # ends CONTAINER COMMAND...
  local pid
  pid=$(pid_of "$1")
  "${@:2}" "$1"
  wait_for test ! -d "/proc/$pid"
}

# All plugins of Kubernetes' side.
state_of_cri() { ctr plugins ls | awk '$1 ~ /\.cri\./ || $2 == "cri" { print $NF }' | sort -u; }

@test "the guide's and contrib's snippet, at the end of the distribution's own configuration: Kubernetes' side is as before, and has both runtimes" {
  load ../engines/containerd
  guide containerd-kubernetes >"$WORK/guide"
  grep -v ^version "$CONTRIB/containerd/config-v2.toml" >"$WORK/contrib"
  : >"$WORK/nothing"
  for snippet in nothing guide contrib; do
    append_to_containerd "$WORK/$snippet"
    start_engine
    is "$(state_of_cri)" ok
    containerd config dump >"$WORK/dump"
    contains "$(<"$WORK/dump")" '.containerd.runtimes.runc]'
    [[ $snippet != nothing ]] || continue
    contains "$(<"$WORK/dump")" '.containerd.runtimes.tns-shim]'
    contains "$(tr "'" '"' <"$WORK/dump")" 'BinaryName = "/usr/local/bin/tns-shim"'
  done
}

@test "systemctl restart containerd: the containers are found, exec is in their time namespaces, they end when told" {
  with_containerd
  start bare b
  start shim c
  whole c 2
  containers=(b c)
  if [[ -z $(lack_of_criu) ]] && cycle shim d >"$WORK/said" 2>&1; then
    background shim d
    wait_for has d 3
    containers+=(d)
  else
    # crun under containerd, without the shim as well: see containerd.bats.
    is "$TNS_RUNTIME" crun
    remove d >/dev/null 2>&1 || true
  fi
  restarted containerd "${containers[@]}"
  in_container bare b id
  whole c 2
  [[ ! -v containers[2] ]] || whole d 3
  # A new one, beside those of before.
  start shim e
  whole e 2
  for id in "${containers[@]}"; do ends "$id" remove; done
}

@test "systemctl restart docker with live-restore: the containers are found, exec is in their time namespaces, they end when told" {
  with_docker
  is "$(docker info --format '{{.LiveRestoreEnabled}} {{.CgroupDriver}} {{.Driver}}' | sed 's/overlayfs/overlay2/')" 'true systemd overlay2'
  start bare bb
  start shim cc
  whole cc 2
  containers=(bb cc)
  NETWORK=host start shim dd
  if [[ -z $(lack_of_criu) ]] && docker checkpoint create dd one && restore dd one; then
    background shim dd
    wait_for has dd 3
    containers+=(dd)
  else
    # As in docker.bats.
    is "$TNS_RUNTIME" crun
    docker rm --force dd
  fi
  restarted docker "${containers[@]}"
  in_container bare bb id
  whole cc 2
  [[ ! -v containers[2] ]] || whole dd 3
  # containerd, too, of which Docker has them.
  systemctl restart containerd
  wait_for docker exec cc id
  is "$(exec_ns shim cc)" "$(ns_of "$(pid_of cc)")"
  for id in "${containers[@]}"; do
    ends "$id" docker stop --time 0
    docker rm "$id"
  done
}
