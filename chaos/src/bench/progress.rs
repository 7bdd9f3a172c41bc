//! Telling what a benchmark is doing: one line on the error output for each phase.

use std::time::Instant;

/// The phases of one benchmark.
pub(super) struct Progress(Instant);

impl Progress {
    /// It begins now.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// What is done now, or was found.
    pub(super) fn say(&self, text: &str) {
        eprintln!("[{:6.1} s] {text}", self.0.elapsed().as_secs_f64());
    }
}
