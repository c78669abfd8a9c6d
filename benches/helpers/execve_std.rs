// SPDX-License-Identifier: Apache-2.0
//! Only execve, as one would write it: with the start and the `Command` of Rust's standard library.

use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    let error = Command::new(env!("RUNTIME")).args(std::env::args_os().skip(1)).exec();
    eprintln!("{error}");
    std::process::exit(127);
}
