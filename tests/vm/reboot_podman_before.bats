#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Containers of Podman are exported with exec'd children; reboot_podman_after.bats imports them when the machine has been rebooted.

load ../engines/podman
load reboot

setup_file() { setup_podman; }

@test "exported and imported, and exported again, with an exec'd child of each life" {
  rm -rf "/var/lib/tns/podman-$TNS_RUNTIME"
  on_disk "podman-$TNS_RUNTIME"
  mkdir "$SAMPLES"
  shim run --detach --name c --volume "$SAMPLES:/samples" --volume "$TNS_TOOLS:/tools:ro" tns \
    sh -c '/tools/clocks /samples/child & exec /tools/clocks /samples/init' >/dev/null
  sampler shim first
  sampled init child first
  podman container checkpoint --export "$WORK/one.tar" c
  podman rm c
  podman container restore --import "$WORK/one.tar"
  whole c 3
  sampler shim second
  sampled init child first second
  podman container checkpoint --export "$WORK/image.tar" c
  checkpointed "$WORK/image.tar"
  podman rm c
}
