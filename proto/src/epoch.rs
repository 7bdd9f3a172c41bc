//! The fencing number and the order of writes.
//!
//! An epoch is handed by the managers to one engine incarnation of a volume and grows strictly. A
//! replica makes the greatest epoch it has seen durable before it obeys it, and refuses everything
//! older (INV-1). Safety rests on this alone; leases only make reads safe.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of one engine incarnation of a volume. 0 stands before the first engine.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Before any engine.
    pub const ZERO: Self = Self(0);

    /// The epoch with this number.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The next incarnation's epoch.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of a mutation (write, unmap, write zeroes) in its engine's order, from 1 within an
/// epoch. As a watermark: every mutation up to and including it is complete on all replicas; 0
/// says that of none. All mutations of an earlier epoch come before those of a later one, so a
/// watermark above 0 also says that whatever earlier engines left in flight is complete: an engine
/// keeps it at 0 until it has cleaned that up.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// Before the first mutation.
    pub const ZERO: Self = Self(0);

    /// The sequence number with this value.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The one after.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
