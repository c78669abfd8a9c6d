#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts tns-shim onto a Kubernetes node with containerd, as the runtime handler `tns-shim`, and takes it off again.
#
#   install-node.sh install     containerd is restarted only if its configuration has changed
#   install-node.sh remove      takes back that, and nothing else; but nothing as long as containers use it, or if containerd would not
#                               start without it
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
# Somebody else's is neither replaced nor removed: a drop-in of that name without this script's first line (tnsctl's, or one put there by
# hand), and programs in BIN_DIR that are not named in the file .tns-shim-installer there, which this script makes before it puts any
# there. Programs that are the same to the byte are used as they are.
#
# That is how `tnsctl enable containerd` does it, too. This does not call it: what an administrator has enabled is not for a DaemonSet to
# take back. So each of them has marks of its own, and leaves alone what has the other's.
set -eu

root=${NODE_ROOT:-}
root=${root%/}
files=${FILES:-$(dirname -- "$(readlink -f -- "$0")")}
bin=${BIN_DIR:-/usr/local/bin}
config=${CONFIG:-/etc/containerd/config.toml}
containerd=${CONTAINERD:-containerd}
restart=${RESTART:-systemctl restart containerd}

begin='# tns-shim: begin. Its installer has put this here, and takes it out again.'
# The first line of the drop-in.
made_dropin='# The installer of tns-shim has made this file, and replaces and removes it as it is.'
# Where the line before had no end.
begin_glued="$begin The line before ends here."
end='# tns-shim: end'
made='# The installer of tns-shim has made this file, and removes it again unless something is added.'
made_template='{{- /* The installer of tns-shim has made this file, and removes it again unless something is added. */ -}}
{{ template "base" . }}'
# A line that names the drop-in, and not in a remark.
by_name="^[^#]*50-tns-shim\\.toml[\"']"
# In the folder of the programs: which of them this has put there.
marker=.tns-shim-installer
made_marker='# The installer of tns-shim has put these programs here, and removes them again:'

say() { echo "tns-shim: $*"; }
die() {
  say "$*" >&2
  exit 1
}

on_node() {
  if [ -n "$root" ]; then chroot "$root" "$@"; else "$@"; fi
}

# Where file $1 of the node is when its links are followed, if it is there.
real() {
  followed=$(on_node readlink -f "$1" 2>/dev/null) || return 1
  [ -e "$root$followed" ] || return 1
  echo "$followed"
}

# Something of that name is there, if only a link to nowhere.
is_there() { [ -e "$root$1" ] || [ -L "$root$1" ]; }

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
  ask --config "$candidate" config dump >"$work/dumped" 2>"$work/dump.err" || {
    cat "$work/dump.err" >&2
    return 1
  }
  # containerd 2 says nothing about such a file before it starts, and then does not start.
  named_imports "$work/dumped" >"$work/named"
  if grep '^missing ' "$work/named" >"$work/missing"; then
    sed 's/^missing /tns-shim: an import that is not there: /' "$work/missing" >&2
    return 1
  fi
  cat "$work/dumped"
}

# What is imported by name, as dump $1 says: where it is on the node, or `missing` and the name. A `*` may as well find nothing.
named_imports() {
  awk '/^[ \t]*\[/ { exit } /^imports = \[/ {
    while (match($0, /"[^"]*"|\047[^\047]*\047/)) {
      print substr($0, RSTART + 1, RLENGTH - 2)
      $0 = substr($0, RSTART + RLENGTH)
    }
  }' "$1" >"$work/imports"
  while read -r import; do
    case $import in
      *\**) ;;
      /*) real "$import" || echo "missing $import" ;;
      *) beside "$import" || echo "missing $import" ;;
    esac
  done <"$work/imports"
}

# A relative one is meant from the folder of the file that has it, which may be imported itself.
beside() {
  real "$folder/$1" && return
  while read -r other; do
    case $other in
      /*) ;;
      *) other=$folder/$other ;;
    esac
    real "$(dirname "$other")/$1" && return
  done <"$work/imports"
  return 1
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
  if [ "$(grep -c '^# tns-shim: begin' "$1")" != "$(grep -cxF "$end" "$1")" ]; then
    die "${1#"$root"}: the lines from '# tns-shim: begin' to '$end' are no longer whole, so all is left as it is: take them out by hand"
  fi
  if [ -n "$foreign" ]; then cat "$1" >"$work/no-import"; else without_import "$1" >"$work/no-import"; fi
  sed "/^$begin/,/^$end\$/d" "$work/no-import" >"$work/no-block"
  if grep -qxF "$begin_glued" "$1" && [ "$(sed -n '$p' "$1")" = "$end" ]; then
    printf '%s' "$(cat "$work/no-block")"
  else
    cat "$work/no-block"
  fi
}

# The configuration $1 without the import of the drop-in, wherever it stands in the array and however it is quoted: somebody may have
# added to it, or a program may have written it anew.
without_import() {
  awk -v file="$dropin" -v open_end="$(tail -c 1 "$1")" '
    $0 == "imports = [\"" file "\"] # tns-shim" && !section { next }
    /^[ \t]*\[/ { section = 1 }
    !section && !array && /^[ \t]*["\047]?imports["\047]?[ \t]*=[ \t]*\[/ { array = length(text) + index($0, "[") + 1 }
    { text = text $0 "\n" }

    # Takes one out. Strings, remarks and commas are told apart; what else there may be is left as it is.
    function take_out(   at, sign, to, comma) {
      for (at = array; (sign = substr(text, at, 1)) != "" && sign != "]"; at++) {
        if (sign == ",") {
          comma = at
        } else if (sign == "#") {
          at += index(substr(text, at), "\n") - 1
        } else if (sign == "\"" || sign == "\047") {
          for (to = at + 1; substr(text, to, 1) != sign; to++) {
            if (sign == "\"" && substr(text, to, 1) == "\\") to++
            if (substr(text, to, 1) ~ /^\n?$/) return 0
          }
          # Three of them: more than one line.
          if (to == at + 1 && substr(text, to + 1, 1) == sign) return 0
          if (substr(text, at + 1, to - at - 1) == file) {
            cut(at, to, comma)
            return 1
          }
          at = to
        } else if (sign !~ /[ \t\r\n]/) {
          return 0
        }
      }
      return 0
    }
    # From `from` to `to`, with a comma: the one behind it and one blank, else the one before it. One too many at the end is none.
    function cut(from, to, comma,   rest, before) {
      rest = substr(text, to + 1)
      if (match(rest, /^[ \t]*,[ \t]?/)) {
        to += RLENGTH
      } else if (comma && substr(text, comma + 1, from - comma - 1) ~ /^[ \t]*$/) {
        from = comma
      }
      before = substr(text, 1, from - 1)
      rest = substr(text, to + 1)
      # A line of its own.
      if (match(before, /\n[ \t]*$/) && match(rest, /^[ \t]*\r?\n/)) {
        rest = substr(rest, RLENGTH + 1)
        sub(/[ \t]*$/, "", before)
      }
      text = before rest
    }
    END {
      if (array) while (take_out()) { }
      if (open_end != "") text = substr(text, 1, length(text) - 1)
      ORS = ""
      print text
    }' "$1"
}

# The version that configuration $1 says it has.
version_of() { awk '/^[ \t]*\[/ { exit } /^[ \t]*version[ \t]*=/ { sub(/^[^=]*=[ \t]*/, ""); sub(/[^0-9].*/, ""); print; exit }' "$1"; }

start() {
  [ -z "$root" ] || [ -d "$root" ] || die "there is no $root"
  # What a symbolic link on the node says is meant for the node's root.
  if is_there "$config"; then config=$(on_node readlink -f "$config") || die "$config is a link to nowhere"; fi
  folder=$(dirname "$config")
  dropin=$folder/conf.d/50-tns-shim.toml
  work=$(mktemp -d)
  trap 'clean_up' EXIT
  foreign=
  if is_there "$dropin" && [ "$(sed -n 1p "$root$dropin" 2>/dev/null)" != "$made_dropin" ]; then foreign=yes; fi
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
      '' | 0 | 1 | 2) template=$folder/config.toml.tmpl ;;
      *) template=$folder/config-v3.toml.tmpl ;;
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
  rm -f "$root$folder"/config*.tmpl.tns-shim "$root$bin/$marker.tns-shim"
  # For the candidate alone.
  [ -z "${new_folder:-}" ] || rmdir "$root$new_folder" 2>/dev/null || true
}

# Decides what config.toml and the drop-in are to be: $work/wanted, and $work/dropin unless it is to be none.
choose() {
  version=$(version_of "$work/own")
  case $version in
    '' | 0 | 1) die "$config is of version ${version:-1}; it must be 2 or later: see containerd config migrate" ;;
    2) snippet=$files/config-v2.toml ;;
    # A later one is tried like this.
    *) snippet=$files/config-v3.toml ;;
  esac
  dump "$work/own" >"$work/own.dump" || die "containerd cannot read its configuration as it is, so it is left alone"
  others <"$work/own.dump" >"$work/own.others"
  # Whether it takes the runc as well, is to be seen.
  {
    echo "$made_dropin"
    awk '/^[ \t]*\[/ { runc = /runtimes\.runc\]/ } !runc' "$snippet"
  } | sed -e "s|\"/usr/local/bin/tns-shim\"|\"$bin/tns-shim\"|" -e "s|^version = .*|version = $version|" >"$work/snippet"
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

# Dies if containerd would not start with its configuration as it is without this script: above all if that goes on importing the drop-in,
# which is to be removed.
may_go() {
  if is_there "$dropin" && [ -z "$foreign" ]; then goes=$(real "$dropin"); else goes=; fi
  if [ -z "$goes" ] && cmp -s "$work/own" "$root$config"; then return; fi
  dump "$work/own" >/dev/null || die "containerd cannot read $config as it would be without the handler, so all is left as it is"
  if [ -z "$goes" ] || ! grep -qxF "$goes" "$work/named"; then return; fi
  place="an import in $config"
  grep -vxF -e "$goes" -e "$candidate" "$work/named" | sed "s|^|$root|" >"$work/read"
  { cat "$work/own" && tr '\n' '\0' <"$work/read" | xargs -0 cat; } >"$work/text"
  if grep -q "$by_name" "$work/text"; then
    while read -r file; do
      line=$(grep -ns "$by_name" "$root$file" | sed -n 's/:.*//;1p')
      if [ -n "$line" ]; then
        place="line $line of $file"
        break
      fi
    done <<END
${template:-$config}
$config
$(sed "s|^$root||" "$work/read")
END
  elif grep -qxF "$candidate" "$work/named" && grep -q '^[^#]*\*' "$work/text"; then
    # containerd 1 lists what a pattern has found, too. It is known by its listing the configuration itself.
    return
  fi
  die "$dropin is still imported by $place, from where this script cannot take it out; containerd would not start without it, so all is" \
    "left as it is: take that import out by hand, and try again"
}

configure() {
  choose
  if [ ! -f "$work/dropin" ]; then may_go; fi
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

# Which programs this script has put there, or will: all but those that are there already.
claim() {
  echo "$made_marker" >"$work/programs"
  for program in tns-shim tnsctl; do
    if grep -qsxF "$program" "$root$bin/$marker" || ! is_there "$bin/$program"; then
      echo "$program" >>"$work/programs"
    elif ! { found=$(real "$bin/$program") && cmp -s "$files/$program" "$root$found"; }; then
      die "$bin/$program is there already, which is another one and was not put there by this script, so all is left as it is: name" \
        "another folder by BIN_DIR, or remove that one, and try again"
    fi
  done
}

install() {
  if [ -n "$foreign" ]; then
    die "$dropin is there already, and this script has not written it, so all is left as it is: if tnsctl has, call" \
      "\`tnsctl disable containerd\`, else remove it and its import in $config; and try again"
  fi
  claim
  if [ "$(cat "$work/programs")" != "$made_marker" ]; then
    mkdir -p "$root$bin"
    replace "$work/programs" "$root$bin/$marker"
    sed 1d "$work/programs" >"$work/names"
    while read -r program; do replace "$files/$program" "$root$bin/$program" 755; done <"$work/names"
  fi
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
  may_go
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
  if [ -z "$foreign" ] && [ -e "$root$dropin" ]; then
    rm -f "$root$dropin"
    changed=yes
  fi
  rmdir "$root$folder/conf.d" 2>/dev/null || true
  restart_containerd
}

remove() {
  if in_use; then die 'containers still use it, so all is left as it is: remove once more when they are gone'; fi
  take_back
  if [ -n "$foreign" ]; then
    say "this script has not written $dropin, so it is left, with what imports it and the programs in $bin"
    return
  fi
  # K3s may write it anew only in a moment.
  if [ -z "$template" ] && [ -f "$root$config" ] && ask --config "$config" config dump 2>/dev/null | grep -q 'runtimes\.tns-shim\]'; then
    say "containerd has a handler tns-shim all the same, which this script has not written, so that is left: see $config"
  fi
  for program in tns-shim tnsctl; do
    if grep -qsxF "$program" "$root$bin/$marker"; then
      rm -f "$root$bin/$program"
    elif is_there "$bin/$program"; then
      say "this script has not put $bin/$program there, so it is left"
    fi
  done
  # Last: for as long as it is there, they are known to be ours.
  rm -f "$root$bin/$marker"
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
