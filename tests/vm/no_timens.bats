#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A kernel without time namespaces: everything is as with the runtime alone, and a promise that cannot be kept is an error.

load ../integration/helpers

setup_file() {
  [[ ! -e /proc/self/ns/time ]] || skip "this kernel has time namespaces"
}

# A call's exit status, what it has said and what is in its log; but for times, numbers of processes, and the shim's own words. What
# stays behind must have no files outside: see `detached`.
said() { # said bare|shim ARGUMENT...
  local status=0
  rm -f "$WORK/log"
  "$1" --log "$WORK/log" --log-format json "${@:2}" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  echo "${*:2}: $status"
  plain "$WORK/out" "$WORK/err" "$WORK/log"
}
detached() { # detached bare|shim ARGUMENT...
  local status=0
  rm -f "$WORK/log"
  "$1" --log "$WORK/log" --log-format json "${@:2}" </dev/null >/dev/null 2>&1 || status=$?
  echo "${*:2}: $status"
  plain "$WORK/log"
}
plain() { # plain FILE...
  local file
  for file; do
    [[ ! -e $file ]] || sed -E '/"msg":"tns-shim: /d; s/time="[^"]*"//; s/"time":"[^"]*"//; s/[0-9][0-9T:.Z-]*/N/g; s/ +/ /g' "$file"
  done
}

# What a container's life says, in the words of the runtime alone, and the same with the shim.
the_same() { # the_same FUNCTION: it is called with bare, and then with shim
  "$1" bare >"$WORK/without"
  bare delete --force c >/dev/null 2>&1 || true
  clear_cgroups
  "$1" shim >"$WORK/with"
  diff -u "$WORK/without" "$WORK/with"
  # That something was compared.
  [[ -s $WORK/without ]]
}

life() {
  local with=$1
  detached "$with" create --bundle "$BUNDLE" --pid-file "$WORK/pid" c
  is "$(cat "$WORK/pid")" "$(pid_of c)"
  said "$with" state c
  detached "$with" start c
  detached "$with" create --bundle "$BUNDLE" c
  said "$with" list
  said "$with" ps c
  said "$with" exec c sh -c 'echo out; echo err >&2; exit 7'
  said "$with" exec c nonexistent
  said "$with" exec --cwd /nowhere c id
  detached "$with" exec --detach --pid-file "$WORK/pid" c tail -f /dev/null
  [[ -d /proc/$(<"$WORK/pid") ]]
  detached "$with" update --pids-limit 1000 c
  detached "$with" pause c
  said "$with" state c
  detached "$with" resume c
  said "$with" delete c
  detached "$with" kill c KILL
  for _ in $(seq $((50 * SLOW))); do [[ $(status_of c) != stopped ]] || break; sleep 0.1; done
  said "$with" state c
  said "$with" exec c true
  detached "$with" delete c
  [[ ! -e $STATE/c ]]
}
@test "create, start, exec, update, pause, kill, delete, and what they say" { the_same life; }

errors() {
  local with=$1 verb
  for verb in state start kill delete exec pause resume checkpoint; do
    if [[ $verb == exec ]]; then said "$with" exec none true; else said "$with" "$verb" none; fi
  done
  said "$with" run --bundle "$WORK/nowhere" c
  said "$with" restore --bundle "$BUNDLE" --image-path "$WORK/no-image" c
  bare delete --force c >/dev/null 2>&1 || true
  said "$with" nonsense
  said "$with" features
  said "$with" --version
}
@test "features, and what is wrong: no container, no bundle, no image, no such command" { the_same errors; }

once() {
  edit_config "$BUNDLE" '.process.args = ["sh", "-c", "echo out; exit 3"]'
  said "$1" run --bundle "$BUNDLE" c
  edit_config "$BUNDLE" '.process.args = ["nonexistent"]'
  said "$1" run --bundle "$BUNDLE" c
}
@test "run: the container's output, its exit status, and a program that does not exist" { the_same once; }

cycle() {
  local with=$1 status=0
  start "$with" c
  background "$with" c
  checkpoint "$with" c "image-$with" >/dev/null 2>&1 || status=$?
  echo "checkpoint: $status, $(status_of c)"
  tail -n 1 "$WORK/work-image-$with/dump.log" | sed -E 's/[0-9.]+/N/g'
  find "$WORK/image-$with" -name 'timens*'
  bare delete --force c >/dev/null 2>&1 || true
  clear_cgroups
  status=0
  restore "$with" c "image-$with" || status=$?
  echo "restore: $status, $(status_of c)"
  if ((status == 0)); then
    said "$with" exec c sh -c 'exit 7'
    namespaces_below "$(pid_of c)" | wc -l
  fi
}
@test "checkpoint and restore: whatever CRIU makes of it, it is the same" {
  the_same cycle
  echo "# ${TNS_RUNTIME}: $(grep -E '^(checkpoint|restore): ' "$WORK/with" | paste -sd ' ')" >&3
}

@test "a time namespace that an engine has declared: the container starts, and says why not in one" {
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
  if [[ $TNS_RUNTIME == runc ]]; then
    run bare run --bundle "$BUNDLE" without </dev/null
    isnt "$status" 0
  fi
  shim --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  is "$(status_of c)" running
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "this kernel has no time namespaces"
}

@test "what was asked for by name is refused, and nothing is left; uptime = zero in the file is a wish" {
  local annotation
  for annotation in mode=private uptime=zero offset.boottime=1000; do
    make_config "$BUNDLE"
    edit_config "$BUNDLE" ".annotations[\"org.tns-shim.${annotation%%=*}\"] = \"${annotation#*=}\""
    run shim run --detach --bundle "$BUNDLE" c </dev/null
    is "$status" 1
    contains "$output" "this kernel has no time namespaces"
    [[ ! -e $STATE/c ]] || fail "$(ls "$STATE")"
  done
  make_config "$BUNDLE"
  settings 'mode = "private"'
  run shim run --detach --bundle "$BUNDLE" c </dev/null
  is "$status" 1
  contains "${output//\\/}" 'mode = "private"'
  settings 'uptime = "zero"'
  start shim c
  is "$(shim exec c sh -c 'echo works')" works
}

@test "tnsctl says that there are none: doctor, inspect, and the hook changes nothing" {
  start shim c
  run "$TNS_BIN/tnsctl" doctor --runtime "$TNS_RUNTIME"
  contains "$output" "this kernel has no time namespaces"
  run "$TNS_BIN/tnsctl" inspect --root "$STATE" c
  is "$status" 0
  contains "$output" "This kernel has no time namespaces"
  is "$("$TNS_BIN/tnsctl" hook precreate <"$BUNDLE/config.json" | jq -Sc .)" "$(jq -Sc . "$BUNDLE/config.json")"
}
