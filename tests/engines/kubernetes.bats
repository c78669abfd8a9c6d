#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What Kubernetes is given: the installer of nodes, against a real containerd, and the objects as their readers read them.

load helpers
load cri

CONFIG=/etc/containerd/config.toml
DROPIN=/etc/containerd/conf.d/50-tns-shim.toml
# What the installer's own is known by.
MARKER=/usr/local/bin/.tns-shim-installer
DROPIN_HEAD='# The installer of tns-shim has made this file, and replaces and removes it as it is.'

# The node: this root, but with other configuration and other programs of its own.
NODE=/node
node() { chroot "$NODE" "$@"; }
# With what the installer's image has for a shell and tools.
installer() { NODE_ROOT=$NODE RESTART='sh /usr/local/bin/restart' FILES=$BATS_FILE_TMPDIR/files busybox sh "$CONTRIB/kubernetes/install-node.sh" "$@"; }

# Where no containerd runs.
quiet() { NODE_ROOT=$NODE RESTART=true FILES=${FILES:-$BATS_FILE_TMPDIR/files} busybox sh "$CONTRIB/kubernetes/install-node.sh" "$@"; }

setup_file() {
  mkdir "$BATS_FILE_TMPDIR/files" "$NODE"
  cp "$TNS_BIN/tns-shim" "$TNS_BIN/tnsctl" "$CONTRIB"/containerd/config-v*.toml "$BATS_FILE_TMPDIR/files"
  cp -a /etc /run/node-etc
  cp -a /usr/local /run/node-local
  mkdir /run/node-etc/tns-shim
  echo "runtime = \"$TNS_RUNTIME\"" >/run/node-etc/tns-shim/config.toml
  # A runtime in the other root could not leave it, else; and what is done there stays there.
  mount --make-rprivate /
  mount --rbind / "$NODE"
  mount --bind /run/node-etc "$NODE/etc"
  mount --bind /run/node-local "$NODE/usr/local"
  : >"$BATS_FILE_TMPDIR/containerd.log"
  cat >"$NODE/usr/local/bin/restart" <<END
echo restarted >>$BATS_FILE_TMPDIR/restarts
read pid <$BATS_FILE_TMPDIR/containerd.pid
kill \$pid
while [ -d /proc/\$pid ]; do sleep 0.1; done
sh /usr/local/bin/start
END
  cat >"$NODE/usr/local/bin/start" <<END
containerd >>$BATS_FILE_TMPDIR/containerd.log 2>&1 </dev/null 3>&- 4>&- &
echo \$! >$BATS_FILE_TMPDIR/containerd.pid
END
}

teardown_file() {
  umount -l "$NODE"
  rmdir "$NODE"
  rm -r /run/node-etc /run/node-local
}

# The installer's, for the tests of the node.
remove_all_of_node() {
  [[ ! -e $BATS_FILE_TMPDIR/containerd.pid ]] || { remove_all && stop_daemon "$BATS_FILE_TMPDIR/containerd.pid"; }
  rm -f "$BATS_FILE_TMPDIR/containerd.pid" "$BATS_FILE_TMPDIR/restarts" "$NODE$CONFIG"
}

teardown() {
  remove_all_of_node >/dev/null 2>&1 || true
  find "$NODE/etc/containerd" -mindepth 1 -delete
  rm -f "$NODE"/usr/local/bin/tns* "$NODE$MARKER"
  clear_cgroups
  local clean=yes
  wait_for nothing_left || clean=no
  end_all /tmp/tns.
  [[ $clean == yes ]]
}

# A configuration of a user's own, with what the tests need, and what is not to get lost.
own_config() { # own_config [EXTRA TOP-LEVEL LINE]
  mkdir -p "$NODE/etc/containerd"
  case $(own_version) in
    2)
      cat <<END
# A remark
version = 2
${1:-oom_score = -1}
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "$IMAGE"   # mine
    restrict_oom_score_adj = true
    max_concurrent_downloads = 7
    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "native"
END
      ;;
    3)
      cat <<END
# A remark
version = 3
${1:-oom_score = -1}
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  max_concurrent_downloads = 7
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "$IMAGE"   # mine
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
END
      ;;
  esac
}

start_node() {
  node sh /usr/local/bin/start
  wait_for cri Version
}
restarts() { grep -cs . "$BATS_FILE_TMPDIR/restarts" || [[ -e $BATS_FILE_TMPDIR/restarts ]] || echo 0; }
# What the node's containerd makes of its configuration, without the files it comes from and without the handler.
effective() {
  node containerd config dump 2>/dev/null |
    awk '/^ *\[/ { ours = /runtimes\.tns-shim[].]/ } /^ *$/ || /^ *imports = / { next } !ours'
}
has_handler() { node containerd config dump 2>/dev/null | grep -q 'runtimes\.tns-shim\]'; }
# Of the installer nothing is left in containerd's folder.
is_clean() { # is_clean FILES...
  is "$(find "$NODE/etc/containerd" -type f -printf '%P\n' | sort)" "$(printf '%s\n' "$@")"
}

@test "the installer: containerd starts with it and runs a pod; twice is once; removed, all is as before" {
  own_config >"$NODE$CONFIG"
  chmod 640 "$NODE$CONFIG"
  cp -p "$NODE$CONFIG" "$WORK/before"
  effective >"$WORK/effective"
  start_node
  load_image >/dev/null
  # A pod that is there already goes on.
  start runc old
  old=$(pid_of old)
  run run_pod tns-shim early
  isnt "$status" 0

  installer install
  is "$(restarts)" 1
  wait_for cri Version
  has_handler
  is "$(effective)" "$(<"$WORK/effective")"
  is "$(stat -c %a "$NODE$CONFIG")" 640
  is "$(stat -c %a "$NODE/usr/local/bin/tns-shim")" 755
  is "$(pid_of old)" "$old"
  start shim c '{"org.tns-shim.mode": "private"}'
  whole c 2
  start runc d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"

  # Once more, with nothing to do
  find "$NODE/etc/containerd" "$NODE"/usr/local/bin/tns* -type f -exec ls --full-time -i {} + >"$WORK/files"
  installer install
  is "$(find "$NODE/etc/containerd" "$NODE"/usr/local/bin/tns* -type f -exec ls --full-time -i {} +)" "$(<"$WORK/files")"
  is "$(restarts)" 1
  # A newer shim: containerd need not know.
  echo >>"$BATS_FILE_TMPDIR/files/tns-shim"
  installer install
  cmp "$BATS_FILE_TMPDIR/files/tns-shim" "$NODE/usr/local/bin/tns-shim"
  is "$(restarts)" 1
  whole c 2

  # Not under the feet of a container.
  run installer remove
  is "$status" 1
  contains "$output" 'containers still use it'
  is "$(restarts)" 1
  has_handler
  whole c 2
  remove_all
  installer remove
  is "$(restarts)" 2
  cmp "$WORK/before" "$NODE$CONFIG"
  is "$(stat -c %a "$NODE$CONFIG")" 640
  is_clean config.toml
  run find "$NODE/usr/local/bin" -name '*tns*'
  is "$output" ''
  wait_for cri Version
  run run_pod tns-shim late
  isnt "$status" 0
  contains "$output" 'no runtime for "tns-shim" is configured'
  # Again, with nothing to do
  installer remove
  is "$(restarts)" 2
  run find "$NODE/usr/local/bin" -name '*tns*'
  is "$output" ''
}

@test "the installer: whatever the configuration looks like, it gains the handler alone, and gets back its bytes" {
  echo 'oom_score = -2' >"$NODE/etc/containerd/other.toml"
  version=$(own_version)
  runc='plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc'
  [[ $version == 2 ]] || runc='plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc'
  configs=(
    "$(own_config)"$'\n'
    "$(own_config)"
    "version = $version"
    "version = $version"$'\n\n\n'
    "$(own_config 'imports = ["/etc/containerd/other.toml"]')"$'\n'
    "$(own_config $'imports = [\n  # one\n  "other.toml",\n]')"$'\n'
    "$(own_config 'imports=[]')"$'\n'
    "$(own_config 'imports = ["/etc/containerd/conf.d/*.toml"]')"$'\n'
    "$(own_config)"$'\r\n[debug]\r\n  level = "info"\r\n'
    "$(own_config)"$'\n'"[$runc]"$'\n  runtime_type = "io.containerd.runc.v2"\n'"[$runc.options]"$'\n  SystemdCgroup = true\n'
    # A newer containerd takes a file for an older one.
    $'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "/mine"\n'
    $'version = 2   # not 1\n'
  )
  for config in "${configs[@]}"; do
    printf '%s' "$config" >"$NODE$CONFIG"
    effective >"$WORK/effective"
    isnt "$(<"$WORK/effective")" ''
    NODE_ROOT=$NODE RESTART=true FILES=$BATS_FILE_TMPDIR/files "$CONTRIB/kubernetes/install-node.sh" install || fail "with: $config"
    has_handler || fail "no handler with: $config"
    is "$(effective)" "$(<"$WORK/effective")"
    is "$(node containerd config dump 2>/dev/null | grep -c 'SystemdCgroup = true')" "$(($(grep -c 'SystemdCgroup = true' <<<"$config") * 2))"
    cp "$NODE$CONFIG" "$WORK/once"
    NODE_ROOT=$NODE RESTART=false FILES=$BATS_FILE_TMPDIR/files busybox sh "$CONTRIB/kubernetes/install-node.sh" install
    cmp "$WORK/once" "$NODE$CONFIG"
    NODE_ROOT=$NODE RESTART=true FILES=$BATS_FILE_TMPDIR/files busybox sh "$CONTRIB/kubernetes/install-node.sh" remove
    printf '%s' "$config" | cmp - "$NODE$CONFIG" || fail "with: $config"
    is_clean config.toml other.toml
  done

  # None at all
  rm "$NODE$CONFIG" "$NODE/etc/containerd/other.toml"
  NODE_ROOT=$NODE RESTART=true FILES=$BATS_FILE_TMPDIR/files "$CONTRIB/kubernetes/install-node.sh" install
  has_handler
  NODE_ROOT=$NODE RESTART=true FILES=$BATS_FILE_TMPDIR/files "$CONTRIB/kubernetes/install-node.sh" remove
  is_clean
}

@test "the installer: what a user changes meanwhile stays; other folders; a link" {
  folder=$NODE/etc/containerd
  mkdir -p "$folder/real"
  own_config >"$folder/real/mine.toml"
  ln -s real/mine.toml "$NODE$CONFIG"
  at() { NODE_ROOT=$NODE RESTART=true BIN_DIR=/opt/tns-shim/bin FILES=$BATS_FILE_TMPDIR/files "$CONTRIB/kubernetes/install-node.sh" "$1"; }
  mkdir -p "$NODE/opt"
  at install
  has_handler
  contains "$(node containerd config dump)" /opt/tns-shim/bin/tns-shim
  [[ -L $NODE$CONFIG && -x $NODE/opt/tns-shim/bin/tns-shim ]]
  printf '\n[debug]\n  level = "warn"\n' >>"$folder/real/mine.toml"
  at install
  at remove
  is "$(<"$folder/real/mine.toml")" "$(own_config)"$'\n\n[debug]\n  level = "warn"'
  is_clean real/mine.toml
  # One that leads somewhere else from where the installer is.
  mkdir -p /run/node-etc/elsewhere
  own_config >"$NODE/etc/elsewhere/mine.toml"
  ln -sf /etc/elsewhere/mine.toml "$NODE$CONFIG"
  is "$(stat -L -c %F "$NODE$CONFIG" 2>&1 | grep -c 'No such file')" 1
  at install
  [[ -L $NODE$CONFIG ]]
  has_handler
  at remove
  is "$(<"$NODE/etc/elsewhere/mine.toml")" "$(own_config)"
  is "$(find "$NODE/etc/elsewhere" -type f)" "$NODE/etc/elsewhere/mine.toml"
  rm -r "$folder/real" "$NODE/opt/tns-shim" /run/node-etc/elsewhere
}

@test "the installer: a configuration that it cannot add to is left alone, and it says why" {
  refused() { # refused SENTENCE CONFIGURATION
    printf '%s' "$2" >"$NODE$CONFIG"
    run installer install
    is "$status" 1
    contains "$output" "$1"
    is "$(<"$NODE$CONFIG")" "$2"
    is_clean config.toml
    is "$(restarts)" 0
  }
  refused 'is of version 1; it must be 2 or later' 'oom_score = 1'
  refused 'containerd cannot read its configuration as it is' "version = $(own_version)"$'\n[broken'
  version=$(own_version)
  if [[ $version == 2 ]]; then
    refused 'is the plugin cri disabled there?' $'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]'
  fi
  # containerd does not start with these, whatever its dump says.
  for import in /etc/containerd/missing.toml missing.toml; do
    refused 'containerd cannot read its configuration as it is' "$(own_config "imports = [\"conf.d/*.toml\", \"$import\"]")"
    contains "$output" missing.toml
  done
  # Somebody has taken away the end of what an installer has put there: what is behind it is not the installer's.
  own_config >"$NODE$CONFIG"
  quiet install
  printf '\n[debug]\n  level = "warn"\n' >>"$NODE$CONFIG"
  if grep -q '^# tns-shim: end' "$NODE$CONFIG"; then
    sed -i '/^# tns-shim: end/d' "$NODE$CONFIG"
    refused 'are no longer whole' "$(<"$NODE$CONFIG")"
    run installer remove
    is "$status" 1
    grep -q 'level = "warn"' "$NODE$CONFIG"
  fi
}

# A configuration with the drop-in: the installer's, or where that writes none because of what containerd makes of imports, one as if.
with_dropin() { # with_dropin [EXTRA TOP-LEVEL LINE]
  own_config >"$NODE$CONFIG"
  quiet install
  if [[ ! -e $NODE$DROPIN ]]; then
    mkdir -p "$NODE/etc/containerd/conf.d"
    { echo "$DROPIN_HEAD" && cat "$CONTRIB/containerd/config-v2.toml"; } >"$NODE$DROPIN"
  fi
  own_config "$@" >"$NODE$CONFIG"
}
# containerd comes up as it is configured.
starts() {
  start_node
  stop_daemon "$BATS_FILE_TMPDIR/containerd.pid"
  rm "$BATS_FILE_TMPDIR/containerd.pid"
}

@test "the installer: its import goes wherever it is by now, and containerd starts without it" {
  mine=/etc/containerd/mine.toml
  printf 'version = %s\noom_score = -2\n' "$(own_version)" >"$NODE$mine"
  # What somebody or a program has made of it, and what is to stay.
  forms=(
    "imports = [\"$mine\", \"$DROPIN\"] # tns-shim" "imports = [\"$mine\"] # tns-shim"
    "imports = [\"$DROPIN\"]" 'imports = []'
    "imports = ['$DROPIN']" 'imports = []'
    "imports = ['$mine', '$DROPIN']" "imports = ['$mine']"
    "imports = ['$DROPIN', '$mine']" "imports = ['$mine']"
    "imports = ['/etc/containerd/conf.d/*.toml', '$DROPIN',]" "imports = ['/etc/containerd/conf.d/*.toml', ]"
    "  \"imports\"=[ '$mine' , \"$DROPIN\" ] # \"$DROPIN\", "$'\r' "  \"imports\"=[ '$mine'  ] # \"$DROPIN\", "$'\r'
    "imports = ["$'\n'"  \"$mine\", # \"$DROPIN\","$'\n'"  \"$DROPIN\""$'\n]' "imports = ["$'\n'"  \"$mine\", # \"$DROPIN\","$'\n]'
    "imports = ["$'\n'"  '$DROPIN',"$'\n'"  '$mine',"$'\n]' "imports = ["$'\n'"  '$mine',"$'\n]'
    "imports = ["$'\n'"  '$DROPIN', # the shim"$'\n'"  '$mine'"$'\n]' "imports = ["$'\n'"  # the shim"$'\n'"  '$mine'"$'\n]'
  )
  for ((i = 0; i < ${#forms[@]}; i += 2)); do
    with_dropin "${forms[i]}"
    has_handler
    run quiet remove
    is "$status" 0
    is "$(<"$NODE$CONFIG")" "$(own_config "${forms[i + 1]}")"
    is_clean config.toml mine.toml
    run find "$NODE/usr/local/bin" -name '*tns*'
    is "$output" ''
    starts
  done

  # All of it written anew, with the handler by then.
  if node containerd config migrate >/dev/null 2>&1; then
    with_dropin "imports = ['$mine', '$DROPIN']"
    node containerd config migrate >"$WORK/migrated"
    contains "$(<"$WORK/migrated")" "imports = ['$mine', '$DROPIN']"
    cp "$WORK/migrated" "$NODE$CONFIG"
    run quiet remove
    is "$status" 0
    contains "$output" 'containerd has a handler tns-shim all the same, which this script has not written'
    is "$(<"$NODE$CONFIG")" "$(sed "s|, '$DROPIN'||" "$WORK/migrated")"
    is_clean config.toml mine.toml
    starts
  fi
}

@test "the installer: an import that it cannot take out keeps all as it is, and is named" {
  mine=/etc/containerd/mine.toml
  printf 'version = %s\noom_score = -2\n' "$(own_version)" >"$NODE$mine"
  stays() { # stays PLACE
    has_handler
    find "$NODE/etc/containerd" "$NODE/usr/local/bin" -type f -exec ls --full-time -i {} + >"$WORK/files"
    run quiet remove
    is "$status" 1
    contains "$output" "$DROPIN is still imported by $1,"
    is "$(find "$NODE/etc/containerd" "$NODE/usr/local/bin" -type f -exec ls --full-time -i {} +)" "$(<"$WORK/files")"
    [[ $output != *restarting* ]]
    starts
  }
  with_dropin 'imports = ["conf.d/50-tns-shim.toml"]'
  stays "line 3 of $CONFIG"
  with_dropin '# Not "50-tns-shim.toml"'$'\n''imports = ["/etc/containerd/conf.d/../conf.d/50-tns-shim.toml"]'
  stays "line 4 of $CONFIG"
  with_dropin 'imports = ["/etc/containerd/conf.d/50-tns\u002dshim.toml"]'
  stays "an import in $CONFIG"
  with_dropin "imports = [\"/etc/containerd/*.d/none\", \"mine.toml\"]"
  printf '\nimports = ["%s"]\n' "$DROPIN" >>"$NODE$mine"
  stays "line 4 of $mine"
  # By hand, as it says.
  sed -i 4d "$NODE$mine"
  quiet remove
  is_clean config.toml mine.toml
  # Nor is it restarted with another import that is not there.
  with_dropin "imports = ['$mine', '$DROPIN', '/etc/containerd/missing.toml']"
  cp "$NODE$CONFIG" "$WORK/before"
  run quiet remove
  is "$status" 1
  contains "$output" "containerd cannot read $CONFIG as it would be without the handler"
  contains "$output" /etc/containerd/missing.toml
  cmp "$WORK/before" "$NODE$CONFIG"
  [[ -e $NODE$DROPIN && -x $NODE/usr/local/bin/tns-shim ]]
}

@test "the installer: an import is looked for where the file that has it is" {
  version=$(own_version)
  mkdir "$NODE/etc/containerd/parts"
  printf 'version = %s\nimports = ["b.toml"]\n' "$version" >"$NODE/etc/containerd/parts/a.toml"
  printf 'version = %s\noom_score = -3\n' "$version" >"$NODE/etc/containerd/parts/b.toml"
  own_config 'imports = ["parts/a.toml"]' >"$NODE$CONFIG"
  quiet install
  has_handler
  starts
  quiet remove
  is "$(<"$NODE$CONFIG")" "$(own_config 'imports = ["parts/a.toml"]')"
  is_clean config.toml parts/a.toml parts/b.toml
}

# All that the installer may write.
everything() { find "$NODE/etc/containerd" "$NODE/usr/local/bin" \( -type f -o -type l \) -exec ls --full-time -i {} +; }

@test "the installer: somebody else's drop-in is neither replaced nor removed, nor are its import and programs" {
  foreign() {
    everything >"$WORK/files"
    run quiet install
    is "$status" 1
    contains "$output" "$DROPIN is there already, and this script has not written it"
    contains "$output" 'tnsctl disable containerd'
    is "$(everything)" "$(<"$WORK/files")"
    run quiet remove
    is "$status" 0
    contains "$output" "this script has not written $DROPIN, so it is left, with what imports it and the programs in /usr/local/bin"
    is "$(everything)" "$(<"$WORK/files")"
    [[ $output != *restarting* ]]
  }
  # By hand, of contrib
  mkdir -p "$NODE/etc/containerd/conf.d"
  cp "$CONTRIB/containerd/config-v$(own_version).toml" "$NODE$DROPIN"
  for imports in "\"$DROPIN\", " "\"$DROPIN\""; do
    own_config "imports = [$imports]" >"$NODE$CONFIG"
    foreign
    cp "$TNS_BIN/tns-shim" "$TNS_BIN/tnsctl" "$NODE/usr/local/bin"
  done
  echo "imports = [\"$DROPIN\"] # tns-shim" | cat - <(own_config) >"$NODE$CONFIG"
  foreign
  # By tnsctl
  rm "$NODE$DROPIN"
  own_config >"$NODE$CONFIG"
  node tnsctl enable containerd
  if [[ -e $NODE$DROPIN ]]; then
    foreign
    has_handler
  fi
  rm -f "$NODE$DROPIN" "$NODE"/usr/local/bin/tns*
  # The installer's, which somebody has made theirs
  with_dropin
  sed -i 1d "$NODE$DROPIN"
  foreign
  [[ -x $NODE/usr/local/bin/tns-shim ]]
}

@test "the installer: somebody else's programs are neither replaced nor removed" {
  own_config >"$NODE$CONFIG"
  # Another one: nothing is done.
  for program in tns-shim tnsctl; do
    echo mine >"$NODE/usr/local/bin/$program"
    everything >"$WORK/files"
    run quiet install
    is "$status" 1
    contains "$output" "/usr/local/bin/$program is there already"
    contains "$output" BIN_DIR
    is "$(everything)" "$(<"$WORK/files")"
    run quiet remove
    is "$status" 0
    contains "$output" "this script has not put /usr/local/bin/$program there, so it is left"
    is "$(everything)" "$(<"$WORK/files")"
    rm "$NODE/usr/local/bin/$program"
  done

  # The same ones are used, and stay.
  install -m 755 "$BATS_FILE_TMPDIR"/files/tns{-shim,ctl} "$NODE/usr/local/bin"
  everything | grep bin/ >"$WORK/files"
  quiet install
  has_handler
  is "$(everything | grep bin/)" "$(<"$WORK/files")"
  quiet remove
  is "$(everything | grep bin/)" "$(<"$WORK/files")"
  is "$(<"$NODE$CONFIG")" "$(own_config)"
  is_clean config.toml

  # One of them, by a link
  rm "$NODE/usr/local/bin/tnsctl"
  mkdir -p "$NODE/usr/local/mine"
  mv "$NODE/usr/local/bin/tns-shim" "$NODE/usr/local/mine"
  ln -s /usr/local/mine/tns-shim "$NODE/usr/local/bin/tns-shim"
  everything | grep bin/ >"$WORK/files"
  quiet install
  is "$(sed 1d "$NODE$MARKER")" tnsctl
  [[ -x $NODE/usr/local/bin/tnsctl ]]
  quiet remove
  is "$(everything | grep bin/)" "$(<"$WORK/files")"
  rm -r "$NODE/usr/local/mine" "$NODE/usr/local/bin/tns-shim"
}

@test "the installer: ended in between, it goes on or takes all off" {
  own_config >"$NODE$CONFIG"
  clean() {
    is "$(<"$NODE$CONFIG")" "$(own_config)"
    is_clean config.toml
    run find "$NODE/usr/local/bin" -name '*tns*'
    is "$output" ''
  }
  # It cannot put the second program there.
  cp -r "$BATS_FILE_TMPDIR/files" "$WORK/files"
  rm "$WORK/files/tnsctl"
  FILES=$WORK/files run quiet install
  isnt "$status" 0
  [[ -e $NODE$MARKER && -x $NODE/usr/local/bin/tns-shim && ! -e $NODE/usr/local/bin/tnsctl ]]
  quiet remove
  clean
  FILES=$WORK/files run quiet install
  quiet install
  has_handler
  cmp "$NODE/usr/local/bin/tnsctl" "$BATS_FILE_TMPDIR/files/tnsctl"
  # What a removal has not come to.
  rm "$NODE/usr/local/bin/tns-shim"
  quiet remove
  clean
  # The drop-in, and not yet its import; its import, and no drop-in
  with_dropin
  quiet remove
  clean
  with_dropin "imports = ['$DROPIN']"
  rm "$NODE$DROPIN"
  quiet remove
  is "$(<"$NODE$CONFIG")" "$(own_config 'imports = []')"
}

@test "the installer: a version to come is written as the node's own has it" {
  if [[ $(own_version) == 2 ]]; then
    # This one makes nothing of it.
    own_config | sed 's/^version = 2/version = 4/' >"$NODE$CONFIG"
    cp "$NODE$CONFIG" "$WORK/before"
    run quiet install
    is "$status" 1
    cmp "$WORK/before" "$NODE$CONFIG"
    return
  fi
  # It takes 4 for 3, and says 4.
  cat >"$NODE/usr/local/bin/containerd-4" <<'END'
[ "$1" = --config ] || exec containerd "$@"
rm -rf /run/version-4
cp -r /etc/containerd /run/version-4
! grep -rqx 'version = 3' /run/version-4 || { echo 'a file of version 3' >&2; exit 1; }
find /run/version-4 -type f -exec sed -i -e 's/^version = 4$/version = 3/' -e 's|/etc/containerd|/run/version-4|' {} +
config=/run/version-4/${2#/etc/containerd/}
shift 2
containerd --config "$config" "$@" | sed -e 's/^version = 3$/version = 4/' -e 's|/run/version-4|/etc/containerd|g'
rm -r /run/version-4
END
  own_config | sed 's/^version = 3/version = 4/' >"$NODE$CONFIG"
  cp "$NODE$CONFIG" "$WORK/before"
  CONTAINERD='sh /usr/local/bin/containerd-4' quiet install
  grep -qx 'version = 4' "$NODE$DROPIN"
  is "$(sed -n 1p "$NODE$DROPIN")" "$DROPIN_HEAD"
  CONTAINERD='sh /usr/local/bin/containerd-4' quiet remove
  cmp "$WORK/before" "$NODE$CONFIG"
  is_clean config.toml
  rm "$NODE/usr/local/bin/containerd-4"
}

# K3s, as far as it writes containerd's configuration at each start: from its own text, or from a template with that in it.
fake_k3s() {
  K3S=$NODE/etc/containerd/k3s
  mkdir -p "$K3S"
  { echo '# File generated by k3s. DO NOT EDIT. Use config.toml.tmpl instead.' && own_config; } >"$NODE/usr/local/base.toml"
  name='config.toml.tmpl'
  [[ $(own_version) != 3 ]] || name='config-v3.toml.tmpl'
  cat >"$NODE/usr/local/bin/k3s-restart" <<END
echo restarted >>$BATS_FILE_TMPDIR/restarts
cd /etc/containerd/k3s
if [ -e $name ]; then
  sed -e '/^{{- .* -}}\$/d' -e '/^{{ template "base" . }}\$/{r /usr/local/base.toml' -e 'd}' $name >config.toml
else
  cat /usr/local/base.toml >config.toml
fi
END
  node sh /usr/local/bin/k3s-restart
  cp "$K3S/config.toml" "$WORK/generated"
  rm "$BATS_FILE_TMPDIR/restarts"
}
for_k3s() { CONFIG=/etc/containerd/k3s/config.toml CONTAINERD='env containerd' PATIENCE=1 NODE_ROOT=$NODE RESTART=${RESTART:-sh /usr/local/bin/k3s-restart} \
  FILES=$BATS_FILE_TMPDIR/files busybox sh "$CONTRIB/kubernetes/install-node.sh" "$@"; }
k3s_has_handler() { node containerd --config /etc/containerd/k3s/config.toml config dump 2>/dev/null | grep -q 'runtimes\.tns-shim\]'; }

@test "the installer: a configuration that is written anew at each start has the handler from its template" {
  fake_k3s
  for_k3s install
  k3s_has_handler
  is "$(restarts)" 1
  # It is there after the next start, too, and is not put there again.
  node sh /usr/local/bin/k3s-restart
  k3s_has_handler
  for_k3s install
  is "$(restarts)" 2
  for_k3s remove
  cmp "$WORK/generated" "$K3S/config.toml"
  is_clean k3s/config.toml

  # A template of the user's own
  printf '{{ template "base" . }}\n[debug]\n  level = "warn"' >"$K3S/$name"
  node sh /usr/local/bin/k3s-restart
  cp "$K3S/config.toml" "$WORK/generated"
  cp "$K3S/$name" "$WORK/template"
  for_k3s install
  k3s_has_handler
  node containerd --config /etc/containerd/k3s/config.toml config dump | grep -q "level = [\"']warn"
  for_k3s remove
  cmp "$WORK/template" "$K3S/$name"
  cmp "$WORK/generated" "$K3S/config.toml"
  rm -r "$K3S"
}

@test "the installer: success is what containerd says after the restart" {
  fake_k3s
  # One that knows no templates.
  run env RESTART=true bash -c "$(declare -f for_k3s); NODE=$NODE BATS_FILE_TMPDIR=$BATS_FILE_TMPDIR CONTRIB=$CONTRIB for_k3s install"
  is "$status" 1
  contains "$output" 'after the restart containerd has no handler tns-shim'
  cmp "$WORK/generated" "$K3S/config.toml"
  is_clean k3s/config.toml
  rm -r "$K3S"
}

@test "the installer: a containerd that is not there is named, and a folder that is not there is made" {
  CONTAINERD='k3s containerd' run installer install
  is "$status" 1
  contains "$output" 'containerd cannot be run on the node as: k3s containerd'
  rmdir "$NODE/etc/containerd"
  NODE_ROOT=$NODE RESTART=true FILES=$BATS_FILE_TMPDIR/files "$CONTRIB/kubernetes/install-node.sh" install
  has_handler
  NODE_ROOT=$NODE RESTART=true FILES=$BATS_FILE_TMPDIR/files "$CONTRIB/kubernetes/install-node.sh" remove
  mkdir -p "$NODE/etc/containerd"
  is_clean
}

@test "an import of the snippet does what the snippet says about it" {
  version=$(own_version)
  own_config 'imports = ["/etc/containerd/conf.d/*.toml"]' >"$NODE$CONFIG"
  effective >"$WORK/effective"
  mkdir "$NODE/etc/containerd/conf.d"
  cp "$CONTRIB/containerd/config-v$version.toml" "$NODE$DROPIN"
  has_handler
  if [[ $version == 2 ]]; then
    # In the place of what config.toml says about the plugin.
    contains "$(<"$WORK/effective")" "sandbox_image = \"$IMAGE\""
    [[ $(effective) != *"$IMAGE"* ]]
    # The handler alone, and all else in config.toml: without the runc that containerd has by itself, there is no Kubernetes side.
    rm "$NODE$DROPIN"
    cp "$NODE$CONFIG" "$WORK/own"
    grep -v '^version' "$CONTRIB/containerd/config-v2.toml" | sed '/runtimes\.runc\]$/,$d' | cat "$WORK/own" - >"$NODE$CONFIG"
    contains "$(effective)" "$IMAGE"
    [[ $(effective) != *.runtimes.runc]* ]]
    chroot "$NODE" containerd >"$WORK/log" 2>&1 3>&- 4>&- &
    echo $! >"$BATS_FILE_TMPDIR/containerd.pid"
    wait_for ctr version
    run cri Version
    contains "$output" UNIMPLEMENTED
    contains "$(<"$WORK/log")" 'no corresponding runtime configured'
    stop_daemon "$BATS_FILE_TMPDIR/containerd.pid"
    rm "$BATS_FILE_TMPDIR/containerd.pid"
    # As it is, all is well.
    grep -v '^version' "$CONTRIB/containerd/config-v2.toml" | cat "$WORK/own" - >"$NODE$CONFIG"
    contains "$(effective)" "$IMAGE"
    start_node
    contains "$(ctr plugins ls | awk '$2 == "cri"')" ok
  else
    is "$(effective)" "$(<"$WORK/effective")"
  fi
}

@test "the installer of a DaemonSet: installs, waits, and removes when it is told to end" {
  own_config >"$NODE$CONFIG"
  cp "$NODE$CONFIG" "$WORK/before"
  start_node
  load_image >/dev/null
  cp "$CONTRIB/kubernetes/install-node.sh" "$CONTRIB"/containerd/config-v*.toml "$BATS_FILE_TMPDIR/files/"
  NODE_ROOT=$NODE RESTART='sh /usr/local/bin/restart' "$BATS_FILE_TMPDIR/files/install-node.sh" run >"$WORK/said" 2>&1 3>&- 4>&- &
  pid=$!
  wait_for has_handler
  wait_for pgrep --parent "$pid" sleep
  start shim c
  whole c 2
  remove_all
  kill "$pid"
  wait "$pid"
  pgrep --parent "$pid" && fail 'something of it is left'
  cmp "$WORK/before" "$NODE$CONFIG"
  [[ ! -e $NODE/usr/local/bin/tns-shim ]]
  is "$(restarts)" 2
}

@test "the objects: what they name is there" {
  # shellcheck disable=SC2016
  python3 - "$CONTRIB" <<'END'
import json
import sys

import yaml

folder = sys.argv[1] + "/kubernetes/"


def objects(name):
    with open(folder + name) as file:
        return list(yaml.safe_load_all(file))


runtime_class, pod = objects("runtimeclass.yaml")
assert (runtime_class["apiVersion"], runtime_class["kind"]) == ("node.k8s.io/v1", "RuntimeClass")
assert pod["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]
for snippet in ("containerd/config-v2.toml", "containerd/config-v3.toml", "crio/50-tns-shim.conf"):
    with open(f"{sys.argv[1]}/{snippet}") as file:
        assert f"runtimes.{runtime_class['handler']}]" in file.read(), snippet

(installer,) = objects("installer.yaml")
assert (installer["apiVersion"], installer["kind"]) == ("apps/v1", "DaemonSet")
template = installer["spec"]["template"]
assert template["metadata"]["labels"].items() >= installer["spec"]["selector"]["matchLabels"].items()
(container,) = template["spec"]["containers"]
assert container["securityContext"]["privileged"]
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert mounts.keys() == {volume["name"] for volume in template["spec"]["volumes"]}
assert {"name": "NODE_ROOT", "value": mounts["node"]} in container["env"]
with open(folder + "Containerfile") as file:
    recipe = file.read()
assert f"CMD {json.dumps(container['command'])}" in recipe
assert recipe.count(" /tns-shim/\n") == 1
END
}

@test "the installer's image: what its command needs is in it" {
  mkdir -p "$WORK/context/target"
  cp -r "$CONTRIB" "$WORK/context/contrib"
  cp "$TNS_BIN/tns-shim" "$TNS_BIN/tnsctl" "$WORK/context/target"
  make_image "$WORK/base.tar"
  images() { podman --root "$WORK/images" --runroot "$WORK/run" --storage-driver vfs --events-backend file "$@"; }
  images load --quiet --input "$WORK/base.tar"
  images build --quiet --pull=never --build-arg BASE=localhost/tns --build-arg BIN=target --tag installer \
    --file "$WORK/context/contrib/kubernetes/Containerfile" "$WORK/context"
  is "$(images image inspect installer --format '{{json .Config.Cmd}}')" '["/tns-shim/install-node.sh","run"]'
  root=$(images image mount installer)
  for file in tns-shim tnsctl install-node.sh config-v2.toml config-v3.toml; do [[ -s $root/tns-shim/$file ]] || fail "no $file"; done
  [[ -x $root/tns-shim/install-node.sh && -x $root/tns-shim/tns-shim ]]
  cmp "$root/tns-shim/tns-shim" "$TNS_BIN/tns-shim"
  images image unmount installer
}
