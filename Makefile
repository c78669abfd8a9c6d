# SPDX-License-Identifier: Apache-2.0
# `make help` has what there is. For packagers: build, docs, install, vendor and dist-source write into TARGET_DIR, DISTDIR and what
# install is told, and nowhere else; after `make vendor`, CARGO_FLAGS=--offline builds without a network.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
BINDIR = $(PREFIX)/bin
# Not the folder that engines look in by themselves: CRI-O refuses one that holds a hook of stage precreate.
HOOKSDIR = $(PREFIX)/share/tns-shim/hooks.d
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/tns-shim
DISTDIR ?= $(TARGET_DIR)/dist
# Where each shell looks for what an administrator has put there. Packages have others: share/fish/vendor_completions.d, and Debian's zsh
# share/zsh/vendor-completions.
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(SYSCONFDIR)/fish/completions

CARGO ?= cargo
CARGO_FLAGS ?=
TARGET_DIR ?= $(abspath $(or $(CARGO_TARGET_DIR),target))
# Static and not relocated: the shim's own start is most of what it costs, and the dynamic linker would double it. `STATIC=` is for
# distributions that want a relocatable program with the shared C library.
# --target, because without it these flags would also apply to procedural macros, which cannot be static.
STATIC = -C target-feature=+crt-static -C relocation-model=static
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
MUSL = $(HOST:-gnu=-musl)
# glibc's start costs twice what musl's does: musl where Rust and a C compiler for it are here.
HAS_MUSL = $(and $(strip $(STATIC)),$(shell command -v musl-gcc),$(wildcard $(shell rustc --print target-libdir --target $(MUSL))/libstd-*))
TARGET ?= $(if $(HAS_MUSL),$(MUSL),$(HOST))
# A release's archive has both built. Else it is where `make build` has said that it was: root, who installs it, may have another Rust, or
# none in PATH. TARGET=… names one of several.
BUILT = $(TARGET_DIR)/$(TARGET)/release
BIN = $(if $(wildcard bin/tns-shim),bin,$(or $(if $(filter command environment,$(origin TARGET)),,$(shell cat "$(TARGET_DIR)/built" 2>/dev/null)),$(BUILT)))
DOCS = $(abspath $(if $(wildcard bin/tns-shim),.,$(TARGET_DIR)/docs))
# Where a dependency's source lay is in what its errors say. The same bytes for everybody: not whose home that was.
empty :=
REMAP = $(if $(findstring $(empty) ,$(CURDIR)$(HOME)$(CARGO_HOME)),,--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=crates --remap-path-prefix=$(CURDIR)=.)
RUST = $(STATIC) $(REMAP) $(RUSTFLAGS)
# The date of what is made: the last change's, or of a release's archive its files'.
ifndef SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
endif
export SOURCE_DATE_EPOCH

SHELL_SCRIPTS = .ci/run tests/compatibility tests/integration/has contrib/dist contrib/demo/run contrib/demo/story contrib/kubernetes/install-node.sh contrib/musl/build contrib/musl/tree.bash \
	fuzz/run tests/emulated tests/reproducible tests/unit tests/faults/faults.bash \
	contrib/packaged-docs contrib/arch/PKGBUILD contrib/arch/tns-shim.install contrib/before-removal contrib/debian/build contrib/debian/tns-shim.postrm contrib/debian/tns-shim.prerm \
	contrib/debian/tests/runtime contrib/debian/tests/runc contrib/debian/tests/crun contrib/debian/tests/podman \
	tests/packages/build tests/packages/run tests/packages/helpers.bash \
	tests/integration/run tests/integration/helpers.bash tests/integration/namespaces.bash tests/integration/clocks.bash \
	tests/guides/run tests/guides/stack.bash tests/guides/systemctl \
	tests/engines/helpers.bash tests/engines/cri.bash tests/engines/podman.bash tests/engines/containerd.bash tests/engines/docker.bash tests/engines/doctor.bash \
	tests/stacks/build tests/stacks/clean tests/stacks/enter tests/stacks/lib.bash tests/stacks/machine.bash \
	tests/vm/boot tests/vm/guest tests/vm/run tests/vm/reboot.bash

.PHONY: build compiler docs released shared rust install install-docs uninstall demo check unit arm64 integration guides vm stress lint deny fuzz bench \
	packages vendor dist dist-source compatibility reproducible help clean

build: rust ## the programs, tns-shim and tnsctl
	SYSCONFDIR="$(SYSCONFDIR)" RUSTFLAGS="$(RUST)" \
		$(CARGO) build --release --locked $(CARGO_FLAGS) --target $(TARGET) --target-dir "$(TARGET_DIR)"
	mkdir -p "$(TARGET_DIR)"
	echo "$(BUILT)" >"$(TARGET_DIR)/built"

# Man pages and completions. scdoc (Debian's scdoc): the pages that people write are read in the source, too, and it is a small program that
# makes nothing but man pages, and takes nothing that is not its own.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
docs: rust ## man pages and completions (scdoc)
	@test "$(DOCS)" != "$(CURDIR)" || { echo 'make: man pages and completions are here already, beside bin/' >&2; exit 1; }
	rm -rf "$(DOCS)"
	$(CARGO) run --quiet --locked $(CARGO_FLAGS) --target-dir "$(TARGET_DIR)" --example generate -- "$(DOCS)"
	cd docs/man && for page in *.scd; do \
		sed 's|@VERSION@|$(VERSION)|; s|@SYSCONFDIR@|$(SYSCONFDIR)|; s|@BINDIR@|$(BINDIR)|; s|@DOCDIR@|$(DOCDIR)|' \
			"$$page" >"$(DOCS)/$$page" && \
		scdoc <"$(DOCS)/$$page" >"$(DOCS)/man/$${page%.scd}" && rm "$(DOCS)/$$page" || exit 1; done

# An older one gives up somewhere in the dependencies, in words that do not say what is missing.
rust:
	@wanted=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); have=$$(rustc -vV | sed -n 's/^release: //p'); \
	printf '%s\n' "$$wanted" "$${have:-0}" | sort -V -C || \
		{ echo "make: Rust $$wanted or newer is needed (https://rustup.rs), and rustc here is $${have:-missing}" >&2; exit 1; }

# Builds nothing, so that `make build` by a user and `make install` by root leave no files of root's in the tree.
install: ## what was built: DESTDIR PREFIX SYSCONFDIR MANDIR DOCDIR
	@test -e "$(BIN)/tns-shim" || \
		{ echo 'make: there is no $(BIN)/tns-shim: `make build` first, or say where it is, with BIN=FOLDER' >&2; exit 1; }
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(SYSCONFDIR)/tns-shim"
	install -m 755 "$(BIN)/tns-shim" "$(BIN)/tnsctl" "$(DESTDIR)$(BINDIR)"
	ln -sf tns-shim "$(DESTDIR)$(BINDIR)/tns-shim-runc"
	ln -sf tns-shim "$(DESTDIR)$(BINDIR)/tns-shim-crun"
	install -d "$(DESTDIR)$(HOOKSDIR)"
	install -m 755 contrib/before-removal "$(DESTDIR)$(PREFIX)/share/tns-shim/before-removal"
	sed 's|@BINDIR@|$(BINDIR)|' hooks/tns-shim-precreate.json.in >"$(DESTDIR)$(HOOKSDIR)/tns-shim-precreate.json"
	test -e "$(DESTDIR)$(SYSCONFDIR)/tns-shim/config.toml" || \
		install -m 644 contrib/config.toml "$(DESTDIR)$(SYSCONFDIR)/tns-shim/config.toml"
	test ! -d "$(DOCS)" || $(MAKE) --no-print-directory install-docs

# If they are built. Without what tests/guides/walk needs to know of a page.
install-docs:
	for page in "$(DOCS)"/man/*; do \
		install -D -m 644 "$$page" "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}" || exit 1; done
	for page in troubleshooting.md doctor.md guides/recovery.md; do \
		install -D -m 644 "docs/$$page" "$(DESTDIR)$(DOCDIR)/$$page" && \
		sed -i '/^<!-- sh$$/,/^-->$$/d; /^<!-- .* -->$$/d' "$(DESTDIR)$(DOCDIR)/$$page" || exit 1; done
	install -D -m 644 "$(DOCS)/completions/bash/tnsctl" "$(DESTDIR)$(BASHDIR)/tnsctl"
	install -D -m 644 "$(DOCS)/completions/zsh/_tnsctl" "$(DESTDIR)$(ZSHDIR)/_tnsctl"
	install -D -m 644 "$(DOCS)/completions/fish/tnsctl.fish" "$(DESTDIR)$(FISHDIR)/tnsctl.fish"

# A settings file that somebody has changed stays.
uninstall: ## takes back what install has put there
	$(if $(DESTDIR),,contrib/before-removal)
	rm -f $(addprefix "$(DESTDIR)$(BINDIR)"/,tns-shim tnsctl tns-shim-runc tns-shim-crun)
	rm -f "$(DESTDIR)$(HOOKSDIR)/tns-shim-precreate.json" "$(DESTDIR)$(PREFIX)/share/tns-shim/before-removal"
	rm -f "$(DESTDIR)$(MANDIR)"/man1/tnsctl.1 "$(DESTDIR)$(MANDIR)"/man1/tnsctl-*.1
	rm -f "$(DESTDIR)$(MANDIR)/man5/tns-shim.toml.5" "$(DESTDIR)$(MANDIR)/man8/tns-shim.8"
	rm -f "$(DESTDIR)$(BASHDIR)/tnsctl" "$(DESTDIR)$(ZSHDIR)/_tnsctl" "$(DESTDIR)$(FISHDIR)/tnsctl.fish"
	rm -f $(addprefix "$(DESTDIR)$(DOCDIR)"/,troubleshooting.md doctor.md guides/recovery.md)
	rmdir "$(DESTDIR)$(HOOKSDIR)" "$(DESTDIR)$(PREFIX)/share/tns-shim" "$(DESTDIR)$(DOCDIR)/guides" "$(DESTDIR)$(DOCDIR)" 2>/dev/null || true
	! cmp -s contrib/config.toml "$(DESTDIR)$(SYSCONFDIR)/tns-shim/config.toml" || \
		rm -f "$(DESTDIR)$(SYSCONFDIR)/tns-shim/config.toml"
	rmdir "$(DESTDIR)$(SYSCONFDIR)/tns-shim" 2>/dev/null || true

# For somebody who has Rust alone.
compiler:
	@command -v cc >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends gcc libc6-dev; }

# The real failure without the shim, the real success with it, on this machine's runc and CRIU.
demo: compiler build ## the loss without the shim, the success with it (root)
	TNS_BIN="$(BIN)" contrib/demo/run

# And of `packages` what takes no compiler, and the core of `vm`: one machine after all else, because it takes both processors.
check: compiler unit integration guides ## all tests, and what they need (root)
	$(MAKE) packages ONLY=released
	$(MAKE) vm ONLY=core

# The tests that need no container: among them the table of decisions, and the bytes that are handed over.
unit: rust ## the tests that need no container
	CARGO="$(CARGO)" tests/unit --locked --target-dir "$(TARGET_DIR)"

# For arm64, on x86_64: builds what is released, and runs the tests of `unit` on an emulator, in a tree of their own. As root.
# ARM64='--test argv' for a part of them.
arm64: rust ## builds for arm64 on x86_64, and the tests of unit on an emulator (root)
	CARGO="$(CARGO)" contrib/musl/build "$(TARGET_DIR)/released-aarch64" aarch64
	CARGO="$(CARGO)" tests/emulated "$(TARGET_DIR)/emulated-aarch64" aarch64 $(ARM64)

# What is released, also where this Rust cannot build it.
RELEASED = $(if $(findstring musl,$(TARGET)),$(BIN),$(TARGET_DIR)/released)
released: build ## the static programs of a release (root)
	test "$(RELEASED)" = "$(BIN)" || CARGO="$(CARGO)" contrib/musl/build "$(RELEASED)"

# What a distribution builds.
SHARED = $(TARGET_DIR)/shared
shared: ## the programs with the shared C library
	$(MAKE) build STATIC= TARGET="$(HOST)" TARGET_DIR="$(SHARED)"

# Real runtimes and CRIU in Debian 12, 13 and unstable. ONLY=debian-13/runc FILES=exec.bats runs a part. Most combinations have the
# released build, some the one with the shared C library, and some the one that this Rust makes.
integration: build released shared ## real runtimes and engines in Debian 12, 13 and unstable (root)
	TNS_BIN="$(BIN)" TNS_RELEASED="$(RELEASED)" TNS_SHARED="$(SHARED)/$(HOST)/release" TNS_FILES="$(FILES)" TNS_RESULTS="$(RESULTS)" \
		tests/integration/run $(ONLY)

# What the last runs have said, all of them together; and docs/compatibility.md, made of that: `make compatibility`.
RESULTS = $(TARGET_DIR)/results
compatibility: ## docs/compatibility.md, of the results of integration and vm
	tests/compatibility "$(RESULTS)" docs/compatibility.md

# Every command that the documentation shows. ONLY=podman.md or ONLY=debian-12 runs a part.
guides: released shared ## the commands that the documentation shows (root)
	TNS_BIN="$(RELEASED)" TNS_SHARED="$(SHARED)/$(HOST)/release" tests/guides/run $(ONLY)

# On machines of their own: Debian's kernels 5.10 to the newest, systemd, the engines as the distribution configures them. Some hours
# without a virtual processor; ONLY=debian-12 for a part, and ONLY=core is the part that `make check` runs.
vm: released ## whole machines, with kernels of their own (root)
	TNS_BIN="$(RELEASED)" TNS_RESULTS="$(RESULTS)" tests/vm/run $(ONLY)

# The packages of contrib/, built and looked at, Debian's also installed. Most of an hour; ONLY='rpm arch' for some, ONLY=core for a little
# of Debian's.
packages: released ## packages for Debian, RPM and Arch, built and tried (root)
	TNS_RELEASED="$(RELEASED)" tests/packages/run $(ONLY)

# What takes too long for every change: an end or an error at every single system call, and thousands of containers. About
# an hour; ONLY=debian-13/load-runc TNS_LOAD_CONTAINERS=200 for less, see tests/load/load.bats.
stress: build ## an end or an error at every system call, and load (root)
	TNS_STRESS=1 TNS_BIN="$(BIN)" TNS_FILES="$(FILES)" tests/integration/run $(ONLY)

# Man pages with every warning of groff's.
lint: docs ## formats, clippy, shellcheck, the man pages
	$(CARGO) fmt --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --all-targets --target-dir "$(TARGET_DIR)" -- -D warnings
	shellcheck -x $(SHELL_SCRIPTS)
	! for page in "$(DOCS)"/man/*; do LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings --local-file "$$page" 2>&1 >/dev/null; done | grep .

# Readers of what others have written, with anything as input: each for a minute. FUZZ='600 argv' for ten minutes of one.
fuzz: ## readers of what others have written, with anything as input
	fuzz/run $(FUZZ)

# What the shim costs: a call, beside programs that only call execve; and real containers. Then docs/performance.md and its plot. Never
# a pass or a failure. As root, on a machine that does nothing else, for about half an hour. N=2000 for more turns, SHIM=FILE for another
# build than the released one. `make bench BRIEF=1` only shows that all of it works, and leaves docs/ as it is.
RUN_BENCH = SYSCONFDIR="$(SYSCONFDIR)" RUSTFLAGS="$(RUST)" SHIM="$(or $(SHIM),$(RELEASED)/tns-shim)" \
	EXECVE_MUSL="$(RELEASED)/bench/execve_std" $(CARGO) bench --locked --target $(HOST) --target-dir "$(TARGET_DIR)"
bench: $(if $(SHIM),rust,released) ## what the shim costs (root)
	tests/stacks/build debian-13 debian-unstable
	rm -rf "$(TARGET_DIR)/$(HOST)/tmp/bench"
	$(RUN_BENCH) --bench overhead -- $(N) $(if $(BRIEF),brief)
	$(RUN_BENCH) --bench lifecycle -- $(N) $(if $(BRIEF),brief)
	$(RUN_BENCH) --bench report -- $(if $(BRIEF),brief)

# What may become a part of the programs: licences, versions, sources. DENY=advisories where the network has RustSec's list.
DENY = bans licenses sources
deny: $(TARGET_DIR)/tools/bin/cargo-deny ## licences, duplicates and sources of dependencies
	$< check $(DENY)

# Not of a distribution: they are built once, without optimization, because they run for a second.
CARGO_DENY = 0.20.2
CARGO_CYCLONEDX = 0.5.9
TOOLS = $(TARGET_DIR)/tools
$(TARGET_DIR)/tools/bin/cargo-deny:
	$(CARGO) install --quiet --locked --debug --root "$(TOOLS)" cargo-deny@$(CARGO_DENY)
$(TARGET_DIR)/tools/bin/cargo-cyclonedx:
	$(CARGO) install --quiet --locked --debug --root "$(TOOLS)" cargo-cyclonedx@$(CARGO_CYCLONEDX)

dist-source: ## the source as an archive
	contrib/dist source "$(DISTDIR)"

vendor: ## the source of all dependencies as an archive
	CARGO="$(CARGO)" contrib/dist vendor "$(DISTDIR)"

reproducible: rust ## the same source twice, in two places and without a network: the same bytes (root)
	CARGO="$(CARGO)" tests/reproducible

# All files of one release, of what is committed. RELEASE.md says what is to be done before.
dist: export PATH := $(TOOLS)/bin:$(PATH)
dist: docs $(TARGET_DIR)/tools/bin/cargo-cyclonedx ## everything of a release, in DISTDIR (root)
	test -z "$$(git status --porcelain)" || { echo 'make: a release is made of what is committed' >&2; exit 1; }
	rm -rf "$(DISTDIR)"
	contrib/dist source "$(DISTDIR)"
	CARGO="$(CARGO)" contrib/dist vendor "$(DISTDIR)"
	for architecture in x86_64 aarch64; do \
		CARGO="$(CARGO)" contrib/musl/build "$(TARGET_DIR)/released-$$architecture" $$architecture && \
		contrib/dist binaries "$(DISTDIR)" $$architecture "$(TARGET_DIR)/released-$$architecture" "$(DOCS)" || exit 1; done
	CARGO="$(CARGO)" contrib/dist sbom "$(DISTDIR)"
	mkdir "$(DISTDIR)/packages"
	TNS_DIST="$(abspath $(DISTDIR))" TNS_RELEASED="$(TARGET_DIR)/released-$(firstword $(subst -, ,$(HOST)))" \
		TNS_KEEP="$(abspath $(DISTDIR))/packages" tests/packages/run
	contrib/dist sums "$(DISTDIR)"

help: ## this
	@sed -n 's/^\([a-z0-9-]*\):.* ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS='	' read -r target what; do \
		printf '  make %-13s %s\n' "$$target" "$$what"; done

clean: ## all that was built, and the stacks of the tests
	$(CARGO) clean --target-dir "$(TARGET_DIR)"
	rm -rf fuzz/target fuzz/corpus fuzz/artifacts
	tests/stacks/clean
