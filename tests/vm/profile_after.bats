#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# After a reboot, before Podman has run any container: it may have to load a profile of AppArmor first, and not do so for a restore.

load ../engines/podman
load reboot

setup_file() { setup_podman; }

@test "the first thing that Podman does after a reboot is an import: it ends as it does without the shim" {
  on_disk "profile-$TNS_RUNTIME"
  isnt "$(</proc/sys/kernel/random/boot_id)" "$(kept boot)"
  for with in bare shim; do
    status=0
    said=$(podman container restore --import "$WORK/$with.tar" 2>&1) || status=$?
    echo "# $with: $status $said" >&3
    said="$status $(plain "$said")"
    # What the other one finds must not come from this.
    podman rm --force --time 0 --ignore "$with-c" >/dev/null 2>&1 || true
    [[ $with == bare ]] || is "$said" "$expected"
    expected=$said
  done
}
