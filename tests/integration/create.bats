#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# create and run: every container has a time namespace of its own.

load helpers

@test "without the shim, a container is in the host's time namespace" {
  start bare c
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
}

@test "run gives a container its own time namespace, and nothing is printed" {
  shim run --detach --bundle "$BUNDLE" c </dev/null >"$WORK/printed" 2>&1
  is "$(cat "$WORK/printed")" ""
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  one_namespace c
}

@test "create and start give a container its own time namespace" {
  shim create --bundle "$BUNDLE" --pid-file "$WORK/pid" c </dev/null >/dev/null 2>&1
  is "$(status_of c)" created
  isnt "$(ns_of "$(cat "$WORK/pid")")" "$HOST_NS"
  shim start c
  is "$(status_of c)" running
  one_namespace c
}

@test "what the shim becomes is in the namespace with both links, and so are the threads that it starts" {
  declares && skip "this runtime makes it itself, in a process of its own"
  mkdir "$WORK/noting"
  # A kernel before 6.2 does not change what a process is in at execve, and Go cannot start a thread where the links differ.
  cat >"$WORK/noting/$TNS_RUNTIME" <<EOF
#!/bin/sh
case " \$* " in *" run "*) readlink /proc/\$\$/ns/time /proc/\$\$/ns/time_for_children >$WORK/links ;; esac
exec $(command -v "$TNS_RUNTIME") "\$@"
EOF
  chmod 755 "$WORK/noting/$TNS_RUNTIME"
  env PATH="$WORK/noting:$PATH" "$SHIM" --root "$STATE" run --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 3>&- &
  running=$!
  PIDS+=("$running")
  for _ in $(seq $((50 * SLOW))); do [[ $(status_of c) != running ]] || break; sleep 0.1; done
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  is "$(cat "$WORK/links")" "$init"$'\n'"$init"
  # runc stays beside a container that is not detached.
  is "$(readlink "/proc/$running"/task/*/ns/time "/proc/$running"/task/*/ns/time_for_children | sort -u)" "$init"
  threads=("/proc/$running"/task/*)
  [[ $TNS_RUNTIME == crun ]] || ((${#threads[@]} > 1)) || fail "it has no threads"
}

@test "two containers have two time namespaces" {
  start shim one
  start shim two
  isnt "$(ns_of "$(pid_of one)")" "$(ns_of "$(pid_of two)")"
}

@test "the namespace is declared in config.json exactly where the runtime understands that" {
  cp "$BUNDLE/config.json" "$WORK/before.json"
  start shim c
  if declares; then
    is "$(jq -S . "$BUNDLE/config.json")" "$(jq -S '.linux.namespaces += [{type: "time"}]' "$WORK/before.json")"
  else
    cmp "$BUNDLE/config.json" "$WORK/before.json"
  fi
}

@test "a second container from the same bundle changes nothing more" {
  start shim one
  before=$(stat -c '%i %y' "$BUNDLE/config.json"; sha256sum "$BUNDLE/config.json")
  start shim two
  is "$(stat -c '%i %y' "$BUNDLE/config.json"; sha256sum "$BUNDLE/config.json")" "$before"
  isnt "$(ns_of "$(pid_of two)")" "$HOST_NS"
}

@test "a plain time namespace that an engine declares works on every runtime" {
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
  if ! declares && [[ $TNS_RUNTIME == runc ]]; then
    run bare run --bundle "$BUNDLE" without </dev/null
    isnt "$status" 0
    contains "${output//\\/}" 'namespace {"time" ""} does not exist'
  fi
  start shim c
  one_namespace c
}

@test "offsets and paths: the runtime's own business where it can, a clear error where it cannot" {
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}] | .linux.timeOffsets = {boottime: {secs: 86400}}'
  if declares; then
    start shim c
    contains "$(cat "/proc/$(pid_of c)/timens_offsets")" "86400"
  else
    cp "$BUNDLE/config.json" "$WORK/before.json"
    run shim --log "$WORK/log" --log-format json run --bundle "$BUNDLE" c </dev/null
    is "$status" 1
    contains "$output" "timeOffsets"
    is "$(jq -r .level "$WORK/log")" error
    contains "$(jq -r .msg "$WORK/log")" "use runc 1.2.6 or crun 1.8.4"
    cmp "$BUNDLE/config.json" "$WORK/before.json"
    edit_config "$BUNDLE" 'del(.linux.timeOffsets) | .linux.namespaces |= map(if .type == "time" then .path = "/proc/self/ns/time" else . end)'
    run shim run --bundle "$BUNDLE" c </dev/null
    is "$status" 1
    contains "$output" "by its path"
    run bare state c
    isnt "$status" 0
  fi
}

@test "a bundle that cannot be written: the shim makes the namespace itself, and exec joins it" {
  mount --bind "$BUNDLE" "$BUNDLE"
  mount -o remount,ro,bind "$BUNDLE"
  cp "$BUNDLE/config.json" "$WORK/before.json"
  start shim c
  cmp "$BUNDLE/config.json" "$WORK/before.json"
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

@test "a container in another one's pid namespace" {
  start shim one
  mkdir "$WORK/second"
  make_config "$WORK/second"
  edit_config "$WORK/second" ".linux.namespaces |= map(if .type == \"pid\" then .path = \"/proc/$(pid_of one)/ns/pid\" else . end)"
  start shim two "$WORK/second"
  is "$(readlink "/proc/$(pid_of two)/ns/pid")" "$(readlink "/proc/$(pid_of one)/ns/pid")"
  isnt "$(ns_of "$(pid_of two)")" "$HOST_NS"
  isnt "$(ns_of "$(pid_of two)")" "$(ns_of "$(pid_of one)")"
  is "$(exec_ns shim two)" "$(ns_of "$(pid_of two)")"

  # Also where an engine declares the time namespace, as the shim did for a bundle that another runtime ran before.
  jq '.linux.namespaces += [{type: "time"}] | .linux.namespaces |= unique_by(.type)' "$WORK/second/config.json" >"$WORK/declared.json"
  cp "$WORK/declared.json" "$WORK/second/config.json"
  start shim three "$WORK/second"
  is "$(readlink "/proc/$(pid_of three)/ns/pid")" "$(readlink "/proc/$(pid_of one)/ns/pid")"
  isnt "$(ns_of "$(pid_of three)")" "$HOST_NS"
}

@test "a config.json that parsers read differently is left alone, with the reason in the log" {
  # runc takes the key in any letter case, crun refuses the file: each as without the shim.
  sed -i 's/"linux":/"Linux":/' "$BUNDLE/config.json"
  cp "$BUNDLE/config.json" "$WORK/before.json"
  without=0 with=0
  start bare without || without=$?
  shim --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || with=$?
  is "$with" "$without"
  cmp "$BUNDLE/config.json" "$WORK/before.json"
  contains "$(head -n 1 "$WORK/log" | jq -r 'select(.level == "warning").msg')" "linux"
}

@test "user.max_time_namespaces is 0: the container starts as without the shim, with the reason in the log" {
  # The limit is the kernel's own, in a user namespace where it may be set.
  make_rootless_config
  cat >"$WORK/inside" <<EOF
echo 0 >/proc/sys/user/max_time_namespaces
$SHIM --root $STATE --log $WORK/log --log-format json run --bundle $BUNDLE c </dev/null | cat
EOF
  run unshare --user --map-root-user --mount --propagation private bash "$WORK/inside"
  contains "$output" "started"
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "user.max_time_namespaces is 0"
  is "$(jq '[.linux.namespaces[] | select(.type == "time")] | length' "$BUNDLE/config.json")" 0
}

@test "a limit that only trying shows: the container starts as without the shim, with the reason in the log" {
  make_rootless_config
  cat >"$WORK/inside" <<EOF
echo 0 >/proc/sys/user/max_time_namespaces
exec unshare --user --map-root-user --mount --propagation private sh -c "
  cat /proc/sys/user/max_time_namespaces
  $SHIM --root $STATE --log $WORK/log --log-format json run --bundle $BUNDLE c </dev/null | cat"
EOF
  run unshare --user --map-root-user --mount --propagation private bash "$WORK/inside"
  isnt "${lines[0]}" 0
  contains "$output" "started"
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "limit of user.max_time_namespaces"
}

@test "a config.json that is a pipe is left to the runtime" {
  log=(--log "$WORK/log" --log-format json)
  with=0
  if [[ $TNS_RUNTIME == crun ]]; then
    # crun maps a file of that name into memory, but reads what --config names.
    timeout $((20 * SLOW)) "$SHIM" --root "$STATE" "${log[@]}" run --config <(cat "$BUNDLE/config.json") --pid-file "$WORK/pid" --detach --bundle "$BUNDLE" c \
      </dev/null >/dev/null 2>&1 || with=$?
  else
    mkdir "$WORK/piped"
    mkfifo "$WORK/piped/config.json"
    cat "$BUNDLE/config.json" >"$WORK/piped/config.json" 3>&- &
    PIDS+=("$!")
    timeout $((20 * SLOW)) "$SHIM" --root "$STATE" "${log[@]}" run --pid-file "$WORK/pid" --detach --bundle "$WORK/piped" c </dev/null >/dev/null 2>&1 || with=$?
  fi
  is "$with" 0
  PIDS+=("$(cat "$WORK/pid")")
  is "$(tr '\0' ' ' <"/proc/$(cat "$WORK/pid")/cmdline" | cut -c1-5)" "sh -c"
  contains "$(head -n 1 "$WORK/log" | jq -r 'select(.level == "warning").msg')" "only the runtime may read it"
}

@test "a program that decorates the runtime is taken for it" {
  mkdir "$WORK/decorator"
  cat >"$WORK/decorator/runc" <<EOF
#!/bin/sh
[ "\$1" != --version ] || echo "Decorator version 3.0.0"
exec $(command -v "$TNS_RUNTIME") "\$@"
EOF
  chmod 755 "$WORK/decorator/runc"
  cp "$TNS_BIN/tns-shim" "$WORK/tns-shim-runc"
  SHIM=$WORK/tns-shim-runc PATH=$WORK/decorator:$PATH start shim c
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(PATH=$WORK/decorator:$PATH "$WORK/tns-shim-runc" --root "$STATE" exec c readlink /proc/self/ns/time)" "$(ns_of "$(pid_of c)")"
}

@test "no CAP_SYS_ADMIN: what the runtime says is what it says without the shim, with the reason in the log" {
  without=0 with=0
  setpriv --bounding-set -sys_admin --inh-caps -sys_admin \
    "$TNS_RUNTIME" --root "$STATE" run --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || without=$?
  setpriv --bounding-set -sys_admin --inh-caps -sys_admin \
    "$SHIM" --root "$STATE" --log "$WORK/log" --log-format json run --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || with=$?
  is "$with" "$without"
  if ! declares; then contains "$(jq -r 'select(.level == "warning").msg' <(head -n 1 "$WORK/log"))" "make a time namespace: EPERM"; fi
}

@test "a user without privileges: the container starts, with its own time where the runtime makes it" {
  make_rootless_config
  edit_config "$BUNDLE" '.linux.uidMappings = [{containerID: 0, hostID: 65534, size: 1}] | .linux.gidMappings = .linux.uidMappings'
  chmod 755 "$WORK"
  chown -R 65534:65534 "$STATE" "$BUNDLE" "$ROOTFS"
  install -d -o 65534 -g 65534 "$WORK/run"
  touch "$WORK/log"
  chown 65534 "$WORK/log"
  # The output is a file of the user's own, because the runtime gives it to the container's user.
  run setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_RUNTIME_DIR="$WORK/run" sh -c "exec >$WORK/run/out 2>&1
    exec $SHIM --root $STATE --log $WORK/log --log-format json run --bundle $BUNDLE c </dev/null"
  output=$(cat "$WORK/run/out")
  contains "$output" "started"
  if declares; then
    # The runtime makes it in the container's user namespace, where it may.
    isnt "$(tail -n 1 <<<"$output")" "$HOST_NS"
  else
    contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "user namespace"
    is "$(tail -n 1 <<<"$output")" "$HOST_NS"
  fi
}

# A container that a user without privileges can run: one user, mapped to root, in a user namespace.
make_rootless_config() {
  rm "$BUNDLE/config.json"
  (cd "$BUNDLE" && "$TNS_RUNTIME" spec --rootless)
  edit_config "$BUNDLE" '.process.terminal = false | .root = {path: $rootfs, readonly: false}
    | .process.args = ["sh", "-c", "echo started; readlink /proc/self/ns/time"]
    | .mounts |= map(select(.type != "sysfs" and .destination != "/sys" and .type != "cgroup"))
    | .linux.maskedPaths = [] | .linux.readonlyPaths = []
    | .linux.namespaces |= map(select(.type != "cgroup" and .type != "network"))'
}
