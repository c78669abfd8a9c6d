#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Podman: settings and annotations, the precreate hook, the shim under the runtime's own name, and what Podman prints when
# something is wrong.

load podman

HOOKS=/usr/local/share/tns-shim/hooks.d

setup_file() {
  setup_podman
  setup_rootless
  # As `make install` does it.
  mkdir -p "$HOOKS"
  sed 's|@BINDIR@|/usr/local/bin|' /tns/hooks/tns-shim-precreate.json.in >"$HOOKS/tns-shim-precreate.json"
}

note() { echo "--annotation=org.tns-shim.$1=$2"; }

# The time namespace that PID 1 of a new container sees itself in.
seen_by() { "$1" run --rm "${@:2}" tns readlink /proc/self/ns/time; }

# Hundredths of a second since the container's clocks began, and since the host's did.
uptime_in() { podman exec "$1" cat /proc/uptime | awk '{ print int($1 * 100) }'; }
own_uptime() { awk '{ print int($1 * 100) }' /proc/uptime; }

# Without the complaint of Podman 4 where control groups of version 2 have no controllers, as on some machines of tests.
plainly() { sed '/Failed to add conmon to cgroupfs sandbox cgroup/d'; }

# fails STATUS COMMAND...: $output is what it prints, $last the line of it that Podman calls the error, with all that belongs to it.
# A shell that prints from a container that starts all the same is not waited for.
fails() {
  local expected=$1 status=0
  shift
  "$@" </dev/null >"$WORK/out" 2>&1 || status=$?
  output=$(plainly <"$WORK/out")
  is "$status" "$expected"
  last=$(sed -n '/^Error: /,$p' <<<"$output")
  # What users are left with when nobody has read what the runtime said.
  [[ $last != *"exit status"* && $output != *conmon* && $last != *"internal libpod error"* ]] || fail "$output"
}

# Of what failed, nothing is left in the runtime; Podman itself may keep its name.
nothing_is_left() { is "$("$TNS_RUNTIME" list --quiet)" ''; }

# --- settings and annotations ---

@test "mode: host, private and leave by annotation, and in the file, over which the annotation wins" {
  start shim a "$(note mode host)"
  is "$(ns_of "$(pid_of a)")" "$HOST_NS"
  is "$(exec_ns shim a)" "$HOST_NS"
  start shim b "$(note mode private)"
  whole b 2
  is "$(seen_by shim "$(note mode leave)")" "$HOST_NS"
  for mode in host leave; do
    settings "mode = \"$mode\""
    is "$(seen_by shim)" "$HOST_NS"
    isnt "$(seen_by shim "$(note mode auto)")" "$HOST_NS"
  done
  settings 'mode = "private"'
  start shim c
  whole c 2
}

@test "of a user who is not root: the settings are those in /etc, and mode = host leaves the container on the host's time" {
  rootless load --quiet <"$BATS_FILE_TMPDIR/image.tar"
  rootlessly() { rootless --runtime tns-shim "$@"; }
  isnt "$(seen_by rootlessly)" "$HOST_NS"
  is "$(seen_by rootlessly "$(note mode host)")" "$HOST_NS"
  is "$(seen_by rootlessly "$(note mode leave)")" "$HOST_NS"
  settings 'mode = "host"'
  is "$(seen_by rootlessly)" "$HOST_NS"
  # Podman calls the shim as root of the user's own namespace.
  mkdir -p /home/user/.config/tns-shim
  echo 'mode = "none"' >/home/user/.config/tns-shim/config.toml
  is "$(seen_by rootlessly)" "$HOST_NS"
  rm -r /home/user/.config/tns-shim
  # Not a word of what the shim has tried.
  settings
  rootlessly run --detach --name c tns sh -c "$FIRST" >/dev/null
  noted="$(dirname "$(rootless inspect --format '{{.PidFile}}' c)")/oci-log.tns-shim"
  rootless exec c id >/dev/null
  [[ ! -e $noted ]] || fail "$(cat "$noted")"
  rootless rm --force --time 0 c
}

@test "pods are what they are without settings: each container in its own time namespace, but the one that asks for the host's" {
  shim pod create --share-parent=false --name p
  start shim a --pod p
  start shim b --pod p "$(note mode host)"
  whole a 2
  is "$(ns_of "$(pid_of b)")" "$HOST_NS"
  is "$(exec_ns shim b)" "$HOST_NS"
  is "$(podman pod inspect --format '{{.State}}' p)" Running
  podman pod restart p
  whole a 2
  is "$(ns_of "$(pid_of b)")" "$HOST_NS"
}

@test "uptime = zero: the container's own, before and after it is exported and imported; or an error that names the way out" {
  if ! shifts; then
    fails 126 shim run --rm "$(note uptime zero)" tns uptime
    contains "$last" "tns-shim: the container's annotations ask for clocks of its own, which it cannot be given: "
    contains "$last" "cannot shift a container's clocks, which takes runc 1.2.6 or crun 1.8.4 and later"
    # In the file it is a wish: the container starts, with the host's clocks.
    settings 'uptime = "zero"'
    start shim c
    whole c 2
    (($(uptime_in c) + 100 >= $(own_uptime))) || fail "$(uptime_in c) $(own_uptime)"
    return
  fi
  before=$(own_uptime)
  limit() { echo $(($(own_uptime) - before)); }
  settings 'uptime = "zero"'
  start shim d
  uptime=$(uptime_in d)
  ((uptime >= 0 && uptime <= $(limit))) || fail "$uptime"
  settings
  start shim c "$(note uptime zero)"
  uptime=$(uptime_in c)
  ((uptime >= 0 && uptime <= $(limit))) || fail "$uptime"
  contains "$(podman exec c uptime)" "up 0 min"
  whole c 2
  needs_criu
  podman rm --force --time 0 d
  for cycle in 1 2; do
    sleep 1
    podman container checkpoint --export "$WORK/$cycle.tar" c
    podman rm c
    stopped=$(limit)
    sleep 1
    podman container restore --import "$WORK/$cycle.tar"
    now=$(uptime_in c)
    # Time did not pass while it was away.
    ((now >= uptime + 100 && now <= stopped + $(limit) - stopped - 100)) || fail "cycle $cycle: $uptime $now $stopped $(limit)"
    uptime=$now
    whole c 2
  done
}

@test "offsets are added to the host's clocks" {
  if ! shifts; then
    fails 126 shim run --rm "$(note offset.boottime 86400.5)" tns uptime
    contains "$last" "takes runc 1.2.6 or crun 1.8.4 and later"
    return
  fi
  start shim c "$(note offset.boottime 86400.5)" "$(note offset.monotonic -0.25)"
  of() { awk -v clock="$1" '$1 == clock { printf "%.0f\n", $2 * 1000000000 + $3 }' "/proc/$2/timens_offsets"; }
  is "$(($(of boottime "$(pid_of c)") - $(of boottime self)))" 86400500000000
  is "$(($(of monotonic "$(pid_of c)") - $(of monotonic self)))" -250000000
  whole c 2
}

@test "restore.clocks = host: on the host's time after an import and in place; refused with the numbers if a clock would go back" {
  needs_criu
  start shim c "$(note restore.clocks host)"
  background shim c
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  podman container checkpoint --export "$WORK/c.tar" c
  podman rm c
  podman container restore --import "$WORK/c.tar"
  is "$(namespaces_below "$(pid_of c)" | sort | uniq -c | awk '{ print $1, $2 }')" "3 $HOST_NS"
  is "$(exec_ns shim c)" "$HOST_NS"
  podman rm --force --time 0 c

  # From a machine that was started earlier
  other_machine 1000
  elsewhere podman --runtime tns-shim run --detach --name c "$(note restore.clocks host)" tns sh -c "$FIRST"
  elsewhere podman container checkpoint --export "$WORK/older.tar" c
  elsewhere podman rm c
  fails 125 podman container restore --import "$WORK/older.tar"
  contains "$last" 'Error: OCI runtime error: tns-shim: tns-shim: restore.clocks = "host", and on this host the container'\''s clocks would go back: they would jump by monotonic -9'
  contains "$last" '`continue` lets them go on from the checkpoint, `host-force` restores all the same'
  nothing_is_left
  podman rm --force --time 0 --ignore c

  settings 'restore.clocks = "host"'
  start shim d
  podman container checkpoint d
  podman container restore d
  is "$(namespaces_below "$(pid_of d)" | sort | uniq -c | awk '{ print $1, $2 }')" "2 $HOST_NS"
  # Checkpointed again, and with the container's own clocks.
  podman container checkpoint d
  settings
  podman container restore d
  whole d 2
}

# --- the precreate hook ---

hooked() { podman --runtime "$TNS_RUNTIME" --hooks-dir "$HOOKS" "$@"; }

# The hook takes the least of what the runtimes here can. For this one alone:
name_the_runtime() {
  mkdir "$WORK/hooks"
  jq --arg runtime "$TNS_RUNTIME" '.hook.args += ["--runtime", $runtime]' "$HOOKS/tns-shim-precreate.json" >"$WORK/hooks/named.json"
  HOOKS=$WORK/hooks
}

@test "the hook is not looked at until Podman is told of its folder" {
  is "$(seen_by bare)" "$HOST_NS"
  # Where it would not even start, if it were called.
  is "$(seen_by bare "$(note mode nonsense)")" "$HOST_NS"
  fails 126 hooked run --rm "$(note mode nonsense)" tns id
}

@test "the hook gives containers a time namespace where the runtime makes one, by --hooks-dir and by hooks_dir" {
  name_the_runtime
  start hooked c
  # Only for that call: when it starts again, the hook is not called.
  podman restart --time 0 c
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  podman --hooks-dir "$HOOKS" restart --time 0 c
  printf '%s\n' '[engine]' "hooks_dir = [\"$HOOKS\"]" >/etc/containers/containers.conf.d/99-test.conf
  start bare d
  podman restart --time 0 d
  for container in c d; do
    pid=$(pid_of "$container")
    if declares; then
      one_namespace "$container"
    else
      # As without it, and not a word: Podman throws away what a hook says.
      is "$(ns_of "$pid")" "$HOST_NS"
    fi
    is "$(exec_ns bare "$container")" "$(ns_of "$pid")"
  done
  is "$(bare run --rm tns sh -c : 2>&1 | plainly)" ''
  isnt "$(jq -c '.linux.namespaces' "$(podman inspect --format '{{.OCIConfigPath}}' d)")" null
}

can_declare() { # can_declare RUNTIME
  # shellcheck disable=SC2034 # For `declares`.
  local TNS_RUNTIME=$1 DECLARES='' WORK=$WORK/$1
  # shellcheck disable=SC2034
  local STATE=$WORK/state ROOTFS=$WORK/rootfs
  mkdir "$WORK"
  declares
}

@test "without --runtime the hook declares only what every installed runtime can, so that containers start with each" {
  able=yes
  for runtime in runc crun; do
    if command -v "$runtime" >/dev/null && ! can_declare "$runtime"; then able=no; fi
  done
  for runtime in runc crun; do
    # Debian 12's crun needs CAP_SYS_RESOURCE with control groups of version 2.
    podman --runtime "$runtime" run --rm tns sh -c : >/dev/null 2>&1 || continue
    seen=$(podman --runtime "$runtime" --hooks-dir "$HOOKS" run --rm tns readlink /proc/self/ns/time)
    if [[ $able == yes ]]; then isnt "$seen" "$HOST_NS"; else is "$seen" "$HOST_NS"; fi
  done
}

@test "what the hook refuses, Podman prints with the reason" {
  name_the_runtime
  fails 126 hooked run --rm "$(note mode nonsense)" tns id
  contains "$last" "$TNS_RUNTIME: "
  contains "$last" 'tns-shim: the annotation org.tns-shim.mode in config.json: unknown variant `nonsense`, expected one of `auto`, `private`, `host`, `leave`'
  settings 'mode = "private"'
  if declares; then
    isnt "$(seen_by hooked)" "$HOST_NS"
  else
    fails 126 hooked run --rm tns id
    contains "${last//\\/}" 'tns-shim: mode = "private", and the container cannot be given a time namespace of its own: '
    contains "$last" "and a hook cannot: use tns-shim as the runtime"
  fi
  settings '' 'runtmie = "runc"'
  fails 126 hooked run --rm tns id
  contains "$last" "/etc/tns-shim/config.toml"
  contains "$last" "line 3"
  contains "$last" 'unknown field `runtmie`'
  nothing_is_left
}

@test "the hook's limits: a restored container is the runtime's affair, and no checkpoint is protected" {
  needs_criu
  name_the_runtime
  start hooked c
  stray c 'tail -f /dev/null'
  if declares; then is "$(namespaces_below "$(pid_of c)" | sort -u | wc -l)" 2; fi
  # Podman says that all is well.
  podman container checkpoint --export "$WORK/c.tar" c
  run tnsctl images "$WORK/c.tar"
  if declares; then is "$status" 1; else is "$status" 0; fi
}

# --- what Podman prints when something is wrong ---

@test "a runtime that is not there, and a settings file with a mistake" {
  printf '%s\n' 'runtime = "/nope"' >/etc/tns-shim/config.toml
  fails 126 shim run --rm tns id
  is "$last" "Error: OCI runtime error: tns-shim: tns-shim: the runtime in the settings, /nope, is not there"
  settings 'mode = "auto"' 'runtmie = "runc"'
  fails 126 shim run --rm tns id
  contains "$last" "Error: OCI runtime error: tns-shim: tns-shim: understand /etc/tns-shim/config.toml: line 3: "
  contains "$last" 'runtmie = "runc"'
  contains "$last" 'unknown field `runtmie`'
  settings 'mode = "none"'
  fails 126 shim run --rm tns id
  contains "$last" "line 2"
  contains "$last" 'unknown variant `none`, expected one of `auto`, `private`, `host`, `leave`'
  nothing_is_left
}

@test "an annotation with a mistake, two that contradict each other, and one that cannot be done" {
  fails 126 shim run --rm "$(note mdoe auto)" tns id
  contains "$last" "Error: OCI runtime error: tns-shim: tns-shim: the annotation org.tns-shim.mdoe in config.json: there is no such setting"
  fails 126 shim run --rm "$(note uptime zero)" "$(note mode host)" tns id
  contains "$last" "ask for shifted clocks and for a mode that makes no time namespace: leave one of them out"
  start shim a
  # No runtime that is tested here can do both.
  if [[ $TNS_RUNTIME == crun ]] || ! shifts; then
    fails 126 shim run --rm --pid container:a "$(note uptime zero)" tns id
    contains "$last" "Error: OCI runtime error: tns-shim: tns-shim: the container's annotations ask for clocks of its own, which it cannot be given: "
  fi
}

@test "mode = private where it cannot be: on a runtime that makes none, with a user namespace; where the kernel allows none" {
  if declares; then
    isnt "$(seen_by shim --uidmap=0:100000:1000 "$(note mode private)")" "$HOST_NS"
  else
    fails 126 shim run --rm --uidmap=0:100000:1000 "$(note mode private)" tns id
    contains "$last" 'Error: OCI runtime error: tns-shim: tns-shim: mode = "private", and the container cannot be given a time namespace of its own: '
    contains "$last" "CRIU could not dump a container with a user namespace from one that the shim makes"
  fi
  rootless load --quiet <"$BATS_FILE_TMPDIR/image.tar"
  # In the user's own user namespace alone.
  fails 126 rootless unshare sh -c "echo 0 >/proc/sys/user/max_time_namespaces; exec podman --runtime tns-shim run --rm $(note mode private) tns id"
  contains "$last" 'Error: OCI runtime error: tns-shim: tns-shim: mode = "private", and the container cannot be given a time namespace of its own: '
  contains "$last" "user.max_time_namespaces is 0"
}

@test "a mixed container: the refused checkpoint names the process, and it keeps running" {
  needs_criu
  start shim c
  pid=$(pid_of c)
  stray c 'tail -f /dev/null'
  read -ra children <"/proc/$pid/task/$pid/children" || true
  for child in "${children[@]}"; do
    if [[ $(ns_of "$child") == "$HOST_NS" ]]; then stranger=$child; fi
  done
  for options in '' "--export $WORK/c.tar"; do
    # shellcheck disable=SC2086
    run podman container checkpoint $options c
    is "$status" 125
    contains "$output" "tns-shim: checkpoint of $(podman inspect --format '{{.Id}}' c) refused, the container keeps running: "
    contains "$output" "PID $stranger (tail -f /dev/null) is in the host's time namespace"
    is "$(podman inspect --format '{{.State.Status}} {{.State.Pid}}' c)" "running $pid"
    [[ ! -e $WORK/c.tar ]] || fail "$(ls "$WORK")"
  done
  kill "$stranger"
  wait_for test ! -d "/proc/$stranger"
  podman container checkpoint c
  podman container restore c
  whole c 2
}

@test "a mixed import with restore.mixed = refuse is refused, and the same one is repaired without" {
  needs_criu
  settings 'checkpoint.mixed = "warn"'
  start shim c
  stray c 'tail -f /dev/null'
  is "$(podman container checkpoint --export "$WORK/c.tar" c 2>&1 | plainly)" c
  podman rm c
  settings 'restore.mixed = "refuse"'
  fails 125 podman container restore --import "$WORK/c.tar"
  contains "$last" 'Error: OCI runtime error: tns-shim: tns-shim: restore.mixed = "refuse", and 1 of 3 processes in the checkpoint image are in another time namespace than the first (PID '
  contains "$last" '`tnsctl repair` makes it restorable'
  nothing_is_left
  podman rm --force --time 0 --ignore c
  settings
  podman container restore --import "$WORK/c.tar"
  whole c 3
}

# What the shim has noted of a container, in the folder that Podman removes with it.
noted() { cat "$(dirname "$(podman inspect --format '{{.PidFile}}' "$1")")/oci-log.tns-shim"; }

# Podman understands a log of one entry. With more it shows what conmon has heard of the runtime, which can be nothing.
@test "a warning of the shim's before the runtime's error changes nothing of what Podman prints: create" {
  # Neither runc 1.1, nor crun beside a joined pid namespace.
  [[ $TNS_RUNTIME == crun ]] || ! shifts || skip "this runtime can do all that is asked, and there is no warning"
  settings 'uptime = "zero"'
  start shim base
  for options in '' --tty '--tty --detach'; do
    for command in nope /bin/data; do
      for with in bare shim; do
        status=0
        # shellcheck disable=SC2086 # None, one or two.
        said=$(set -o pipefail; "$with" run --name "$with" --pid container:base $options tns "$command" 2>&1 | plainly) || status=$?
        said=$(grep '^Error: ' <<<"$said" | sed -E "s/(tns-shim|$TNS_RUNTIME): /RUNTIME: /")
        isnt "$said" ''
        [[ $with == bare ]] || is "$status $said" "$without"
        without="$status $said"
      done
      contains "$(noted shim)" '"level":"warning","msg":"tns-shim: create: '
      podman rm --force bare shim
    done
  done
  # So late that conmon with a terminal has heard nothing of crun, and Podman takes what is in the log; unless it has looked before crun
  # has written, which without the shim it does as often.
  for _ in {1..40}; do
    run shim run --rm --tty --pid container:base --ulimit=nofile=5000000000:5000000000 tns id
    is "$status" 126
    [[ $output != *rlimit* ]] || return 0
  done
  fail "$output"
}

@test "the shim's notes before the runtime's error change nothing of what Podman prints: restore" {
  needs_criu
  for with in bare shim; do
    start "$with" "$with"
    podman container checkpoint --keep "$with"
    # What the shim does not read.
    : >"$(userdata "$with")/checkpoint/core-1.img"
    status=0
    said=$(set -o pipefail; podman container restore --keep "$with" 2>&1 | plainly) || status=$?
    said=$(sed -E "s/(tns-shim|$TNS_RUNTIME): /RUNTIME: /; s/[0-9a-f]{64}/ID/g; s/\([0-9.]+\)/(SECONDS)/" <<<"$said")
    contains "$said" 'Error: '
    [[ $with == bare ]] || is "$status $said" "$expected"
    expected="$status $said"
    clear_cgroups
  done
  contains "$(noted shim)" '"level":"info","msg":"tns-shim: '
}

# --- other names ---

@test "as runc or crun in front of the real one, for Podman's own runtimes and with what it keeps of the environment" {
  mkdir "$WORK/bin"
  ln -s "$SHIM_PATH" "$WORK/bin/$TNS_RUNTIME"
  real=$(command -v "$TNS_RUNTIME")
  printf '%s\n' '[engine]' "runtime = \"$TNS_RUNTIME\"" '[engine.runtimes]' "$TNS_RUNTIME = [\"$WORK/bin/$TNS_RUNTIME\", \"$real\"]" \
    >/etc/containers/containers.conf.d/99-test.conf
  # The name is the last word, not the file.
  printf '%s\n' 'runtime = "/nope"' >/etc/tns-shim/config.toml
  is "$(podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}')" "$TNS_RUNTIME $WORK/bin/$TNS_RUNTIME"
  for path in "$PATH" "$WORK/bin:$PATH"; do
    PATH=$path podman run --detach --name c tns sh -c "$FIRST"
    is "$(podman inspect --format '{{.OCIRuntime}}' c)" "$TNS_RUNTIME"
    pid=$(pid_of c)
    one_namespace c
    is "$(PATH=$path podman exec c readlink /proc/self/ns/time)" "$(ns_of "$pid")"
    if [[ -z $(lack_of_criu) ]]; then
      PATH=$path podman exec c sh -c 'tail -f /dev/null >/dev/null 2>&1 &'
      PATH=$path podman container checkpoint c
      PATH=$path podman container restore c
      whole c 3
    fi
    podman rm --force --time 0 c
  done
  # What was made by the bare runtime under that name goes on with the shim behind it.
  rm /etc/containers/containers.conf.d/99-test.conf
  start bare d
  printf '%s\n' '[engine.runtimes]' "$TNS_RUNTIME = [\"$WORK/bin/$TNS_RUNTIME\"]" >/etc/containers/containers.conf.d/99-test.conf
  is "$(exec_ns bare d)" "$(ns_of "$(pid_of d)")"
  podman restart --time 0 d
  one_namespace d
  # Nothing but the shim in PATH.
  mkdir "$WORK/only"
  cp "$SHIM_PATH" "$WORK/only/$TNS_RUNTIME"
  fails 126 env PATH="$WORK/only" "$(command -v podman)" --runtime "$TNS_RUNTIME" run --rm tns id
  contains "$last" "called as $WORK/bin/$TNS_RUNTIME, so the runtime to wrap is $TNS_RUNTIME: the only $TNS_RUNTIME in PATH ($WORK/only) is tns-shim itself"
}
