#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A restore never writes to the image folder: many at once, read-only folders, and what a private view must not change for
# anybody else.

load helpers

ROUNDS=${TNS_ROUNDS:-2}

annotate() { # annotate CLOCKS [BUNDLE]
  edit_config "${2:-$BUNDLE}" ".annotations[\"org.tns-shim.restore.clocks\"] = \"$1\""
}

make_mixed() { # make_mixed IMAGE: a container c with one process on the host's time, and time that has passed since
  local image=$1
  start shim c
  stray c 'tail -f /dev/null'
  mkdir -p /etc/tns-shim
  echo 'checkpoint.mixed = "warn"' >/etc/tns-shim/config.toml
  checkpoint shim c "$image" 2>/dev/null
  rm -r /etc/tns-shim
  # So that its clocks cannot be taken for the host's.
  sleep 1
}

on_host_time() { # on_host_time ID COUNT: all of its processes
  is "$(namespaces_below "$(pid_of "$1")" | sort | uniq -c | awk '{ print $1, $2 }')" "$2 $HOST_NS"
}

own_time() { # own_time ID COUNT
  one_namespace "$1"
  is "$(namespaces_below "$(pid_of "$1")" | wc -l)" "$2"
}

contents() { (cd "$1" && find . -type f -exec sha256sum {} + | sort); }

# The image as a release that changed it left it: CRIU's number everywhere, the originals beside.
hold() { # hold IMAGE
  local image=$1
  cp -p "$image/inventory.img" "$image/inventory.img.tns-orig"
  if [[ -e $image/timens-0.img ]]; then
    mv "$image/timens-0.img" "$image/timens-0.img.tns-orig"
  else
    fail "only for images with CRIU's own clocks"
  fi
}

read_only() { # read_only FOLDER
  mount --bind "$1" "$1"
  mount -o remount,bind,ro "$1"
}

# Mount namespaces of living processes, and what is mounted here.
namespaces() { for pid in /proc/[0-9]*; do readlink "$pid/ns/mnt" || true; done 2>/dev/null | sort -u; }
mounts() { cut -d' ' -f3- /proc/self/mountinfo | sort; }

@test "called from within the image folder, which is the bundle as well" {
  needs_criu
  make_mixed image
  cp "$BUNDLE/config.json" "$WORK/image"
  mkdir "$WORK/work"
  cd "$WORK/image"
  shim --log "$WORK/log" restore --detach --image-path . --work-path "$WORK/work" c </dev/null >/dev/null 2>&1 || fail "$(cat "$WORK/log")"
  cd /
  own_time c 3
}

@test "eight restores of one image at once, every mix of settings: each has the clocks that it asked for, the image its bytes" {
  needs_criu
  make_mixed image
  before=$(snapshot "$WORK/image")
  modes=(continue host host-force continue host host-force continue host)
  for n in "${!modes[@]}"; do
    mkdir "$WORK/bundle-$n" "$WORK/work-$n"
    cp "$BUNDLE/config.json" "$WORK/bundle-$n"
    annotate "${modes[n]}" "$WORK/bundle-$n"
  done
  for ((round = 0; round < ROUNDS; round++)); do
    running=()
    for n in "${!modes[@]}"; do
      shim --log "$WORK/log-$n" restore --detach --image-path "$WORK/image" --work-path "$WORK/work-$n" --bundle "$WORK/bundle-$n" \
        "c$round-$n" </dev/null >/dev/null 2>&1 &
      running+=($!)
    done
    for n in "${!modes[@]}"; do
      wait "${running[n]}" || fail "round $round, ${modes[n]}: $(cat "$WORK/log-$n"; grep Error "$WORK/work-$n/restore.log")"
    done
    for n in "${!modes[@]}"; do
      if [[ ${modes[n]} == continue ]]; then own_time "c$round-$n" 3; else on_host_time "c$round-$n" 3; fi
      bare delete --force "c$round-$n"
    done
    is "$(snapshot "$WORK/image")" "$before"
  done
}

@test "an image in a read-only folder is restored repaired, on its own clocks and on the host's" {
  needs_criu
  make_mixed image
  before=$(contents "$WORK/image")
  read_only "$WORK/image"
  for mode in continue host; do
    annotate "$mode"
    restore shim c image
    if [[ $mode == host ]]; then on_host_time c 3; else own_time c 3; fi
    bare delete --force c
  done
  is "$(contents "$WORK/image")" "$before"
}

@test "an image that the first release holds on the host's time, and that is read-only now, is restored as asked" {
  needs_criu
  start bare c
  checkpoint bare c image
  hold "$WORK/image"
  is "$("$TNS_BIN/tnsctl" images --json "$WORK/image" | jq .held_on_host_time)" true
  before=$(contents "$WORK/image")
  read_only "$WORK/image"
  for mode in host continue; do
    annotate "$mode"
    restore shim c image
    if [[ $mode == host ]]; then on_host_time c 2; else own_time c 2; fi
    bare delete --force c
  done
  is "$(contents "$WORK/image")" "$before"
}

@test "a view leaves nothing behind, and a restore that fails leaves the image as it was" {
  needs_criu
  make_mixed image
  namespaces=$(namespaces) mounts=$(mounts)
  restore shim c image
  own_time c 3
  # The container has one of its own.
  bare delete --force c
  is "$(mounts)" "$mounts"
  is "$(namespaces)" "$namespaces"

  # CRIU does not take this one, whatever it is shown.
  truncate -s 20 "$WORK"/image/core-1.img
  before=$(snapshot "$WORK/image")
  run restore shim c image
  isnt "$status" 0
  is "$(snapshot "$WORK/image")" "$before"
  is "$(mounts)" "$mounts"
  is "$(namespaces)" "$namespaces"
}

@test "where a view cannot be made the restore is refused, and says what to do" {
  needs_criu
  make_mixed image
  before=$(snapshot "$WORK/image")
  mkdir -p "$WORK/work"
  without_mounts() { setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"; }
  run without_mounts "$SHIM" --root "$STATE" restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null
  isnt "$status" 0
  contains "$output" "tnsctl repair $WORK/image --output NEW"
  annotate host
  run without_mounts "$SHIM" --root "$STATE" restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null
  isnt "$status" 0
  contains "$output" "restore.clocks asks for the host's, and CRIU cannot be shown"
  is "$(snapshot "$WORK/image")" "$before"
}

@test "a step towards the view that cannot be made: refused, or done with a warning; nobody else sees a mount, the image stays" {
  needs_criu
  start shim c
  checkpoint shim c image
  annotate host
  mkdir -p "$WORK/work"
  image=$(snapshot "$WORK/image") mounts=$(mounts)
  without() { # without CALL:ERROR:WHEN
    rm -f "$WORK/log"
    run strace -qq -o "$WORK/trace" -e trace="${1%%:*}" -e inject="$1" -- "$SHIM" --root "$STATE" --log "$WORK/log" --log-format json \
      restore --detach --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null
    is "$(snapshot "$WORK/image")" "$image"
    is "$(mounts)" "$mounts"
  }
  for step in open_tree:error=ENOSYS mount:error=ENODEV:when=2 mount:error=EINVAL:when=1 move_mount:error=EPERM:when=2; do
    without "$step"
    isnt "$status" 0
    contains "$(cat "$WORK/log")" "CRIU cannot be shown the checkpoint image without its clocks"
  done
  # Before Linux 5.15 a mount does not get back into its group: known beforehand.
  without move_mount:error=EINVAL:when=1
  is "$status" 0
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "this kernel cannot give a mount back its group"
  on_host_time c 2
  bare delete --force c
  # Or against all expectation. CRIU copies groups itself by now, and may not take what has none.
  without move_mount:error=EINVAL:when=3
  words='back into its group'
  # There may be no third call on an older kernel, which says what it said above without a fault.
  kernel_at_least 5.15 || words=' back '
  contains "$(jq -r 'select(.level == "warning").msg' "$WORK/log")" "$words"
}

@test "what the runtime would put into the view, where nobody finds it, is refused" {
  needs_criu
  make_mixed image
  before=$(snapshot "$WORK/image")
  mkdir -p "$WORK/work"
  cd "$WORK/image"
  run shim restore --detach --pid-file pid --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null
  isnt "$status" 0
  contains "$output" "pid would be in the image folder"
  cd /
  is "$(snapshot "$WORK/image")" "$before"
  shim restore --detach --pid-file "$WORK/pid" --image-path "$WORK/image" --work-path "$WORK/work" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  is "$(cat "$WORK/pid")" "$(pid_of c)"
}

@test "without a working folder, what CRIU and crun write into the image folder is there" {
  needs_criu
  [[ $TNS_RUNTIME == crun ]] || skip "runc has a working folder of its own"
  make_mixed image
  shim restore --detach --image-path "$WORK/image" --bundle "$BUNDLE" c </dev/null >/dev/null 2>&1
  own_time c 3
  contains "$(cat "$WORK/image/restore.log")" "Restore finished successfully"
  [[ -s $WORK/image/stats-restore ]] || fail "$(ls -la "$WORK/image")"
}

volumes() { # volumes: a folder of the image folder's own mount, and one that is a mount of its own, both shared
  mkdir -p "$WORK/near" "$WORK/far" "$ROOTFS/near" "$ROOTFS/far"
  mount -t tmpfs far "$WORK/far"
  mount --make-shared "$WORK/far"
}

# What is mounted on the host is seen in the container, and the other way round: "in out" for each volume and kind.
propagation() { # propagation ID
  local name pid seen
  pid=$(pid_of "$1")
  for name in near far; do
    mkdir -p "$WORK/$name/from-host" "$WORK/$name/from-container"
    mount -t tmpfs from-host "$WORK/$name/from-host"
    nsenter --target "$pid" --mount -- /bin/busybox mount -t tmpfs from-container "/$name/from-container"
    seen=
    if grep -q " /$name/from-host .*from-host" "/proc/$pid/mountinfo"; then seen+=" in"; fi
    if grep -q " $WORK/$name/from-container .*from-container" /proc/self/mountinfo; then seen+=" out"; fi
    echo "$name:$seen"
    nsenter --target "$pid" --mount -- /bin/busybox umount "/$name/from-container"
    umount "$WORK/$name/from-host"
    awk -v place="/$name" '$5 == place { for (i = 7; $i != "-"; i++) { sub(":.*", "", $i); printf "%s ", $i } print "" }' "/proc/$pid/mountinfo"
  done
}

@test "a view changes no other mount: the runtime sees each in the group that it has on the host" {
  needs_criu
  volumes
  make_mixed image
  mount --bind "$WORK/image" "$WORK/near"
  # Every kind, also for the mount that the image lies on.
  mkdir "$WORK/slave" "$WORK/private"
  mount -t tmpfs private "$WORK/private"
  mount --make-private "$WORK/private"
  mount --bind "$WORK/far" "$WORK/slave"
  mount --make-slave "$WORK/slave"
  real=$(command -v "$TNS_RUNTIME")
  mkdir "$WORK/fake"
  # shellcheck disable=SC2016  # For the stand-in.
  printf '#!/bin/bash\nif [[ " $* " == *" restore "* ]]; then cat /proc/self/mountinfo >%q; else exec %q "$@"; fi\n' "$WORK/seen" "$real" >"$WORK/fake/$TNS_RUNTIME"
  chmod +x "$WORK/fake/$TNS_RUNTIME"
  # Place and group of every mount, but for those of the view.
  groups() { awk -v view="$2" '$5 != view && $5 != view "/.tns-shim-real" { for (i = 7; $i != "-"; i++) $5 = $5 " " $i; print $5 }' "$1" | sort; }
  for folder in image far slave private; do
    [[ $folder == image ]] || cp -a "$WORK/image/." "$WORK/$folder"
    rm -f "$WORK/seen"
    PATH=$WORK/fake:$PATH shim restore --detach --image-path "$WORK/$folder" --bundle "$BUNDLE" c 2>/dev/null
    contains "$(cat "$WORK/seen")" " $WORK/$folder/.tns-shim-real "
    expected=$(groups /proc/self/mountinfo "$WORK/$folder")
    # Only since then can the copy of the mount that the image lies on be put into its group; before, it still hears of it.
    if ! kernel_at_least 5.15; then
      below=$(findmnt --noheadings --output TARGET --target "$WORK/$folder")
      expected=$(sed "s|^$below shared:|$below master:|" <<<"$expected")
    fi
    is "$(groups "$WORK/seen" "$WORK/$folder")" "$expected"
  done
}

@test "mounts reach a restored container's volumes, and come from them, as without a view" {
  needs_criu
  volumes
  for kind in rshared rslave rprivate; do
    edit_config "$BUNDLE" ".mounts = (.mounts | map(select(.source != \"near\" and .source != \"far\") | select(.destination | test(\"near|far\") | not)))
      + [\"near\", \"far\" | {destination: \"/\(.)\", source: \"$WORK/\(.)\", type: \"bind\", options: [\"rbind\", \"$kind\"]}]"
    annotate continue
    start bare c
    checkpoint bare c "image-$kind"
    restore bare c "image-$kind"
    bare=$(propagation c)
    bare delete --force c
    annotate host
    restore shim c "image-$kind"
    on_host_time c 2
    is "$(propagation c)" "$bare"
    bare delete --force c
    echo "# $kind: ${bare//$'\n'/ }" >&3
  done
}
