# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What a page's hidden commands have: a machine with an engine and an image, as the page's reader has them. Sourced by the shell that
# walk runs a page in, and by the stand-in for systemctl.
# shellcheck disable=SC2317  # Functions that only the other files' functions call.

# What bats would set.
BATS_FILE_TMPDIR=/tmp/guides
mkdir -p "$BATS_FILE_TMPDIR"
load() {
  local folder=engines
  if [[ $1 == */integration/* ]]; then folder=integration; fi
  # shellcheck disable=SC1090
  source "/tns/$folder/${1##*/}.bash"
}
load helpers
HOST_NS=$(readlink /proc/self/ns/time)
# Here everybody is root.
sudo() { "$@"; }

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

have_docker() { # have_docker [WHAT IS IN ITS CONFIGURATION]
  load docker
  mkdir -p /etc/docker
  echo "${1:-"{}"}" >/etc/docker/daemon.json
  without_systemd
  start_engine
  image
  docker load --quiet --input "$BATS_FILE_TMPDIR/image.tar"
}

have_rootless_podman() {
  setup_rootless
  rootless load --quiet --input "$BATS_FILE_TMPDIR/image.tar"
}
as_user() { (cd / && runuser -u user -- env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 bash -c "$1"); }

# What a guide has in the first block below "By hand".
by_hand() { # by_hand PAGE
  awk '$0 == "## By hand" { found = 1 } found && /^```$/ { exit } inside { print } found && /^```[a-z]/ { inside = 1 }' \
    "/tns/project/docs/guides/$1.md" | sed "s|/usr/local/bin/tns-shim|$(command -v tns-shim)|"
}

# A bundle as `runc spec` makes it, for a container that goes on and has no terminal.
have_bundle() { # have_bundle FOLDER
  mkdir -p "$1"
  make_rootfs "$1/rootfs"
  runc spec --bundle "$1"
  sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"tail", "-f", "\/dev\/null"/; s/"readonly": true/"readonly": false/' "$1/config.json"
}

# Each of these makes a container `web` without tns-shim, restores it once, and puts a process on the host's time into it: by exec where the
# runtime does that by itself, else from outside. A checkpoint of it is lost.
lose_with_runc() { # with bundle/; its checkpoint is in lost/
  pid_of() { runc state "$1" | jq .pid; }
  in_container() { runc exec "${@:2}"; }
  runc run --detach --bundle bundle web </dev/null >/dev/null 2>&1
  runc checkpoint --image-path "$PWD/first" web
  runc restore --detach --bundle bundle --image-path "$PWD/first" web </dev/null >/dev/null 2>&1
  mix
  runc checkpoint --image-path "$PWD/lost" web
}
lose_with_podman() {
  load podman
  podman --runtime runc run --detach --name web docker.io/library/busybox tail -f /dev/null
  podman container checkpoint web
  podman container restore web
  mix
}
lose_with_containerd() { # its checkpoint is checkpoint/web
  load containerd
  ctr run --detach --null-io --cpu-shares 0 docker.io/library/busybox:latest web tail -f /dev/null
  checkpoint web first
  remove web
  restore web first
  mix
  checkpoint web web
  remove web
}
lose_with_docker() { # its checkpoint is two
  load docker
  docker run --detach --network host --name web busybox tail -f /dev/null
  docker checkpoint create web one
  restore web one
  mix
  docker checkpoint create web two
}
# What the page's reader has seen, and leaves behind.
fails() { if "$@"; then fail "not lost: $*"; fi; }
# All of it is back: the first process and the other one, on one time.
recovered() { # recovered [ID]
  is "$(processes "${1:-web}")" 2
  one_namespace "${1:-web}"
}
mix() {
  if [[ $(in_container bare web readlink /proc/self/ns/time) == "$HOST_NS" ]]; then
    in_container bare web sh -c 'tail -f /dev/null >/dev/null 2>&1 &'
  else
    stray web 'tail -f /dev/null'
  fi
}

# For a page that spoils them again and again: `lost` as lose_with_runc has left it, kept in `pristine`; container `web` of runc's; the settings.
have_lost() {
  rm -rf lost new
  cp -a pristine lost
}
have_direct() { tns-shim-runc run --detach --bundle bundle web </dev/null >/dev/null 2>&1; }
have_settings() { cp /tns/root/etc/tns-shim/config.toml /etc/tns-shim/config.toml; }
# A process on the host's time in it, and its PID.
astray() {
  stray web 'tail -f /dev/null'
  for PID in $(pgrep --full --exact --ns "$(pid_of web)" --nslist pid 'tail -f /dev/null'); do
    [[ $(readlink "/proc/$PID/ns/time") != "$HOST_NS" ]] || return 0
  done
}
