#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# config.json and ids that nobody should give: whatever they are, the runtime answers as without the shim.

load helpers

# What a call says, without the time it says it at and the words that are the shim's own.
said() { sed -e 's/time="[^"]*"//' -e '/tns-shim/d' "$WORK/said"; }

# answer PROGRAM ARGUMENT...: exit code and words.
answer() {
  local with=$1 status=0
  shift
  (cd "$BUNDLE" && timeout "${PATIENCE:-20}" "$with" "$@") </dev/null >"$WORK/said" 2>&1 || status=$?
  echo "exit $status"
  said
  bare delete --force c >/dev/null 2>&1 || true
}

same() { # same WHAT ARGUMENT...
  local what=$1 direct shimmed
  shift
  direct=$(answer "$TNS_RUNTIME" --root "$STATE" "$@")
  shimmed=$(answer "$SHIM" --root "$STATE" "$@")
  [[ $shimmed == "$direct" ]] || fail "$what" "bare: $direct" "shim: $shimmed"
  # The bundle holds what it held.
  is "$(cd "$BUNDLE" && ls -A)" "${LEFT-config.json}"
}

@test "whatever is in the place of config.json, the runtime answers as without the shim" {
  local config=$BUNDLE/config.json
  mv "$config" "$WORK/real.json"
  LEFT='' same nothing create c
  mkfifo "$config"
  # Either waits for a writer.
  PATIENCE=2 same 'a FIFO' create c
  rm "$config"
  mkdir "$config"
  same 'a folder' create c
  rmdir "$config"
  ln -s config.json "$config"
  same 'a link to itself' create c
  rm "$config"
  printf '\xef\xbb\xbf' | cat - "$WORK/real.json" >"$config"
  same 'a byte order mark' create c
  jq -c '.annotations = {"x": "@"}' "$WORK/real.json" | sed 's/"@"/"\xff\xfe"/' >"$config"
  same 'no UTF-8' create c
  head -c 300 "$WORK/real.json" >"$config"
  same 'half a file' create c
  truncate -s 1G "$config"
  prlimit --as=$((256 << 20)) -- "$SHIM" --root "$STATE" --log "$WORK/log" create --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1 || true
  contains "$(cat "$WORK/log")" 'larger than 64 MiB'
  is "$(stat -c %s "$config")" $((1 << 30))
}

@test "ids that are paths" {
  for id in ../c a/b .. . /tmp/x ''; do
    LEFT=config.json same "create $id" create "$id"
    same "exec $id" exec "$id" true
    same "checkpoint $id" checkpoint --image-path "$WORK/image" "$id"
    [[ ! -e $WORK/image ]]
  done
}

@test "a configuration that is deeper than any parser should go" {
  local deep
  deep=$(printf '%9000s' '' | tr ' ' '[')1$(printf '%9000s' '' | tr ' ' ']')
  jq -c '.deep = "@"' "$BUNDLE/config.json" | sed "s/\"@\"/$deep/" >"$WORK/deep.json"
  mv "$WORK/deep.json" "$BUNDLE/config.json"
  cp "$BUNDLE/config.json" "$WORK/before.json"
  local direct
  direct=$(answer "$TNS_RUNTIME" --root "$STATE" create c)
  cp "$WORK/before.json" "$BUNDLE/config.json"
  is "$(answer "$SHIM" --root "$STATE" create c)" "$direct"
}
