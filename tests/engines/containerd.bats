#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# containerd with the shim as its runtime's binary, driven by ctr.

load helpers

IMAGE=docker.io/library/tns:latest

start() { # start bare|shim ID [OPTION...]
  local binary=$SHIM_PATH
  [[ $1 == shim ]] || binary=$(command -v "$TNS_RUNTIME")
  ctr run --detach --null-io --cpu-shares 0 --runc-binary "$binary" "${@:3}" "$IMAGE" "$2" sh -c "$FIRST"
}
pid_of() { ctr task list | awk -v id="$1" '$1 == id { print $2 }'; }
in_container() { ctr task exec --exec-id "exec-$RANDOM-$RANDOM" "${@:2}"; }
remove_all() {
  local id
  for id in $(ctr container list --quiet); do remove "$id"; done
  # What holds the second of two checkpoints back, else: see checkpoint.
  ctr image list --quiet | grep '^checkpoint/' | xargs --no-run-if-empty ctr image remove --sync
}

# ctr leaves the container running.
remove() {
  ctr task delete --force "$1" >/dev/null 2>&1 || true
  ctr container delete "$1"
}

# The checkpoint of before goes first: containerd does not store a checkpoint whose specification is equal to a stored one's, and
# restores it without a word about CRIU's data that are missing.
checkpoint() { # checkpoint ID NAME
  ctr image list --quiet | grep '^checkpoint/' | xargs --no-run-if-empty ctr image remove --sync
  ctr container checkpoint --task --image --rw "$1" "checkpoint/$2"
}

restore() { ctr container restore --live "$1" "checkpoint/$2"; }

setup_file() {
  install_shim
  export CONTAINERD_ADDRESS=/run/containerd/containerd.sock CONTAINERD_SNAPSHOTTER=native
  mkdir -p /etc/containerd
  cat >/etc/containerd/config.toml <<'END'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs"]
END
  containerd >"$BATS_FILE_TMPDIR/containerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/containerd.pid"
  wait_for ctr version
  make_image "$BATS_FILE_TMPDIR/image.tar"
  ctr image import --no-unpack "$BATS_FILE_TMPDIR/image.tar" >/dev/null
}

teardown_file() { stop_daemon "$BATS_FILE_TMPDIR/containerd.pid"; }

@test "checkpoint, remove, restore, twice, with exec'd children: all alive, in one namespace" {
  needs_criu
  start shim c
  background shim c
  for cycle in 1 2; do
    checkpoint c "$cycle"
    remove c
    restore c "$cycle"
    # PID 1, its own child, and one of every cycle
    whole c $((cycle + 2))
    background shim c
  done
}
