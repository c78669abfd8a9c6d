// SPDX-License-Identifier: Apache-2.0
//! tnsctl.

/// Runs the command line.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
