// SPDX-License-Identifier: Apache-2.0
//! How far the reading of a large file is, for people at a terminal.

use std::io::{self, IsTerminal, Read};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less time than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// A reader with a bar on standard error, which is gone when this is dropped.
pub(super) struct Progress<R> {
    reader: R,
    what: &'static str,
    done: u64,
    total: u64,
    started: Instant,
    /// Whether somebody could see it.
    shown: bool,
    bar: Option<ProgressBar>,
}

impl<R: Read> Progress<R> {
    /// `total` is the length of all, in bytes.
    pub(super) fn new(reader: R, total: u64, what: &'static str) -> Self {
        Self { reader, what, done: 0, total, started: Instant::now(), shown: io::stderr().is_terminal(), bar: None }
    }

    fn bar(&self) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes}, {eta} left");
        ProgressBar::with_draw_target(Some(self.total), ProgressDrawTarget::stderr())
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(self.what)
            .with_elapsed(self.started.elapsed())
    }
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.done = self.done.saturating_add(count as u64);
        if self.shown && self.bar.is_none() && self.started.elapsed() >= PATIENCE {
            self.bar = Some(self.bar());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
        Ok(count)
    }
}

impl<R> Drop for Progress<R> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
