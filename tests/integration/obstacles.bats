#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What stands between a container and a time namespace: a filter, a kernel without, a runtime that knows none. It starts all the same, as
# without the shim, and a promise that was asked for by name is an error.

load helpers

# As under a service manager or a container engine that denies what it does not know.
denied() { "$TNS_TOOLS/deny" "$@"; }
warnings() { jq -r 'select(.level == "warning").msg' "$WORK/log"; }
annotate() { edit_config "$BUNDLE" ".annotations[\"org.tns-shim.$1\"] = \"$2\""; }

@test "a seccomp filter denies time namespaces: the container starts as without the shim, with the reason in the log" {
  cp "$BUNDLE/config.json" "$WORK/before.json"
  # Or kills whoever asks, which is what systemd's SystemCallFilter= does.
  for errno in 1 13 38 kill; do
    rm -f "$WORK/log"
    denied $errno "$SHIM" --root "$STATE" --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" "c$errno" </dev/null >/dev/null 2>&1
    is "$(ns_of "$(pid_of "c$errno")")" "$HOST_NS"
    is "$(denied $errno "$SHIM" --root "$STATE" exec "c$errno" readlink /proc/self/ns/time)" "$HOST_NS"
    cmp "$BUNDLE/config.json" "$WORK/before.json"
    contains "$(warnings)" "a seccomp filter or a security module denies making time namespaces"
  done
  # What somebody else has declared would stop it.
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
  denied 1 "$SHIM" --root "$STATE" run --detach --bundle "$BUNDLE" declared </dev/null >/dev/null 2>&1
  is "$(ns_of "$(pid_of declared)")" "$HOST_NS"
  # A promise is kept or refused.
  annotate mode private
  run denied 1 "$SHIM" --root "$STATE" run --detach --bundle "$BUNDLE" private </dev/null
  is "$status" 1
  contains "${output//\\/}" 'mode = "private"'
  contains "$output" "a seccomp filter"
}

@test "a seccomp filter, and a user without privileges whose runtime makes a user namespace" {
  rm "$BUNDLE/config.json"
  (cd "$BUNDLE" && "$TNS_RUNTIME" spec --rootless)
  edit_config "$BUNDLE" '.process.terminal = false | .root = {path: $rootfs, readonly: false}
    | .process.args = ["sh", "-c", "echo started; readlink /proc/self/ns/time"]
    | .mounts |= map(select(.type != "sysfs" and .destination != "/sys" and .type != "cgroup"))
    | .linux.maskedPaths = [] | .linux.readonlyPaths = []
    | .linux.namespaces |= map(select(.type != "cgroup" and .type != "network"))
    | .linux.uidMappings = [{containerID: 0, hostID: 65534, size: 1}] | .linux.gidMappings = .linux.uidMappings'
  cp "$BUNDLE/config.json" "$WORK/before.json"
  chmod 755 "$WORK"
  chown -R 65534:65534 "$STATE" "$BUNDLE" "$ROOTFS"
  install -d -o 65534 -g 65534 "$WORK/run"
  for errno in 1 38; do
    denied $errno setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_RUNTIME_DIR="$WORK/run" sh -c "exec >$WORK/run/out 2>&1
      exec $SHIM --root $STATE --log $WORK/run/log --log-format json run --bundle $BUNDLE c$errno </dev/null"
    is "$(cat "$WORK/run/out")" "started"$'\n'"$HOST_NS"
    cmp "$BUNDLE/config.json" "$WORK/before.json"
  done
  if declares; then contains "$(jq -r 'select(.level == "warning").msg' "$WORK/run/log")" "a seccomp filter"; fi
}

@test "a seccomp filter at restore: the outcome is the runtime's own, and what is held on the host's time comes back" {
  needs_criu
  start shim c
  checkpoint shim c image
  cp -r "$WORK/image" "$WORK/again"
  cp "$BUNDLE/config.json" "$WORK/before.json"
  restore_denied() { # restore_denied PROGRAM IMAGE
    denied 1 "$1" --root "$STATE" --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/$2" \
      --work-path "$WORK/work-image" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  }
  without=0 with=0
  restore_denied "$TNS_RUNTIME" again || without=$?
  bare delete --force c >/dev/null 2>&1 || true
  clear_cgroups
  restore_denied "$SHIM" image || with=$?
  is "$with" "$without"
  contains "$(warnings)" "a seccomp filter"
  bare delete --force c >/dev/null 2>&1 || true
  clear_cgroups
  # It is said beforehand.
  annotate mode private
  isnt "$(restore_denied "$SHIM" image || echo failed)" ""
  contains "$(tail -n 1 "$WORK/log" | jq -r .msg)" 'mode = "private"'
  edit_config "$BUNDLE" 'del(.annotations)'
  annotate restore.clocks host-force
  restore_denied "$SHIM" image
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(denied 1 "$SHIM" --root "$STATE" exec c readlink /proc/self/ns/time)" "$HOST_NS"
}

@test "a seccomp filter: features lists no time that the runtime does not list, and doctor says why" {
  "$TNS_RUNTIME" features >"$WORK/without" 2>&1 || true
  for answer in 1 kill; do
    denied "$answer" "$SHIM" features >"$WORK/with" 2>&1 || true
    cmp "$WORK/with" "$WORK/without"
    run denied "$answer" "$TNS_BIN/tnsctl" --json doctor --runtime "$TNS_RUNTIME"
    is "$status" 1
    is "$(jq -r '.runtimes[] | .mode, .reason' <<<"$output")" "pass"$'\n'"a seccomp filter or a security module denies making time namespaces"
    is "$(jq -r '.next[0].id' <<<"$output")" lift_denial
  done
}

@test "doctor without time namespaces: nobody has to join one" {
  # As far as can be told without /proc.
  is "$("$TNS_BIN/tnsctl" --json doctor --runtime "$TNS_RUNTIME" | jq .kernel.can_make)" true
  run unshare --mount --propagation private sh -c "mount -t tmpfs tmpfs /proc && exec $TNS_BIN/tnsctl doctor --runtime $(command -v "$TNS_RUNTIME")"
  is "$status" 1
  contains "$output" "pass: this kernel has no time namespaces"
  contains "$(grep "exec is made to join by" <<<"$output")" "nobody"
}

@test "a runtime that does not know what an engine declares: the entry goes, with a warning, and the container starts" {
  mkdir "$WORK/unknown"
  cat >"$WORK/unknown/runc" <<EOF
#!/bin/sh
case \$1 in
  --version) echo "kata-runtime  : 3.20.0" ;;
  features) exit 1 ;;
  *) exec $(command -v "$TNS_RUNTIME") "\$@" ;;
esac
EOF
  chmod 755 "$WORK/unknown/runc"
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
  cp "$TNS_BIN/tns-shim" "$WORK/tns-shim-runc"
  PATH=$WORK/unknown:$PATH "$WORK/tns-shim-runc" --root "$STATE" --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" c \
    </dev/null >/dev/null 2>&1
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(jq '[.linux.namespaces[] | select(.type == "time")] | length' "$BUNDLE/config.json")" 0
  contains "$(warnings)" "undeclare, though an unknown runtime does not make time namespaces"
}

@test "mode = private at restore: what cannot be kept is refused, and the image stays as it was" {
  needs_criu
  annotate mode private
  start shim c
  checkpoint shim c image
  (cd "$WORK/image" && sha256sum -- *) >"$WORK/sums"
  refused() { # refused WORD...
    local word
    rm -f "$WORK/log"
    if shim --log "$WORK/log" --log-format json restore --detach --image-path "$WORK/image" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1; then
      fail "it is restored, in $(ns_of "$(pid_of c)")"
    fi
    [[ ! -e $STATE/c ]] || fail "$(ls "$STATE")"
    for word; do contains "$(tail -n 1 "$WORK/log" | jq -r .msg)" "$word"; done
    (cd "$WORK/image" && sha256sum --quiet --check "$WORK/sums")
  }
  for clocks in host host-force; do
    annotate restore.clocks $clocks
    refused 'mode = "private"' "restore.clocks = \"$clocks\""
  done
  # Nor if the file says it, and the container something else, to whom the file listens.
  edit_config "$BUNDLE" 'del(.annotations)'
  mkdir -p /etc/tns-shim
  printf '%s\n' 'mode = "private"' 'annotations = ["restore.clocks"]' >/etc/tns-shim/config.toml
  annotate restore.clocks host
  refused 'mode = "private"' 'restore.clocks = "host"'
  echo 'mode = "private"' >/etc/tns-shim/config.toml
  edit_config "$BUNDLE" 'del(.annotations)'
  # Without the clocks CRIU makes no time namespace.
  mkdir "$WORK/clocks"
  mv "$WORK/image"/timens-*.img "$WORK/clocks"
  (cd "$WORK/image" && sha256sum -- *) >"$WORK/sums"
  refused 'mode = "private"' "clocks"
  mv "$WORK/clocks"/* "$WORK/image"
  restore shim c image
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  one_namespace c
}
