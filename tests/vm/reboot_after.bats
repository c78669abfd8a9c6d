#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# After a reboot, the container that reboot_before.bats has checkpointed.

load ../integration/helpers
load reboot

setup() {
  tell_of_second_try
  note_what_is_there
  on_disk "direct-$TNS_RUNTIME"
  STATE=/run/$TNS_RUNTIME BUNDLE=$WORK/bundle ROOTFS=$WORK/rootfs SHIM=$WORK/tns-shim-$TNS_RUNTIME
  HOST_NS=$(readlink /proc/self/ns/time)
  as_it_was
}

@test "restore.clocks = host is refused, with the numbers, by the settings and by the annotation" {
  rebooted
  cp "$BUNDLE/config.json" "$WORK/config.json"
  for by in settings annotation; do
    case $by in
      settings) settings '[restore]' 'clocks = "host"' ;;
      annotation) edit_config "$BUNDLE" '.annotations["org.tns-shim.restore.clocks"] = "host"' ;;
    esac
    run shim restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null
    isnt "$status" 0
    [[ $output =~ $REFUSED ]] || fail "$output"
    rm -rf /etc/tns-shim
    cp "$WORK/config.json" "$BUNDLE/config.json"
  done
}

@test "the clocks of all of its processes go on, in one time namespace; exec, and another cycle" {
  rebooted
  timed restore shim c image
  sampler shim third
  sampled init child first second third
  usable 5
  went_on 0 init child first second
  checkpoint shim c again
  STOPPED+=("$(wall)") RECORDED+=("$(recorded "$WORK/again")")
  timed restore shim c again
  sampled init child first second third
  usable 5
  went_on 1 init child first second third
}

@test "without the shim, what is exec'd is back on the clocks of the machine, if its runtime does not join" {
  rebooted
  restore bare c image
  read -r _ monotonic _ <<<"$(bare exec c clocks)"
  read -r recorded _ <<<"$(kept recorded)"
  if [[ $TNS_RUNTIME == runc ]] && ! declares; then
    ((monotonic < recorded)) || fail "$monotonic $recorded"
  else
    ((monotonic >= recorded)) || fail "$monotonic $recorded"
  fi
}
