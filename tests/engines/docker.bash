# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Docker's words for what its tests do, and how it is started.

# Docker remembers the runtime that a container was made with: what comes later needs no option.
bare() { docker run --runtime "$TNS_RUNTIME" "${@:2}"; }
shim() { docker run --runtime tns-shim "${@:2}"; }
# Not every Docker can restore a container with a network namespace of its own: `cycle` shows it.
start() { "$1" run --detach --network "${NETWORK:-$OWN}" --name "$2" "${@:3}" tns sh -c "$FIRST"; }
pid_of() { docker inspect --format '{{.State.Pid}}' "$1"; }
in_container() { docker exec "${@:2}"; }
remove_all() {
  docker ps --all --quiet | xargs --no-run-if-empty docker rm --force
  end_shims
}

# Docker packs the checkpoint for its containerd, which may still have the same bytes from when it was made: then it says so.
restore() { # restore ID CHECKPOINT
  local said=
  for _ in $(seq 20); do
    said=$(docker start --checkpoint "$2" "$1" 2>&1) && return
    [[ $said == *'already exists'* ]] || break
    sleep 0.5
  done
  fail "$said"
}

cycle() { # cycle bare|shim ID [NETWORK]
  NETWORK=${3:-host} start "$1" "$2" && docker checkpoint create "$2" probe && restore "$2" probe
}

# What a container is given where the tests do not care.
if with_systemd; then OWN=bridge; else OWN=none; fi

# A network of its own, where this Docker can restore that without the shim.
restorable() {
  local answer=$BATS_FILE_TMPDIR/network
  if [[ ! -e $answer ]]; then
    if cycle bare probe "$OWN" >"$answer.log" 2>&1; then echo "$OWN" >"$answer"; else echo host >"$answer"; fi
    remove_all >/dev/null 2>&1 || true
    clear_cgroups
  fi
  cat "$answer"
}

start_engine() {
  if with_systemd; then
    # Which systemd starts three times in a minute at most.
    systemctl reset-failed docker
    systemctl restart docker
    return
  fi
  dockerd >>"$BATS_FILE_TMPDIR/dockerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/engine.pid"
  wait_for docker version
}

# What a machine without systemd and with no firewall to change needs.
without_systemd() {
  jq '. + {"data-root": "/run/docker-root", "storage-driver": "vfs", bridge: "none", iptables: false, ip6tables: false,
    "exec-opts": ["native.cgroupdriver=cgroupfs"]}' /etc/docker/daemon.json >/etc/docker/daemon.json.new
  mv /etc/docker/daemon.json.new /etc/docker/daemon.json
}
