# SPDX-License-Identifier: Apache-2.0
# What the engines' tests share, on top of what all tests stand on: the shim installed as a user would, an image, and an end
# without residue. TNS_RUNTIME is the runtime that the engine is given, bare and behind the shim.
#
# A test file defines, in the words of its engine: `bare` and `shim` (the engine's command with that runtime for what it
# starts), `start`, `pid_of`, `in_container`, and `remove_all`; `start_engine` where there is a daemon; `tidy` for what else it may leave.
# shellcheck disable=SC2034,SC2119,SC2120  # The test files read what is set here, and call with arguments what takes some.

load ../integration/helpers

# What PID 1 of a container is here: it reaps, its child survives a restore, and nothing forks at a checkpoint.
FIRST='tail -f /dev/null & while :; do wait; done'
# As `make install` does it, where engines look, with a settings file that says which runtime.
SHIM_PATH=/usr/local/bin/tns-shim
# The files for the engines that users are given.
CONTRIB=/tns/contrib

install_shim() {
  install -m 755 "$TNS_BIN/tns-shim" "$TNS_BIN/tnsctl" "$(dirname "$SHIM_PATH")"
  ln -sf tns-shim "$SHIM_PATH-runc"
  ln -sf tns-shim "$SHIM_PATH-crun"
  settings
}

# The settings file. It says which runtime is tested, unless the first line is of another one.
settings() { # settings [LINE...]
  mkdir -p /etc/tns-shim
  {
    [[ ${1:-} == runtime* ]] || echo "runtime = \"$TNS_RUNTIME\""
    if (($#)); then printf '%s\n' "$@"; fi
  } >/etc/tns-shim/config.toml
}

# A snippet at the end of the configuration that the distribution has put there.
append_to_containerd() { # append_to_containerd FILE
  local config=/etc/containerd/config.toml
  [[ -e $config.distribution ]] || cp "$config" "$config.distribution"
  cat "$config.distribution" "$1" >"$config"
}

# An image that every engine can load: the format of `docker save`.
make_image() { # make_image FILE [NAME]
  local folder sum
  folder=$(mktemp -d)
  make_rootfs "$folder/rootfs"
  mkdir "$folder/rootfs/etc"
  printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'user:x:1000:1000:user:/:/bin/sh' >"$folder/rootfs/etc/passwd"
  printf '%s\n' 'root:x:0:' 'user:x:1000:' >"$folder/rootfs/etc/group"
  # Made by hand and not by mode bits of the stack's: not executable, for the errors.
  echo 'not a program' >"$folder/rootfs/bin/data"
  chmod 644 "$folder/rootfs/bin/data"
  tar -C "$folder/rootfs" -cf "$folder/layer.tar" .
  sum=$(sha256sum <"$folder/layer.tar")
  # A command of its own is what containerd's pods take it for.
  jq -n --arg architecture "$(dpkg --print-architecture)" --arg layer "sha256:${sum%% *}" \
    '{$architecture, os: "linux", config: {Env: ["PATH=/bin"], Cmd: ["tail", "-f", "/dev/null"]},
      rootfs: {type: "layers", diff_ids: [$layer]}, history: [{}]}' >"$folder/config.json"
  jq -n --arg name "${2:-tns:latest}" '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$folder/manifest.json"
  tar -C "$folder" -cf "$1" manifest.json config.json layer.tar
  rm -rf "$folder"
}

setup() {
  tell_of_second_try
  # A daemon that a test has brought down.
  if [[ -e $BATS_FILE_TMPDIR/engine.pid && ! -d /proc/$(<"$BATS_FILE_TMPDIR/engine.pid") ]]; then start_engine; fi
  note_what_is_there
  WORK=$(mktemp -d /tmp/tns.XXXXXX)
  # For what is asked of the runtime itself.
  STATE=$WORK/state
  ROOTFS=$WORK/rootfs
  # None on a kernel without time namespaces.
  HOST_NS=$(readlink /proc/self/ns/time) || true
  PIDS=()
}

# What the engine does not clean up fails the test, and is ended all the same: the next one must not find it.
teardown() {
  local pid clean=yes
  remove_all >/dev/null 2>&1 || true
  for pid in "${PIDS[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  clear_cgroups
  wait_for nothing_left || clean=no
  # An engine has mounts of its own for as long as it runs.
  end_all /tmp/tns.
  if declare -F tidy >/dev/null; then tidy; fi
  settings
  [[ $clean == yes ]]
}

# Neither processes of containers, nor those that engines keep beside them.
nothing_left() { ! pgrep --list-full 'tail|conmon|containerd-shim|catatonit|criu|runc|crun|tns-shim'; }

# containerd leaves its own shim of a container that could not be restored.
end_shims() {
  for _ in $(seq 20); do
    pgrep containerd-shim >/dev/null || return 0
    sleep 0.1
  done
  pgrep containerd-shim | xargs --no-run-if-empty kill -KILL
}

exec_ns() { in_container "$1" "$2" readlink /proc/self/ns/time; }

# A child of an exec that outlives it, and so belongs to the tree that CRIU dumps.
background() { in_container "$1" "$2" sh -c 'tail -f /dev/null >/dev/null 2>&1 &'; }

processes() { namespaces_below "$(pid_of "$1")" | wc -l; }
has() { [[ $(processes "$1") == "$2" ]]; }

# Everything of container $1 lives, that is $2 processes, in one time namespace; and an exec is in it, too.
whole() {
  # An engine returns before the last of them has started.
  wait_for has "$@"
  is "$(processes "$1")" "$2"
  one_namespace "$1"
  is "$(exec_ns shim "$1")" "$(ns_of "$(pid_of "$1")")"
}


# The same command without and with the shim ends with the same status, and says the same but for the runtime's name.
alike() { # alike STATUS|- COMMAND...: `with` in the command stands for `bare`, then `shim`
  local expected=$1 with status seen said
  shift
  for with in bare shim; do
    status=0
    seen=$("${@/#with/"$with"}" 2>&1) || status=$?
    seen=$(plain "$seen")
    [[ $expected == - ]] || is "$status" "$expected"
    expected=$status
    [[ $with == bare ]] || is "$seen" "$said"
    said=$seen
  done
}

# What both say, without what differs by chance: Docker's client of 20.10 adds a line now and then; and crun opens no log to say
# that it does not know an option, where the shim has already noted something else.
plain() { sed -E "s/unable to retrieve OCI runtime error \(open [^)]*\): //; /error waiting for container: context canceled/d; s/time=\"[^\"]*\"/time/; s/(tns-shim|$TNS_RUNTIME): /RUNTIME: /; s,/[a-z/]*/(tns-shim|$TNS_RUNTIME) ,RUNTIME ,g; s/[0-9a-f]{64}|[0-9a-f]{12}|(bare|shim)-c+/ID/g" <<<"$1"; }

# Can this engine, with this runtime and no shim, checkpoint and restore a container at all? A file that asks defines `cycle`,
# and one of its tests is that the shim changes nothing about the answer.
needs_checkpoints() {
  needs_criu
  local answer=$BATS_FILE_TMPDIR/checkpoints
  if [[ ! -e $answer ]]; then
    if cycle bare probe >"$answer.log" 2>&1; then echo yes >"$answer"; else echo no >"$answer"; fi
    remove_all >/dev/null 2>&1 || true
    clear_cgroups
  fi
  [[ $(<"$answer") == yes ]] || skip "this engine cannot restore this $TNS_RUNTIME's checkpoints, without the shim either"
}

wait_for() { # wait_for COMMAND...
  local said limit=$((10 * SLOW)) begun=$SECONDS
  until said=$("$@" 2>&1); do
    ((SECONDS - begun <= limit)) || fail "not within $limit s: $*" "$said" || return
    sleep 0.1
  done
}

stop_daemon() { # stop_daemon FILE-WITH-ITS-PID
  local pid
  pid=$(<"$1")
  kill "$pid"
  wait_for test ! -d "/proc/$pid"
}
