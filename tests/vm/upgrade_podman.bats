#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# runc, and the shim, are replaced by newer ones under Podman's containers.

load ../engines/podman

# What an upgrade would bring; tests/vm/run has put it there.
NEWER=/tns/newer/runc

setup_file() {
  setup_podman
  [[ -e /var/lib/tns/older-runc ]] || cp -p "$(readlink -f "$(command -v runc)")" /var/lib/tns/older-runc
}

teardown_file() { install -m 755 /var/lib/tns/older-runc "$(readlink -f "$(command -v runc)")"; }

@test "a running, a restored and an exported container go on" {
  for name in made restored left; do
    start shim "$name"
    background shim "$name"
  done
  podman container checkpoint restored
  podman container restore restored
  background shim restored
  podman container checkpoint --export "$WORK/left.tar" left
  podman rm left

  install -m 755 "$NEWER" "$(readlink -f "$(command -v runc)")"
  { cat "$TNS_BIN/tns-shim"; echo newer; } >"$WORK/newer"
  install -m 755 "$WORK/newer" "$SHIM_PATH"

  podman container restore --import "$WORK/left.tar"
  for name in made restored left; do
    before=$(processes "$name")
    whole "$name" "$before"
    background shim "$name"
    podman container checkpoint "$name"
    podman container restore "$name"
    whole "$name" $((before + 1))
    podman stop --time 0 "$name"
    podman rm "$name"
  done
}
