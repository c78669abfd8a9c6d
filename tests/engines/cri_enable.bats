#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `tnsctl enable containerd` and `tnsctl disable containerd` with pods; containerd_enable.bats has the configurations.

load helpers
load cri

CONFIG=/etc/containerd/config.toml

# What the tests need, as somebody would write it who knows nothing of the shim.
configure() {
  rm -rf /etc/containerd
  mkdir /etc/containerd
  case $(own_version) in
    2)
      cat <<END
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$IMAGE"   # mine
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
END
      ;;
    3)
      cat <<END
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$IMAGE"   # mine
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
END
      ;;
  esac >"$CONFIG"
}

start_engine() {
  containerd >>"$BATS_FILE_TMPDIR/containerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/engine.pid"
  wait_for cri Version
}
restart_engine() {
  stop_daemon "$BATS_FILE_TMPDIR/engine.pid"
  start_engine
}

setup_file() {
  install_shim
  configure
  start_engine
  load_image >/dev/null
}

teardown_file() { stop_daemon "$BATS_FILE_TMPDIR/engine.pid"; }

refuses() {
  run run_pod tns-shim "$1"
  isnt "$status" 0
  contains "$output" 'no runtime for "tns-shim" is configured'
}

@test "enabled, and containerd restarted: pods get their own time namespace; runc's are as before; disabled, all is as before" {
  # Of a first try
  configure
  restart_engine
  cp -p "$CONFIG" "$WORK/before"
  find /etc/containerd | sort >"$WORK/files"
  start runc old
  old=$(pid_of old)
  refuses early
  tnsctl enable containerd
  # Nobody was restarted.
  refuses still
  restart_engine
  is "$(pid_of old)" "$old"
  start shim c '{"org.tns-shim.mode": "private"}'
  whole c 2
  start runc d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"
  tnsctl enable containerd

  tnsctl disable containerd
  cmp "$WORK/before" "$CONFIG"
  is "$(find /etc/containerd | sort)" "$(<"$WORK/files")"
  # As it says: containerd 2 would execute nothing in them any more.
  if [[ $(own_version) != 2 ]]; then remove_all >/dev/null; fi
  restart_engine
  if [[ $(own_version) == 2 ]]; then is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"; fi
  refuses late
  start runc e
  is "$(ns_of "$(pid_of e)")" "$HOST_NS"
}

@test "--default: for pods that ask for nothing" {
  configure
  cp -p "$CONFIG" "$WORK/before"
  if [[ $(own_version) == 2 ]]; then
    # A table of that name is there already.
    run tnsctl enable containerd --default
    is "$status" 2
    contains "$output" 'default_runtime_name = "tns-shim"'
    cmp "$WORK/before" "$CONFIG"
    return
  fi
  tnsctl enable containerd --default
  restart_engine
  start '' c
  whole c 2
  remove_all
  tnsctl disable containerd
  restart_engine
  start '' d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"
  cmp "$WORK/before" "$CONFIG"
}
