# shellcheck shell=bash
# Makes disks that boot, and kernels. Sourced by build, in whose namespaces fill_machine runs.

# Raise it when the way of making a machine changes.
# shellcheck disable=SC2034
machine_version=1

# The release before Debian 12: one machine has its kernel as well.
older_suite=bullseye

# What is on a machine whose administrator has asked apt for the engines, and what the tests call.
machine_packages_of() {
  local packages=(linux-image-amd64 initramfs-tools systemd-sysv dbus libpam-systemd dbus-user-session kmod udev apparmor)
  packages+=(runc crun criu podman uidmap containerd docker.io busybox-static bats jq strace procps iproute2 util-linux)
  case $1 in
    machine-no-timens) packages=(linux-source-5.10 build-essential bc bison flex libelf-dev libssl-dev xz-utils kmod cpio) ;;
    machine-debian-12) ;;
    *) packages+=(docker-cli) ;;
  esac
  echo "${packages[*]}"
}

# Turns $2 into the folder of a machine: `disk`, an ext4 file system, and vmlinuz-* and initrd.img-* of its kernels. Needs the tree of
# a minimal Debian in $2.
fill_machine() { # fill_machine NAME FOLDER APT...
  local name=$1 folder=$2 tree=$2/tree packages apt=("${@:3}") kernel
  read -ra packages <<<"$(machine_packages_of "$name")"
  if [[ $name == machine-no-timens ]]; then
    chroot "$tree" "${apt[@]}" install --no-install-recommends "${packages[@]}"
    compile_kernel "$tree"
    cp "$tree/root/linux/arch/x86/boot/bzImage" "$folder/vmlinuz-no-timens"
    cp "$tree/root/linux/.config" "$folder/config-no-timens"
  else
    # With what apt recommends, as it is by default: this is how people get their engines.
    chroot "$tree" "${apt[@]}" install "${packages[@]}"
    if [[ $name == machine-debian-12 ]]; then add_older_kernel "$tree" "${apt[@]}"; fi
    make_bootable "$tree"
    for kernel in "$tree"/boot/{vmlinuz,initrd.img}-*; do cp "$kernel" "$folder"; done
  fi
  chroot "$tree" apt-get clean
  rm -rf "$tree"/var/lib/apt/lists/* "$tree/usr/sbin/policy-rc.d"
  umount "$tree/proc"
  if [[ $name != machine-no-timens ]]; then
    # Without the newest features of the file system, which an old kernel does not mount.
    MKE2FS_CONFIG=/dev/null mke2fs -q -b 4096 -I 256 -L root \
      -O has_journal,extents,flex_bg,huge_file,dir_nlink,extra_isize,dir_index,filetype,large_file,sparse_super,resize_inode,ext_attr \
      -d "$tree" "$folder/disk" 10G
  fi
  rm -rf --one-file-system "$tree"
}

add_older_kernel() { # add_older_kernel TREE APT...
  local tree=$1 apt=("${@:2}") list=$1/etc/apt/sources.list.d/older.list kernel
  # The mirror is what the tree has from debootstrap.
  sed "s/ $(suite_of machine-debian-12) / $older_suite /" "$tree/etc/apt/sources.list" >"$list"
  chroot "$tree" "${apt[@]}" update
  kernel=$(chroot "$tree" apt-cache pkgnames linux-image-5.10.0- | grep -E '^linux-image-5\.10\.0-[0-9]+-amd64$' | sort -V | tail -n 1)
  chroot "$tree" "${apt[@]}" install --no-install-recommends "$kernel"
  rm "$list"
}

make_bootable() { # make_bootable TREE
  local tree=$1
  echo /dev/vda / ext4 defaults 0 1 >"$tree/etc/fstab"
  echo tns-machine >"$tree/etc/hostname"
  printf '127.0.0.1 localhost tns-machine\n' >"$tree/etc/hosts"
  : >"$tree/etc/machine-id"
  # Small, because unpacking takes long without a virtual processor.
  printf 'MODULES=list\nCOMPRESS=gzip\n' >"$tree/etc/initramfs-tools/conf.d/tns"
  printf '%s\n' virtio_pci virtio_blk ext4 >>"$tree/etc/initramfs-tools/modules"
  chroot "$tree" update-initramfs -u -k all
  # Nothing may begin by itself while a test runs.
  chroot "$tree" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer
  # Runs what the second disk says, whatever that is. The output has a way of its own, the console is the kernel's.
  cat >"$tree/etc/systemd/system/tns-tests.service" <<'END'
[Unit]
Description=What tests/vm runs here
After=multi-user.target systemd-user-sessions.service
[Service]
Type=simple
ExecStartPre=/bin/mkdir -p /tns
ExecStartPre=/bin/mount -o ro /dev/vdb /tns
ExecStart=/bin/bash /tns/vm/guest
Environment=HOME=/root LANG=C.UTF-8
TasksMax=infinity
[Install]
WantedBy=multi-user.target
END
  chroot "$tree" systemctl enable tns-tests.service
}

# A kernel that is whole but for time namespaces: all that containers and systemd need is built in.
compile_kernel() { # compile_kernel TREE
  # shellcheck disable=SC2016  # The shell in the tree has its own variables.
  chroot "$1" bash -euc '
    mkdir /root/linux
    tar -C /root/linux --strip-components=1 -xf /usr/src/linux-source-*.tar.xz
    cd /root/linux
    make -s x86_64_defconfig
    set() { local state=$1 option; shift; for option; do scripts/config "$state" "$option"; done; }
    set --disable TIME_NS MODULES DRM SOUND USB_SUPPORT WLAN WIRELESS CFG80211 HID NFS_FS NETWORK_FILESYSTEMS AGP ACPI_DOCK \
      INPUT_JOYSTICK INPUT_TOUCHSCREEN PCCARD MACINTOSH_DRIVERS ATA SCSI MD ETHERNET PHYLIB XFRM_USER IPV6 HIBERNATION CPU_FREQ \
      DEBUG_INFO DEBUG_KERNEL PROVE_LOCKING RETPOLINE MICROCODE X86_MCE PERF_EVENTS_AMD_POWER
    set --enable NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS CGROUPS MEMCG CGROUP_PIDS CGROUP_FREEZER CGROUP_DEVICE CPUSETS \
      CGROUP_CPUACCT CGROUP_SCHED CFS_BANDWIDTH BLK_CGROUP CGROUP_BPF BPF_SYSCALL CHECKPOINT_RESTORE SECCOMP SECCOMP_FILTER FHANDLE \
      EXT4_FS EXT4_FS_SECURITY EXT4_FS_POSIX_ACL OVERLAY_FS FUSE_FS TMPFS TMPFS_XATTR TMPFS_POSIX_ACL AUTOFS_FS DEVTMPFS DEVTMPFS_MOUNT POSIX_MQUEUE \
      UNIX UNIX_DIAG INET_DIAG INET_TCP_DIAG INET_UDP_DIAG PACKET PACKET_DIAG NETLINK_DIAG VETH BRIDGE BRIDGE_NETFILTER NETFILTER NETFILTER_ADVANCED NETFILTER_XTABLES NF_CONNTRACK NF_NAT NF_TABLES NF_TABLES_INET \
      NF_TABLES_IPV4 NFT_CT NFT_NAT NFT_MASQ NFT_COMPAT NFT_COUNTER NFT_CHAIN_NAT NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK \
      NETFILTER_XT_MATCH_COMMENT NETFILTER_XT_TARGET_MASQUERADE IP_NF_IPTABLES IP_NF_FILTER IP_NF_NAT IP_NF_TARGET_MASQUERADE \
      VIRTIO VIRTIO_PCI VIRTIO_BLK VIRTIO_CONSOLE HW_RANDOM HW_RANDOM_VIRTIO SERIAL_8250 SERIAL_8250_CONSOLE KEYS UNIX98_PTYS TUN DUMMY \
      SECURITY SECURITYFS SECURITY_APPARMOR MEM_SOFT_DIRTY
    make -s olddefconfig
    ! grep -q ^CONFIG_TIME_NS= .config
    make -s -j"$(nproc)" bzImage'
}
