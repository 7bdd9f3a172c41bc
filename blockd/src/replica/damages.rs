//! The blocks that are known to be bad: they do not match their sums or cannot be read. Found by
//! reads, merges and scrubs; a block leaves the list when it is repaired, overwritten or gone.
//! Pure.

use std::collections::BTreeSet;

use ankole_proto::{BlockNumber, LayerId};

use super::refusal::ChecksumMismatch;

/// The most bad blocks that are remembered one by one (INV-12): 256 MiB of data. A replica with
/// more is replaced, not repaired.
pub(super) const KNOWN_MAX: usize = 65_536;

/// The bad blocks of a replica.
#[derive(Debug, Default)]
pub(super) struct Damages {
    known: BTreeSet<(LayerId, BlockNumber)>,
    /// Counts additions, so that a caller sees whether there is anything new.
    pub(super) found: u64,
}

impl Damages {
    /// A bad block was met; whether it was not known.
    pub(super) fn find(&mut self, damage: ChecksumMismatch) -> bool {
        if self.known.len() >= KNOWN_MAX {
            return false;
        }
        let is_new = self.known.insert((damage.layer, damage.block));
        self.found += u64::from(is_new);
        is_new
    }

    /// These blocks of a layer are sound, or the layer does not hold them any more.
    pub(super) fn mend(&mut self, layer: LayerId, blocks: impl Iterator<Item = BlockNumber>) {
        if self.known.is_empty() {
            return;
        }
        for block in blocks {
            self.known.remove(&(layer, block));
        }
    }

    /// The layer is gone.
    pub(super) fn forget_layer(&mut self, layer: LayerId) {
        self.known.retain(|(of, _)| *of != layer);
    }

    /// How many are known.
    pub(super) fn count(&self) -> u64 {
        self.known.len() as u64
    }

    /// The first of them, by layer and place.
    pub(super) fn first(&self, most: usize) -> Vec<ChecksumMismatch> {
        let first = self.known.iter().take(most);
        first
            .map(|(layer, block)| ChecksumMismatch {
                layer: *layer,
                block: *block,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(layer: u64, block: u64) -> ChecksumMismatch {
        ChecksumMismatch {
            layer: LayerId::from_raw(layer).unwrap(),
            block: BlockNumber::from_raw(block),
        }
    }

    #[test]
    fn a_bad_block_is_counted_once_and_leaves_with_its_repair_or_its_layer() {
        let mut damages = Damages::default();
        for (layer, block) in [(1, 5), (1, 5), (1, 6), (2, 5)] {
            damages.find(damage(layer, block));
        }
        assert_eq!((damages.count(), damages.found), (3, 3));
        let blocks = (5..6).map(BlockNumber::from_raw);
        damages.mend(damage(1, 5).layer, blocks);
        assert_eq!(damages.first(64), [damage(1, 6), damage(2, 5)]);
        damages.forget_layer(damage(2, 5).layer);
        assert_eq!(damages.first(64), [damage(1, 6)]);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut damages = Damages::default();
        for block in 0..KNOWN_MAX as u64 + 10 {
            damages.find(damage(1, block));
        }
        assert_eq!(damages.count(), KNOWN_MAX as u64);
    }
}
