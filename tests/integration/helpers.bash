# SPDX-License-Identifier: Apache-2.0
# What every test here stands on: a bundle, a runtime with and without the shim, and an end without residue.
#
# The environment says what is tested: TNS_RUNTIME (runc or crun, as installed in the stack), TNS_BIN (folder of the built
# binaries), TNS_TOOLS (folder of the compiled test tools), TNS_HOW (`nested` if this is in a time namespace with offsets).

# What is here ends every process in every control group that it sees, so it must see none but its own.
case $(</proc/sys/kernel/hostname) in
  # A stack; a machine that tests/vm has booted; and what `enter host` shows of one.
  tns-debian-* | tns-machine | tns-host) ;;
  *)
    echo "these tests run only in a stack: make integration, or tests/integration/run" >&2
    exit 1
    ;;
esac

# How many times longer than on a machine of today anything may take. A machine without a virtual processor says so.
SLOW=${TNS_SLOW:-1}

# Before Linux 5.13 the kernel does not tell CRIU about the restartable sequences that every program of glibc 2.35 and later asks for:
# those here ask for none, in containers and outside.
kernel_at_least() { [[ $(printf '%s\n' "$1" "$(uname -r)" | sort -V | head -n 1) == "$1" ]]; }
if ! kernel_at_least 5.13; then export GLIBC_TUNABLES=glibc.pthread.rseq=0; fi

# Both are the real thing; `shim` has tns-shim in front, under the name that says which runtime it wraps.
bare() { "$TNS_RUNTIME" --root "$STATE" "$@"; }
shim() { "$SHIM" --root "$STATE" "$@"; }

setup() {
  tell_of_second_try
  note_what_is_there
  WORK=$(mktemp -d /tmp/tns.XXXXXX)
  STATE=$WORK/state
  # Anywhere else crun cannot restore maskedPaths, with or without the shim: https://github.com/containers/crun/issues/2239
  if [[ $TNS_RUNTIME == crun ]]; then STATE=/run/crun; fi
  BUNDLE=$WORK/bundle
  ROOTFS=$WORK/rootfs
  SHIM=$WORK/tns-shim-$TNS_RUNTIME
  cp "$TNS_BIN/tns-shim" "$SHIM"
  # None on a kernel without time namespaces.
  HOST_NS=$(readlink /proc/self/ns/time) || true
  mkdir -p "$STATE" "$BUNDLE"
  make_rootfs "$ROOTFS"
  PIDS=()
  make_config "$BUNDLE"
}

# A test that fails is tried once more, because engines and CRIU have races of their own under load; `run` lists those, and allows
# for few. What the first try said is not lost.
# shellcheck disable=SC2034
BATS_TEST_RETRIES=1
tell_of_second_try() {
  ((${BATS_TEST_TRY_NUMBER:-1} > 1)) || return 0
  echo "# second try: $BATS_TEST_DESCRIPTION"
  sed 's/^/#   /' "$BATS_FILE_TMPDIR/said-$BATS_TEST_NUMBER" || true
} >&3

make_rootfs() { # make_rootfs FOLDER
  local name
  mkdir -p "$1"/{bin,proc,dev,sys,tmp,mnt}
  cp /bin/busybox "$1/bin/busybox"
  for name in sh sleep readlink cat kill ls tail tty id uptime; do ln -s busybox "$1/bin/$name"; done
}

teardown() { end_all /; }

# Whatever a test has come to, nothing of it reaches the next one. No variable is asked that a test could have changed. What there is
# of files is the stack's own, which is thrown away anyway.
end_all() { # end_all FOLDER: of mounts only those below it
  if [[ -z $BATS_TEST_COMPLETED ]]; then cp "$BATS_OUT" "$BATS_FILE_TMPDIR/said-$BATS_TEST_NUMBER"; fi
  cd /
  # First, because a runtime may wait for what is frozen.
  clear_cgroups
  remove_containers
  end_processes
  clear_cgroups
  clear_mounts "$1"
  rm -rf /tmp/tns.* /etc/tns-shim /run/{tns-shim,runc,crun} /run/user/*/tns-shim /home/user/.config/tns-shim
}

# A whole machine, where systemd starts things of its own at any time; else all that comes is of a test.
with_systemd() { [[ ${TNS_HOW:-} == systemd ]]; }

note_what_is_there() {
  find /sys/fs/cgroup -mindepth 1 -type d >"$BATS_TEST_TMPDIR/cgroups"
  printf '%s\n' /proc/[0-9]* >"$BATS_TEST_TMPDIR/processes"
  cat /proc/self/mountinfo >"$BATS_TEST_TMPDIR/mounts"
}

remove_containers() {
  local folder
  for folder in /tmp/tns.*/state/*/ /run/{runc,crun}/*/; do
    [[ -d $folder ]] || continue
    timeout $((10 * SLOW)) "$TNS_RUNTIME" --root "$(dirname "$folder")" delete --force "$(basename "$folder")" >/dev/null 2>&1 || true
    rm -rf "$folder"
  done
}

# Every process that has come since, wherever it has got to, but for bats' own timer: a shell, in some releases one below that, and a
# sleep, after whose end the shell would end the test.
end_processes() {
  local folder stat parent left words
  local -A before
  while read -r folder; do before[$folder]=; done <"$BATS_TEST_TMPDIR/processes"
  for _ in {1..50}; do
    left=()
    for folder in /proc/[0-9]*; do
      if [[ -v before[$folder] ]] || ! read -r stat <"$folder/stat"; then continue; fi
      read -r stat parent _ <<<"${stat##*) }"
      [[ $stat != Z ]] || continue
      # The kernel's own are children of its thread 2, and come and go.
      if with_systemd && { ((parent == 2)) || is_of_a_service "$folder"; }; then continue; fi
      if [[ -v before[/proc/$parent] ]] && read -r stat <"/proc/$parent/stat" && read -r _ parent _ <<<"${stat##*) }" &&
        ((parent == $$)); then continue; fi
      words=()
      mapfile -d '' words <"$folder/cmdline"
      [[ ${words[*]} != "sleep ${BATS_TEST_TIMEOUT:-}" ]] || continue
      left+=("${folder#/proc/}")
    done 2>/dev/null
    ((${#left[@]})) || return 0
    kill -KILL "${left[@]}" 2>/dev/null || true
    sleep 0.1
  done
  echo "# processes are left: ${left[*]}"
}

# Of a service of systemd's that is not the tests' own. containerd's shims are in the control group of whatever service has begun them.
is_of_a_service() { # is_of_a_service /proc/PID
  [[ $(<"$1/comm") != containerd-shim* ]] && grep -vE '/tns-tests\.service' "$1/cgroup" | grep -qE '\.service(/|$)|/init\.scope$'
}

# Mounts that have come since, the last one first; and mounts are shared again, if they were.
clear_mounts() { # clear_mounts FOLDER
  local target
  while read -r target; do
    target=$(printf %b "$target")
    umount "$target" || umount --lazy "$target" || true
  done < <(awk -v below="$1" 'NR == FNR { there[$1, $5]; next } !(($1, $5) in there) && index($5, below) == 1 { print $5 }' \
    "$BATS_TEST_TMPDIR/mounts" /proc/self/mountinfo | tac)
  if [[ $(root_is_shared "$BATS_TEST_TMPDIR/mounts") != "$(root_is_shared /proc/self/mountinfo)" ]]; then mount --make-rshared /; fi
}
root_is_shared() { awk '$5 == "/" { print / shared:/ ? "yes" : "no" }' "$1" | tail -n 1; }

containers_cgroups() {
  if with_systemd; then
    # Slices are systemd's, which removes them when it likes.
    find /sys/fs/cgroup -mindepth 1 -depth -type d | grep -vxFf "$BATS_TEST_TMPDIR/cgroups" | grep -vE '\.slice$|/init\.scope|\.service(/|$)' || true
  else
    find /sys/fs/cgroup -mindepth 1 -depth -type d ! -name init ! -exec mountpoint -q {} \; -print
  fi
}

# What a container or a failed restore has left: the next container of that name could not start there. The control groups
# that this process sees are all of this test; `init` is where it is itself.
clear_cgroups() {
  local left folder pid
  for _ in $(seq 50); do
    mapfile -t left < <(containers_cgroups)
    ((${#left[@]})) || return 0
    for folder in "${left[@]}"; do
      # What is frozen does not even die.
      echo 0 >"$folder/cgroup.freeze" || true
      echo THAWED >"$folder/freezer.state" || true
      # systemd removes some of them itself, at any moment.
      while read -r pid; do kill -KILL "$pid" || true; done <"$folder/cgroup.procs" || true
      rmdir "$folder" || true
    done 2>/dev/null
    sleep 0.1
  done
  echo "# control groups are left: ${left[*]}"
}

# The runtime's own default configuration. PID 1 has a child and reaps those that are handed to it; tail survives a restore,
# which a busybox sleep does not. Nothing forks at a checkpoint: under load CRIU can lose patience with a task in vfork.
make_config() {
  local bundle=$1
  (cd "$bundle" && rm -f config.json && "$TNS_RUNTIME" spec)
  # shellcheck disable=SC2016  # $rootfs is jq's.
  edit_config "$bundle" '
    .process.terminal = false | .root = {path: $rootfs, readonly: false} | .hostname = "tns"
    | .process.env += [env.GLIBC_TUNABLES | select(. != null) | "GLIBC_TUNABLES=\(.)"]
    | .process.args = ["sh", "-c", "tail -f /dev/null & while :; do wait; done"]
    | .linux.namespaces |= map(select(.type != "cgroup"))'
}

settings() { # settings LINE...
  mkdir -p /etc/tns-shim
  printf '%s\n' "$@" >/etc/tns-shim/config.toml
}

# edit_config BUNDLE JQ-FILTER
edit_config() {
  jq --arg rootfs "$ROOTFS" "$2" "$1/config.json" >"$1/config.json.new"
  mv "$1/config.json.new" "$1/config.json"
}

# Output goes nowhere: the container's standard files must not be files outside of it, or CRIU refuses.
start() { # start bare|shim ID [BUNDLE]
  "$1" --log "$WORK/start.log" run --detach --bundle "${3:-$BUNDLE}" "$2" </dev/null >/dev/null 2>&1 ||
    fail "$1 run $2: $(cat "$WORK/start.log")"
}

checkpoint() { # checkpoint bare|shim ID IMAGE [OPTION...]
  local with=$1 id=$2 image=$3
  shift 3
  mkdir -p "$WORK/$image" "$WORK/work-$image"
  "$with" checkpoint --image-path "$WORK/$image" --work-path "$WORK/work-$image" "$@" "$id"
}

restore() { # restore bare|shim ID IMAGE [BUNDLE]
  mkdir -p "$WORK/work-$3"
  "$1" restore --detach --image-path "$WORK/$3" --work-path "$WORK/work-$3" --bundle "${4:-$BUNDLE}" "$2" </dev/null >/dev/null 2>&1
}

pid_of() { bare state "$1" | jq .pid; }
ns_of() { readlink "/proc/$1/ns/time"; }
status_of() { bare state "$1" 2>/dev/null | jq -r .status; }
# The namespace that an exec'd process is in, as it sees it itself.
exec_ns() { "$1" exec "$2" readlink /proc/self/ns/time; }

# A child of an exec that outlives it, and so belongs to the tree that CRIU dumps.
background() { # background bare|shim ID
  "$1" exec "$2" sh -c 'tail -f /dev/null >/dev/null 2>&1 &'
}

# Every process below PID: one namespace a line.
namespaces_below() {
  local child
  ns_of "$1" 2>/dev/null || return 0
  cat "/proc/$1"/task/*/children 2>/dev/null | tr ' ' '\n' | while read -r child; do
    [[ -z $child ]] || namespaces_below "$child"
  done
}

# A process put in from outside, as a debugger or an agent would be, on the host's time. In all else (control groups,
# network, session) it belongs to the container, or CRIU would stumble over it for those reasons.
stray() { # stray ID [COMMAND]; a busybox sleep, for instance, ends at restore
  local pid command=${2:-sleep 1000}
  pid=$(pid_of "$1")
  (
    while IFS=: read -r _ controllers path; do
      echo "$BASHPID" 2>/dev/null >"/sys/fs/cgroup/${controllers#name=}$path/cgroup.procs" || true
    done <"/proc/$pid/cgroup"
    # Files that lie outside of the container: CRIU refuses them.
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if ((fd > 2)); then exec {fd}>&- || true; fi
    done
    exec nsenter --target "$pid" --mount --uts --ipc --net --pid -- \
      /bin/sh -c "exec busybox setsid $command </dev/null >/dev/null 2>&1 &"
  )
  # It is called as the shell until it has become what it is to be.
  for _ in $(seq $((50 * SLOW))); do pgrep --exact --full --ns "$pid" --nslist pid "$command" >/dev/null && return; sleep 0.1; done
  fail "no $command in $1"
}

# A machine that was started so many seconds earlier than this one. There is none that was started later: no clock reads less
# than zero, and this machine may have been started a moment ago. What is to come to a younger machine, comes here from there.
other_machine() { # other_machine SECONDS
  local monotonic boottime child
  { read -r _ monotonic _; read -r _ boottime _; } </proc/self/timens_offsets
  unshare --time --monotonic $((monotonic + $1)) --boottime $((boottime + $1)) --fork --kill-child -- sleep 1000 &
  PIDS+=($!)
  for _ in $(seq $((50 * SLOW))); do
    read -r child _ <"/proc/$!/task/$!/children" || true
    THERE=/proc/${child:-self}/ns/time
    [[ $(readlink "$THERE") == "$HOST_NS" ]] || break
    sleep 0.1
  done
}
elsewhere() { nsenter --time="$THERE" -- "$@"; }

# Everything about every file of an image: content, inode, mode, owner, times of change.
snapshot() { (cd "$1" && find . -printf '%y %P %i %m %U %G %T@ %C@\n' | sort && find . -type f -exec sha256sum {} + | sort); }

runtime_version() { "$TNS_RUNTIME" --version | head -n 1 | awk '{ print $3 }'; }
at_least() { [[ $(printf '%s\n%s\n' "$1" "$(runtime_version)" | sort -V | head -n 1) == "$1" ]]; }

# Abilities, asked of the real runtime by trying, never by its version.
declares() {
  if [[ -z ${DECLARES:-} ]]; then
    local bundle=$WORK/try-declared
    mkdir "$bundle"
    [[ -d $ROOTFS ]] || make_rootfs "$ROOTFS"
    make_config "$bundle"
    edit_config "$bundle" '.linux.namespaces += [{type: "time"}] | .process.args = ["sh", "-c", ":"]'
    # crun 1.8.1 kills the wrong process when it fails at this, so it is not even tried there.
    if [[ $TNS_RUNTIME == crun ]] && ! at_least 1.8.4; then
      DECLARES=no
    elif "$TNS_RUNTIME" --root "$STATE" run --bundle "$bundle" try-declared </dev/null >/dev/null 2>&1; then
      DECLARES=yes
    else
      DECLARES=no
    fi
  fi
  [[ $DECLARES == yes ]]
}

# Why nothing can be checkpointed, if so.
lack_of_criu() {
  if [[ $TNS_RUNTIME == crun ]] && ! crun --version | grep -q '+CRIU'; then
    echo "this crun is built without CRIU"
  elif ! criu check --feature timens >/dev/null 2>&1; then
    echo "no CRIU that runs here"
  # Which sees too late what it lacks on an old kernel.
  elif ! criu check --feature get_rseq_conf >/dev/null 2>&1 && ! cycles; then
    echo "before Linux 5.13 this CRIU does not restore a program of this machine's C library, without the shim either"
  fi
}

# Whether a container of the runtime alone can be checkpointed and restored, asked by trying, once a file.
cycles() {
  local answer=$BATS_FILE_TMPDIR/cycles
  if [[ ! -e $answer ]]; then
    echo no >"$answer"
    if start bare try-cycle && checkpoint bare try-cycle try-cycle && restore bare try-cycle try-cycle &&
      [[ $(status_of try-cycle) == running ]]; then echo yes >"$answer"; fi >/dev/null 2>&1
    bare delete --force try-cycle >/dev/null 2>&1 || true
    clear_cgroups
  fi
  [[ $(<"$answer") == yes ]]
}

# Which runtimes can shift clocks, asked of the runtime: exec is what failed in runc 1.2.
shifts() {
  declares || return 1
  local bundle=$WORK/try-shifted works=no
  mkdir -p "$bundle"
  make_config "$bundle"
  edit_config "$bundle" '.linux.namespaces += [{type: "time"}] | .linux.timeOffsets = {monotonic: {secs: 1, nanosecs: 0}, boottime: {secs: 1000, nanosecs: 0}}'
  if "$TNS_RUNTIME" --root "$STATE" run --detach --bundle "$bundle" try-shifted </dev/null >/dev/null 2>&1 &&
    "$TNS_RUNTIME" --root "$STATE" exec try-shifted id >/dev/null; then works=yes; fi
  "$TNS_RUNTIME" --root "$STATE" delete --force try-shifted >/dev/null 2>&1 || true
  [[ $works == yes ]]
}

needs_criu() {
  local lack
  lack=$(lack_of_criu)
  [[ -z $lack ]] || skip "$lack"
}

fail() {
  printf '%s\n' "$@" >&2
  return 1
}

# Assertions that say what they saw.
is() { [[ $1 == "$2" ]] || fail "expected: $2" "     got: $1"; }
isnt() { [[ $1 != "$2" ]] || fail "expected anything but: $2"; }
contains() { [[ $1 == *"$2"* ]] || fail "expected to contain: $2" "                got: $1"; }

# Exactly one namespace in the container, and not the host's.
one_namespace() {
  local pid all
  pid=$(pid_of "$1")
  all=$(namespaces_below "$pid" | sort -u)
  is "$all" "$(ns_of "$pid")"
  isnt "$all" "$HOST_NS"
}
