// SPDX-License-Identifier: Apache-2.0
//! The clocks that time namespaces shift: here, in another time namespace, and at a checkpoint.

use std::fmt;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::timens::Offsets;

/// A time or a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanoseconds(pub i64);

impl Nanoseconds {
    /// The time since `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The time that is `span` later.
    #[must_use]
    pub fn plus(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl fmt::Display for Nanoseconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 {
            "-"
        } else if formatter.sign_plus() {
            "+"
        } else {
            ""
        };
        let size = self.0.unsigned_abs();
        write!(formatter, "{sign}{}.{:09} s", size / 1_000_000_000, size % 1_000_000_000)
    }
}

/// What the two clocks that a time namespace shifts read, or the differences of what they read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: Nanoseconds,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: Nanoseconds,
}

impl Clocks {
    /// Both at zero.
    pub const ZERO: Self = Self { monotonic_ns: Nanoseconds(0), boottime_ns: Nanoseconds(0) };

    /// By how much each is ahead of `other`'s.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            monotonic_ns: self.monotonic_ns.minus(other.monotonic_ns),
            boottime_ns: self.boottime_ns.minus(other.boottime_ns),
        }
    }

    /// Each later by what `other` says.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            monotonic_ns: self.monotonic_ns.plus(other.monotonic_ns),
            boottime_ns: self.boottime_ns.plus(other.boottime_ns),
        }
    }
}

impl From<Offsets> for Clocks {
    fn from(offsets: Offsets) -> Self {
        Self { monotonic_ns: Nanoseconds(offsets.monotonic_ns), boottime_ns: Nanoseconds(offsets.boottime_ns) }
    }
}

impl fmt::Display for Clocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { monotonic_ns: monotonic, boottime_ns: boottime } = self;
        if formatter.sign_plus() {
            write!(formatter, "monotonic {monotonic:+}, boottime {boottime:+}")
        } else {
            write!(formatter, "monotonic {monotonic}, boottime {boottime}")
        }
    }
}

impl From<Clocks> for Offsets {
    fn from(clocks: Clocks) -> Self {
        Self { monotonic_ns: clocks.monotonic_ns.0, boottime_ns: clocks.boottime_ns.0 }
    }
}

/// The time here and now, as a CRIU that was started by this process would read it.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// What this process reads.
    pub clocks: Clocks,
    /// Of the own time namespace; none on a kernel without.
    offsets: Option<Clocks>,
    /// The wall clock, since 1970.
    pub wall: Nanoseconds,
}

impl Here {
    /// Reads the clocks.
    ///
    /// # Errors
    /// A clock cannot be read.
    pub fn look() -> Result<Self> {
        let read = |clock: ClockId| -> Result<Nanoseconds> {
            let time = clock_gettime(clock).context("read a clock")?;
            Ok(Nanoseconds(time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec())))
        };
        let clocks =
            Clocks { monotonic_ns: read(ClockId::CLOCK_MONOTONIC)?, boottime_ns: read(ClockId::CLOCK_BOOTTIME)? };
        let offsets = Offsets::of_process("self").ok().map(Clocks::from);
        Ok(Self { clocks, offsets, wall: read(ClockId::CLOCK_REALTIME)? })
    }

    /// The offsets that a restore here would write, so that the clocks go on from `dumped`. They count from the initial time
    /// namespace, whatever the own one is (criu/timens.c). None on a kernel without time namespaces.
    pub fn offsets_to(self, dumped: Clocks) -> Option<Clocks> {
        Some(dumped.minus(self.clocks.minus(self.offsets?)))
    }

    /// Those of the own time namespace. None on a kernel without.
    pub fn own_offsets(self) -> Option<Clocks> {
        self.offsets
    }

    /// What a process reads whose time namespace has these offsets. None on a kernel without time namespaces.
    pub fn seen_from(self, offsets: Clocks) -> Option<Clocks> {
        Some(self.clocks.minus(self.offsets?).plus(offsets))
    }

    /// Whether a clock would go back for a container that is restored into the own time namespace.
    pub fn goes_back_from(self, dumped: Clocks) -> bool {
        self.clocks.monotonic_ns < dumped.monotonic_ns || self.clocks.boottime_ns < dumped.boottime_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn clocks(monotonic: i64, boottime: i64) -> Clocks {
        Clocks { monotonic_ns: Nanoseconds(monotonic * SECOND), boottime_ns: Nanoseconds(boottime * SECOND) }
    }

    fn here(offsets: Clocks) -> Here {
        Here { clocks: clocks(100, 150), offsets: Some(offsets), wall: Nanoseconds(5000 * SECOND) }
    }

    #[test]
    fn offsets_count_from_the_initial_namespace() {
        assert_eq!(here(clocks(0, 0)).offsets_to(clocks(90, 200)), Some(clocks(-10, 50)));
        // Here is itself shifted by 30 and 40: the initial clocks read 70 and 110.
        assert_eq!(here(clocks(30, 40)).offsets_to(clocks(90, 200)), Some(clocks(20, 90)));
    }

    #[test]
    fn another_namespace_has_the_same_time_with_its_own_offsets() {
        assert_eq!(here(clocks(30, 40)).seen_from(clocks(30, 40)), Some(clocks(100, 150)));
        assert_eq!(here(clocks(30, 40)).seen_from(clocks(-50, 1000)), Some(clocks(20, 1110)));
    }

    #[test]
    fn clocks_go_back_if_one_of_them_does() {
        let here = here(clocks(0, 0));
        assert!(!here.goes_back_from(clocks(100, 150)));
        assert!(here.goes_back_from(clocks(101, 0)));
        assert!(here.goes_back_from(clocks(0, 151)));
    }
}
