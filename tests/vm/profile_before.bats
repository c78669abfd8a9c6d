#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Containers of Podman are exported, with and without the shim; profile_after.bats imports them as the first that Podman does when the
# machine has been rebooted.

load ../engines/podman
load reboot

setup_file() { setup_podman; }

@test "exported" {
  on_disk "profile-$TNS_RUNTIME"
  for with in bare shim; do
    start "$with" "$with-c"
    podman container checkpoint --export "$WORK/$with.tar" "$with-c"
    podman rm "$with-c"
  done
  keep "boot=$(</proc/sys/kernel/random/boot_id)"
}
