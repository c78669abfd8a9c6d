#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A container with exec'd children is checkpointed by its runtime; reboot_after.bats restores it when the machine has been rebooted.

load ../integration/helpers
load reboot

# Everything is called on the machine of last.
MACHINE=()
bare() { "${MACHINE[@]}" "$TNS_RUNTIME" --root "$STATE" "$@"; }
shim() { "${MACHINE[@]}" "$SHIM" --root "$STATE" "$@"; }

setup() {
  tell_of_second_try
  note_what_is_there
  rm -rf "/var/lib/tns/direct-$TNS_RUNTIME"
  on_disk "direct-$TNS_RUNTIME"
  STATE=/run/$TNS_RUNTIME BUNDLE=$WORK/bundle ROOTFS=$WORK/rootfs SHIM=$WORK/tns-shim-$TNS_RUNTIME
  cp "$TNS_BIN/tns-shim" "$SHIM"
  HOST_NS=$(readlink /proc/self/ns/time)
  mkdir "$BUNDLE" "$SAMPLES"
  make_rootfs "$ROOTFS"
  make_config "$BUNDLE"
  # A folder of the disk's in the container: what its processes have noted can be read at any time.
  mkdir "$ROOTFS/samples"
  cp "$TNS_TOOLS/clocks" "$ROOTFS/bin/clocks"
  edit_config "$BUNDLE" '.process.args = ["sh", "-c", "clocks /samples/child & exec clocks /samples/init"]
    | .mounts += [{destination: "/samples", type: "bind", source: "'"$SAMPLES"'", options: ["bind", "rw"]}]'
}

@test "a container that comes from a machine up for longer, with a child of each life" {
  # Else the machine could be up for longer again when its clocks are looked at, before and after the reboot.
  other_machine 100000
  MACHINE=(nsenter --time="$THERE" --)
  start shim c
  sampler shim first
  sampled init child first
  checkpoint shim c one
  MACHINE=()
  restore shim c one
  sampler shim second
  sampled init child first second
  checkpoint shim c image
  checkpointed "$WORK/image"
  contains "$("$TNS_BIN/tnsctl" images "$WORK/image")" monotonic
}
