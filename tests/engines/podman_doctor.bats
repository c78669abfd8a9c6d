#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What `tnsctl doctor` says of the real Podman, root's and a user's own, and of its containers.

load podman
load doctor

DROPIN=/etc/containers/containers.conf.d/50-tns-shim.conf

setup_file() {
  setup_podman
  setup_rootless
  rm -f "$DROPIN"
}

# What a test that failed has left.
tidy() {
  rm -rf /dev/log /run/systemd/journal
  for away in /usr/*bin/*.away /usr/local/*bin/*.away; do [[ ! -e $away ]] || mv "$away" "${away%.away}"; done
  rm -f "$DROPIN" /home/user/.config/containers/containers.conf.d/50-tns-shim.conf
}

all_of() { find "$1" -printf '%y %P %m %U %G %l\n' | sort; }
user() { (cd / && runuser -u user -- env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 PODMAN_IGNORE_CGROUPSV1_WARNING=1 "$@"); }
user_doctor() {
  DOCTOR=0
  user tnsctl --json doctor >"$WORK/report" 2>"$WORK/errors" || DOCTOR=$?
  is "$(<"$WORK/errors")" ''
  as_documented "$WORK/report"
}
# In Podman's own words.
default_runtime() { podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}'; }

@test "before, after, as the default, and after disable: what Podman says itself" {
  looks_only /etc
  stands podman 'no nobody'
  is "$(engine podman '.version')" "$(podman --version | awk '{ print $3 }')"
  is "$(engine podman '.path')" "$(command -v podman)"
  is "$(engine podman '.default_runtime | "\(.name) \(.program)"')" "$(default_runtime)"
  is "$(engine podman '[.runtimes, .rootless, .takes_names, .in_force, .troubles]')" '[[],false,true,true,[]]'
  contains "$(step enable_engine)" 'tnsctl enable podman'
  readable
  contains "$(grep '^podman ' "$WORK/text")" 'not used'
  contains "$(<"$WORK/text")" $'\n      tnsctl enable podman\n'

  tnsctl enable podman
  looks_only /etc
  stands podman 'by_name tnsctl'
  is "$(engine podman '.runtimes')" '[{"name":"tns-shim","program":"/usr/local/bin/tns-shim","works":true}]'
  is "$(engine podman '.default_runtime | "\(.name) \(.program)"')" "$(default_runtime)"
  [[ $(step enable_engine) != *podman* ]]
  # One engine has it: the others are left alone by choice.
  is "$DOCTOR" 0
  is "$(said '[.next[] | select(.needed)]')" '[]'
  readable
  contains "$(tr -s ' ' <"$WORK/text")" 'by name: tns-shim tnsctl enable'

  tnsctl enable podman --default --runtime "$TNS_RUNTIME"
  doctor
  stands podman 'default tnsctl'
  is "$(engine podman '.default_runtime')" "{\"name\":\"tns-shim\",\"program\":\"$SHIM_PATH-$TNS_RUNTIME\"}"
  is "$(default_runtime)" "tns-shim $SHIM_PATH-$TNS_RUNTIME"

  tnsctl disable podman
  doctor
  stands podman 'no nobody'
}

@test "by hand is told from tnsctl, and another name from that of a bare runtime" {
  tnsctl enable podman
  sed -i '1d' "$DROPIN"
  doctor
  stands podman 'by_name hand'
  rm "$DROPIN"
  # In the place of the runtime that it would take.
  printf '%s\n' '[engine]' 'runtime = "mine"' '[engine.runtimes]' "mine = [\"$SHIM_PATH\"]" >/etc/containers/containers.conf.d/99-mine.conf
  doctor
  stands podman 'default hand'
  is "$(engine podman '.runtimes')" "[{\"name\":\"mine\",\"program\":\"$SHIM_PATH\",\"works\":true}]"
}

@test "whether the machine is well is told by the runtime that Podman has, and by CRIU" {
  printf '%s\n' '[engine]' "runtime = \"$TNS_RUNTIME\"" >/etc/containers/containers.conf.d/99-runtime.conf
  # No other engine.
  doctor
  mapfile -t others < <(said '.engines[] | select(.name != "podman") | .path')
  for other in "${others[@]}"; do mv "$other" "$other.away"; done
  doctor
  is "$(said '[.engines[].name]')" '["podman"]'
  # By what the runtime's own exec does: after a restore of a container that declares nothing, or by its release.
  if [[ $(said '.runtimes[] | select(.chosen) | .joins_by_itself') == true ]]; then
    is "$(step enable_engine)" 'false tnsctl enable podman'
    is "$DOCTOR" 0
  else
    is "$(step enable_engine)" 'true tnsctl enable podman'
    is "$DOCTOR" 1
  fi
  criu=$(command -v criu)
  mv "$criu" "$criu.away"
  doctor
  is "$(said '.criu')" '{"found":false,"version":null,"time_namespaces":null}'
  is "$(step enable_engine)" 'false tnsctl enable podman'
  is "$(step install_criu)" 'false apt-get install criu'
  is "$DOCTOR" 0
  mv "$criu.away" "$criu"
  for other in "${others[@]}"; do mv "$other.away" "$other"; done
}

@test "no engine at all, and no runtime" {
  mapfile -t programs < <(for name in podman dockerd containerd crio; do command -v "$name"; done)
  for program in "${programs[@]}"; do mv "$program" "$program.away"; done
  doctor
  is "$DOCTOR" 0
  is "$(said '.engines')" '[]'
  is "$(said '.runtimes[] | select(.chosen) | .path')" "$(command -v "$TNS_RUNTIME")"
  tnsctl doctor >"$WORK/text"
  contains "$(<"$WORK/text")" 'No engine was found'
  for program in "${programs[@]}"; do mv "$program.away" "$program"; done
  settings 'runtime = "/usr/bin/gone"'
  doctor
  is "$DOCTOR" 1
  contains "$(said '.troubles[]')" 'the runtime in the settings, /usr/bin/gone, is not there'
  is "$(said '[.runtimes[].chosen] | any')" false
  is "$(step install_runtime)" 'true tnsctl config'
  settings
  run tnsctl doctor --runtime gone
  is "$status" 2
}

@test "what Podman cannot read is said in its own words, and fails nothing" {
  tnsctl enable podman
  echo '[broken' >/etc/containers/containers.conf.d/99-other.conf
  doctor
  is "$DOCTOR" 1
  is "$(engine podman '[.shim, .told_by, .default_runtime, .in_force]')" '[null,null,null,null]'
  contains "$(engine podman '.troubles[]')" '99-other.conf'
  is "$(step ask_engine)" 'true podman info'
  # It is there all the same.
  is "$(engine podman '.version')" "$(CONTAINERS_CONF=/dev/null podman --version | awk '{ print $3 }')"
  rm /etc/containers/containers.conf.d/99-other.conf
  tnsctl disable podman
}

@test "a container at risk is named, and what to do about it" {
  tnsctl enable podman
  start shim c
  doctor
  is "$DOCTOR" 0
  is "$(said '.containers | [.total, .at_risk, .unknown, .complete, .troubles]')" '[1,[],0,true,[]]'
  stray c
  doctor
  is "$DOCTOR" 1
  is "$(said '.containers.at_risk')" "[\"$(podman inspect --format '{{.Id}}' c)\"]"
  is "$(said '.next[0].id')" inspect_containers
  is "$(step inspect_containers)" 'true tnsctl inspect --all'
  readable
  contains "$(<"$WORK/text")" '1 of 1 AT RISK'
  run tnsctl inspect --all
  is "$status" 1
  podman rm --force --all --time 0
  doctor
  is "$(said '.containers | [.total, .at_risk]')" '[0,[]]'
  tnsctl disable podman
}

@test "a user sees the own Podman, and is told what only root sees" {
  all_of /home/user/.config >"$WORK/before"
  user_doctor
  is "$(all_of /home/user/.config)" "$(<"$WORK/before")"
  stands podman 'no nobody'
  is "$(engine podman '.rootless')" true
  is "$(engine podman '.default_runtime.name')" "$(user podman info --format '{{.Host.OCIRuntime.Name}}')"
  is "$(said '[.root, .kernel.can_make, .kernel.obstacle, .containers.complete, .settings.holds_for_all]')" '[false,null,"none",false,null]'
  is "$(said '.criu | [.found, .time_namespaces]')" '[true,null]'
  contains "$(step enable_engine)" 'tnsctl enable podman --rootless'
  is "$(step ask_as_root)" 'false sudo tnsctl doctor'
  user tnsctl enable podman --rootless
  user_doctor
  stands podman 'by_name tnsctl'
  is "$DOCTOR" 0
  user tnsctl enable podman --rootless --default
  user_doctor
  stands podman 'default tnsctl'
  user tnsctl disable podman --rootless
  # Root's is read by users, too.
  tnsctl enable podman
  user_doctor
  stands podman 'by_name tnsctl'
  tnsctl disable podman
  user tnsctl doctor >"$WORK/text" || is "$?" 1
  contains "$(<"$WORK/text")" 'podman (your own)'
  contains "$(<"$WORK/text")" $'\n      sudo tnsctl doctor'
}

@test "settings that hold for root alone, for nobody, or have a mistake" {
  doctor
  is "$(said '.settings | [.there, .holds, .holds_for_all]')" '[true,true,true]'
  chmod 600 /etc/tns-shim/config.toml
  doctor
  is "$(said '.settings | [.holds, .holds_for_all]')" '[true,false]'
  is "$(step share_settings)" 'false chmod a+rX /etc/tns-shim /etc/tns-shim/config.toml'
  # What it says to do does it.
  chmod a+rX /etc/tns-shim /etc/tns-shim/config.toml
  doctor
  is "$(said '.settings.holds_for_all')" true
  chmod 646 /etc/tns-shim/config.toml
  doctor
  is "$DOCTOR" 1
  is "$(said '.settings.holds')" false
  is "$(step repair_settings)" 'true chown root /etc/tns-shim/config.toml chmod 644 /etc/tns-shim/config.toml'
  chown root /etc/tns-shim/config.toml
  chmod 644 /etc/tns-shim/config.toml
  settings 'mdoe = "host"'
  doctor
  is "$DOCTOR" 1
  contains "$(said '.settings.troubles[]')" mdoe
  # shellcheck disable=SC2016
  is "$(step repair_settings)" 'true ${EDITOR:-vi} /etc/tns-shim/config.toml'
  settings 'mode = "leave"'
  doctor
  is "$DOCTOR" 1
  is "$(step change_mode)" 'true tnsctl config'
  settings 'log = "none"'
  doctor
  is "$(said '.log | [.setting, .seen]')" '["none",false]'
  is "$(step start_log)" ''
}

# As syslogd and journald do.
listen() { # listen SOCKET
  perl -MSocket -e 'socket(S, PF_UNIX, SOCK_DGRAM, 0) && bind(S, sockaddr_un($ARGV[0])) && sleep 600' "$1" 3>&- &
  PIDS+=("$!")
  wait_for test -S "$1"
}

@test "whether somebody listens to warnings" {
  doctor
  is "$(said '.log')" '{"setting":"system","listener":"nobody","seen":false}'
  is "$(step start_log)" 'false apt-get install rsyslog'
  listen /dev/log
  doctor
  is "$(said '.log')" '{"setting":"system","listener":"syslog","seen":true}'
  is "$(step start_log)" ''
  kill "${PIDS[-1]}"
  wait "${PIDS[-1]}" || true
  # The socket of one that has ended.
  doctor
  is "$(said '.log.listener')" nobody
  rm /dev/log
  mkdir -p /run/systemd/journal
  listen /run/systemd/journal/dev-log
  ln -s /run/systemd/journal/dev-log /dev/log
  doctor
  is "$(said '.log')" '{"setting":"system","listener":"journal","seen":true}'
}
