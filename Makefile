# SPDX-License-Identifier: Apache-2.0
# build, install, uninstall: for users and packagers. check, demo, bench, lint: for everybody who looks at the project.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
BINDIR = $(PREFIX)/bin

CARGO ?= cargo
TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
# Static and not relocated: the shim's own start is most of what it costs, and the dynamic linker would double it.
# --target, because without it these flags would also apply to procedural macros, which cannot be static.
STATIC = -C target-feature=+crt-static -C relocation-model=static
BIN = $(TARGET_DIR)/$(TARGET)/release

.PHONY: build
build:
	RUSTFLAGS="$(STATIC) $(RUSTFLAGS)" $(CARGO) build --release --locked --target $(TARGET)
