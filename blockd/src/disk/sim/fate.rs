//! What becomes of unsynced changes.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a crash does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of it is kept: the process died, the machine did not.
    Kept,
    /// None of it is kept.
    Dropped,
    /// Each page has any of the states it had; pages do not keep an order.
    Reordered,
    /// As `Reordered`, and a page may be torn between two of its states at any sector.
    Torn,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 4] = [Self::Kept, Self::Dropped, Self::Reordered, Self::Torn];
}

/// Decides, reproducibly.
#[derive(Debug)]
pub(super) struct Dice {
    fate: Fate,
    random: StdRng,
}

impl Dice {
    pub(super) fn new(fate: Fate, seed: u64) -> Self {
        Self {
            fate,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Which of the states 0 (durable) to `newest` is found.
    pub(super) fn pick(&mut self, newest: usize) -> usize {
        match self.fate {
            Fate::Kept => newest,
            Fate::Dropped => 0,
            Fate::Reordered | Fate::Torn => self.random.random_range(0..=newest),
        }
    }

    /// Whether this page is torn.
    pub(super) fn tears(&mut self) -> bool {
        self.fate == Fate::Torn && self.random.random_bool(0.5)
    }
}
