#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# mode, uptime and offsets: in the settings file, and as annotations of a container, which win.

load helpers

annotate() { edit_config "$BUNDLE" ".annotations[\"org.tns-shim.$1\"] = \"$2\""; }
declared() { jq '[.linux.namespaces[] | select(.type == "time")] | length' "$BUNDLE/config.json"; }

# Hundredths of a second since the container's clocks began.
uptime_in() { shim exec "$1" cat /proc/uptime | awk '{ print int($1 * 100) }'; }

# run_failing ID: what it prints; nothing of it stays. Not by a pipe, which a container that starts all the same would hold.
run_failing() {
  local status=0
  shim run --detach --bundle "$BUNDLE" "$1" </dev/null >"$WORK/out" 2>&1 || status=$?
  output=$(cat "$WORK/out")
  isnt "$status" 0
  [[ ! -e $STATE/$1 ]] || fail "$(ls "$STATE")"
}

@test "mode = host: no namespace of its own, and a declared one is taken out" {
  settings 'mode = "host"'
  start shim c
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  is "$(exec_ns shim c)" "$HOST_NS"
  is "$(declared)" 0
  edit_config "$BUNDLE" '.linux.namespaces = [{type: "time"}] + .linux.namespaces | .linux.timeOffsets = {monotonic: {secs: 5, nanosecs: 0}}'
  start shim d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"
  is "$(declared)" 0
  is "$(jq .linux.timeOffsets "$BUNDLE/config.json")" null
  # The container's own word is the last.
  annotate mode auto
  start shim e
  isnt "$(ns_of "$(pid_of e)")" "$HOST_NS"
}

@test "mode = host, as an annotation, over a checkpoint and a restore" {
  needs_criu
  annotate mode host
  start shim c
  background shim c
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  checkpoint shim c image
  restore shim c image
  is "$(namespaces_below "$(pid_of c)" | sort -u)" "$HOST_NS"
  is "$(exec_ns shim c)" "$HOST_NS"
}

@test "mode = leave: config.json stays as it is, and the container is what it says" {
  before=$(sha256sum "$BUNDLE/config.json")
  settings 'mode = "leave"'
  start shim c
  is "$(sha256sum "$BUNDLE/config.json")" "$before"
  is "$(ns_of "$(pid_of c)")" "$HOST_NS"
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "time"}]'
  if declares; then
    start shim d
    isnt "$(ns_of "$(pid_of d)")" "$HOST_NS"
  elif [[ $TNS_RUNTIME == runc ]]; then
    # As without the shim.
    run_failing d
    contains "$output" "time"
  fi
  is "$(declared)" 1
}

@test "mode = private: a namespace of its own, or an error that says what is in the way" {
  annotate mode private
  start shim c
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  # The kernel allows none: in a user namespace, where that may be set.
  cat >"$WORK/inside" <<END
echo 0 >/proc/sys/user/max_time_namespaces
exec $SHIM --root $STATE run --bundle $BUNDLE d </dev/null >$WORK/out 2>&1
END
  run unshare --user --map-root-user --mount --propagation private bash "$WORK/inside"
  isnt "$status" 0
  [[ ! -e $STATE/d ]] || fail "$(ls "$STATE")"
  output=$(cat "$WORK/out")
  contains "$output" 'mode = '
  contains "$output" "the container cannot be given a time namespace of its own"
  contains "$output" "max_time_namespaces is 0"
}

@test "uptime = zero in the file: clocks that begin at zero where the runtime can, else the host's with a warning" {
  settings 'uptime = "zero"'
  before=$(date +%s%N)
  shim --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  if shifts; then
    uptime=$(uptime_in c)
    ((uptime >= 0 && uptime * 10000000 <= $(date +%s%N) - before)) || fail "$uptime"
    [[ ! -s $WORK/log ]] || fail "$(cat "$WORK/log")"
  else
    own=$(awk '{ print int($1 * 100) }' /proc/uptime)
    uptime=$(uptime_in c)
    ((uptime >= own)) || fail "$uptime $own"
    contains "$(jq -r .msg "$WORK/log")" "the clocks do not begin at zero: "
    is "$(jq -r .level "$WORK/log")" warning
  fi
  is "$(status_of c)" running
  is "$(shim state c | jq -r .status)" running
  shim delete --force c
  [[ ! -e $STATE/c ]]
}

@test "uptime = zero in the file leaves a container alone that has no pid namespace of its own; the annotation insists" {
  settings 'uptime = "zero"'
  start bare other
  for pid in absent joined; do
    make_config "$BUNDLE"
    edit_config "$BUNDLE" '.linux.namespaces |= map(select(.type != "pid"))'
    first=1
    if [[ $pid == joined ]]; then
      edit_config "$BUNDLE" ".linux.namespaces += [{type: \"pid\", path: \"/proc/$(pid_of other)/ns/pid\"}]"
      first=$(pid_of other)
    fi
    rm -f "$WORK/log"
    shim --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" "$pid" </dev/null >/dev/null 2>&1
    one_namespace "$pid"
    # The first process of its pid namespace was started when the host says so.
    start_of() { sed 's/.*) //' | cut -d' ' -f20; }
    is "$(shim exec "$pid" cat /proc/1/stat | start_of)" "$(start_of <"/proc/$first/stat")"
    is "$(jq -r .level "$WORK/log")" warning
    contains "$(jq -r .msg "$WORK/log")" "no pid namespace of its own"
    annotate uptime zero
    if [[ $TNS_RUNTIME == runc ]] && shifts; then
      start shim "$pid-asked"
      (($(uptime_in "$pid-asked") < $(awk '{ print int($1 * 100) }' /proc/uptime)))
    else
      run_failing "$pid-asked"
      contains "$output" "annotations ask for clocks of its own"
    fi
  done
}

@test "uptime = zero as an annotation: uptime and ps have their own zero, before and after checkpoint and restore" {
  annotate uptime zero
  if ! shifts; then
    run_failing c
    contains "$output" "the container's annotations ask for clocks of its own"
    contains "$output" "runc 1.2.6 or crun 1.8.4"
    annotate uptime host
    start shim c
    isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
    return
  fi
  before=$(date +%s%N)
  start shim c
  background shim c
  one_namespace c
  limit() { echo $((($(date +%s%N) - before) / 10000000)); }
  uptime=$(uptime_in c)
  ((uptime >= 0 && uptime <= $(limit))) || fail "$uptime"
  # ps reckons from field 22 of /proc/PID/stat, which is shifted as well.
  started=$(shim exec c cat /proc/1/stat | sed 's/.*) //' | awk '{ print $20 }')
  ((started >= 0 && started <= $(limit))) || fail "started after $started ticks"
  contains "$(shim exec c uptime)" "up 0 min"
  # The host sees the container as before.
  is "$(status_of c)" running
  needs_criu
  for cycle in 1 2; do
    sleep 0.3
    checkpoint shim c "image$cycle"
    sleep 0.3
    restore shim c "image$cycle"
    now=$(uptime_in c)
    ((now >= uptime && now <= $(limit))) || fail "cycle $cycle: $uptime $now"
    uptime=$now
    background shim c
    one_namespace c
    is "$(namespaces_below "$(pid_of c)" | wc -l)" "$((cycle + 3))"
  done
}

@test "offsets that a container asks for are added to the host's clocks" {
  annotate offset.boottime 86400.5
  annotate offset.monotonic -0.25
  if ! shifts; then
    run_failing c
    contains "$output" "runc 1.2.6 or crun 1.8.4"
    return
  fi
  start shim c
  inside=$(tr -s ' ' <"/proc/$(pid_of c)/timens_offsets")
  own() { awk -v clock="$1" '$1 == clock { printf "%.0f\n", ($2 + s) * 1000000000 + $3 }' /proc/self/timens_offsets; }
  of() { awk -v clock="$1" '$1 == clock { printf "%.0f\n", $2 * 1000000000 + $3 }' <<<"$inside"; }
  is "$(($(of boottime) - $(own boottime)))" 86400500000000
  is "$(($(of monotonic) - $(own monotonic)))" -250000000
  is "$(exec_ns shim c)" "$(ns_of "$(pid_of c)")"
}

@test "clocks of a container with a user namespace begin at zero" {
  shifts || skip "this runtime cannot shift clocks"
  annotate uptime zero
  edit_config "$BUNDLE" '.linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 0, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
  start shim c
  uptime=$(uptime_in c)
  ((uptime >= 0 && uptime < 6000)) || fail "$uptime"
}

@test "a wrong setting or annotation is an error that names it, and nothing is created" {
  settings '' 'mode = "none"'
  run_failing c
  contains "$output" "/etc/tns-shim/config.toml"
  contains "$output" "line 2"
  settings '[restore]' 'clock = "host"'
  run_failing c
  contains "$output" "line 2"
  contains "$output" "clock"
  rm /etc/tns-shim/config.toml
  annotate mode none
  run_failing c
  contains "$output" "the annotation org.tns-shim.mode in config.json"
  annotate mode auto
  annotate mdoe auto
  run_failing c
  contains "$output" "org.tns-shim.mdoe"
}

@test "an annotation does not take back what the settings ask for by name, unless they say so" {
  settings 'mode = "private"'
  annotate mode host
  shim --log "$WORK/log" --log-format json run --detach --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  isnt "$(ns_of "$(pid_of c)")" "$HOST_NS"
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" 'the annotation org.tns-shim.mode in config.json, host, is not honoured: the settings say mode = "private"'
  settings 'mode = "private"' 'annotations = ["mode"]'
  start shim d
  is "$(ns_of "$(pid_of d)")" "$HOST_NS"
  settings 'annotations = "none"'
  annotate mode nonsense
  start shim e
  isnt "$(ns_of "$(pid_of e)")" "$HOST_NS"
}

@test "a mistake in the settings stops new containers, and no command to one that runs" {
  start shim c
  # As plain tns-shim: the runtime, too, is in the file.
  plain() { "$TNS_BIN/tns-shim" --root "$STATE" "$@"; }
  for mistake in 'mode = "prviate"' 'a-key-of-tomorrow = true' 'mode = '; do
    settings "runtime = \"$TNS_RUNTIME\"" "$mistake"
    run plain run --detach --bundle "$BUNDLE" d
    is "$status" 1
    contains "$output" "understand /etc/tns-shim/config.toml: line 2: "
    is "$(plain state c | jq -r .status)" running
    isnt "$(plain exec c cat /proc/uptime)" ""
  done
  plain kill c KILL
  plain delete --force c
  [[ ! -e $STATE/c ]] || fail "$(ls "$STATE")"
}
