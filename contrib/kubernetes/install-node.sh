#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts tns-shim onto a Kubernetes node with containerd, as the runtime handler `tns-shim`, and takes it off again.
#
#   install-node.sh install     containerd is restarted only if its configuration has changed
#   install-node.sh remove      takes back that, and nothing else; but nothing as long as containers use it
#   install-node.sh run         installs, waits for SIGTERM, removes: for a DaemonSet
#
# Environment:
#   NODE_ROOT   the node's root as it is seen from here (default: this root)
#   FILES       folder with tns-shim, tnsctl, config-v2.toml and config-v3.toml (default: the folder of this script)
#   BIN_DIR     on the node, where the two programs go (default /usr/local/bin)
#   CONFIG      on the node, containerd's configuration (default /etc/containerd/config.toml)
#   CONTAINERD  on the node, containerd itself, one word or more (default containerd)
#   RESTART     on the node, what restarts it (default systemctl restart containerd)
#
# K3s and RKE2 write the configuration anew whenever they start, from a template beside it: then that is what is changed. For K3s:
# CONFIG=/var/lib/rancher/k3s/agent/etc/containerd/config.toml CONTAINERD=/var/lib/rancher/k3s/data/current/bin/containerd
# RESTART='systemctl restart k3s' (k3s-agent on an agent).
#
# Whether a change is right is what `containerd config dump` says about it before it is made: the handler must be there, and nothing else
# may differ. So the drop-in in conf.d is tried first; where an import takes the place of what config.toml says itself, as in containerd 1.x,
# the same is appended to config.toml, if need be with the runc that containerd no longer has by itself when it reads another runtime.
# And it is asked once more after the restart: without the handler there, all is taken back.
#
# That is how `tnsctl enable containerd` does it, too. This does not call it: nodes have what an earlier installer has put there between its
# own marks, which only it knows how to take out, and which tnsctl leaves alone as somebody else's.
set -eu

root=${NODE_ROOT:-}
root=${root%/}
files=${FILES:-$(dirname -- "$(readlink -f -- "$0")")}
bin=${BIN_DIR:-/usr/local/bin}
config=${CONFIG:-/etc/containerd/config.toml}
containerd=${CONTAINERD:-containerd}
restart=${RESTART:-systemctl restart containerd}

begin='# tns-shim: begin. Its installer has put this here, and takes it out again.'
# Where the line before had no end.
begin_glued="$begin The line before ends here."
end='# tns-shim: end'
made='# The installer of tns-shim has made this file, and removes it again unless something is added.'
made_template='{{- /* The installer of tns-shim has made this file, and removes it again unless something is added. */ -}}
{{ template "base" . }}'

say() { echo "tns-shim: $*"; }
die() {
  say "$*" >&2
  exit 1
}

on_node() {
  if [ -n "$root" ]; then chroot "$root" "$@"; else "$@"; fi
}

# Puts file $1 in the place of $2, at once or not at all. What has the same content stays. Never part of a condition, where sh would go on
# after an error.
replace() {
  if cmp -s "$1" "$2"; then return; fi
  # With its mode and owner, if there is one.
  if [ -e "$2" ]; then
    cp -p "$2" "$2.tns-shim"
  else
    : >"$2.tns-shim"
    chmod "${3:-644}" "$2.tns-shim"
  fi
  cat "$1" >"$2.tns-shim"
  sync
  mv -f "$2.tns-shim" "$2"
  changed=yes
}

# ---- containerd's configuration ---------------------------------------------------------------------------------------------------------

# Beside the real one: imports may be relative to it.
candidate=$config.tns-shim-candidate

# containerd on the node, by the words of a command as given.
# shellcheck disable=SC2086
ask() { on_node $containerd "$@"; }

# What containerd makes of configuration $1.
dump() {
  cat "$1" >"$root$candidate"
  ask --config "$candidate" config dump 2>"$work/dump.err" || {
    cat "$work/dump.err" >&2
    return 1
  }
}

# All of a dump but the handler. Files that are imported are none of its content.
others() { awk '/^[ \t]*\[/ { ours = /runtimes\.tns-shim[].]/ } /^[ \t]*$/ || /^[ \t]*imports = / { next } !ours'; }

# Configuration $1 has the handler, and all else is as in the node's own.
is_right() {
  dump "$1" >"$work/dump" || return 1
  grep -q 'runtimes\.tns-shim\]' "$work/dump" || return 1
  others <"$work/dump" >"$work/others"
  cmp -s "$work/others" "$work/own.others"
}

# The section of the runtime $1 in a dump.
section() { awk -v name="$1" '/^[ \t]*\[/ { wanted = index($0, ".runtimes." name "]") || index($0, ".runtimes." name ".") } wanted'; }

# Line number of the array `imports` in file $1, before its first section.
imports_line() { awk '/^[ \t]*\[/ { exit } /^[ \t]*imports[ \t]*=[ \t]*\[/ { print NR; exit }' "$1"; }

# The configuration $1 with an import of file $2.
with_import() {
  line=$(imports_line "$1")
  if [ -n "$line" ]; then
    sed "${line}s|\\[|[\"$2\", |" "$1"
  else
    echo "imports = [\"$2\"] # tns-shim"
    cat "$1"
  fi
}

# The configuration $1 with what is in file $2 at its end.
with_block() {
  cat "$1"
  if [ -n "$(tail -c 1 "$1")" ]; then
    echo
    echo "$begin_glued"
  else
    echo "$begin"
  fi
  cat "$2"
  echo "$end"
}

# The configuration $1 as the node's own: without what the two above have added.
without_ours() {
  pattern=$(echo "$dropin" | sed 's|\.|\\.|g')
  sed -e "\\|^imports = \\[\"$pattern\"\\] # tns-shim\$|d" -e "s|\"$pattern\", ||" "$1" >"$work/no-import"
  sed "/^$begin/,/^$end\$/d" "$work/no-import" >"$work/no-block"
  if grep -qxF "$begin_glued" "$1" && [ "$(sed -n '$p' "$1")" = "$end" ]; then
    printf '%s' "$(cat "$work/no-block")"
  else
    cat "$work/no-block"
  fi
}

# The version that configuration $1 says it has.
version_of() { awk '/^[ \t]*\[/ { exit } /^[ \t]*version[ \t]*=/ { gsub(/[^0-9]/, "", $0); print; exit }' "$1"; }

start() {
  [ -z "$root" ] || [ -d "$root" ] || die "there is no $root"
  # What a symbolic link on the node says is meant for the node's root.
  if [ -e "$root$config" ]; then config=$(on_node readlink -f "$config"); fi
  folder=$(dirname "$config")
  dropin=$folder/conf.d/50-tns-shim.toml
  work=$(mktemp -d)
  trap 'clean_up' EXIT
  ask --version >/dev/null || die "containerd cannot be run on the node as: $containerd (see CONTAINERD)"
  if [ -f "$root$config" ]; then
    without_ours "$root$config" >"$work/own"
  else
    version=$(ask config default | awk '$1 == "version" { print $3; exit }')
    printf '%s\nversion = %s\n' "$made" "$version" >"$work/own"
  fi
  template=
  if grep -qs '^# File generated by .* DO NOT EDIT' "$root$config" || [ -e "$root$folder/config.toml.tmpl" ] || [ -e "$root$folder/config-v3.toml.tmpl" ]; then
    case $(version_of "$work/own") in
      3) template=$folder/config-v3.toml.tmpl ;;
      *) template=$folder/config.toml.tmpl ;;
    esac
    if [ -f "$root$template" ]; then without_ours "$root$template" >"$work/own.template"; else echo "$made_template" >"$work/own.template"; fi
  fi
  if [ ! -d "$root$folder" ]; then
    mkdir -p "$root$folder"
    new_folder=$folder
  fi
}

clean_up() {
  rm -rf "$work" "$root$candidate" "$root$candidate-import" "$root$config.tns-shim" "$root$dropin.tns-shim" "$root$bin"/tns*.tns-shim
  rm -f "$root$folder"/config*.tmpl.tns-shim
  # For the candidate alone.
  [ -z "${new_folder:-}" ] || rmdir "$root$new_folder" 2>/dev/null || true
}

# Decides what config.toml and the drop-in are to be: $work/wanted, and $work/dropin unless it is to be none.
choose() {
  version=$(version_of "$work/own")
  case $version in
    2 | 3) ;;
    *) die "$config is of version ${version:-1}; it must be 2 or 3: see containerd config migrate" ;;
  esac
  dump "$work/own" >"$work/own.dump" || die "containerd cannot read its configuration as it is, so it is left alone"
  others <"$work/own.dump" >"$work/own.others"
  # Whether it takes the runc as well, is to be seen.
  awk '/^[ \t]*\[/ { runc = /runtimes\.runc\]/ } !runc' "$files/config-v$version.toml" |
    sed "s|\"/usr/local/bin/tns-shim\"|\"$bin/tns-shim\"|" >"$work/snippet"
  if section runc <"$work/own.dump" | grep -q 'SystemdCgroup = true'; then
    sed 's|#SystemdCgroup = true|SystemdCgroup = true|' "$work/snippet" >"$work/snippet.systemd"
    mv "$work/snippet.systemd" "$work/snippet"
  fi

  if [ -z "$template" ]; then
    cp "$work/snippet" "$root$candidate-import"
    with_import "$work/own" "$candidate-import" >"$work/wanted"
    if is_right "$work/wanted"; then
      cp "$work/snippet" "$work/dropin"
      with_import "$work/own" "$dropin" >"$work/wanted"
      return
    fi
  fi
  grep -v -e '^#' -e '^version' -e '^$' "$work/snippet" >"$work/block"
  with_block "$work/own" "$work/block" >"$work/wanted"
  if ! is_right "$work/wanted"; then
    section runc <"$work/own.dump" >>"$work/block"
    with_block "$work/own" "$work/block" >"$work/wanted"
    is_right "$work/wanted" ||
      die "no way was found to add the handler to $config and to change nothing else, so it is left alone: is the plugin cri disabled there?"
  fi
  if [ -n "$template" ]; then with_block "$work/own.template" "$work/block" >"$work/wanted"; fi
}

configure() {
  choose
  changed=
  # First what is imported, then the import. It may be imported already.
  if [ -f "$work/dropin" ]; then
    mkdir -p "$root$folder/conf.d"
    replace "$work/dropin" "$root$dropin"
    if is_right "$work/own"; then cp "$work/own" "$work/wanted"; fi
    # By now with the real one.
    is_right "$work/wanted" || die "containerd does not read $dropin as it did a moment ago"
  fi
  mkdir -p "$root$folder"
  replace "$work/wanted" "$root${template:-$config}"
  if [ ! -f "$work/dropin" ] && [ -e "$root$dropin" ]; then
    rm -f "$root$dropin"
    changed=yes
  fi
}

# ---- Commands -----------------------------------------------------------------------------------------------------------------------------

restart_containerd() {
  if [ -z "$changed" ]; then
    say 'containerd has it as it should be'
    return
  fi
  say "restarting containerd: $restart"
  # The words of a command, as given.
  # shellcheck disable=SC2086
  on_node $restart
}

# What it will read when it starts, which K3s writes only then.
has_handler() {
  try=0
  until ask --config "$config" config dump 2>/dev/null | grep -q 'runtimes\.tns-shim\]'; do
    try=$((try + 1))
    if [ "$try" -gt "${PATIENCE:-60}" ]; then return 1; fi
    sleep 1
  done
}

install() {
  mkdir -p "$root$bin"
  for program in tns-shim tnsctl; do
    replace "$files/$program" "$root$bin/$program" 755
  done
  configure
  if restart_containerd && has_handler; then return; fi
  say "after the restart containerd has no handler tns-shim, so all is taken back: does something else write $config?" >&2
  take_back
  exit 1
}

# Without it, a container's own processes would go on, but not exec, stop and delete.
in_use() {
  state=$(ask --config "$config" config dump 2>/dev/null | sed -n "s/^state = [\"']\(.*\)[\"']\$/\1/p")
  # K3s and RKE2 say it by a flag.
  for state in "${state:-/run/containerd}" /run/k3s/containerd; do
    if grep -qsF "\"$bin/tns-shim\"" "$root$state"/io.containerd.runtime.v2.task/*/*/options.json; then return 0; fi
  done
  return 1
}

take_back() {
  changed=
  if [ -n "$template" ]; then
    if [ "$(cat "$work/own.template")" != "$made_template" ]; then
      replace "$work/own.template" "$root$template"
    elif [ -e "$root$template" ]; then
      rm -f "$root$template"
      changed=yes
    fi
  elif [ -f "$root$config" ]; then
    if [ "$(cat "$work/own")" = "$made
$(grep '^version' "$work/own")" ]; then
      rm -f "$root$config"
      changed=yes
    else
      replace "$work/own" "$root$config"
    fi
  fi
  if [ -e "$root$dropin" ]; then
    rm -f "$root$dropin"
    changed=yes
  fi
  rmdir "$root$folder/conf.d" 2>/dev/null || true
  restart_containerd
}

remove() {
  if in_use; then die 'containers still use it, so all is left as it is: remove once more when they are gone'; fi
  take_back
  rm -f "$root$bin/tns-shim" "$root$bin/tnsctl"
}

case ${1:-} in
  install | remove)
    start
    "$1"
    ;;
  run)
    # Each in a shell of its own, so that a removal finds what there is by then.
    sleep=
    trap '[ -z "$sleep" ] || kill "$sleep"; if "$0" remove; then exit 0; else exit 1; fi' TERM INT
    "$0" install
    while :; do
      sleep 3600 &
      sleep=$!
      wait "$sleep" || true
    done
    ;;
  *)
    sed -n '3,/^$/{/^set/q; s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
