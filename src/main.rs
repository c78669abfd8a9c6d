// SPDX-License-Identifier: Apache-2.0
//! tns-shim: decides, acts, and becomes the real OCI runtime. See the library for the way through.

#![no_main]

tns_shim::c_main!(tns_shim::main);
