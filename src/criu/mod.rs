// SPDX-License-Identifier: Apache-2.0
//! CRIU's image files: what a checkpoint says about time, and how to make one restorable that is not.
//!
//! | part | what it knows |
//! |---|---|
//! | [`wire`] | protobuf without a schema: finds one field, changes one field, keeps every other byte |
//! | [`images`] | the files that matter here, and whether the processes in them agree |
//! | [`clocks`] | the clocks at the checkpoint, and what they mean on this machine |
//! | [`repair`] | all processes into the time namespace of the first one, and back |

pub mod clocks;
pub mod images;
pub mod repair;
pub mod wire;
