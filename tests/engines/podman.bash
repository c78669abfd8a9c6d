# SPDX-License-Identifier: Apache-2.0
# What the tests of Podman share: Podman set up for a stack, with the shim as `tns-shim`, and the words of its command line.

load ../engines/helpers

# Podman remembers the runtime that a container was made with: what comes later needs no option.
bare() { podman --runtime "$TNS_RUNTIME" "$@"; }
shim() { podman --runtime tns-shim "$@"; }
start() { "$1" run --detach --name "$2" "${@:3}" tns sh -c "$FIRST" >/dev/null; }
pid_of() { podman inspect --format '{{.State.Pid}}' "$1"; }
in_container() { podman exec "${@:2}"; }
remove_all() {
  podman pod rm --force --all --time 0
  podman rm --force --all --time 0
  rm -f /etc/containers/containers.conf.d/99-*
  if [[ -d /home/user ]]; then
    rootless pod rm --force --all --time 0
    rootless rm --force --all --time 0
    # Ends the process that holds the user's namespaces.
    rootless system migrate
  fi
}

# What a machine without systemd needs, and one whose control groups of version 2 may have no controllers, and others of version 1
# beside: CRIU sees those, and with a namespace of control groups it would put the container's processes apart in them.
without_systemd() {
  cat >/etc/containers/containers.conf <<'END'
[containers]
log_driver = "k8s-file"
netns = "none"
cgroupns = "host"
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
END
  # In memory: Podman mounts overlays of its own there, and the stack is one already.
  cat >/etc/containers/storage.conf <<'END'
[storage]
driver = "vfs"
graphroot = "/run/containers/graph"
runroot = "/run/containers/run"
END
}

setup_podman() {
  export PODMAN_IGNORE_CGROUPSV1_WARNING=1
  install_shim
  with_systemd || without_systemd
  mkdir -p /etc/containers/containers.conf.d
  cp "$CONTRIB/containers.conf.d/50-tns-shim.conf" /etc/containers/containers.conf.d/
  # Podman 4 complains.
  if [[ -n $(podman info 2>&1 >/dev/null) ]]; then
    cp "$CONTRIB/containers.conf.d/podman-4/50-tns-shim.conf" /etc/containers/containers.conf.d/
  fi
  is "$(podman info 2>&1 >/dev/null)" ''
  make_image "$BATS_FILE_TMPDIR/image.tar"
  podman load --quiet --input "$BATS_FILE_TMPDIR/image.tar" >/dev/null
}

userdata() { podman inspect --format '{{.StaticDir}}' "$1"; }

# Podman of a user who is not root. With systemd, of one who lingers, with nothing configured.
setup_rootless() {
  # By another file's tests in the same stack.
  if [[ -d /home/user ]]; then return; fi
  useradd --create-home --uid 1000 user
  usermod --add-subuids 200000-300000 --add-subgids 200000-300000 user
  if with_systemd; then
    loginctl enable-linger user
    wait_for test -S /run/user/1000/bus
  else
    mkdir -p /home/user/.config/containers
    printf '%s\n' '[storage]' 'driver = "vfs"' 'graphroot = "/home/user/graph"' 'runroot = "/run/user/1000/containers"' \
      >/home/user/.config/containers/storage.conf
    chown -R user: /home/user
    mkdir -p /run/user/1000
    chown user: /run/user/1000
  fi
}

# With the variables of a login.
rootless() {
  local variables=(HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000)
  if with_systemd; then variables+=(DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus); fi
  (cd / && runuser -u user -- env "${variables[@]}" podman "$@")
}

rootless_userdata() { dirname "$(rootless inspect --format '{{.PidFile}}' "$1")"; }
