// SPDX-License-Identifier: Apache-2.0
//! tns-shim: decides, acts, and becomes the real OCI runtime. See the library for the way through.

#![no_main]

use tns_shim::sys::arena::Arena;

/// More than a call needs that edits a config.json of usual size. What is not touched takes no memory.
#[global_allocator]
static MEMORY: Arena<{ 128 << 10 }> = Arena::new();

tns_shim::c_main!(tns_shim::main);
