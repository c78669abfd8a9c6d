#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What Podman leaves to systemd: the timers of healthchecks, units of containers, updates that restart them. Every step without the
# shim, and then with it.

load ../engines/podman

setup_file() { setup_podman; }

# The unit files of a test, wherever Podman looks for them.
UNITS=(/etc/systemd/system/tns-c.service /etc/containers/systemd/tns-c.container)

teardown() {
  systemctl stop tns-c.service >/dev/null 2>&1 || true
  rm -f "${UNITS[@]}"
  systemctl daemon-reload
  remove_all >/dev/null 2>&1 || true
  end_all /tmp/tns.
  settings
}

as_it_should() { # as_it_should bare|shim CONTAINER PROCESSES
  wait_for has "$2" "$3"
  if [[ $1 == shim ]]; then
    whole "$2" "$3"
  else
    is "$(ns_of "$(pid_of "$2")")" "$HOST_NS"
  fi
}

# Where a healthcheck notes that it was run, and in which time namespace.
checks() { cat "$WORK/mnt/checks" 2>/dev/null || true; }
checked() { (($(checks | wc -l) > $1)); }
# Once more from now on, by the timer: at least two, because one may be under way.
is_checked() { wait_for checked $(($(checks | wc -l) + 1)); }
timers() { systemctl list-units --all --plain --no-legend --type timer | grep -cE "^${1:-[0-9a-f]{64\}}" || true; }
no_timers() { is "$(timers)" 0; }

@test "healthchecks by systemd's timers run in the container's time namespace, before and after a restore" {
  for with in bare shim; do
    mkdir -p "$WORK/mnt"
    rm -f "$WORK/mnt/checks"
    start "$with" c --volume "$WORK/mnt:/mnt" --health-interval 3s --health-cmd 'readlink /proc/self/ns/time >>/mnt/checks'
    as_it_should "$with" c 2
    id=$(podman inspect --format '{{.Id}}' c)
    is "$(timers "$id")" 1
    is_checked
    is "$(checks | sort -u)" "$(ns_of "$(pid_of c)")"
    podman healthcheck run c
    is "$(podman inspect c | jq -r '.[0].State | (.Health // .Healthcheck).Status')" healthy
    if [[ -z $(lack_of_criu) ]]; then
      podman container checkpoint c
      rm "$WORK/mnt/checks"
      podman container restore c
      # Whether Podman makes the timer anew differs from release to release.
      restored=$(timers "$id")
      [[ $with == bare ]] && expected=$restored
      is "$restored" "$expected"
      podman healthcheck run c
      ((restored == 0)) || is_checked
      # An old runtime's exec is in the host's, which is what the shim is for.
      if [[ $with == shim ]]; then is "$(checks | sort -u)" "$(ns_of "$(pid_of c)")"; fi
    fi
    podman rm --force --time 0 c
    wait_for no_timers
  done
}

# What has the container restarted by systemd: as a unit that Podman writes, which every release can.
install_unit() { # install_unit bare|shim
  "$1" create --name c --label io.containers.autoupdate=local localhost/tns:latest sh -c "$FIRST" >/dev/null
  podman generate systemd --new --name c >"${UNITS[0]}"
  podman rm c >/dev/null
  systemctl daemon-reload
}

is_replaced() { [[ $(pid_of c 2>/dev/null) != "$1" && $(pid_of c) != 0 ]]; }

@test "a unit that systemd starts, restarts, starts again after a kill, and stops" {
  for with in bare shim; do
    install_unit "$with"
    systemctl start tns-c
    as_it_should "$with" c 2
    before=$(pid_of c)
    systemctl restart tns-c
    isnt "$(pid_of c)" "$before"
    as_it_should "$with" c 2
    # Restart=on-failure
    before=$(pid_of c)
    kill -KILL "$before"
    wait_for is_replaced "$before"
    as_it_should "$with" c 2
    systemctl stop tns-c
    wait_for gone c
  done
}
gone() { ! podman container exists "$1"; }

@test "podman auto-update starts the container anew from the newer image" {
  for with in bare shim; do
    podman load --quiet --input "$BATS_FILE_TMPDIR/image.tar" >/dev/null
    install_unit "$with"
    systemctl start tns-c
    as_it_should "$with" c 2
    before=$(pid_of c) image=$(podman inspect --format '{{.Image}}' c)
    contains "$(podman auto-update --format '{{.Unit}} {{.Updated}}')" 'tns-c.service false'
    is "$(pid_of c)" "$before"
    podman commit --quiet --change "LABEL of=$with" c localhost/tns:latest >/dev/null
    contains "$(podman auto-update --format '{{.Unit}} {{.Updated}}')" 'tns-c.service true'
    wait_for is_replaced "$before"
    isnt "$(podman inspect --format '{{.Image}}' c)" "$image"
    as_it_should "$with" c 2
    systemctl stop tns-c
  done
}

@test "a quadlet: PodmanArgs names the runtime, as the guide says" {
  [[ -x /usr/lib/systemd/system-generators/podman-system-generator ]] || skip "this Podman has no quadlets"
  mkdir -p /etc/containers/systemd
  contains "$(<"/tns/docs/guides/podman.md")" 'PodmanArgs=--runtime tns-shim'
  for with in bare shim; do
    printf '%s\n' '[Container]' 'ContainerName=c' 'Image=localhost/tns:latest' 'Exec=tail -f /dev/null' >"${UNITS[1]}"
    [[ $with == bare ]] || echo 'PodmanArgs=--runtime tns-shim' >>"${UNITS[1]}"
    systemctl daemon-reload
    for verb in start restart; do
      systemctl "$verb" tns-c
      as_it_should "$with" c 1
    done
    is "$(podman inspect --format '{{.OCIRuntime}}' c)" "$([[ $with == shim ]] && echo tns-shim || podman info --format '{{.Host.OCIRuntime.Name}}')"
    systemctl stop tns-c
  done
}
