#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# containerd with the shim as its runtime's binary, driven by ctr.

load helpers
load containerd

setup_file() {
  install_shim
  export CONTAINERD_ADDRESS=/run/containerd/containerd.sock
  if with_systemd; then
    ours=$BATS_FILE_TMPDIR/config-v2.toml
    grep -v '^version' "$CONTRIB/containerd/config-v2.toml" >"$ours"
    append_to_containerd "$ours"
  else
    without_systemd
  fi
  start_engine
  make_image "$BATS_FILE_TMPDIR/image.tar" "$IMAGE"
  ctr image import --no-unpack "$BATS_FILE_TMPDIR/image.tar" >/dev/null
}

teardown_file() { with_systemd || stop_daemon "$BATS_FILE_TMPDIR/engine.pid"; }

@test "the configuration files, of version 2 and 3, are what containerd reads" {
  for version in 2 3; do
    if ! containerd --config "$CONTRIB/containerd/config-v$version.toml" config dump >"$WORK/dump" 2>&1; then
      # An older one knows no version 3.
      contains "$(cat "$WORK/dump")" version
      continue
    fi
    grep -qE "^version = ([3-9]|$version)\$" "$WORK/dump" || continue
    contains "$(grep -A 20 'containerd.runtimes.tns-shim\]' "$WORK/dump" | tr "'" '"')" 'BinaryName = "/usr/local/bin/tns-shim"'
    seen=$version
  done
  isnt "${seen:-}" ''
}

@test "run and exec: plain, with a terminal, detached, as a user, in a folder" {
  start shim c
  whole c 2
  pid=$(pid_of c)
  # ctr asks for a terminal of its own.
  said=$(script --quiet --return --command "ctr task exec --tty --exec-id tty c sh -c 'tty; readlink /proc/self/ns/time'" /dev/null)
  contains "$said" /dev/pts/
  contains "$said" "$(ns_of "$pid")"
  # Held open for a moment: where it ends at once, containerd 1.6 was seen to lose what was in it, once in hundreds of times.
  is "$({ echo hello; sleep 0.3; } | in_container shim c cat)" hello
  ctr task exec --detach --exec-id detached c sh -c 'readlink /proc/self/ns/time >/tmp/detached'
  wait_for in_container shim c ls /tmp/detached
  is "$(in_container shim c cat /tmp/detached)" "$(ns_of "$pid")"
  is "$(in_container shim --user 1000 c id -u)" 1000
  is "$(in_container shim --cwd /mnt c readlink /proc/self/cwd)" /mnt
  run in_container shim c sh -c 'exit 42'
  is "$status" 42
  run shim --rm "$IMAGE" d sh -c 'exit 43'
  is "$status" 43
}

@test "under the name that says which runtime" {
  ctr run --detach --null-io --cpu-shares 0 --runc-binary "$SHIM_PATH-$TNS_RUNTIME" "$IMAGE" c sh -c "$FIRST"
  whole c 2
}

@test "list, ps, metrics, pause, kill, delete" {
  start shim c
  contains "$(ctr task list)" RUNNING
  contains "$(ctr task ps c)" "$(pid_of c)"
  ctr task metrics c
  ctr task pause c
  contains "$(ctr task list)" PAUSED
  ctr task resume c
  ctr task kill --signal KILL c
  wait_for eval 'ctr task list | grep STOPPED'
  # The status of the container is that of the command.
  run ctr task delete c
  contains "$(ctr task list | wc -l)" 1
  ctr container delete c
}

@test "errors reach the user as they do without the shim" {
  alike 1 with --rm "$IMAGE" d nope
  alike 1 with --rm "$IMAGE" d /bin/data
  start bare bare-c
  start shim shim-c
  alike 1 ctr task exec --exec-id nope with-c nope
  alike 1 ctr task exec --exec-id data with-c /bin/data
  alike 1 ctr task exec --exec-id cwd --cwd /bin/data with-c id
}

@test "a checkpoint and a restore end as they do without the shim" {
  needs_criu
  # Known: crun does not make the work folder that containerd names, and takes no -no-subreaper.
  alike - cycle with with-c
}

@test "without the shim, a tree that exec has mixed is lost at the second checkpoint" {
  needs_checkpoints
  start bare c
  checkpoint c one
  remove c
  restore c one
  background bare c
  # On a runtime whose exec joins, a process put in from outside does the same.
  if [[ $(namespaces_below "$(pid_of c)" | sort -u | wc -l) == 1 ]]; then stray c 'tail -f /dev/null'; fi
  checkpoint c two
  remove c
  run restore c two
  isnt "$status" 0
  contains "$output" 'criu failed'
}

@test "checkpoint, remove, restore, twice, with exec'd children: all alive, in one namespace" {
  needs_checkpoints
  start shim c
  background shim c
  for cycle in 1 2; do
    checkpoint c "$cycle"
    remove c
    restore c "$cycle"
    # PID 1, its own child, and one of every cycle
    whole c $((cycle + 2))
    background shim c
  done
}

@test "an exported checkpoint image holds the record, and tnsctl reads it as an archive, as a layout, and as a blob" {
  needs_checkpoints
  start shim c
  background shim c
  checkpoint c one
  # Without the list for Docker, which ctr cannot make of a checkpoint.
  ctr image export --skip-manifest-json "$WORK/one.tar" checkpoint/one
  run tnsctl images --json "$WORK/one.tar"
  [[ $status == 0 ]] || fail "$output"
  is "$(jq -r '[.verdict, .record.container, .record.processes] | map(tostring) | join(" ")' <<<"$output")" "whole c 3"
  contains "$(jq -r .checkpoint <<<"$output")" "blobs/sha256/"
  blob=$(jq -r .checkpoint <<<"$output")
  mkdir "$WORK/layout"
  tar -C "$WORK/layout" -xf "$WORK/one.tar"
  is "$(tnsctl images --json "$WORK/layout" | jq -r .record.container)" c
  is "$(tnsctl images --json "$WORK/layout/${blob%%:*}" | jq -r .record.container)" c
  run tnsctl repair --dry-run "$WORK/one.tar"
  is "$status" 0
}

@test "annotations of a container say what it gets" {
  start shim c --annotation org.tns-shim.mode=host
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(exec_ns shim c)" "$HOST_NS"
  if start shim d --annotation org.tns-shim.uptime=zero 2>"$WORK/said"; then
    contains "$(in_container shim d uptime)" "up 0 min"
    whole d 2
  else
    contains "$(cat "$WORK/said")" "which takes runc 1.2.6 or crun 1.8.4 and later"
  fi
}

@test "what the shim refuses, ctr tells in the shim's words" {
  said() { # said COMMAND...
    run "$@"
    isnt "$status" 0
    contains "$output" "tns-shim: "
  }
  said start shim a --annotation org.tns-shim.mode=nonsense
  contains "$output" "the annotation org.tns-shim.mode in config.json: unknown variant"
  settings 'mode = "none"'
  said start shim b
  contains "$output" "understand /etc/tns-shim/config.toml"
  contains "$output" "line 2"
  settings 'runtime = "/nope"'
  said start shim d
  contains "$output" "the runtime in the settings"
  settings
}

@test "a specification that declares a time namespace starts, and one that cannot be kept is refused in the shim's words" {
  make_rootfs "$ROOTFS"
  mkdir "$WORK/bundle"
  make_config "$WORK/bundle"
  specified() { ctr run --detach --null-io --runc-binary "$(binary "${2:-shim}")" --config "$WORK/bundle/config.json" "$1"; }
  edit_config "$WORK/bundle" '.linux.namespaces += [{type: "time"}]'
  specified c
  whole c 2
  edit_config "$WORK/bundle" ".linux.namespaces[-1].path = \"/proc/$(pid_of c)/ns/time\""
  if specified b bare; then
    specified d
    is "$(ns_of "$(pid_of d)")" "$(ns_of "$(pid_of c)")"
  elif declares; then
    # crun breaks at it, without the shim as well.
    run specified d
    isnt "$status" 0
  else
    run specified d
    isnt "$status" 0
    contains "$output" "tns-shim: "
    contains "$output" "cannot join the time namespace that config.json names by its path: use runc 1.2"
  fi
}

@test "a checkpoint that is refused is told in the shim's words, and the container keeps running" {
  needs_checkpoints
  start shim c
  stray c 'tail -f /dev/null'
  run checkpoint c one
  isnt "$status" 0
  contains "$output" "tns-shim: checkpoint of c refused, the container keeps running"
  contains "$output" "(tail -f /dev/null) is in the host's time namespace"
  contains "$(ctr task list)" RUNNING
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}
