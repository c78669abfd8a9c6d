# shellcheck shell=bash
# What build and tests/emulated share: a tree to compile for musl in, apart from the machine and without a network. Sourced, never run.

top=${top:?the folder of the project}

# In the tree: everything is at the same place on every machine. Says to cargo how to compile for machines of kind $1.
for_musl() {
  local gcc=$1-linux-musl-gcc target=$1-unknown-linux-musl
  mkdir -p /mnt/build/lib
  # What the standard library calls libunwind.
  cp "$("$gcc" -print-file-name=libgcc_eh.a)" /mnt/build/lib/libunwind.a
  "$gcc" -O2 -Wall -Wextra -Werror -c -o /mnt/build/lib/find_object.o /mnt/src/contrib/musl/find_object.c
  ar r /mnt/build/lib/libunwind.a /mnt/build/lib/find_object.o
  export RUSTC_BOOTSTRAP=1 CARGO_HOME=/mnt/cargo "CC_${target//-/_}=$gcc" \
    RUSTFLAGS="-C linker=$gcc -C link-self-contained=no -L native=/mnt/build/lib"
}

# Builds the tree for machines of kind $1, unless it is there, and holds it. Sets tree.
hold_tree() {
  local name=musl
  case $1 in
    "$(uname -m)") ;;
    aarch64 | x86_64) name=musl-$1 ;;
    *) die "there is no compiler for $1: x86_64 or aarch64" ;;
  esac
  "$top/tests/stacks/build" "$name"
  tree=$STACKS/$name
  exec 9<"$tree.lock"
  flock -s 9
}

# Fills the folders vendor and cargo in $1 with the source of every dependency, the standard library's too.
vendor() {
  local library=("$tree"/usr/src/rustc-*/library/Cargo.toml)
  mkdir -p "$1"/{vendor,cargo}
  # Its manifests have a feature that is not stable.
  (cd "$top" && RUSTC_BOOTSTRAP=1 "${CARGO:-cargo}" vendor --quiet --locked --versioned-dirs --sync "${library[0]}" "$1/vendor")
  printf '%s\n' '[source.crates-io]' 'replace-with = "vendor"' '[source.vendor]' 'directory = "/mnt/vendor"' >"$1/cargo/config.toml"
}

# Runs a program of this project in the tree, with the source at /mnt/src and the folder BUILD at /mnt/build.
#   in_tree FOLDER OF vendor BUILD PROGRAM [ARGUMENT...]
in_tree() {
  # shellcheck disable=SC2016  # For the shell in there.
  setpriv --pdeathsig KILL unshare --mount --pid --ipc --net --fork --kill-child -- bash -euc '
    tree=$1 top=$2 work=$3 build=$4 program=$5
    shift 5
    mount --bind "$tree" "$tree"
    cd "$tree"
    mount -t tmpfs -o mode=755 tmpfs mnt
    mkdir mnt/{src,vendor,build,cargo,tmp,machine}
    mount --bind -o ro "$top" mnt/src
    for folder in vendor cargo; do mount --bind "$work/$folder" "mnt/$folder"; done
    mount --bind "$build" mnt/build
    mount -t proc proc proc
    # Devices as they are, and what is put there only here. The root is a real one and no chroot, where nobody could make user namespaces.
    mount --rbind /dev dev
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs dev/shm
    # Without flags that a user namespace would have to keep, whatever it mounts from there.
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mount -t tmpfs -o mode=755 tmpfs run
    mount -o remount,bind,ro .
    pivot_root . mnt/machine
    cd /
    umount -l mnt/machine
    exec /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/mnt/build CARGO_NET_OFFLINE=true ${TERM:+"TERM=$TERM"} \
      ${CARGO_BUILD_JOBS:+"CARGO_BUILD_JOBS=$CARGO_BUILD_JOBS"} "/mnt/src/$program" "$@"
  ' bash "$tree" "$top" "$@"
}
