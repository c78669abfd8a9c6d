#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Podman of a user who is not root, with a systemd of the user's own: control groups are delegated, and nothing is
# configured but what the guide says. Every step without the shim, and then with it.

load ../engines/podman

setup_file() {
  setup_podman
  setup_rootless
  rootless load --quiet <"$BATS_FILE_TMPDIR/image.tar" >/dev/null
}

# The words of the engines' tests, of this user's Podman.
bare() { rootless --runtime "$TNS_RUNTIME" "$@"; }
shim() { rootless --runtime tns-shim "$@"; }
start() { "$1" run --detach --name "$2" "${@:3}" tns sh -c "$FIRST" >/dev/null; }
pid_of() { rootless inspect --format '{{.State.Pid}}' "$1"; }
in_container() { rootless exec "${@:2}"; }
status_of() { rootless inspect --format '{{.State.Status}}' "$1"; }
cgroup_of() { sed -n 's/^0:://p' "/proc/$(pid_of "$1")/cgroup"; }

# With the shim, in one time namespace that is not the host's; without it, as this runtime does it.
as_it_should() { # as_it_should bare|shim CONTAINER
  wait_for has "$2" 2
  if [[ $1 == shim ]]; then whole "$2" 2; else is "$(exec_ns bare "$2")" "$HOST_NS"; fi
}

@test "run and exec: in the user's delegated control groups, plain, with a terminal, as a user, with its own exit status" {
  is "$(rootless info --format '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}}')" "systemd v2"
  for with in bare shim; do
    start "$with" "$with-c"
    as_it_should "$with" "$with-c"
    contains "$(cgroup_of "$with-c")" "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-"
    contains "$(rootless exec --tty "$with-c" tty)" /dev/pts/
    is "$(rootless exec --user user "$with-c" id -u)" 1000
  done
  for with in bare shim; do
    run "$with" run --rm tns sh -c 'echo said; exit 43'
    is "$status $output" "43 said"
    run rootless exec "$with-c" sh -c 'exit 42'
    is "$status" 42
  done
  is "$(rootless exec --user user shim-c readlink /proc/self/ns/time)" "$(ns_of "$(pid_of shim-c)")"
}

@test "errors reach the user as they do without the shim" {
  alike 127 with run --rm tns nope
  alike 126 with run --rm tns /bin/data
  # Which the runtime refuses, and not Podman.
  alike - with run --rm --volume /tmp:/proc/nope tns id
  start bare bare-c
  start shim shim-c
  alike 127 rootless exec with-c nope
  alike 126 rootless exec with-c /bin/data
  # Podman itself refuses it.
  alike - rootless container checkpoint with-c
}

@test "limits reach the control group that systemd has made" {
  for with in bare shim; do
    start "$with" c --memory 100m --pids-limit 50
    is "$(cat "/sys/fs/cgroup$(cgroup_of c)/"{memory.max,pids.max} | paste -sd ' ')" "104857600 50"
    rootless rm --force --time 0 c
  done
}

@test "restart, stop and start, kill, wait, rm" {
  for with in bare shim; do
    start "$with" c
    before=$(pid_of c)
    rootless restart --time 0 c
    isnt "$(pid_of c)" "$before"
    as_it_should "$with" c
    rootless stop --time 0 c
    is "$(status_of c)" exited
    rootless start c
    as_it_should "$with" c
    rootless kill c
    is "$(rootless wait c)" 137
    rootless rm c
    run rootless inspect c
    isnt "$status" 0
  done
}

@test "in a pod: two containers, which stop and start with it" {
  for with in bare shim; do
    "$with" pod create --name p >/dev/null
    start "$with" a --pod p
    start "$with" b --pod p
    for _ in 1 2; do
      as_it_should "$with" a
      as_it_should "$with" b
      is "$(readlink "/proc/$(pid_of a)/ns/net")" "$(readlink "/proc/$(pid_of b)/ns/net")"
      [[ $with == bare ]] || isnt "$(ns_of "$(pid_of a)")" "$(ns_of "$(pid_of b)")"
      rootless pod stop --time 0 p
      is "$(rootless pod inspect p | jq -r 'if type == "array" then .[0] else . end | .State')" Exited
      rootless pod start p
    done
    rootless pod rm --force --time 0 p
  done
}

@test "a unit of the user's own systemd, started, restarted and stopped" {
  for with in bare shim; do
    "$with" create --name c tns sh -c "$FIRST" >/dev/null
    mkdir -p /home/user/.config/systemd/user
    rootless generate systemd --new --name c >/home/user/.config/systemd/user/c.service
    chown -R user: /home/user/.config
    rootless rm c
    users_systemctl daemon-reload
    users_systemctl start c
    as_it_should "$with" c
    before=$(pid_of c)
    users_systemctl restart c
    isnt "$(pid_of c)" "$before"
    as_it_should "$with" c
    users_systemctl stop c
    wait_for gone c
  done
}
gone() { ! rootless container exists "$1"; }
users_systemctl() { runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 systemctl --user "$@"; }
