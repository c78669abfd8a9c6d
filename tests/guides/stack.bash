# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What a page's hidden commands have: a machine with an engine and an image, as the page's reader has them. Sourced by the shell that
# walk runs a page in, and by the stand-in for systemctl.

# What bats would set.
BATS_FILE_TMPDIR=/tmp/guides
mkdir -p "$BATS_FILE_TMPDIR"
load() {
  case $1 in
    */integration/*) source "/tns/integration/${1##*/}.bash" ;;
    *) source "/tns/engines/${1##*/}.bash" ;;
  esac
}
load helpers

# Under the name that everybody knows, because no registry is to be had.
BUSYBOX=docker.io/library/busybox:latest
image() { [[ -e $BATS_FILE_TMPDIR/image.tar ]] || make_image "$BATS_FILE_TMPDIR/image.tar" "$BUSYBOX"; }

have_podman() {
  load podman
  without_systemd
  export PODMAN_IGNORE_CGROUPSV1_WARNING=1
  image
  podman load --quiet --input "$BATS_FILE_TMPDIR/image.tar"
}

have_containerd() {
  load containerd
  export CONTAINERD_SNAPSHOTTER=native
  mkdir -p /etc/containerd
  # As Debian ships it, and what a stack lacks.
  cat >/etc/containerd/config.toml <<'CONFIG'
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
CONFIG
  start_engine
  image
  ctr image import --no-unpack "$BATS_FILE_TMPDIR/image.tar"
}

have_docker() {
  load docker
  mkdir -p /etc/docker
  echo '{}' >/etc/docker/daemon.json
  without_systemd
  start_engine
  image
  docker load --quiet --input "$BATS_FILE_TMPDIR/image.tar"
}
