#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What `tnsctl doctor` says of the real containerd, by what that makes of the configurations that people have; and of CRI-O, which is not here.

load helpers
load doctor

CONFIG=/etc/containerd/config.toml

setup_file() { install_shim; }
remove_all() { :; }
setup() {
  WORK=$(mktemp -d /tmp/tns.XXXXXX)
  rm -rf /etc/containerd
  mkdir /etc/containerd
}
teardown() { rm -rf "$WORK" /etc/containerd; }

debian_s() { printf '%s\n' 'version = 2' '' '[plugins]' '  [plugins."io.containerd.grpc.v1.cri"]' '    disable_apparmor = true'; }

@test "before, after, as the default, and after disable, with no containerd that runs" {
  debian_s >"$CONFIG"
  looks_only /etc/containerd
  stands containerd 'no nobody'
  is "$(engine containerd '.version')" "$(containerd --version | awk '{ sub(/^v/, "", $3); print $3 }')"
  is "$(engine containerd '[.in_force, .takes_names, .default_runtime]')" '[null,true,{"name":"runc","program":"runc"}]'
  contains "$(step enable_engine)" 'tnsctl enable containerd'
  is "$(engine cri-o .)" ''
  readable

  tnsctl enable containerd
  looks_only /etc/containerd
  stands containerd 'by_name tnsctl'
  is "$(engine containerd '.runtimes')" '[{"name":"tns-shim","program":"/usr/local/bin/tns-shim","works":true}]'

  tnsctl enable containerd --default --runtime "$TNS_RUNTIME"
  doctor
  stands containerd 'default tnsctl'
  is "$(engine containerd '.default_runtime.program')" "$SHIM_PATH-$TNS_RUNTIME"

  tnsctl disable containerd
  doctor
  stands containerd 'no nobody'
}

@test "by hand, changed since, and under another name" {
  {
    debian_s
    printf '%s\n' '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tns-shim]' '  runtime_type = "io.containerd.runc.v2"' \
      '  options = { BinaryName = "/usr/bin/gone" }' '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.mine]' \
      '  runtime_type = "io.containerd.runc.v2"' "  options = { BinaryName = \"$SHIM_PATH\" }" \
      '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.vm]' '  runtime_type = "io.containerd.kata.v2"'
  } >"$CONFIG"
  doctor
  stands containerd 'by_name hand'
  is "$(engine containerd '[.runtimes[] | "\(.name) \(.works)"] | sort')" '["mine true","tns-shim false"]'
  is "$DOCTOR" 1
  is "$(step repair_engine)" 'true tnsctl enable containerd'

  debian_s >"$CONFIG"
  tnsctl enable containerd
  sed -i "s|BinaryName = \"$SHIM_PATH\"|BinaryName = \"$SHIM_PATH-runc\"|" "$CONFIG" $(ls /etc/containerd/conf.d/*.toml 2>/dev/null)
  doctor
  stands containerd 'by_name hand'
}

@test "no configuration, one that is wrong, one that only root may read, and one without the plugin cri" {
  rmdir /etc/containerd
  doctor
  [[ ! -e /etc/containerd ]]
  stands containerd 'no nobody'
  mkdir /etc/containerd

  printf '%s\n' 'version = 2' '[broken' >"$CONFIG"
  doctor
  is "$DOCTOR" 1
  is "$(engine containerd .shim)" null
  contains "$(step ask_engine)" 'true containerd config dump'

  debian_s >"$CONFIG"
  tnsctl enable containerd
  chmod 600 "$CONFIG"
  (cd / && runuser -u nobody -- env HOME=/nonexistent tnsctl --json doctor >"$WORK/report") || is "$?" 1
  as_documented "$WORK/report"
  is "$(engine containerd .shim)" null
  contains "$(step ask_engine)" 'false sudo containerd config dump'

  # As Docker's packages have it.
  echo 'disabled_plugins = ["cri"]' >"$CONFIG"
  doctor
  stands containerd 'no nobody'
  is "$(engine containerd .takes_names)" false
  [[ $(step enable_engine) != *containerd* ]]
  contains "$(engine containerd '.troubles[]')" 'its plugin cri is disabled'
}
