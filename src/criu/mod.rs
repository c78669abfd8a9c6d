// SPDX-License-Identifier: Apache-2.0
//! CRIU's image files: what a checkpoint says about time, and how to make one restorable that is not.
//!
//! | part | what it knows |
//! |---|---|
//! | [`wire`] | protobuf without a schema: finds one field, changes one field, keeps every other byte |
//! | [`images`] | the files that matter here, and whether the processes in them agree |
//! | [`repair`] | all processes into the time namespace of the first one |
//! | [`host_time`] | all processes into the host's |
//! | [`originals`] | changes that can be taken back |
//! | [`lock`] | no reading between two changes |
//! | [`record`] | what was true at the checkpoint, beside the image |

pub mod host_time;
pub mod images;
pub mod lock;
pub mod originals;
pub mod record;
pub mod repair;
pub mod wire;
