#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# After a reboot, the container that reboot_podman_before.bats has exported.

load ../engines/podman
load reboot

setup_file() {
  setup_podman
  # Not for the shim's sake: Podman puts the security module's profile, which a reboot has taken, into the kernel when it runs a container
  # and not when it restores one, which then fails.
  bare run --rm tns sh -c :
}

@test "restore.clocks = host is refused, with the numbers" {
  on_disk "podman-$TNS_RUNTIME"
  rebooted
  as_it_was
  settings '[restore]' 'clocks = "host"'
  run podman container restore --import "$WORK/image.tar"
  isnt "$status" 0
  [[ $output =~ $REFUSED ]] || fail "$output"
}

@test "imported: the clocks of all of its processes go on, in one time namespace; exec, and another export and import" {
  on_disk "podman-$TNS_RUNTIME"
  rebooted
  as_it_was
  timed podman container restore --import "$WORK/image.tar"
  whole c 4
  sampler shim third
  sampled init child first second third
  went_on 0 init child first second
  podman container checkpoint --export "$WORK/again.tar" c
  STOPPED+=("$(wall)") RECORDED+=("$(recorded "$WORK/again.tar")")
  podman rm c
  timed podman container restore --import "$WORK/again.tar"
  whole c 5
  sampled init child first second third
  went_on 1 init child first second third
}
