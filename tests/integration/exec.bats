#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# exec: into the time namespace of PID 1, in every form that engines use.

load helpers

# A container whose clocks are far from the host's: it was restored, and so has offsets.
restored() { # restored bare|shim ID
  start "$1" "$2"
  checkpoint "$1" "$2" image
  restore "$1" "$2" image
}

@test "exec joins a container that the shim made" {
  start shim c
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

@test "exec joins after a restore, in every form" {
  needs_criu
  restored shim c
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  is "$(exec_ns shim c)" "$init"

  # --detach and --pid-file
  shim exec --detach --pid-file "$WORK/pid" c sleep 100 </dev/null >/dev/null 2>&1
  is "$(ns_of "$(cat "$WORK/pid")")" "$init"

  # --process
  jq '.process | .args = ["readlink", "/proc/self/ns/time"]' "$BUNDLE/config.json" >"$WORK/process.json"
  is "$(shim exec --process "$WORK/process.json" c)" "$init"

  # A terminal of the runtime's
  is "$(script -qec "$SHIM --root $STATE exec --tty c readlink /proc/self/ns/time" /dev/null </dev/null | grep -o 'time:[^[:space:]]*')" "$init"

  # A terminal that goes to --console-socket
  "$TNS_TOOLS/recvtty" "$WORK/console" >"$WORK/tty" &
  receiver=$!
  PIDS+=("$receiver")
  for _ in $(seq $((50 * SLOW))); do [[ -S $WORK/console ]] && break; sleep 0.1; done
  shim exec --detach --tty --console-socket "$WORK/console" c sh -c 'tty; readlink /proc/self/ns/time' </dev/null
  wait "$receiver"
  contains "$(tr -d '\r' <"$WORK/tty")" "/dev/pts/"
  contains "$(tr -d '\r' <"$WORK/tty")" "$init"

  # --preserve-fds
  echo kept >"$WORK/kept"
  is "$(shim exec --preserve-fds 1 c sh -c 'cat <&3; readlink /proc/self/ns/time' 3<"$WORK/kept")" "kept
$init"

  # Standard input, exit codes
  is "$(echo through | shim exec c cat)" through
  run shim exec c sh -c 'exit 7'
  is "$status" 7
  one_namespace c
}

@test "after a restore without the shim: an old runtime's exec goes astray, the shim's joins" {
  needs_criu
  restored bare c
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  if ! declares; then is "$(exec_ns bare c)" "$HOST_NS"; fi
  is "$(exec_ns shim c)" "$init"
}

@test "the naive way, to enter and then exec, is what an old runtime takes for a stopped container" {
  needs_criu
  restored bare c
  # Enough for the start times to differ by clock ticks.
  sleep 0.3
  checkpoint bare c again
  sleep 0.3
  restore bare c again
  run nsenter --time="/proc/$(pid_of c)/ns/time" "$TNS_RUNTIME" --root "$STATE" exec c readlink /proc/self/ns/time
  # Linux shows the start of a process by the reader's clocks since 5.11.
  if ! kernel_at_least 5.11; then
    is "$output" "$(ns_of "$(pid_of c)")"
  elif [[ $TNS_RUNTIME == runc ]]; then
    contains "$output" "stopped container"
  fi
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

@test "exec leaves no mount, no file and nothing to see in the container" {
  needs_criu
  restored shim c
  mounts=$(cat /proc/self/mountinfo)
  files=$(ls -A "$STATE/c")
  inside=$(shim exec c cat /proc/self/mountinfo)
  is "$(cat /proc/self/mountinfo)" "$mounts"
  is "$(ls -A "$STATE/c")" "$files"
  [[ $inside != *state.json* && $inside != *"$STATE"* ]] || fail "in the container: $inside"
}

@test "an unmount on the host reaches an exec that is shown a view" {
  needs_criu
  if [[ $TNS_RUNTIME == crun ]] || declares; then skip "this runtime is shown no view: its exec joins by itself"; fi
  kernel_at_least 5.11 || skip "before Linux 5.11 no runtime needs a view"
  restored shim c
  mkdir "$WORK/disk"
  mount -t tmpfs tmpfs "$WORK/disk"
  mount --make-shared "$WORK/disk"
  # Not the function, because that would be a shell of its own.
  "$SHIM" --root "$STATE" exec c sh -c 'while [ ! -e /mnt/end ]; do sleep 0.1; done' &
  running=$!
  PIDS+=("$running")
  for _ in $(seq $((50 * SLOW))); do grep -q " $STATE/c " "/proc/$running/mountinfo" && break; sleep 0.1; done
  grep " $STATE/c " "/proc/$running/mountinfo"
  grep "$WORK/disk" "/proc/$running/mountinfo"
  umount "$WORK/disk"
  ! grep "$WORK/disk" "/proc/$running/mountinfo" || fail "still mounted there"
  touch "$ROOTFS/mnt/end"
  wait "$running"
}

@test "exec while runtime update replaces the state file again and again" {
  needs_criu
  restored shim c
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  (while [[ ! -e $WORK/end ]]; do bare update --pids-limit 1000 c; done) >/dev/null 2>&1 3>&- &
  updating=$!
  PIDS+=("$updating")
  for _ in $(seq 20); do is "$(exec_ns shim c)" "$init"; done
  touch "$WORK/end"
  wait "$updating" || true
}

@test "exec of a container that is restored just then: in its time namespace, or not at all" {
  needs_criu
  start shim c
  checkpoint shim c image
  # The runtime, which takes a while to begin with exec: the shim has seen no container, the runtime could see one.
  mkdir "$WORK/slow"
  cat >"$WORK/slow/$TNS_RUNTIME" <<EOF
#!/bin/sh
case " \$* " in *" exec "*) while [ ! -e $WORK/go ]; do sleep 0.1; done ;; esac
exec $(command -v "$TNS_RUNTIME") "\$@"
EOF
  chmod 755 "$WORK/slow/$TNS_RUNTIME"
  env PATH="$WORK/slow:$PATH" "$SHIM" --root "$STATE" exec c readlink /proc/self/ns/time >"$WORK/seen" 2>&1 3>&- &
  executing=$!
  PIDS+=("$executing")
  for _ in $(seq $((50 * SLOW))); do grep -q "$WORK/slow" "/proc/$executing/cmdline" && break; sleep 0.1; done
  restore shim c image
  touch "$WORK/go"
  wait "$executing" || true
  [[ $(cat "$WORK/seen") != *"$HOST_NS"* ]] || fail "on the host's time"
  if [[ $TNS_RUNTIME == runc ]] && ! declares; then contains "$(cat "$WORK/seen")" "does not exist"; fi
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

with_user_namespace() {
  # CRIU may not mount cgroup2 from a user namespace, so that is left out.
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "user"}] | .mounts |= map(select(.type != "cgroup"))
    | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
    | .linux.gidMappings = .linux.uidMappings'
  chmod 755 "$WORK"
  chown -R 100000:100000 "$ROOTFS"
}

@test "a container with a user namespace: its own time where the runtime makes it, and exec joins" {
  with_user_namespace
  shim --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  if declares; then
    isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  else
    # What the shim makes would not belong to that user namespace, and CRIU could never dump it.
    is "$(ns_of "$(pid_of c)")" "$HOST_NS"
    contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "CRIU could not dump"
  fi
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  is "$(shim exec c id -u)" 0
}

@test "a container with a user namespace that somebody else has put into a time namespace: exec joins" {
  with_user_namespace
  # A child, because execve alone does not enter the namespace before Linux 6.2.
  unshare --time --fork -- "$TNS_RUNTIME" --root "$STATE" run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  # crun before 1.8.7 enters the user namespace first, and may not enter the host's time namespace from there.
  if [[ $TNS_RUNTIME == runc ]] || ! at_least 1.8.7; then is "$(exec_ns bare c)" "$HOST_NS"; fi
  is "$(exec_ns shim c)" "$init"
}

@test "a container with a user namespace: two cycles, exec joins after each" {
  needs_criu
  with_user_namespace
  # Shared mounts on the host are one more thing that CRIU cannot dump from a user namespace.
  mount --make-rprivate /
  if [[ $TNS_RUNTIME == crun ]]; then
    start bare without
    run checkpoint bare without image
    if ((status != 0)); then
      contains "$(cat "$WORK/work-image/dump.log")" "doesn't have a proper root mount"
      skip "CRIU cannot dump what crun mounts in a user namespace, with or without the shim"
    fi
  fi
  start shim c
  for cycle in 1 2; do
    checkpoint shim c "image$cycle"
    restore shim c "image$cycle"
    background shim c
    one_namespace c
    is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  done
}

@test "a process that is not proven to be PID 1 is not followed" {
  [[ $TNS_RUNTIME == runc ]] || skip "crun's exec finds PID 1 by itself; the shim passes"
  start shim c
  init=$(pid_of c)
  # A stranger in a time namespace of its own, under the number that the state file names.
  unshare --time --fork sleep 1000 &
  parent=$!
  PIDS+=("$parent")
  for _ in $(seq $((50 * SLOW))); do stranger=$(cat "/proc/$parent/task/$parent/children"); [[ -n $stranger ]] && break; sleep 0.1; done
  stranger=${stranger% }
  PIDS+=("$stranger")
  cp "$STATE/c/state.json" "$WORK/state.json"
  # As if it had been listed nowhere, so that the shim has to look.
  jq -c --argjson pid "$stranger" '.init_process_pid = $pid | .config.namespaces |= map(select(.type != "NEWTIME"))' \
    "$WORK/state.json" >"$STATE/c/state.json"
  run shim --debug --log "$WORK/log" exec c readlink /proc/self/ns/time
  cp "$WORK/state.json" "$STATE/c/state.json"
  isnt "$status" 0
  [[ $output != *"$(ns_of "$stranger")"* ]] || fail "joined a stranger: $output"
  contains "$(cat "$WORK/log")" "it is not the container's PID 1"
  is "$(pid_of c)" "$init"
}

# The same call with and without the shim: the same words, but for the time of day, and the same exit code.
same_words() { # same_words ARGUMENT...
  local without=0 with=0 words='s/time="[^"]*"//; s/^[0-9T:.-]*Z*//; s/"time":"[^"]*"//'
  bare "$@" >"$WORK/without" 2>&1 || without=$?
  shim "$@" >"$WORK/with" 2>&1 || with=$?
  is "$with" "$without"
  is "$(sed "$words" "$WORK/with")" "$(sed "$words" "$WORK/without")"
}

@test "a container that is gone: the runtime's own words and exit code" {
  same_words exec none true
  # A folder without a state, and no root folder at all.
  mkdir "$STATE/none"
  same_words exec none true
  rm -r "$STATE"
  same_words exec none true
}

@test "a container whose PID 1 has ended: the runtime's own words and exit code" {
  start shim c
  kill -KILL "$(pid_of c)"
  for _ in $(seq $((50 * SLOW))); do [[ $(status_of c) != stopped ]] || break; sleep 0.1; done
  same_words exec c true
  same_words --log "$WORK/log" exec --pid-file "$WORK/pid" c true
}

# As on a kernel before 5.6, or one built without: there is no /proc/PID/ns/time. Of all others, runc wants to see the files.
without_time_namespaces() {
  # shellcheck disable=SC2016  # $$ is the shell's own.
  unshare --mount sh -c 'mount -t tmpfs tmpfs /proc/$$/ns
    for name in cgroup ipc mnt net pid user uts; do ln -s "/proc/$$/task/$$/ns/$name" /proc/$$/ns; done
    exec "$@"' sh "$@"
}

@test "on a kernel without time namespaces exec and inspect work" {
  start bare c
  is "$(without_time_namespaces "$SHIM" --root "$STATE" --log "$WORK/log" exec c sh -c 'echo works')" works
  is "$(cat "$WORK/log")" ""
  run without_time_namespaces "$SHIM" --root "$STATE" exec none true
  bare exec none true 2>"$WORK/without" || is "$status" $?
  contains "${output##*:}" "$(sed 's/.*://' "$WORK/without")"
  run without_time_namespaces "$TNS_BIN/tnsctl" inspect --root "$STATE" c
  is "$status" 0
  contains "$output" "$(pid_of c)"
  contains "$output" "This kernel has no time namespaces"
  run without_time_namespaces "$TNS_BIN/tnsctl" inspect --all --root "$STATE"
  is "$status" 0
  contains "$output" "This kernel has no time namespaces"
  contains "$(grep '^c ' <<<"$output")" "$(pid_of c)"
  run without_time_namespaces "$TNS_BIN/tnsctl" --json inspect --all --root "$STATE"
  is "$(jq -c '.[] | [.id, .verdict]' <<<"$output")" '["c","no_time_namespaces"]'
  run without_time_namespaces "$TNS_BIN/tnsctl" doctor
  contains "$output" "nobody: this kernel has no time namespaces"
}

@test "a state that another user owns or can write: exec joins, as the runtime believes it" {
  start shim c
  init=$(ns_of "$(pid_of c)")
  local state=$STATE/c/state.json
  [[ $TNS_RUNTIME == runc ]] || state=$STATE/c/status
  chmod 664 "$state"
  is "$(exec_ns shim c)" "$init"
  chown -R 1000:1000 "$STATE"
  is "$(exec_ns shim c)" "$init"
  # A file that the runtime reads, and the shim does not.
  sed -i 's/^{/{"init_process_pid":1,"pid":1,/' "$state"
  if [[ $(bare exec c sh -c 'echo works') == works ]]; then is "$(shim --log "$WORK/log" exec c sh -c 'echo works')" works; fi
}

@test "every id that the runtime takes: exec joins, inspect finds it, a mixed tree is refused" {
  mkdir "$WORK/image"
  local id taken=()
  for id in c1 a.b_c+d-e a,b web@1 'a b'; do
    bare run --detach --bundle "$BUNDLE" "$id" </dev/null >/dev/null 2>&1 || continue
    bare delete --force "$id"
    clear_cgroups
    taken+=("$id")
    start shim "$id"
    is "$(exec_ns shim "$id")" "$(ns_of "$(pid_of "$id")")"
    is "$("$TNS_BIN/tnsctl" --json inspect --root "$STATE" "$id" | jq -r '.container.id')" "$id"
    is "$("$TNS_BIN/tnsctl" --json inspect --all --root "$STATE" | jq -r '.[].id')" "$id"
    stray "$id"
    run shim checkpoint --image-path "$WORK/image" "$id"
    isnt "$status" 0
    contains "$output" "sleep 1000"
    bare delete --force "$id"
    clear_cgroups
  done
  contains " ${taken[*]} " " c1 a.b_c+d-e "
  if [[ $TNS_RUNTIME == crun ]] && ! at_least 1.28; then contains "${taken[*]}" "web@1"; fi
  if [[ $TNS_RUNTIME == runc ]] && ! at_least 1.2; then contains "${taken[*]}" "a,b"; fi
  # And no other leads anywhere.
  for id in ../state . .. a/../../b 'x:y'; do same_words exec "$id" true; done
}

@test "what exec reads and writes may lie in the container's own folder" {
  needs_criu
  restored shim c
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  shim exec --detach --pid-file "$STATE/c/pid" c sleep 100 </dev/null >/dev/null 2>&1
  is "$(ns_of "$(cat "$STATE/c/pid")")" "$init"
  # By a name that is relative, and by one that leads there.
  (cd "$STATE/c" && shim exec --detach --pid-file relative c sleep 100 </dev/null >/dev/null 2>&1)
  is "$(ns_of "$(cat "$STATE/c/relative")")" "$init"
  ln -s "$STATE/c" "$WORK/link"
  shim exec --detach --pid-file="$WORK/link/linked" c sleep 100 </dev/null >/dev/null 2>&1
  is "$(ns_of "$(cat "$STATE/c/linked")")" "$init"

  jq '.process | .args = ["readlink", "/proc/self/ns/time"]' "$BUNDLE/config.json" >"$STATE/c/process.json"
  is "$(shim exec --process "$STATE/c/process.json" c)" "$init"
  ln -s "$STATE/c/process.json" "$WORK/process.json"
  is "$(shim exec --process "$WORK/process.json" c)" "$init"

  "$TNS_TOOLS/recvtty" "$STATE/c/console" >"$WORK/tty" &
  PIDS+=($!)
  receiver=$!
  for _ in $(seq $((50 * SLOW))); do [[ -S $STATE/c/console ]] && break; sleep 0.1; done
  shim exec --detach --tty --console-socket "$STATE/c/console" c readlink /proc/self/ns/time </dev/null
  wait "$receiver"
  contains "$(tr -d '\r' <"$WORK/tty")" "$init"

  run shim --log "$STATE/c/log" exec c nonexistent
  isnt "$status" 0
  contains "$(cat "$STATE/c/log")" "nonexistent"
  is "$(exec_ns shim c)" "$init"
}

@test "exec of a restored container in a chroot that is no mount point" {
  needs_criu
  local name jail=$WORK/jail mounts
  mkdir -p "$jail"/{proc,sys,dev,usr,etc,state}
  for name in bin sbin lib lib64; do [[ ! -L /$name ]] || cp -a "/$name" "$jail/$name"; done
  cp "$SHIM" "$jail/"
  # crun restores them nowhere but in /run/crun: see setup.
  edit_config "$BUNDLE" '.linux.maskedPaths = []'
  # Where runc looks for its configuration, and goes.
  mkdir -p "$jail$BUNDLE" "$jail$ROOTFS"
  cp "$BUNDLE/config.json" "$jail$BUNDLE"
  STATE=$jail/state
  restored shim c
  init=$(ns_of "$(pid_of c)")
  isnt "$init" "$HOST_NS"
  # What is unmounted there at the end must stay here.
  for name in proc sys dev usr etc; do
    mount --rbind "/$name" "$jail/$name"
    mount --make-rslave "$jail/$name"
  done
  for kind in shared private; do
    mount "--make-r$kind" /
    mounts=$(cat /proc/self/mountinfo)
    is "$(cd "$jail/usr" && chroot "$jail" "/${SHIM##*/}" --root /state --log /log exec c readlink /proc/self/ns/time)" "$init"
    is "$(cat "$jail/log")" ""
    is "$(cat /proc/self/mountinfo)" "$mounts"
  done
}
