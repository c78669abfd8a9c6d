#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# features, and what tnsctl tells people.

load helpers

@test "features lists time, and all else is the runtime's own" {
  without=0 with=0
  bare features >"$WORK/without" 2>"$WORK/without.err" || without=$?
  shim features >"$WORK/with" 2>"$WORK/with.err" || with=$?
  is "$with" "$without"
  if ! grep -q namespaces "$WORK/without"; then
    # crun 1.8.1 has no such command, in its own words.
    cmp "$WORK/with" "$WORK/without"
    is "$(tail -n 1 "$WORK/with.err" | sed 's/.*Z: *//')" "$(tail -n 1 "$WORK/without.err" | sed 's/.*Z: *//')"
    return
  fi
  is "$(jq '[.linux.namespaces[] | select(. == "time")] | length' "$WORK/with")" 1
  is "$(jq -S 'del(.linux.namespaces[] | select(. == "time"))' "$WORK/with")" \
    "$(jq -S 'del(.linux.namespaces[] | select(. == "time"))' "$WORK/without")"
  if jq -e '.linux.namespaces | index("time")' "$WORK/without" >/dev/null; then cmp "$WORK/with" "$WORK/without"; fi
  # Engines parse the combined output.
  is "$(cat "$WORK/with.err")" "$(cat "$WORK/without.err")"
}

@test "features without a way to provide it is the runtime's own, byte for byte" {
  "$TNS_RUNTIME" features >"$WORK/without" 2>&1 || true
  unshare --user --map-root-user sh -c "echo 0 >/proc/sys/user/max_time_namespaces; exec $SHIM features" >"$WORK/with" 2>&1 || true
  cmp "$WORK/with" "$WORK/without"
}

@test "doctor tells the mode that a container then really gets" {
  PATH=$PATH run "$TNS_BIN/tnsctl" --json doctor --runtime "$TNS_RUNTIME"
  # But for engines: nobody here has told them of it, nor given Podman a storage that it could have on a stack.
  is "$(jq -c '[.next[] | select(.needed) | .id] - ["enable_engine", "ask_engine"]' <<<"$output")" '[]'
  mode=$(jq -r '.runtimes[].mode' <<<"$output")
  is "$(jq -r '.runtimes[].path' <<<"$output")" "$(command -v "$TNS_RUNTIME")"
  is "$(jq -r .kernel.own_namespace <<<"$output")" "$HOST_NS"
  start shim c
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  if declares; then is "$mode" declare; else is "$mode" emulate; fi
  is "$(jq '[.linux.namespaces[] | select(.type == "time")] | length' "$BUNDLE/config.json")" "$([[ $mode == declare ]] && echo 1 || echo 0)"
  contains "$("$TNS_BIN/tnsctl" doctor --runtime "$TNS_RUNTIME")" "$mode: "
}

@test "doctor says what hinders, and exits with 1" {
  run unshare --user --map-root-user sh -c "echo 0 >/proc/sys/user/max_time_namespaces; exec $TNS_BIN/tnsctl doctor --runtime $TNS_RUNTIME"
  is "$status" 1
  contains "$output" "pass: user.max_time_namespaces is 0"
}

@test "inspect shows the namespace, the offsets, and who disagrees" {
  start shim c
  pid=$(pid_of c)
  run "$TNS_BIN/tnsctl" --json inspect --root "$STATE" c
  is "$status" 0
  is "$(jq -r .namespace <<<"$output")" "$(ns_of "$pid")"
  is "$(jq -r .host_namespace <<<"$output")" "$HOST_NS"
  is "$(jq .pid <<<"$output")" "$pid"
  is "$(jq .agree <<<"$output")" true
  if declares; then is "$(jq .container.declared <<<"$output")" true; fi
  is "$(jq '.offsets | [.monotonic_ns, .boottime_ns] | map(type) | unique | .[]' -r <<<"$output")" number
  # By PID, too
  run "$TNS_BIN/tnsctl" inspect "$pid"
  is "$status" 0
  contains "$output" "All processes agree about time."

  stray c
  # And one whose parent is outside, so that it is in the control group, but not in the tree.
  shim exec --detach --pid-file "$WORK/detached" c sleep 500 </dev/null >/dev/null 2>&1
  run "$TNS_BIN/tnsctl" --json inspect --root "$STATE" c
  is "$status" 1
  is "$(jq .agree <<<"$output")" false
  is "$(jq -r '.processes[] | select(.agrees | not) | "\(.command) \(.namespace) \(.note)"' <<<"$output")" "sleep 1000 $HOST_NS on the host's time"
  is "$(jq -r '.processes[] | select(.command == "sleep 500") | "\(.pid) \(.agrees)"' <<<"$output")" "$(cat "$WORK/detached") true"
  run "$TNS_BIN/tnsctl" inspect --root "$STATE" c
  is "$status" 1
  contains "$output" "NO, on the host's time"
}

@test "inspect of what does not exist names the places it looked in" {
  run "$TNS_BIN/tnsctl" inspect --root "$STATE" nothing
  is "$status" 2
  contains "$output" "$STATE"
}

@test "the runtime is what the settings say, an unknown key is an error with its line where the shim acts" {
  mkdir -p /etc/tns-shim
  echo "runtime = \"$(command -v "$TNS_RUNTIME")\"" >/etc/tns-shim/config.toml
  is "$("$TNS_BIN/tns-shim" --version)" "$("$TNS_RUNTIME" --version)"
  printf 'runtime = "%s"\nruntmie = "x"\n' "$TNS_RUNTIME" >/etc/tns-shim/config.toml
  run "$TNS_BIN/tns-shim" --log "$WORK/log" --log-format json create --bundle "$BUNDLE" c
  is "$status" 1
  contains "$output" "line 2"
  contains "$(jq -r .msg "$WORK/log")" "runtmie"
  # Where the shim does nothing, the runtime in it is clear, whatever else is not.
  is "$("$TNS_BIN/tns-shim" --version)" "$("$TNS_RUNTIME" --version)"
}
