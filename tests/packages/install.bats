#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The Debian package on a machine: installed, used, upgraded, removed, purged. The tests follow on each other. /tns/package: the folder it
# is in; /tns/tests: contrib/debian/tests.

load helpers

setup_file() {
  [[ $(</proc/sys/kernel/hostname) == tns-debian-* ]] || { echo 'these tests run only in a stack: tests/packages/run'; return 1; }
  # The stacks leave documentation out.
  echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/tns-stack
  # What Podman needs without systemd; with storage that is not on an overlay, as the stack is, nor a part of what is compared.
  export PODMAN_IGNORE_CGROUPSV1_WARNING=1
  mkdir -p /etc/containers
  printf '%s\n' '[engine]' 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' >/etc/containers/containers.conf
  printf '%s\n' '[storage]' 'driver = "vfs"' 'graphroot = "/run/tns-test/graph"' 'runroot = "/run/tns-test/run"' \
    >/etc/containers/storage.conf
  podman info >/dev/null
  PACKAGE=$(echo /tns/package/tns-shim_*.deb)
  export PACKAGE
  everything >"$BATS_FILE_TMPDIR/before"
  states >"$BATS_FILE_TMPDIR/states"
  processes >"$BATS_FILE_TMPDIR/processes"
}

# All that is on the disk but for dpkg's log and its lists: type, mode, owners, path, where it leads; of files also size and time, or the sum
# of what is configured, which an engine's file has again when it was told no more.
everything() {
  find / -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /tns -o -path /var/tmp \) -prune \
    -o -type f ! -path '/etc/*' -printf '%y %m %u:%g %p %s %T@\n' -o -printf '%y %m %u:%g %p %l\n'
  find /var/lib/dpkg/info -printf '%y %m %u:%g %p\n'
  find /etc -type f -exec sha256sum {} +
  [[ ! -e /run/tns-shim ]] || echo /run/tns-shim
}
# shellcheck disable=SC2016  # The words are dpkg's.
states() { dpkg-query -W -f '${binary:Package} ${Version} ${Status}\n' && sha256sum /var/lib/dpkg/status; }
processes() { find /proc -maxdepth 1 -name '[0-9]*' -exec cat {}/comm \; 2>/dev/null | grep -vE '^(bats.*|bash|find|cat|sort|grep|timeout|sleep)$' | sort; }
status_of() { dpkg-query -W -f '${db:Status-Status}' tns-shim; }

# As if another version had been built: what another command does to its files.
another() { # another VERSION COMMAND...
  local folder=$BATS_FILE_TMPDIR/another
  rm -rf "$folder"
  dpkg-deb -R "$PACKAGE" "$folder"
  sed -i "s/^Version: .*/Version: $1/" "$folder/DEBIAN/control"
  (cd "$folder" && "${@:2}")
  dpkg-deb --build "$folder" "$BATS_FILE_TMPDIR/tns-shim_$1.deb" >/dev/null
  echo "$BATS_FILE_TMPDIR/tns-shim_$1.deb"
}

@test "installed, it has added its own files, and all else is as it was" {
  dpkg -i "$PACKAGE" </dev/null
  is "$(dpkg --audit)" ''
  is "$(status_of)" installed
  everything | sort >"$BATS_TEST_TMPDIR/after"
  sort "$BATS_FILE_TMPDIR/before" >"$BATS_TEST_TMPDIR/before"
  is "$(comm -23 "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after")" ''
  # The new ones: dpkg knows them, or they are its notes.
  local added
  added=$(comm -13 "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after" | grep -oE ' /[^ ]+' | sed 's/^ //' | sort -u)
  is "$(grep -v '^/var/lib/dpkg/info/tns-shim\.' <<<"$added" | grep -vxFf <(dpkg -L tns-shim))" ''
  contains "$added" /usr/bin/tnsctl
  processes >"$BATS_TEST_TMPDIR/processes"
  same "$BATS_FILE_TMPDIR/processes" "$BATS_TEST_TMPDIR/processes"
}

@test "its programs run, and the man pages are where man looks" {
  tnsctl --version
  tns-shim-runc --version | grep '^runc version'
  tns-shim-crun --version | grep '^crun version'
  [[ -e /usr/share/man/man8/tns-shim.8.gz && -e /usr/share/man/man8/tns-shim-runc.8.gz ]]
  # By the settings file that was installed.
  # Its exit status is that of engines, which nobody has told yet.
  tnsctl --json doctor >"$BATS_TEST_TMPDIR/doctor" || (($? == 1))
  is "$(jq -c '.settings | [.file, .holds]' "$BATS_TEST_TMPDIR/doctor")" '["/etc/tns-shim/config.toml",true]'
}

@test "a container of runc has a time namespace of its own" { /tns/tests/runc; }
@test "a container of crun has a time namespace of its own" { /tns/tests/crun; }
@test "a container of Podman has one when it asks for it, and Podman was told" { /tns/tests/podman; }

@test "every engine is told of /usr/bin/tns-shim, and told no more, has its configuration as before" {
  local engine file
  for engine in podman containerd docker; do
    find /etc -type f -exec sha256sum {} + | sort >"$BATS_TEST_TMPDIR/before"
    tnsctl enable "$engine"
    case $engine in
      podman) file=/etc/containers/containers.conf.d/50-tns-shim.conf ;;
      containerd) file=/etc/containerd ;;
      docker) file=/etc/docker/daemon.json ;;
    esac
    grep -rqF '"/usr/bin/tns-shim"' "$file"
    is "$(grep -rF /usr/local/bin/tns-shim "$file")" ''
    tnsctl disable "$engine"
    find /etc -type f -exec sha256sum {} + | sort >"$BATS_TEST_TMPDIR/after"
    same "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
  done
}

@test "upgraded, settings that somebody has made and an engine that was told stay" {
  echo 'mode = "private"' >/etc/tns-shim/config.toml
  tnsctl enable podman
  sha256sum /etc/tns-shim/config.toml /etc/containers/containers.conf.d/50-tns-shim.conf >"$BATS_TEST_TMPDIR/sums"
  # The same settings file as before: nobody is asked.
  dpkg -i "$(another 1000 true)" </dev/null
  sha256sum --check --quiet "$BATS_TEST_TMPDIR/sums"
  # Another one: with nobody to ask, the machine's stays, and the new one is beside.
  dpkg --force-confold -i "$(another 1001 sed -i '$a# new' etc/tns-shim/config.toml)" </dev/null
  sha256sum --check --quiet "$BATS_TEST_TMPDIR/sums"
  [[ -e /etc/tns-shim/config.toml.dpkg-dist ]]
  is "$(dpkg-query -W -f '${Version}' tns-shim)" 1001
  # It still works, and with those settings.
  contains "$(tnsctl config)" private
  podman info >/dev/null
  tnsctl disable podman
}

@test "settings that nobody has changed become those of the new version" {
  dpkg-deb --fsys-tarfile "$PACKAGE" | tar -xO ./etc/tns-shim/config.toml >/etc/tns-shim/config.toml
  dpkg -i "$PACKAGE" </dev/null
  dpkg -i "$(another 1002 sed -i '$a# new' etc/tns-shim/config.toml)" </dev/null
  is "$(tail -n 1 /etc/tns-shim/config.toml)" '# new'
}

@test "before it is removed, it says which engines still need it, and changes nothing of them" {
  is "$(/var/lib/dpkg/info/tns-shim.prerm remove 2>&1)" ''
  tnsctl enable podman
  is "$(/var/lib/dpkg/info/tns-shim.prerm upgrade 2>&1)" ''
  contains "$(/var/lib/dpkg/info/tns-shim.prerm remove 2>&1)" 'podman was told of it, and fails without it. Install tns-shim again, and then: tnsctl disable podman'
  podman --runtime tns-shim info >/dev/null
  # Also if somebody has changed what was written, which `disable` leaves alone.
  local dropin=/etc/containers/containers.conf.d/50-tns-shim.conf
  echo '# mine' >>"$dropin"
  contains "$(/var/lib/dpkg/info/tns-shim.prerm remove 2>&1)" 'podman was told of it'
  sed -i '$d' "$dropin"
  tnsctl disable podman
  is "$(/var/lib/dpkg/info/tns-shim.prerm remove 2>&1)" ''
}

@test "removed, it leaves the settings; purged, it leaves nothing" {
  echo 'log = "none"' >>/etc/tns-shim/config.toml
  dpkg -r tns-shim
  is "$(status_of)" config-files
  [[ -e /etc/tns-shim/config.toml && ! -e /usr/bin/tns-shim ]]
  dpkg -P tns-shim
  everything | sort >"$BATS_TEST_TMPDIR/after"
  sort "$BATS_FILE_TMPDIR/before" >"$BATS_TEST_TMPDIR/before"
  same "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
  states >"$BATS_TEST_TMPDIR/states"
  same "$BATS_FILE_TMPDIR/states" "$BATS_TEST_TMPDIR/states"
}
