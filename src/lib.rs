// SPDX-License-Identifier: Apache-2.0
//! One time namespace for a container's whole life, in front of runc or crun.
//!
//! ```text
//! argv ──▶ Invocation ──▶ Decision ──▶ effect ──▶ execve(real runtime, same argv)
//!          (what is asked)  (pure: what to do, and why)   (edit a file, make or enter a namespace)
//! ```
//!
//! | part | what it knows |
//! |---|---|
//! | [`invocation`] | how runc and crun read their arguments |
//! | [`settings`] | /etc/tns-shim/config.toml, and annotations |
//! | [`runtime`] | which binary is wrapped, what it can do, how to become it |
//! | [`decision`] | the pure core: facts in, action and reason out |
//! | [`verbs`] | one file a verb: gather the facts, decide, act |
//! | [`bundle`], [`json`] | config.json: what it declares, and how to change only those bytes |
//! | [`container`], [`tree`] | a container's PID 1, proven, and the processes below it |
//! | [`timens`], [`state_view`] | making and entering time namespaces, and what the runtime must be shown inside |
//! | [`private_mounts`], [`image_view`] | mounts that nobody else sees, and what CRIU must be shown of a checkpoint |
//! | [`clocks`] | what clocks read here, in another time namespace, and at the checkpoint |
//! | [`criu`] | checkpoint images: whether they can be restored, how to repair them, and the record beside them |
//! | [`archive`] | checkpoints in archives: Podman's, containerd's |
//! | [`files`] | opening what somebody else may have put there |
//! | [`replacement`] | files that change whole or not at all |
//! | [`oci_log`], [`system_log`] | the `--log` file that engines read, and the log that stays when it is gone |
//! | [`text`] | what others have chosen to be shown, made fit for logs and terminals |
//! | [`sys`] | every `unsafe` |
//! | [`ctl`] | tnsctl, for people |

#[cfg(feature = "ctl")]
pub mod archive;
pub mod bundle;
pub mod clocks;
pub mod container;
pub mod criu;
#[cfg(feature = "ctl")]
pub mod ctl;
pub mod decision;
pub mod files;
pub mod image_view;
pub mod invocation;
pub mod json;
pub mod oci_log;
pub mod private_mounts;
pub mod replacement;
pub mod runtime;
pub mod settings;
pub mod state_view;
pub mod sys;
pub mod system_log;
pub mod text;
pub mod timens;
pub mod tree;
pub mod verbs;

use std::ffi::CStr;

/// What `tns-shim` does: returns an exit code only where it did not become the runtime.
///
/// Errors go where the engine looks for them: the `--log` file in the asked format, and standard error.
pub fn main(args: &[&CStr]) -> u8 {
    let result = sys::occupy_standard_fds().map_err(anyhow::Error::from).and_then(|()| {
        let invocation = invocation::Invocation::parse(args);
        system_log::set_verb(invocation.verb);
        oci_log::start(&invocation.globals);
        verbs::dispatch(&invocation)
    });
    result.unwrap_or_else(|error| {
        log::error!("{}", text::for_engines(&format!("{error:#}")));
        1
    })
}
