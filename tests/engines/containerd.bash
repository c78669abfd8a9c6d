# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# ctr's words for what the tests of containerd do, and how containerd is started.

IMAGE=tns.test/tns:latest

binary() { if [[ $1 == bare ]]; then command -v "$TNS_RUNTIME"; else echo "$SHIM_PATH"; fi; }
bare() { ctr run --null-io --cpu-shares 0 --runc-binary "$(binary bare)" "$@"; }
shim() { ctr run --null-io --cpu-shares 0 --runc-binary "$(binary shim)" "$@"; }
start() { # start bare|shim ID [OPTION...]
  "$1" --detach "${@:3}" "$IMAGE" "$2" sh -c "$FIRST"
}
pid_of() { ctr task list | awk -v id="$1" '$1 == id { print $2 }'; }
in_container() { ctr task exec --exec-id "exec-$RANDOM-$RANDOM" "${@:2}"; }
remove_all() {
  local id
  for id in $(ctr container list --quiet); do remove "$id"; done
  end_shims
  # Of containers that could not be restored.
  ctr snapshot list | awk '$3 == "Active" { print $1 }' | xargs --no-run-if-empty --max-args 1 ctr snapshot remove
  ctr image list --quiet | grep '^checkpoint/' | xargs --no-run-if-empty ctr image remove --sync
}

# ctr leaves the container running at a checkpoint.
remove() {
  local status=0
  timeout $((3 * SLOW)) ctr task delete --force "$1" >/dev/null 2>&1 || status=$?
  if ((status == 124)); then
    # containerd 1.6 waits for ever after a restore that failed: its own shim for that container is what it waits for.
    kill "$(pgrep --full -- "^[^ ]*containerd-shim-runc-v2 .*-id $1 ")"
    timeout $((10 * SLOW)) ctr task delete --force "$1" >/dev/null 2>&1 || true
  fi
  ctr container delete "$1"
}

# The checkpoint of before goes first: containerd does not store a checkpoint whose specification is equal to a stored one's, and
# restores it without a word about CRIU's data that are missing.
checkpoint() { # checkpoint ID NAME
  ctr image list --quiet | grep '^checkpoint/' | xargs --no-run-if-empty ctr image remove --sync >/dev/null
  ctr container checkpoint --task --image --rw "$1" "checkpoint/$2"
}

restore() { ctr container restore --live "$1" "checkpoint/$2"; }

cycle() { start "$1" "$2" && checkpoint "$2" probe && remove "$2" && restore "$2" probe; } # cycle bare|shim ID

start_engine() {
  if with_systemd; then
    systemctl restart containerd
    wait_for ctr version
    return
  fi
  containerd >>"$BATS_FILE_TMPDIR/containerd.log" 2>&1 3>&- 4>&- &
  echo $! >"$BATS_FILE_TMPDIR/engine.pid"
  wait_for ctr version
}

# Without systemd: Kubernetes' plugin needs more than there is here, cri.bats looks at it.
without_systemd() {
  export CONTAINERD_SNAPSHOTTER=native
  mkdir -p /etc/containerd
  echo 'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]' |
    cat - "$CONTRIB/containerd/config-v2.toml" >/etc/containerd/config.toml
}
