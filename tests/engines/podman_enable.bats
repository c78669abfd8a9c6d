#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `tnsctl enable podman` and `tnsctl disable podman`, against the real Podman: root's, and that of a user.

load podman

DROPIN=/etc/containers/containers.conf.d/50-tns-shim.conf

setup_file() {
  setup_podman
  setup_rootless
  rootless load --quiet <"$BATS_FILE_TMPDIR/image.tar"
  rm "$DROPIN"
}

# With a folder that was there before, and with one that was not.
all_of() { (cd "$1" && find . -printf '%y %P %m %U %G %l\n' | sort && find . -type f -exec sha256sum {} + | sort); }
before() { all_of /etc/containers >"$WORK/before"; }
as_before() { is "$(all_of /etc/containers)" "$(<"$WORK/before")"; }
refused() { # refused SENTENCE ARGUMENT...
  run tnsctl "${@:2}"
  is "$status" 2
  contains "$output" "$1"
}
has_none() {
  run podman --runtime tns-shim run --rm tns true
  isnt "$status" 0
  [[ $(podman info --format '{{.Host.OCIRuntime.Name}}') != tns-shim* ]]
}

@test "enabled, a container gets its own time namespace through Podman; disabled, all is as before" {
  before
  has_none
  run tnsctl enable podman --dry-run
  is "$status" 1
  contains "$output" '--- /dev/null'
  contains "$output" "+++ $DROPIN"
  contains "$output" '+tns-shim = ["/usr/local/bin/tns-shim"]'
  as_before

  run tnsctl enable podman
  is "$status" 0
  contains "$output" "made $DROPIN"
  contains "$output" 'asked by podman info'
  is "$(podman info 2>&1 >/dev/null)" ''
  start shim c
  whole c 2
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  # Not the default one
  start bare d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"
  [[ $(podman info --format '{{.Host.OCIRuntime.Name}}') != tns-shim* ]]

  # Once more, with nothing to do
  snapshot /etc/containers >"$WORK/enabled"
  run tnsctl enable podman
  is "$status" 0
  contains "$output" 'there is nothing to do'
  is "$(snapshot /etc/containers)" "$(<"$WORK/enabled")"
  tnsctl enable podman --dry-run

  podman rm --force --all --time 0
  run tnsctl disable podman --dry-run
  is "$status" 1
  contains "$output" '+++ /dev/null'
  run tnsctl disable podman
  is "$status" 0
  contains "$output" "removed $DROPIN"
  as_before
  has_none
  is "$(podman info 2>&1 >/dev/null)" ''
  run tnsctl disable podman
  is "$status" 0
  contains "$output" 'there is nothing to do'
}

@test "a folder that was made goes again, and one that somebody uses stays" {
  mv /etc/containers/containers.conf.d "$WORK/away"
  before
  tnsctl enable podman
  tnsctl disable podman
  as_before
  tnsctl enable podman
  touch /etc/containers/containers.conf.d/mine
  tnsctl disable podman
  is "$(ls /etc/containers/containers.conf.d)" mine
  rm -r /etc/containers/containers.conf.d
  mv "$WORK/away" /etc/containers/containers.conf.d
}

@test "--default and --runtime, and back to without" {
  before
  tnsctl enable podman --default --runtime "$TNS_RUNTIME"
  is "$(podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}')" "tns-shim $SHIM_PATH-$TNS_RUNTIME"
  podman run --detach --name c tns sh -c "$FIRST" >/dev/null
  whole c 2
  podman rm --force --all --time 0
  run tnsctl enable podman --dry-run
  is "$status" 1
  contains "$output" '-runtime = "tns-shim"'
  contains "$output" '+#runtime = "tns-shim"'
  tnsctl enable podman
  is "$(podman --runtime tns-shim info --format '{{.Host.OCIRuntime.Path}}')" "$SHIM_PATH"
  [[ $(podman info --format '{{.Host.OCIRuntime.Name}}') != tns-shim* ]]
  tnsctl disable podman
  as_before
}

@test "beside a configuration of somebody's own: nothing of it is lost" {
  cp -p /etc/containers/containers.conf "$WORK/containers.conf" 2>/dev/null || : >"$WORK/containers.conf"
  # Whatever there is for a machine of tests, and what others set that also stands in ours.
  cat >>/etc/containers/containers.conf <<'END'
runtime = "mine"
runtime_supports_json = ["mine", "crun", "runc"]
runtime_supports_nocgroup = ["mine"]
[engine.runtimes]
mine = ["/usr/bin/mine", "/usr/sbin/mine"]
END
  [[ -s $WORK/containers.conf ]] || sed -i '1i [engine]' /etc/containers/containers.conf
  ln -s "$(command -v "$TNS_RUNTIME")" /usr/bin/mine
  before
  tnsctl enable podman
  is "$(podman info 2>&1 >/dev/null)" ''
  is "$(podman info --format '{{.Host.OCIRuntime.Name}}')" mine
  is "$(podman --runtime mine info --format '{{.Host.OCIRuntime.Path}}')" /usr/bin/mine
  start shim c
  whole c 2
  # What others have in the lists holds on, also with Podman 4, which takes one of them whole.
  if [[ $(podman --version) == *' 4.'* ]]; then contains "$(<"$DROPIN")" 'runtime_supports_json = ["mine", "crun", "runc", "tns-shim", '; fi
  podman rm --force --all --time 0
  tnsctl disable podman
  as_before
  rm /usr/bin/mine
  if [[ -s $WORK/containers.conf ]]; then cp -p "$WORK/containers.conf" /etc/containers/containers.conf; else rm /etc/containers/containers.conf; fi
}

@test "what Podman does not take is put back, with its own words" {
  # Read later, so that it wins.
  printf '%s\n' '[engine]' 'runtime = "runc"' '[engine.runtimes]' 'tns-shim = ["/usr/bin/true"]' >/etc/containers/containers.conf.d/99-other.conf
  before
  refused 'the engine does not take it, and all is as it was before: podman info: the runtime tns-shim is tns-shim /usr/bin/true, and not /usr/local/bin/tns-shim' enable podman
  as_before
  printf '%s\n' '[engine]' 'runtime = "runc"' >/etc/containers/containers.conf.d/99-other.conf
  before
  refused 'the default runtime is still runc' enable podman --default
  as_before
  tnsctl enable podman
  tnsctl disable podman
  as_before
  echo '[broken' >/etc/containers/containers.conf.d/99-other.conf
  before
  refused '99-other.conf' enable podman
  as_before
}

@test "a file that somebody has written or changed is left alone, and one of ours goes whatever Podman says" {
  # Podman 4 does not even say its version with that of Podman 5.
  cp "$CONTRIB/containers.conf.d/50-tns-shim.conf" "$DROPIN"
  before
  refused 'tnsctl has not written it' enable podman
  as_before
  run tnsctl disable podman
  is "$status" 0
  as_before
  rm "$DROPIN"
  tnsctl enable podman
  echo '# mine' >>"$DROPIN"
  before
  refused 'was changed since tnsctl wrote it' enable podman
  refused 'was changed since tnsctl wrote it' disable podman
  as_before
  rm "$DROPIN"
  tnsctl enable podman
  echo '[broken' >/etc/containers/containers.conf.d/99-other.conf
  run tnsctl disable podman
  is "$status" 0
  contains "$output" 'not confirmed by podman: podman info: '
  [[ ! -e $DROPIN ]]
}

@test "--rootless: a user's own, in the user's folder" {
  ours=/home/user/.config/containers/containers.conf.d/50-tns-shim.conf
  user() { (cd / && runuser -u user -- env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 tnsctl "$@"); }
  run user enable podman
  is "$status" 2
  contains "$output" '--rootless is for your own'
  refused 'call it as that user' enable podman --rootless
  all_of /home/user/.config >"$WORK/user" 2>/dev/null || : >"$WORK/user"
  before
  user enable podman --rootless
  as_before
  is "$(stat -c %U "$ours")" user
  rootless --runtime tns-shim run --detach --name c tns sh -c "$FIRST" >/dev/null
  isnt "$(ns_of "$(rootless inspect --format '{{.State.Pid}}' c)")" "$HOST_NS"
  rootless rm --force --all --time 0
  user enable podman --rootless --default
  is "$(rootless info --format '{{.Host.OCIRuntime.Name}}')" tns-shim
  user disable podman --rootless
  is "$(all_of /home/user/.config 2>/dev/null)" "$(<"$WORK/user")"
}

@test "for programs: --json" {
  tnsctl --json enable podman --dry-run >"$WORK/report" || is "$?" 1
  is "$(jq -r '.engine, .dry_run, .changes[0].path, .changes[0].what, .confirmed_by' "$WORK/report")" "podman"$'\n'"true"$'\n'"$DROPIN"$'\n'"make"$'\n'"null"
  tnsctl --json enable podman >"$WORK/report"
  is "$(jq -r '.version' "$WORK/report")" "$(podman --version | awk '{ print $3 }')"
  is "$(jq -r '.confirmed_by, .restart' "$WORK/report")" "podman info"$'\n'"null"
  tnsctl disable podman
}

@test "what is missing is named" {
  refused 'crio is not installed' enable cri-o
  refused 'crio is not installed' disable cri-o
  mkdir "$WORK/bin"
  cp /usr/local/bin/tnsctl "$WORK/bin"
  run "$WORK/bin/tnsctl" enable podman
  is "$status" 2
  contains "$output" "there is no program $WORK/bin/tns-shim"
  ln -s /usr/local/bin/tns-shim "$WORK/bin/tns-shim"
  run "$WORK/bin/tnsctl" enable podman --runtime crun
  is "$status" 2
  contains "$output" "there is no program $WORK/bin/tns-shim-crun"
}

@test "root's umask keeps no other user's Podman from its configuration" {
  mv /etc/containers/containers.conf.d "$WORK/theirs"
  (umask 077 && tnsctl enable podman)
  is "$(stat -c %a /etc/containers/containers.conf.d "$DROPIN" | paste -sd ' ')" '755 644'
  rootless info >/dev/null
  tnsctl disable podman
  [[ ! -e /etc/containers/containers.conf.d ]]
  mv "$WORK/theirs" /etc/containers/containers.conf.d
}
