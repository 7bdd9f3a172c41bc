//! Stores that were written by the code of their time, one for each format: `blockd/golden` says
//! how. For tests and fuzzing.

mod archive;
pub mod recipe;
#[cfg(test)]
mod tests;

pub use archive::{pack, unpack};

/// A disk with two replicas after the [`recipe`]: 1 was closed, 2 was left by SIGKILL.
#[derive(Debug, Clone, Copy)]
pub struct GoldenStore {
    /// The format of `replica.json`.
    pub format: u32,
    /// For [`unpack`].
    pub text: &'static str,
}

/// One for each format, the newest last.
pub const STORES: [GoldenStore; 3] = [
    GoldenStore {
        format: 1,
        text: include_str!("../../golden/format-1.txt"),
    },
    GoldenStore {
        format: 2,
        text: include_str!("../../golden/format-2.txt"),
    },
    GoldenStore {
        format: 3,
        text: include_str!("../../golden/format-3.txt"),
    },
];
