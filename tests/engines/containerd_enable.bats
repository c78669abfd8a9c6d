#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `tnsctl enable containerd` and `tnsctl disable containerd`, by what the real containerd makes of the configurations that people have.
# cri_enable.bats runs pods with it.

load helpers
load containerd
load cri

CONFIG=/etc/containerd/config.toml
K3S=/var/lib/rancher/k3s/agent/etc/containerd

setup_file() { install_shim; }
remove_all() { :; }
setup() {
  WORK=$(mktemp -d /tmp/tns.XXXXXX)
  rm -rf /etc/containerd /var/lib/rancher
  mkdir /etc/containerd
}
teardown() {
  [[ ! -e $WORK/daemon/pid || ! -d /proc/$(<"$WORK/daemon/pid") ]] || stop_daemon "$WORK/daemon/pid"
  rm -rf "$WORK" /etc/containerd /var/lib/rancher
}

# As Debian ships it, in 12, 13 and unstable.
debian_s() {
  cat <<'END'
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"



END
}

# Without the files it comes from and without the handler.
effective() { containerd --config "$CONFIG" config dump 2>/dev/null | awk '/^ *\[/ { ours = /runtimes\.tns-shim[].]/ } /^ *$/ || /^ *imports = / { next } !ours'; }
has_handler() { containerd --config "${1:-$CONFIG}" config dump 2>/dev/null | grep -A 30 'runtimes\.tns-shim\]' | grep -q "BinaryName = [\"']/usr/local/bin/tns-shim[\"']"; }
all_of() { (cd "$1" && find . -printf '%y %P %m %U %G %l\n' | sort && find . -type f -exec sha256sum {} + | sort); }
refused() { # refused SENTENCE ARGUMENT...
  run tnsctl "${@:2}"
  is "$status" 2
  contains "$output" "$1"
}

# From that configuration to the handler and back, with nothing else changed.
there_and_back() { # there_and_back TEXT
  printf '%s' "$1" >"$CONFIG"
  all_of /etc/containerd >"$WORK/before"
  effective >"$WORK/effective"
  isnt "$(<"$WORK/effective")" ''
  tnsctl enable containerd --dry-run >"$WORK/diff" && fail "nothing to do with: $1"
  grep -q '^+.*tns-shim' "$WORK/diff"
  is "$(all_of /etc/containerd)" "$(<"$WORK/before")"
  run tnsctl enable containerd
  is "$status" 0 || fail "with: $1" "$output"
  contains "$output" 'asked by containerd config dump'
  contains "$output" 'systemctl restart containerd'
  has_handler || fail "no handler with: $1"
  is "$(effective)" "$(<"$WORK/effective")"
  snapshot /etc/containerd >"$WORK/enabled"
  run tnsctl enable containerd
  is "$status" 0
  contains "$output" 'there is nothing to do'
  # Its folder was written: containerd is asked about files there.
  is "$(snapshot /etc/containerd | grep -v '^d')" "$(grep -v '^d' "$WORK/enabled")"
  tnsctl disable containerd
  is "$(all_of /etc/containerd)" "$(<"$WORK/before")"
}

@test "as Debian ships it: the handler is added, runc stays, and it gets back its bytes" {
  there_and_back "$(debian_s)"$'\n\n\n\n'
  debian_s >"$CONFIG"
  chmod 640 "$CONFIG"
  tnsctl enable containerd
  is "$(stat -c %a "$CONFIG")" 640
  contains "$(containerd config dump 2>/dev/null)" '.containerd.runtimes.runc]'
}

@test "whatever the configuration looks like, it gains the handler alone, and gets back its bytes" {
  echo 'oom_score = -2' >/etc/containerd/other.toml
  version=$(own_version)
  cri=io.containerd.grpc.v1.cri
  [[ $version == 2 ]] || cri=io.containerd.cri.v1.runtime
  own="version = $version"$'\n# mine\n[plugins."'$cri$'"]\n  enable_cdi = true # mine\n'
  configs=(
    "$own"
    "${own%$'\n'}"
    "version = $version"
    "version = $version"$'\n\n\n'
    "${own/mine/mine$'\n'imports = [\"/etc/containerd/other.toml\"]}"
    $'imports = [\n  # one\n  "other.toml",\n]\n'"$own"
    $'imports=[]\n'"$own"
    $'imports = ["/etc/containerd/conf.d/*.toml"]\n'"$own"
    $'imports = ["conf.d/*.toml", "other.toml"]\n'"$own"
    "${own//$'\n'/$'\r\n'}"
    "${own}[plugins.\"$cri\".containerd.runtimes.runc]"$'\n  runtime_type = "io.containerd.runc.v2"\n'"[plugins.\"$cri\".containerd.runtimes.runc.options]"$'\n  SystemdCgroup = true\n'
    "${own}[plugins.\"$cri\".containerd.runtimes.mine]"$'\n  runtime_type = "io.containerd.runc.v2"'
  )
  for config in "${configs[@]}"; do
    there_and_back "$config"
    if [[ $config == *SystemdCgroup* ]]; then
      tnsctl enable containerd
      is "$(containerd config dump 2>/dev/null | grep -c 'SystemdCgroup = true')" 2
      tnsctl disable containerd
    fi
  done
}

@test "no configuration at all, and no folder for it" {
  tnsctl enable containerd
  has_handler
  contains "$(<"$CONFIG")" "version = $(own_version)"
  echo '# mine' >>"$CONFIG"
  tnsctl disable containerd
  contains "$(<"$CONFIG")" '# mine'
  [[ $(<"$CONFIG") != *'tns-shim.toml'* && ! -e /etc/containerd/conf.d ]]
  rm -r /etc/containerd
  run tnsctl enable containerd --dry-run
  is "$status" 1
  [[ ! -e /etc/containerd ]]
  tnsctl enable containerd
  has_handler
  tnsctl disable containerd
  [[ ! -e /etc/containerd ]]
}

@test "--default and --runtime; what stands in the way is told, with what to do by hand" {
  debian_s >"$CONFIG"
  cp "$CONFIG" "$WORK/before"
  tnsctl enable containerd --default --runtime "$TNS_RUNTIME"
  contains "$(containerd config dump 2>/dev/null | tr "'" '"')" 'default_runtime_name = "tns-shim"'
  contains "$(containerd config dump 2>/dev/null | tr "'" '"')" "BinaryName = \"$SHIM_PATH-$TNS_RUNTIME\""
  tnsctl enable containerd
  contains "$(containerd config dump 2>/dev/null | tr "'" '"')" 'default_runtime_name = "runc"'
  has_handler
  tnsctl disable containerd
  cmp "$WORK/before" "$CONFIG"

  left_alone() { # left_alone SENTENCE TEXT [OPTION...]
    printf '%s' "$2" >"$CONFIG"
    refused "$1" enable containerd "${@:3}"
    printf '%s' "$2" | cmp - "$CONFIG"
    is "$(ls -A /etc/containerd)" config.toml
  }
  left_alone 'is of version 1; it must be 2 or 3' 'oom_score = 1'
  left_alone 'it is no valid TOML' $'version = 2\n[broken'
  left_alone 'containerd cannot read its configuration as it is, which is left alone' $'version = 2\noom_score = "much"'
  left_alone 'has a runtime tns-shim already, by /mine, which tnsctl has not written' "$(debian_s)"'
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tns-shim]
  runtime_type = "io.containerd.runc.v2"
  options = { BinaryName = "/mine" }'
  if [[ $(own_version) == 2 ]]; then
    # No second table of that name
    left_alone 'or --default left out' $'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "native"\n' --default
  fi
}

@test "what somebody has changed since is left alone; what stands around it may change" {
  debian_s >"$CONFIG"
  tnsctl enable containerd
  if grep -q 'tns-shim: begin' "$CONFIG"; then
    sed -i 's|BinaryName = "/usr/local/bin/tns-shim"|BinaryName = "/mine"|' "$CONFIG"
    cp "$CONFIG" "$WORK/changed"
    refused 'were changed since tnsctl wrote them' enable containerd
    refused 'were changed since tnsctl wrote them' disable containerd
    cmp "$WORK/changed" "$CONFIG"
    sed -i 's|BinaryName = "/mine"|BinaryName = "/usr/local/bin/tns-shim"|' "$CONFIG"
  else
    echo '# mine' >>/etc/containerd/conf.d/50-tns-shim.toml
    refused 'was changed since tnsctl wrote it' disable containerd
    sed -i '$d' /etc/containerd/conf.d/50-tns-shim.toml
  fi
  printf '[debug]\n  level = "warn"\n' >>"$CONFIG"
  tnsctl disable containerd
  { debian_s && printf '[debug]\n  level = "warn"\n'; } | cmp - "$CONFIG"
  is "$(ls -A /etc/containerd)" config.toml
}

# What `containerd config dump` does not tell: an import of a file that is not there is fatal.
starts() {
  mkdir -p "$WORK/daemon"
  containerd --root "$WORK/daemon/root" --state "$WORK/daemon/state" --address "$WORK/daemon/sock" >"$WORK/daemon/log" 2>&1 3>&- 4>&- &
  echo $! >"$WORK/daemon/pid"
  wait_for ctr --address "$WORK/daemon/sock" version || fail "$(tail -n 3 "$WORK/daemon/log")"
  stop_daemon "$WORK/daemon/pid"
}

@test "somebody has written the imports anew: the handler goes, and containerd starts" {
  dropin=/etc/containerd/conf.d/50-tns-shim.toml
  echo 'oom_score = -7' >/etc/containerd/mine.toml
  debian_s >"$CONFIG"
  tnsctl enable containerd
  if ! grep -qF "imports = [\"$dropin\"]" "$CONFIG"; then
    # containerd 1, where there is none.
    is "$(grep -c '^# tns-shim: begin' "$CONFIG")" 1
    starts
    return
  fi
  cp -r /etc/containerd "$WORK/enabled"
  rewritten() { sed -i "1s|.*|$1|" "$CONFIG"; }
  migrated() { containerd config migrate 2>/dev/null >"$WORK/migrated" && cp "$WORK/migrated" "$CONFIG"; }
  for change in \
    "rewritten 'imports = [\"$dropin\"]'" \
    "rewritten \"imports = ['$dropin']\"" \
    "rewritten 'imports = [\"/etc/containerd/mine.toml\", \"$dropin\"]'" \
    "rewritten \"imports = [ '/etc/containerd/mine.toml' , '$dropin' ]\"" \
    "rewritten 'imports = [\\n  \"$dropin\", # theirs\\n  \"mine.toml\",\\n]'" \
    migrated; do
    rm -rf /etc/containerd
    cp -r "$WORK/enabled" /etc/containerd
    eval "$change"
    has_handler || fail "$change"
    starts
    run tnsctl disable containerd
    is "$status" 0 || fail "$change" "$output"
    [[ ! -e $dropin ]]
    # That writes what was imported into the file itself.
    if [[ $change == migrated ]]; then
      contains "$output" 'it has a runtime tns-shim still, by /usr/local/bin/tns-shim, which tnsctl has not written'
    else
      contains "$output" 'takes it as it is'
      has_handler && fail "still there after: $change"
    fi
    is "$(grep -c 50-tns-shim "$CONFIG" || true)" 0
    [[ $(head -n 4 "$CONFIG") != *mine.toml* ]] || contains "$(containerd config dump 2>/dev/null)" 'oom_score = -7'
    starts
  done

  # By a name that is not the one that was written: that is somebody's, and needs the file.
  rm -rf /etc/containerd
  cp -r "$WORK/enabled" /etc/containerd
  rewritten 'imports = ["conf.d/50-tns-shim.toml"]'
  snapshot /etc/containerd >"$WORK/before"
  refused 'and containerd does not start without that file' disable containerd
  is "$(snapshot /etc/containerd | grep -v '^d')" "$(grep -v '^d' "$WORK/before")"
}

@test "an import of a file that is not there: containerd does not start, and nothing is said to be well" {
  { echo 'imports = ["/etc/containerd/gone.toml"]'; debian_s; } >"$CONFIG"
  cp "$CONFIG" "$WORK/before"
  refused 'it imports /etc/containerd/gone.toml, which is not there' enable containerd
  cmp "$WORK/before" "$CONFIG"
  run tnsctl disable containerd
  is "$status" 0
  contains "$output" 'not confirmed by containerd'
}

@test "patterns of somebody that cover the drop-in: twice is once" {
  for pattern in '/etc/containerd/conf.d/*' 'conf.d/50-*.toml'; do there_and_back "imports = [\"$pattern\"]"$'\n'"$(debian_s)"; done
}

@test "a containerd that runs with another configuration is not told by the usual one" {
  debian_s >"$CONFIG"
  mkdir -p "$WORK/daemon"
  cp "$CONFIG" "$WORK/daemon/config.toml"
  containerd --config "$WORK/daemon/config.toml" --root "$WORK/daemon/root" --state "$WORK/daemon/state" \
    --address "$WORK/daemon/sock" >"$WORK/daemon/log" 2>&1 3>&- 4>&- &
  echo $! >"$WORK/daemon/pid"
  wait_for ctr --address "$WORK/daemon/sock" version
  cp "$CONFIG" "$WORK/before"
  refused "the containerd that runs here reads $WORK/daemon/config.toml" enable containerd
  cmp "$WORK/before" "$CONFIG"
  tnsctl enable containerd --config "$WORK/daemon/config.toml"
  has_handler "$WORK/daemon/config.toml"
  tnsctl disable containerd --config "$WORK/daemon/config.toml"
  cmp "$CONFIG" "$WORK/daemon/config.toml"
  # One by its side that reads the usual one.
  tnsctl enable containerd --config "$CONFIG"
  tnsctl disable containerd
  cmp "$WORK/before" "$CONFIG"
  stop_daemon "$WORK/daemon/pid"
}

# K3s, as far as it writes containerd's configuration at each start: from its own text, or from a template with that in it.
start_k3s() {
  {
    printf '# File generated by k3s. DO NOT EDIT. Use %s instead.\n%s\n' "$TEMPLATE" "version = $(own_version)"
    [[ -z ${IMPORTS:-} ]] || echo "imports = [\"$IMPORTS\"]"
    if [[ $(own_version) == 2 ]]; then
      printf '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n'
    else
      printf "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n"
    fi
    printf '[proxy_plugins]\n'
  } >"$WORK/base"
  if [[ -e $K3S/$TEMPLATE && -z ${DEAF:-} ]]; then
    sed -e '/^{{- .* -}}$/d' -e "/^{{ template \"base\" . }}\$/{r $WORK/base" -e 'd}' "$K3S/$TEMPLATE" >"$K3S/config.toml"
  else
    cat "$WORK/base" >"$K3S/config.toml"
  fi
}

fake_k3s() {
  mkdir -p "$K3S" /var/lib/rancher/k3s/data/current/bin
  ln -s "$(command -v containerd)" /var/lib/rancher/k3s/data/current/bin/containerd
  TEMPLATE=config.toml.tmpl
  [[ $(own_version) == 2 ]] || TEMPLATE="config-v3.toml.tmpl"
  start_k3s
  touch -d '1 minute ago' "$K3S/config.toml"
  all_of "$K3S" >"$WORK/before"
}
k3s() { tnsctl "$1" containerd --config "$K3S/config.toml" "${@:2}"; }

@test "K3s: its template is written, and success is what containerd says after the start" {
  fake_k3s
  run k3s enable
  is "$status" 0
  contains "$output" "made $K3S/$TEMPLATE"
  contains "$output" 'not confirmed by containerd: K3s reads'
  contains "$output" 'systemctl restart k3s (k3s-agent on an agent)'
  contains "$(<"$K3S/$TEMPLATE")" '{{ template "base" . }}'
  [[ ! -e $K3S/conf.d ]]
  is "$(all_of "$K3S" | grep 'config.toml$')" "$(grep 'config.toml$' "$WORK/before")"
  # Not started yet
  run k3s enable
  is "$status" 0
  contains "$output" 'call this once more after that'
  start_k3s
  has_handler "$K3S/config.toml"
  run k3s enable
  is "$status" 0
  contains "$output" 'asked by containerd config dump'
  k3s disable
  start_k3s
  is "$(all_of "$K3S")" "$(<"$WORK/before")"

  # One that knows no templates
  k3s enable
  sleep 0.1
  DEAF=yes start_k3s
  run k3s enable
  is "$status" 2
  contains "$output" 'and its containerd has no runtime tns-shim'
  k3s disable
  is "$(all_of "$K3S")" "$(<"$WORK/before")"
  run k3s enable --default
  is "$status" 2
  contains "$output" 'default-runtime: tns-shim'
}

@test "K3s: a template of somebody's own, and a folder that is imported" {
  fake_k3s
  printf '{{ template "base" . }}\n[debug]\n  level = "warn"' >"$K3S/$TEMPLATE"
  start_k3s
  all_of "$K3S" >"$WORK/before"
  k3s enable
  start_k3s
  has_handler "$K3S/config.toml"
  k3s enable
  k3s disable
  start_k3s
  is "$(all_of "$K3S")" "$(<"$WORK/before")"
  rm "$K3S/$TEMPLATE"

  # Since 2025. containerd 1 has the template all the same.
  IMPORTS="$K3S/config-v3.toml.d/*.toml"
  start_k3s
  all_of "$K3S" >"$WORK/before"
  run k3s enable
  is "$status" 0
  if [[ $(own_version) != 2 ]]; then
    contains "$output" "made $K3S/config-v3.toml.d/50-tns-shim.toml"
    contains "$output" 'asked by containerd config dump'
    [[ ! -e $K3S/$TEMPLATE ]]
  fi
  start_k3s
  has_handler "$K3S/config.toml"
  k3s disable
  start_k3s
  is "$(all_of "$K3S")" "$(<"$WORK/before")"
}
