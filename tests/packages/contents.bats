#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What is in the packages that were built: TNS_PACKAGES, folders in /tns/packages. Nothing is installed here.

load helpers

# Unpacks each into a folder beside, once.
setup_file() {
  local name file folder
  for name in $TNS_PACKAGES; do
    folder=/tmp/unpacked/$name
    mkdir -p "$folder"
    file=$(package "$name")
    case $file in
      *.deb) dpkg-deb -x "$file" "$folder" ;;
      *) bsdtar -xpf "$file" -C "$folder" ;;
    esac
    # Of the format, and not of the package.
    rm -rf "$folder"/.[A-Z]* "$folder/usr/lib/.build-id"
    find "$folder" -type f -name '*.gz' -exec gunzip {} +
    # Links to pages that were compressed.
    find "$folder" -type l -name '*.gz' -exec bash -c 'for link; do ln -s "$(basename "$(readlink "$link")" .gz)" "${link%.gz}"; rm "$link"; done' _ {} +
  done
}

package() { # package NAME
  find "/tns/packages/$1" \( -name 'tns-shim_*.deb' -o -name 'tns-shim-[0-9]*.rpm' ! -name '*.src.rpm' -o -name 'tns-shim-[0-9]*.pkg.tar*' \)
}

# Those whose name matches. Not in a condition, in which bash would go on after an assertion that fails.
each() { # each PATTERN FUNCTION
  local name
  for name in $TNS_PACKAGES; do
    # shellcheck disable=SC2053
    if [[ $name == $1 ]]; then
      echo "of $name:"
      "$2" "$name"
    fi
  done
}

@test "every file is where the table says, with its mode, and there is no other" {
  check() {
    local kind=other zsh=usr/share/zsh/site-functions
    [[ $1 == debian-* || $1 == released ]] && kind=debian zsh=usr/share/zsh/vendor-completions
    awk -v kind="$kind" -v name="$1" -v zsh="$zsh" '/^#/ { next } $1 == "all" || $1 == kind || $1 == name {
      sub("ZSH", zsh, $4); print $2, $3, $4 ($5 == "" ? "" : " " $5) }' "$BATS_TEST_DIRNAME/layout" |
      while read -r line; do
        if [[ $line == */DOCS ]]; then printf "${line%DOCS}%s\\n" $(cd /tns/top/docs && echo *.md *.svg guides/*.md); else echo "$line"; fi
      done | sort >"$BATS_TEST_TMPDIR/wanted"
    (cd "/tmp/unpacked/$1" && find . ! -type d -printf '%y %m %P %l\n' | sed 's/ $//' | sort) >"$BATS_TEST_TMPDIR/found"
    same "$BATS_TEST_TMPDIR/wanted" "$BATS_TEST_TMPDIR/found"
  }
  each '*' check
}

@test "what is text says the same in all of them" {
  texts() { (cd "/tmp/unpacked/$1" && find . -type f ! -path './usr/bin/*' ! -path './usr/share/man/*' ! -name changelog.Debian ! -name README.Debian ! -path './usr/share/lintian/*' -exec sha256sum {} + |
    sed 's,usr/share/zsh/[a-z-]*/,ZSH/,; s,usr/share/\(doc\|licenses\)/tns-shim/copyright,COPYRIGHT,; s,doc/tns-shim/\(changelog\|CHANGELOG.md\)$,CHANGES,; /LICENSE$/d' | sort -k 2); }
  local first=${TNS_PACKAGES%% *}
  texts "$first" >"$BATS_TEST_TMPDIR/first"
  check() { texts "$1" >"$BATS_TEST_TMPDIR/other" && same "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/other"; }
  each '*' check

  # Pages have a date, and what scdoc has made of them: the same where it is the same scdoc.
  pages() { (cd "/tmp/unpacked/$1/usr/share/man" && for page in *$2/*; do echo "$page"; sed '/^\.TH/s/[0-9]\{4\}-[0-9][0-9]-[0-9][0-9]//' "$page"; done); }
  pages "$first" 1 >"$BATS_TEST_TMPDIR/first"
  check() { pages "$1" 1 >"$BATS_TEST_TMPDIR/other" && same "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/other"; }
  each '*' check
  first=''
  check() {
    pages "$1" '[58]' >"$BATS_TEST_TMPDIR/other"
    [[ -n $first ]] || cp "$BATS_TEST_TMPDIR/other" "$BATS_TEST_TMPDIR/first"
    first=$1
    same "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/other"
  }
  each debian-13 check
  each rpm check
  each arch check
}

@test "the settings say nothing, and stay what somebody has made of them" {
  check() {
    local file=/tmp/unpacked/$1/etc/tns-shim/config.toml
    same "$file" /tns/top/contrib/config.toml
    is "$(grep -vE '^(#|\[[a-z]+\]$|$)' "$file")" ''
  }
  each '*' check
  debian() { is "$(dpkg-deb --info "$(package "$1")" conffiles)" /etc/tns-shim/config.toml; }
  each debian-* debian
  each released debian
  rpm_() { is "$(rpm -qp --qf '[%{FILEFLAGS:fflags} %{FILENAMES}\n]' "$(package "$1")" | grep ^c)" 'cn /etc/tns-shim/config.toml'; }
  each rpm rpm_
  arch() { is "$(bsdtar -xOf "$(package "$1")" .PKGINFO | sed -n 's/^backup = //p')" etc/tns-shim/config.toml; }
  each arch arch
}

@test "the examples, the hook and the documents are for a shim in /usr/bin" {
  check() {
    local folder=/tmp/unpacked/$1/usr/share
    # What to do with a runtime of one's own is there in any case.
    is "$(grep -rnF /usr/local/ "$folder" | grep -vE '/usr/local/s?bin/runc|/usr/local/\*bin/runc|`/usr/local/sbin`, tns-shim has|node with programs of yours in')" ''
    is "$(jq -r .hook.path "$folder/tns-shim/hooks.d/tns-shim-precreate.json")" /usr/bin/tnsctl
    is "$(jq -r '.runtimes["tns-shim-crun"].path' "$folder/doc/tns-shim/examples/docker/daemon.json")" /usr/bin/tns-shim-crun
    contains "$(cat "$folder/doc/tns-shim/examples/containers.conf.d/50-tns-shim.conf")" $'\ntns-shim = ["/usr/bin/tns-shim"]\n'
    contains "$(cat "$folder/doc/tns-shim/examples/containerd/config-v2.toml")" 'BinaryName = "/usr/bin/tns-shim"'
    contains "$(cat "$folder/doc/tns-shim/examples/crio/50-tns-shim.conf")" 'runtime_path = "/usr/bin/tns-shim"'
    sed 's/\\&//g; s/\\-/-/g' "$folder/man/man8/tns-shim.8" | grep -F /usr/share/doc/tns-shim/troubleshooting.md
    # And what is not to be found there: nobody has the source.
    is "$(grep -rnE 'contrib/(kubernetes|config)' "$folder/doc/tns-shim" --include='*.md' | grep -v building.md)" ''
    # The links of the documents.
    local link
    grep -roE '\]\([^)#:]+[)#]' --include='*.md' "$folder/doc" | sed -E 's/[^/]*:\]\(//; s/.$//' | sort -u | while read -r link; do
      [[ -e $link ]] || { echo "leads to nothing: $link"; return 1; }
    done
  }
  each '*' check
}

@test "nothing runs at installing" {
  debian() {
    is "$(dpkg-deb --ctrl-tarfile "$(package "$1")" | tar -t | sort | tr '\n' ' ')" './ ./conffiles ./control ./md5sums ./postrm ./prerm '
  }
  each debian-* debian
  each released debian
  # And before it is removed, not before an upgrade, each says who needs it.
  rpm_() {
    is "$(rpm -qp --scripts --triggers "$(package "$1")" | grep -v ' (using /bin/sh)')" \
      'if [ "$1" -eq 0 ]; then /usr/share/tns-shim/before-removal; fi'
    is "$(rpm -qp --queryformat '%{PREUN}' "$(package "$1")")" 'if [ "$1" -eq 0 ]; then /usr/share/tns-shim/before-removal; fi'
  }
  each rpm rpm_
  # shellcheck disable=SC2329  # Called below, by what is sourced.
  arch() {
    is "$(bsdtar -xOf "$(package "$1")" .INSTALL | grep -v '^#\|^$' | tr -s ' \n' ' ')" 'pre_remove() { /usr/share/tns-shim/before-removal } '
  }
  each arch arch
}

@test "the programs are relocatable and need libc alone, those of a release nothing; where they were built is not in them" {
  needs() { readelf -d "/tmp/unpacked/$1/usr/bin/$2" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' '; }
  check() {
    local program
    for program in tns-shim tnsctl; do
      contains "$(needs "$1" "$program")" 'libc.so.6 '
      is "$(needs "$1" "$program" | tr ' ' '\n' | grep -vE '^(libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-.*|)$')" ''
      contains "$(readelf -h "/tmp/unpacked/$1/usr/bin/$program")" 'DYN (Position-Independent Executable file)'
      is "$(readelf -SW "/tmp/unpacked/$1/usr/bin/$program" | grep -c '\.debug_info')" 0
      is "$(grep -acE '/tmp/builder|/tns/' "/tmp/unpacked/$1/usr/bin/$program")" 0
    done
  }
  each debian-* check
  each rpm check
  each arch check
  released() {
    is "$(needs "$1" tns-shim)$(needs "$1" tnsctl)" ''
    is "$(dpkg-deb --field "$(package "$1")" Depends)" ''
    cmp "/tmp/unpacked/$1/usr/bin/tns-shim" /tns/released/tns-shim
  }
  each released released
}

@test "debian/copyright is that of the crates that are vendored" {
  mkdir "$BATS_TEST_TMPDIR/vendor"
  tar -C "$BATS_TEST_TMPDIR/vendor" -xf /tns/dist/tns-shim-*-vendor.tar.xz
  /tns/top/contrib/debian/write-copyright "$BATS_TEST_TMPDIR/vendor/vendor" >"$BATS_TEST_TMPDIR/copyright"
  same /tns/top/contrib/debian/copyright "$BATS_TEST_TMPDIR/copyright" ||
    { echo 'make vendor, unpack it, and then: contrib/debian/write-copyright vendor >contrib/debian/copyright'; return 1; }
}

# `make dist-source` of the same version: one for all.
@test "all of them have the version of Cargo.toml" {
  local version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' /tns/top/Cargo.toml)
  is "$(sed -n '1s/.*(\(.*\)-[^-]*).*/\1/p' /tns/top/contrib/debian/changelog)" "$version"
  is "$(sed -n 's/^Version: *//p' /tns/top/contrib/rpm/tns-shim.spec)" "$version"
  is "$(sed -n 's/^pkgver=//p' /tns/top/contrib/arch/PKGBUILD)" "$version"
  check() { is "$("/tmp/unpacked/$1/usr/bin/tnsctl" --version)" "tnsctl $version"; }
  # Unstable's has a newer C library than there is here.
  each '[!d]*' check
  each debian-13 check
}

@test "the licences that RPM and Arch name are those of all that is in the programs" {
  local crates=$BATS_TEST_TMPDIR/crates
  cp -r /tns/top/src /tns/top/Cargo.* /tns/top/benches /tns/top/docs "$BATS_TEST_TMPDIR"
  cd "$BATS_TEST_TMPDIR"
  tar -xf /tns/dist/tns-shim-*-vendor.tar.xz
  cargo tree --offline --locked --edges no-dev,no-build,no-proc-macro --target "$(rustc -vV | sed -n 's/^host: //p')" \
    --prefix none --no-dedupe --format '{l}' | sed 's,/, OR ,; s/^\(.* OR .*\)$/(\1)/; s/ AND /\n/' | sort -u >"$crates"
  sed -i 's/^(MIT OR Apache-2.0)$/(Apache-2.0 OR MIT)/' "$crates"
  sort -u -o "$crates" "$crates"
  sed -n '0,/^License:/s/^License: *//p' /tns/top/contrib/rpm/tns-shim.spec | sed 's/ AND /\n/g' | sort >rpm
  sed -n "s/^license=('\(.*\)')/\1/p" /tns/top/contrib/arch/PKGBUILD | sed 's/ AND /\n/g' | sort >arch
  same "$crates" rpm
  same "$crates" arch
}

@test "SELinux: a policy with the type gives it to the shim, one without stays as it is; the scripts do nothing where there is none" {
  [[ " $TNS_PACKAGES " == *' rpm '* ]] || skip 'not built'
  cd "$BATS_TEST_TMPDIR"
  local file
  file=$(find /tns/packages/rpm -name 'tns-shim-selinux-*.noarch.rpm')
  bsdtar -xf "$file"
  is "$(find . -type f)" ./usr/share/selinux/packages/targeted/tns-shim.cil
  cat >base.cil <<'END'
(handleunknown allow)
(mls true)
(class file (execute))
(classorder (file))
(sensitivity s0)
(sensitivityorder (s0))
(category c0)
(categoryorder (c0))
(sensitivitycategory s0 (c0))
(level low (s0))
(levelrange low_low (low low))
(sid kernel)
(sidorder (kernel))
(user system_u)
(role object_r)
(role system_r)
(type kernel_t)
(userrole system_u object_r)
(userrole system_u system_r)
(roletype system_r kernel_t)
(userlevel system_u low)
(userrange system_u low_low)
(sidcontext kernel (system_u system_r kernel_t low_low))
(allow kernel_t self (file (execute)))
END
  cp base.cil with.cil
  printf '%s\n' '(type container_runtime_exec_t)' '(roletype object_r container_runtime_exec_t)' >>with.cil
  secilc -o policy -f contexts with.cil usr/share/selinux/packages/targeted/tns-shim.cil
  is "$(tr -s '[:blank:]' ' ' <contexts)" '/usr/bin/tns-shim -- system_u:object_r:container_runtime_exec_t:s0'
  secilc -o policy -f contexts base.cil usr/share/selinux/packages/targeted/tns-shim.cil
  is "$(<contexts)" ''

  local part
  for part in postinstall postuninstall; do
    rpm -qp --scripts "$file" | awk -v part="$part" '/^[a-z]+ (scriptlet|program)/ { on = $1 == part; next } on' >"$part"
    [[ -s $part ]]
    sh -e "$part" 0
  done
}
