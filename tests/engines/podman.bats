#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Podman with the shim as its runtime.

load helpers

bare() { podman --runtime "$TNS_RUNTIME" "$@"; }
shim() { podman --runtime tns-shim "$@"; }
start() { "$1" run --detach --name "$2" "${@:3}" tns sh -c "$FIRST" >/dev/null; }
pid_of() { podman inspect --format '{{.State.Pid}}' "$1"; }
in_container() { podman exec "${@:2}"; }
remove_all() {
  podman pod rm --force --all --time 0
  podman rm --force --all --time 0
}

setup_file() {
  export PODMAN_IGNORE_CGROUPSV1_WARNING=1
  install_shim
  # What a machine without systemd needs, and a stack whose control groups have no controllers.
  cat >/etc/containers/containers.conf <<'END'
[containers]
log_driver = "k8s-file"
netns = "none"
cgroupns = "host"
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
END
  printf '%s\n' '[storage]' 'driver = "vfs"' 'graphroot = "/var/lib/containers/storage"' 'runroot = "/run/containers/storage"' \
    >/etc/containers/storage.conf
  mkdir -p /etc/containers/containers.conf.d
  cp "$CONTRIB/containers.conf.d/50-tns-shim.conf" /etc/containers/containers.conf.d/
  # Podman 4 complains.
  if [[ -n $(podman info 2>&1 >/dev/null) ]]; then
    cp "$CONTRIB/containers.conf.d/podman-4/50-tns-shim.conf" /etc/containers/containers.conf.d/
  fi
  is "$(podman info 2>&1 >/dev/null)" ''
  make_image "$BATS_FILE_TMPDIR/image.tar"
  podman load --quiet --input "$BATS_FILE_TMPDIR/image.tar" >/dev/null
  podman tag localhost/tns tns 2>/dev/null || true
}

@test "export, remove, import, twice, with exec'd children: all alive, in one namespace" {
  needs_criu
  start shim c
  background shim c
  for cycle in 1 2; do
    podman container checkpoint --export "$WORK/$cycle.tar" c
    podman rm c
    podman container restore --import "$WORK/$cycle.tar"
    # PID 1, its own child, and one of every cycle
    whole c $((cycle + 2))
    background shim c
  done
}
