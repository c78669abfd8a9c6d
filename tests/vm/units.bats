#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# In units that systemd has hardened, containers start, or fail, exactly as without the shim: the same status, the same words.

load ../integration/helpers

# Where neither PrivateTmp hides it nor ProtectSystem protects it.
setup() {
  tell_of_second_try
  note_what_is_there
  WORK=/var/lib/tns/units
  rm -rf "$WORK"
  STATE=$WORK/state BUNDLE=$WORK/bundle ROOTFS=$WORK/rootfs SHIM=$WORK/tns-shim-$TNS_RUNTIME
  if [[ $TNS_RUNTIME == crun ]]; then STATE=/run/crun; fi
  HOST_NS=$(readlink /proc/self/ns/time)
  mkdir -p "$STATE" "$BUNDLE"
  cp "$TNS_BIN/tns-shim" "$SHIM"
  make_rootfs "$ROOTFS"
  make_config "$BUNDLE"
  edit_config "$BUNDLE" '.process.args = ["sh", "-c", "readlink /proc/self/ns/time >/namespace; echo said; exit 7"]'
  cp "$BUNDLE/config.json" "$WORK"
}

# What a unit with PROPERTY... (words, apart by `;`) makes of COMMAND: what it says, its status, where the container was.
in_unit() { # in_unit PROPERTIES COMMAND...
  local properties=() property status=0
  while read -r property; do [[ -z $property ]] || properties+=(--property "$property"); done < <(tr ';' '\n' <<<"$1")
  systemd-run --quiet --wait --collect --pipe --property ReadWritePaths="$WORK -/run/crun" "${properties[@]}" "${@:2}" 2>&1 </dev/null || status=$?
  echo "status $status"
}

# Without the shim's own name, and without what is by chance.
plain() { sed -E "s,$WORK/tns-shim-,,; s/(time=\"[^\"]*\"|[0-9-]+T[0-9:.]+Z)//; s/nsexec-([0-9])\[[0-9]+\]/nsexec-\1/"; }

# What has been seen: `own` namespace, the host's, or none at all.
where() { case $(cat "$ROOTFS/namespace" 2>/dev/null) in '') echo none ;; "$HOST_NS") echo host ;; *) echo own ;; esac; rm -f "$ROOTFS/namespace"; }

alike() { # alike PROPERTIES; sets shim_where
  local without with bare_where
  # In which the shim may have declared a time namespace.
  cp "$WORK/config.json" "$BUNDLE"
  without=$(in_unit "$1" "$TNS_RUNTIME" --root "$STATE" run --bundle "$BUNDLE" c | plain)
  bare_where=$(where)
  bare delete --force c 2>/dev/null || true
  with=$(in_unit "$1" "$SHIM" --root "$STATE" run --bundle "$BUNDLE" c | plain)
  shim_where=$(where)
  bare delete --force c 2>/dev/null || true
  echo "# ${1:-nothing}: $bare_where, with the shim $shim_where; $(tail -n 1 <<<"$with")" >&3
  is "$with" "$without"
  if [[ $bare_where == none ]]; then is "$shim_where" none; fi
}

@test "plain" {
  alike ''
  # Else all the rest would show that nothing is done at all.
  is "$shim_where" own
}

@test "protected: the file system, tunables, control groups, privileges, /tmp, /home, devices" {
  for properties in ProtectSystem=strict NoNewPrivileges=yes PrivateTmp=yes ProtectKernelTunables=yes ProtectControlGroups=yes \
    PrivateDevices=yes 'ProtectSystem=strict;NoNewPrivileges=yes;PrivateTmp=yes;ProtectHome=yes;ProtectKernelModules=yes;ProtectClock=yes'; do
    alike "$properties"
  done
}

@test "namespaces restricted" {
  for properties in RestrictNamespaces=yes RestrictNamespaces=~user 'RestrictNamespaces=cgroup ipc net mnt pid uts' 'RestrictNamespaces=~net'; do
    alike "$properties"
  done
}

@test "system calls filtered: with an error, or killed" {
  for properties in 'SystemCallFilter=~unshare setns' 'SystemCallFilter=~unshare' 'SystemCallFilter=~setns' \
    'SystemCallFilter=~unshare setns;SystemCallErrorNumber=EPERM' 'SystemCallFilter=~unshare;SystemCallErrorNumber=EPERM' \
    'SystemCallFilter=~setns;SystemCallErrorNumber=EPERM'; do
    alike "$properties"
  done
}
