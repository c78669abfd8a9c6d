#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Podman with the shim as its runtime.

load podman

setup_file() {
  setup_podman
  setup_rootless
  # --userns=auto takes its ranges from this user's.
  if ! id containers >/dev/null 2>&1; then
    useradd --system containers
    usermod --add-subuids 400000-500000 --add-subgids 400000-500000 containers
  fi
}

@test "run and exec: plain, with a terminal, detached, as a user, in a folder" {
  is "$(shim run --rm tns readlink /proc/self/ns/time | grep -c time)" 1
  start shim c
  one_namespace c
  pid=$(pid_of c)
  is "$(exec_ns shim c)" "$(ns_of "$pid")"
  contains "$(podman exec --tty c sh -c 'tty; readlink /proc/self/ns/time')" /dev/pts/
  contains "$(podman exec --tty c sh -c 'tty; readlink /proc/self/ns/time')" "$(ns_of "$pid")"
  is "$(echo hello | podman exec --interactive c cat)" hello
  podman exec --detach c sh -c 'readlink /proc/self/ns/time >/tmp/detached'
  wait_for podman exec c ls /tmp/detached
  is "$(podman exec c cat /tmp/detached)" "$(ns_of "$pid")"
  is "$(podman exec --user user c sh -c 'id -u; readlink /proc/self/ns/time')" "1000"$'\n'"$(ns_of "$pid")"
  is "$(podman exec --workdir /mnt c sh -c 'readlink /proc/self/cwd')" /mnt
  run podman exec c sh -c 'exit 42'
  is "$status" 42
  run shim run --rm tns sh -c 'exit 43'
  is "$status" 43
}

@test "under the name that says which runtime" {
  podman --runtime "tns-shim-$TNS_RUNTIME" run --detach --name c tns sh -c "$FIRST"
  one_namespace c
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
  contains "$(podman --runtime "tns-shim-$TNS_RUNTIME" info --format '{{.Host.OCIRuntime.Version}}')" "$TNS_RUNTIME version"
}

@test "inspect, logs, top, stats, pause, restart, kill, wait, rm" {
  start shim c
  is "$(podman inspect --format '{{.OCIRuntime}} {{.State.Status}}' c)" "tns-shim running"
  start shim talks --env A=B
  shim run --name says tns sh -c 'id -u; ls /none' || true
  contains "$(podman logs says 2>&1)" 0
  contains "$(podman logs says 2>&1)" /none
  contains "$(podman top c)" tail
  run podman stats --no-stream --format '{{.Name}}' c
  is "$status" 0
  contains "$output" c
  podman pause c
  is "$(podman inspect --format '{{.State.Status}}' c)" paused
  podman unpause c
  before=$(pid_of c)
  podman restart --time 0 c
  isnt "$(pid_of c)" "$before"
  whole c 2
  podman kill c
  is "$(podman wait c)" 137
  podman rm c
  podman rm --force --time 0 talks
  run podman inspect talks
  isnt "$status" 0
}

@test "errors reach the user as they do without the shim" {
  alike 127 with run --rm tns nope
  alike 126 with run --rm tns /bin/data
  alike 126 with run --rm --ulimit nofile=5000000000:5000000000 tns sh -c :
  start bare bare-c
  start shim shim-c
  alike 127 podman exec with-c nope
  alike 126 podman exec with-c /bin/data
  alike 127 podman exec --workdir /nope with-c id
  alike - podman exec --user nobody-there with-c id
}

@test "the drop-in leaves what was there: the runtimes without the shim still say their errors" {
  said=$(bare run --rm tns nope 2>&1 || true)
  contains "$said" "Error: $TNS_RUNTIME: "
  [[ $said != *level=error* ]] || fail "$said"
}

@test "in pods, with and without the pod's own process" {
  # Without control groups of the pod's own, for which Podman 4 needs controllers in version 2.
  shim pod create --share-parent=false --name p
  start shim a --pod p
  start shim b --pod p
  whole a 2
  whole b 2
  shim pod create --share-parent=false --name q --infra=false
  start shim d --pod q
  whole d 2
}

@test "--pid host: the host's pid namespace, and a time namespace of its own" {
  start shim a --pid host
  is "$(readlink "/proc/$(pid_of a)/ns/pid")" "$(readlink /proc/self/ns/pid)"
  whole a 2
}

@test "--pid container: both in their own time namespaces, exec agrees with PID 1" {
  start shim a
  start shim b --pid container:a
  is "$(readlink "/proc/$(pid_of b)/ns/pid")" "$(readlink "/proc/$(pid_of a)/ns/pid")"
  whole a 2
  whole b 2
}

@test "--uidmap and --userns=auto: exec agrees with PID 1" {
  for option in --uidmap=0:100000:1000 --userns=auto:size=1000; do
    start shim c "$option"
    pid=$(pid_of c)
    isnt "$(readlink "/proc/$pid/ns/user")" "$(readlink /proc/self/ns/user)"
    is "$(exec_ns shim c)" "$(ns_of "$pid")"
    # The namespace must belong to the container's user namespace, or CRIU could not dump it: only the runtime can make such a one.
    if declares; then one_namespace c; else is "$(ns_of "$pid")" "$HOST_NS"; fi
    podman rm --force --time 0 c
  done
}

@test "with a user namespace, checkpoint and restore end as they do without the shim" {
  needs_criu
  for with in bare shim; do
    start "$with" "$with-c" --uidmap=0:100000:1000
    status=0 said=''
    podman container checkpoint --keep "$with-c" || status=1
    ((status)) || said=$(podman container restore --keep "$with-c" 2>&1) || status=2
    # Podman gives the container no network again, where it had one.
    if [[ $said == *"failed to bind mount ns"* ]]; then status=3; fi
    is "${expected:-$status}" "$status"
    expected=$status
    # Known: CRIU opens files of runc's image after it has become the container's root, who may not. crun does not tell CRIU of
    # the devices that it mounts for a container that cannot make them.
    case $status in
      3) ;;
      1) contains "$(cat "$(userdata "$with-c")/dump.log")" "doesn't have a proper root mount" ;;
      2) grep -E 'Unable to open .*[.]img: Permission denied' "$(userdata "$with-c")/restore.log" ;;
      *) is "$(exec_ns "$with" "$with-c")" "$(ns_of "$(pid_of "$with-c")")" ;;
    esac
    clear_cgroups
  done
}

@test "rootless: run and exec, with and without --userns=keep-id" {
  rootless load --quiet <"$BATS_FILE_TMPDIR/image.tar"
  for option in --userns=host --userns=keep-id; do
    rootless --runtime tns-shim run --detach --name c "$option" tns sh -c "$FIRST"
    pid=$(rootless inspect --format '{{.State.Pid}}' c)
    is "$(rootless exec c readlink /proc/self/ns/time)" "$(ns_of "$pid")"
    # Podman runs the runtime in a user namespace of the user's. With keep-id, the container has one of its own below that.
    if [[ $option == --userns=host ]] || declares; then isnt "$(ns_of "$pid")" "$HOST_NS"; else is "$(ns_of "$pid")" "$HOST_NS"; fi
    # The shim could go back from where it has tried out what is possible, and has nothing else to complain of.
    said=$(cat "$(rootless_userdata c)"/oci-log*)
    if [[ $option == --userns=host ]] || declares; then is "$said" ''; else contains "$said" "CRIU could not dump"; fi
    [[ $said != *EPERM* ]] || fail "$said"
    rootless rm --force --time 0 c
  done
}

@test "without the shim, a tree that exec has mixed is lost at the second checkpoint; with it, the archive is repaired" {
  needs_criu
  start bare c
  podman container checkpoint c
  podman container restore c
  background bare c
  # On a runtime whose exec joins, a process put in from outside does the same.
  if [[ $(namespaces_below "$(pid_of c)" | sort -u | wc -l) == 1 ]]; then stray c 'tail -f /dev/null'; fi
  before=$(processes c)
  podman container checkpoint --export "$WORK/mixed.tar" c
  podman rm c
  run podman container restore --keep --import "$WORK/mixed.tar"
  isnt "$status" 0
  contains "$(cat "$(userdata c)/restore.log")" "Can't restore sub-task in NS"
  podman rm --force --time 0 c
  # A failed restore of crun's leaves some, and the next one stumbles.
  clear_cgroups

  # Podman restores under the name that the archive was made with: the shim behind that name.
  printf '%s\n' '[engine.runtimes]' "$TNS_RUNTIME = [\"$SHIM_PATH-$TNS_RUNTIME\"]" >/etc/containers/containers.conf.d/99-test.conf
  podman container restore --import "$WORK/mixed.tar"
  whole c "$before"
}

@test "in place, twice, with exec'd children: all alive, in one namespace" {
  needs_criu
  start shim c
  for cycle in 1 2; do
    background shim c
    podman container checkpoint c
    podman container restore c
    # PID 1, its own child, and one of every cycle
    whole c $((cycle + 2))
  done
}

@test "export, remove, import, twice, with exec'd children: all alive, in one namespace" {
  needs_criu
  start shim c
  for cycle in 1 2; do
    background shim c
    podman container checkpoint --export "$WORK/$cycle.tar" c
    podman rm c
    podman container restore --import "$WORK/$cycle.tar"
    whole c $((cycle + 2))
  done
}

@test "checkpointed into an image of Podman's, and restored from it" {
  needs_criu
  # Podman restores an image with its default runtime.
  printf '%s\n' '[engine]' 'runtime = "tns-shim"' >/etc/containers/containers.conf.d/99-test.conf
  start shim c
  background shim c
  podman container checkpoint --create-image checkpointed c
  podman rm c
  podman container restore --name d checkpointed
  is "$(podman inspect --format '{{.OCIRuntime}}' d)" tns-shim
  whole d 3
  podman rm --force --time 0 d
  podman rmi checkpointed
}

@test "left running, exported, and imported under another name beside it" {
  needs_criu
  start shim c
  background shim c
  pid=$(pid_of c)
  podman container checkpoint --leave-running --export "$WORK/c.tar" c
  is "$(pid_of c)" "$pid"
  whole c 3
  podman container restore --import "$WORK/c.tar" --name d
  whole d 3
  isnt "$(ns_of "$(pid_of d)")" "$(ns_of "$pid")"
  background shim d
  if podman container checkpoint d; then
    podman container restore d
    whole d 4
  else
    # runc 1.1 leaves the restored processes in the control group of the container's old name, in version 2.
    start bare e
    podman container checkpoint --export "$WORK/e.tar" e
    podman container restore --import "$WORK/e.tar" --name f
    run podman container checkpoint f
    isnt "$status" 0
    whole d 4
  fi
}

@test "in a pod: in place, and exported into another one" {
  needs_criu
  shim pod create --share-parent=false --name p
  start shim c --pod p
  background shim c
  podman container checkpoint c
  podman container restore c
  whole c 3
  background shim c
  podman container checkpoint --export "$WORK/c.tar" c
  podman rm c
  pod=$(shim pod create --share-parent=false --name q)
  podman container restore --import "$WORK/c.tar" --pod "$pod" --name d
  whole d 4
}

@test "an exported checkpoint holds the record, and tnsctl reads it without unpacking it" {
  needs_criu
  start shim c
  background shim c
  id=$(podman inspect --format '{{.Id}}' c)
  for compression in none gzip zstd; do
    podman container checkpoint --leave-running --compress "$compression" --export "$WORK/$compression.tar" c
    run tnsctl images --json "$WORK/$compression.tar"
    is "$status" 0
    is "$(jq -r '[.compression, .checkpoint, .verdict, .record.container, .record.processes] | map(tostring) | join(" ")' <<<"$output")" \
      "$compression checkpoint whole $id 3"
    is "$(jq '.processes | length' <<<"$output")" 3
  done
  mkdir "$WORK/unpacked"
  tar -C "$WORK/unpacked" -xf "$WORK/gzip.tar"
  is "$(tnsctl images --json "$WORK/unpacked" | jq -r .record.container)" "$id"
  podman rm --force --time 0 c
  podman container restore --import "$WORK/zstd.tar"
  whole c 3
}

@test "a mixed archive is repaired into a new one, which the bare runtime restores" {
  needs_criu
  start bare c
  podman container checkpoint c
  podman container restore c
  background bare c
  stray c 'tail -f /dev/null'
  before=$(processes c)
  podman container checkpoint --export "$WORK/mixed.tar.zst" c
  podman rm c
  sum=$(sha256sum "$WORK/mixed.tar.zst")
  run tnsctl images "$WORK/mixed.tar.zst"
  is "$status" 1
  contains "$output" "NO, on the time of the host that it was on"
  run tnsctl repair "$WORK/mixed.tar.zst"
  is "$status" 2
  contains "$output" "--output"
  tnsctl repair "$WORK/mixed.tar.zst" --output "$WORK/whole.tar.zst"
  is "$(sha256sum "$WORK/mixed.tar.zst")" "$sum"
  tnsctl images "$WORK/whole.tar.zst"
  podman container restore --import "$WORK/whole.tar.zst"
  is "$(processes c)" "$before"
  one_namespace c
}

@test "a clone takes the engine's default runtime, as docs/guides/podman.md says, unless one is named" {
  start shim c
  podman container clone c d
  podman --runtime tns-shim container clone c e
  is "$(podman inspect --format '{{.OCIRuntime}}' d)" "$(podman info --format '{{.Host.OCIRuntime.Name}}')"
  is "$(podman inspect --format '{{.OCIRuntime}}' e)" tns-shim
}

@test "no control groups at all: where the engine knows the runtime for one that can" {
  if [[ $TNS_RUNTIME != crun ]]; then skip "runc cannot do without control groups"; fi
  is "$(bare run --rm --cgroups=disabled tns sh -c 'echo hello')" hello
  is "$(podman --runtime tns-shim-crun run --rm --cgroups=disabled tns sh -c 'echo hello')" hello
}
