//! What is known of a replica's medium: what is damaged on it, what was repaired, how often lately.

use ankole_proto::{Epoch, LayerId};

/// The most damaged blocks of a replica that are on record one by one: the next follow when these
/// are repaired. Keeps a volume's record small.
pub const DAMAGES_MAX: usize = 16;

/// How many findings within a day are too many for a replica to be trusted: one may be a flipped
/// bit, three are a medium that fails.
pub const FAULTS_MAX: u32 = 3;

/// How many damaged or repaired blocks within a day are too many: 1 MiB.
pub const FAULT_BLOCKS_MAX: u64 = 256;

/// What is found within this time of the last finding belongs to it: a scrub comes upon the blocks
/// of one bad place one after the other.
pub const FAULT_PAUSE_MS: u64 = 10 * 60 * 1000;

/// How long findings are added up.
pub const FAULT_DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A block that does not match its checksum, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// In which layer.
    pub layer: LayerId,
    /// Where in the volume, in bytes.
    pub offset: u64,
}

/// What is known of a replica's medium.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wear {
    /// Bad blocks rewritten from a peer since the replica was created.
    pub repaired_blocks: u64,
    /// The engine that last told of repairs, and how many it has told of.
    pub repairs_told: (Epoch, u64),
    /// Damaged blocks that are not repaired yet.
    pub damaged_blocks: u64,
    /// Of these the first [`DAMAGES_MAX`].
    pub damages: Vec<Damage>,
    /// Findings since the day began.
    pub faults: u32,
    /// Blocks found damaged since the day began.
    pub found_blocks: u64,
    /// Blocks repaired since the day began: those found, and those that only a read came upon.
    pub mended_blocks: u64,
    /// When something was found or repaired last.
    pub last_fault_ms: u64,
    /// When the day began: with its first finding.
    pub day_began_ms: u64,
}

impl Wear {
    /// Whether the replica had so many faults within a day that another is to take its place.
    pub const fn is_worn(&self, now_ms: u64) -> bool {
        let many = self.faults >= FAULTS_MAX || self.fault_blocks() > FAULT_BLOCKS_MAX;
        many && now_ms.saturating_sub(self.day_began_ms) < FAULT_DAY_MS
    }

    /// Blocks that the findings of the day concerned. What was found and then repaired was told
    /// twice, by blockd and engine, in either order.
    pub const fn fault_blocks(&self) -> u64 {
        if self.found_blocks > self.mended_blocks {
            self.found_blocks
        } else {
            self.mended_blocks
        }
    }

    /// Takes in what the replica's blockd finds damaged; whether that is more than before.
    pub(super) fn found(&mut self, blocks: u64, damages: Vec<Damage>, at_ms: u64) -> bool {
        let more = blocks.saturating_sub(self.damaged_blocks);
        self.damaged_blocks = blocks;
        self.damages = damages;
        self.damages.truncate(DAMAGES_MAX);
        if more > 0 {
            self.note(at_ms, |wear| wear.found_blocks += more);
        }
        more > 0
    }

    /// Takes in how many blocks an engine has rewritten since it began, and tells how many of them
    /// are new.
    pub(super) fn repaired(&mut self, epoch: Epoch, blocks: u64, at_ms: u64) -> u64 {
        let told = match self.repairs_told {
            (last, told) if last == epoch => told,
            _ => 0,
        };
        let more = blocks.saturating_sub(told);
        if more > 0 {
            self.repairs_told = (epoch, blocks);
            self.repaired_blocks = self.repaired_blocks.saturating_add(more);
            self.note(at_ms, |wear| wear.mended_blocks += more);
        }
        more
    }

    fn note(&mut self, at_ms: u64, add: impl FnOnce(&mut Self)) {
        if at_ms.saturating_sub(self.day_began_ms) >= FAULT_DAY_MS {
            self.day_began_ms = at_ms;
            self.last_fault_ms = 0;
            (self.faults, self.found_blocks, self.mended_blocks) = (0, 0, 0);
        }
        let before = self.fault_blocks();
        add(self);
        if self.fault_blocks() > before {
            if at_ms.saturating_sub(self.last_fault_ms) >= FAULT_PAUSE_MS {
                self.faults = self.faults.saturating_add(1);
            }
            self.last_fault_ms = at_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: u64 = 1_700_000_000_000;

    fn damage(offset: u64) -> Damage {
        let layer = LayerId::from_raw(1).unwrap();
        Damage { layer, offset }
    }

    #[test]
    fn three_findings_within_a_day_wear_a_replica_out() {
        let mut wear = Wear::default();
        for finding in 0..3_u64 {
            let at_ms = NOON_MS + 2 * finding * FAULT_PAUSE_MS;
            assert!(!wear.is_worn(at_ms));
            for later_ms in [0, 1_000] {
                let at_ms = at_ms + later_ms;
                assert!(wear.found(1, vec![damage(0)], at_ms));
                assert!(!wear.found(1, vec![damage(0)], at_ms), "no news");
                assert!(!wear.found(0, vec![], at_ms));
            }
        }
        assert_eq!((wear.faults, wear.fault_blocks()), (3, 6));
        assert!(wear.is_worn(NOON_MS + 6 * FAULT_PAUSE_MS));
        assert!(!wear.is_worn(NOON_MS + FAULT_DAY_MS));
        wear.found(1, vec![damage(0)], NOON_MS + 2 * FAULT_DAY_MS);
        assert!(!wear.is_worn(NOON_MS + 2 * FAULT_DAY_MS), "a new day");
    }

    #[test]
    fn many_blocks_at_once_wear_a_replica_out() {
        let mut wear = Wear::default();
        let many: Vec<Damage> = (0..100).map(|block| damage(4096 * block)).collect();
        wear.found(FAULT_BLOCKS_MAX + 1, many, NOON_MS);
        assert!(wear.is_worn(NOON_MS));
        assert_eq!(wear.damages.len(), DAMAGES_MAX);
    }

    #[test]
    fn repairs_are_counted_once_for_each_engine() {
        let mut wear = Wear::default();
        let (one, two) = (Epoch::from_raw(1), Epoch::from_raw(2));
        let told = [
            (one, 2, 2),
            (one, 2, 0),
            (one, 5, 3),
            (two, 1, 1),
            (two, 1, 0),
        ];
        for (epoch, blocks, more) in told {
            assert_eq!(wear.repaired(epoch, blocks, NOON_MS), more);
        }
        assert_eq!(wear.repaired_blocks, 6);
        assert_eq!((wear.faults, wear.fault_blocks()), (1, 6));
    }

    #[test]
    fn a_repair_of_what_a_scrub_found_is_no_second_fault() {
        let late_ms = NOON_MS + FAULT_PAUSE_MS;
        for repaired_first in [false, true] {
            let mut wear = Wear::default();
            let found = |wear: &mut Wear, at_ms| {
                wear.found(2, vec![damage(0), damage(4096)], at_ms);
                wear.found(0, vec![], at_ms);
            };
            if repaired_first {
                wear.repaired(Epoch::from_raw(1), 2, NOON_MS);
                found(&mut wear, late_ms);
            } else {
                found(&mut wear, NOON_MS);
                wear.repaired(Epoch::from_raw(1), 2, late_ms);
            }
            assert_eq!((wear.faults, wear.fault_blocks()), (1, 2));
        }
    }
}
