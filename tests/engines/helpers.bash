# SPDX-License-Identifier: Apache-2.0
# What the engines' tests share, on top of what all tests stand on: the shim installed as a user would, an image, and an end
# without residue. TNS_RUNTIME is the runtime that the engine is given, bare and behind the shim.
#
# A test file defines, in the words of its engine: `bare` and `shim` (the engine's command with that runtime for what it
# starts), `start`, `pid_of`, `in_container`, and `remove_all`.
# shellcheck disable=SC2034,SC2119  # The test files read what is set here.

load ../integration/helpers

# What PID 1 of a container is here: it reaps, its child survives a restore, and nothing forks at a checkpoint.
FIRST='tail -f /dev/null & while :; do wait; done'
# As `make install` does it, where engines look, with a settings file that says which runtime.
SHIM_PATH=/usr/local/bin/tns-shim
# The files for the engines that users are given.
CONTRIB=/tns/contrib

install_shim() {
  install -m 755 "$TNS_BIN/tns-shim" "$TNS_BIN/tnsctl" "$(dirname "$SHIM_PATH")"
  ln -sf tns-shim "$SHIM_PATH-runc"
  ln -sf tns-shim "$SHIM_PATH-crun"
  mkdir -p /etc/tns-shim
  settings
}

# The settings file: every LINE, after the one that says which runtime.
# shellcheck disable=SC2120
settings() { # settings LINE...
  printf '%s\n' "runtime = \"$TNS_RUNTIME\"" "$@" >/etc/tns-shim/config.toml
}

# An image that every engine can load: the format of `docker save`.
make_image() { # make_image FILE
  local folder sum
  folder=$(mktemp -d)
  make_rootfs "$folder/rootfs"
  mkdir "$folder/rootfs/etc"
  printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'user:x:1000:1000:user:/:/bin/sh' >"$folder/rootfs/etc/passwd"
  printf '%s\n' 'root:x:0:' 'user:x:1000:' >"$folder/rootfs/etc/group"
  # Made by hand and not by mode bits of the stack's: not executable, for the errors.
  echo 'not a program' >"$folder/rootfs/bin/data"
  chmod 644 "$folder/rootfs/bin/data"
  tar -C "$folder/rootfs" -cf "$folder/layer.tar" .
  sum=$(sha256sum <"$folder/layer.tar")
  jq -n --arg architecture "$(dpkg --print-architecture)" --arg layer "sha256:${sum%% *}" \
    '{$architecture, os: "linux", config: {}, rootfs: {type: "layers", diff_ids: [$layer]}}' >"$folder/config.json"
  echo '[{"Config": "config.json", "RepoTags": ["tns:latest"], "Layers": ["layer.tar"]}]' >"$folder/manifest.json"
  tar -C "$folder" -cf "$1" manifest.json config.json layer.tar
  rm -rf "$folder"
}

setup() {
  WORK=$(mktemp -d /tmp/tns.XXXXXX)
  # For what is asked of the runtime itself.
  STATE=$WORK/state
  ROOTFS=$WORK/rootfs
  HOST_NS=$(readlink /proc/self/ns/time)
  PIDS=()
}

teardown() {
  local pid
  remove_all >/dev/null 2>&1 || true
  for pid in "${PIDS[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  clear_cgroups
  settings
  rm -rf "$WORK"
}

exec_ns() { in_container "$1" "$2" readlink /proc/self/ns/time; }

# A child of an exec that outlives it, and so belongs to the tree that CRIU dumps.
background() { in_container "$1" "$2" sh -c 'tail -f /dev/null >/dev/null 2>&1 &'; }

processes() { namespaces_below "$(pid_of "$1")" | wc -l; }

# Everything of container $1 lives, that is $2 processes, in one time namespace; and an exec is in it, too.
whole() {
  is "$(processes "$1")" "$2"
  one_namespace "$1"
  is "$(exec_ns shim "$1")" "$(ns_of "$(pid_of "$1")")"
}


wait_for() { # wait_for COMMAND...
  for _ in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "not within 10 s: $*"
}

stop_daemon() { # stop_daemon FILE-WITH-ITS-PID
  local pid
  pid=$(<"$1")
  kill "$pid"
  wait_for test ! -d "/proc/$pid"
}
