// SPDX-License-Identifier: Apache-2.0
//! tnsctl: looks at time namespaces of containers, for people and programs.

fn main() -> std::process::ExitCode {
    tns_shim::ctl::main()
}
