// SPDX-License-Identifier: Apache-2.0
//! Only execve, with the C `main` that the shim has: what a wrapper in Rust costs that does nothing.

#![no_main]

use std::ffi::{c_char, c_int};

unsafe extern "C" {
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int;
}

/// The C `main`.
///
/// # Safety
/// For the C library to call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(_: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: a NUL-terminated literal, and the array that the C library made.
    unsafe { execv(concat!(env!("RUNTIME"), "\0").as_ptr().cast(), argv) };
    127
}
