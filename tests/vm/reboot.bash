# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What lies on the disk while a machine is rebooted, for the files whose names end with _before and _after.
# shellcheck disable=SC2034  # Read by the test files.

load ../integration/clocks

# keep NAME=VALUE...: for what comes after the reboot; kept NAME: what it was.
keep() { printf '%s\n' "$@" >>"$WORK/kept"; }
kept() { sed -n "s/^$1=//p" "$WORK/kept" | tail -n 1; }

wall() { "$TNS_TOOLS/clocks" | cut -d' ' -f1; }

# Before and after, each test's folder is the same one on the disk.
on_disk() { # on_disk NAME
  WORK=/var/lib/tns/$1
  SAMPLES=$WORK/samples
  mkdir -p "$WORK"
}

# What has to be known of a checkpoint. Its processes go on writing when they are restored, and CRIU wants their files as they were.
checkpointed() { # checkpointed IMAGE
  keep "stopped=$(wall)" "recorded=$(recorded "$1")" "boot=$(</proc/sys/kernel/random/boot_id)"
  cp -a "$SAMPLES" "$WORK/samples.then"
}

as_it_was() {
  local file
  for file in "$SAMPLES"/*; do
    if [[ -e $WORK/samples.then/${file##*/} ]]; then cat "$WORK/samples.then/${file##*/}" >"$file"; else rm "$file"; fi
  done
  STOPPED=("$(kept stopped)") RECORDED=("$(kept recorded)") TOOK=()
}

# Restores by COMMAND, and notes how long it has taken.
timed() { # timed COMMAND...
  local begin
  begin=$(wall)
  "$@"
  TOOK+=("$(($(wall) - begin))")
}

# It is another start of the machine, whose clocks have not come as far as the container's: so plans do something else for some minutes
# before the checkpoint, and nothing between the reboot and this.
rebooted() {
  local monotonic
  isnt "$(</proc/sys/kernel/random/boot_id)" "$(kept boot)"
  read -r monotonic _ <<<"$(kept recorded)"
  (($("$TNS_TOOLS/clocks" | cut -d' ' -f2) < monotonic)) ||
    fail "the machine is up for longer again than it was at the checkpoint, which shows nothing: $(</proc/uptime), $monotonic us"
}

# The processes of NAME... go on from checkpoint CHECKPOINT, and agree since.
went_on() { # went_on CHECKPOINT NAME...
  local name
  for name in "${@:2}"; do never_back "$name"; done
  go_on "$@"
  agree "${STOPPED[$1]}" "$(wall)" "${@:2}"
}

REFUSED="the container's clocks would go back: they would jump by monotonic -[0-9.]+ s, boottime -[0-9.]+ s"
