//! The blocks that are known to be bad: they do not match their sums or cannot be read. Found by
//! reads, merges and scrubs; a block leaves the list when it is repaired, overwritten or gone.
//! Pure.

use std::collections::BTreeMap;

use ankole_proto::{BlockNumber, LayerId};

use super::refusal::ChecksumMismatch;
use super::scrub::DAMAGES_TOLD;
use crate::layer::Flaw;

/// The most bad blocks that are remembered one by one (INV-12): 256 MiB of data. A replica with
/// more is replaced, not repaired.
pub(super) const KNOWN_MAX: usize = 65_536;

/// A bad block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub at: ChecksumMismatch,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// Since when that is known, milliseconds since 1970, as of the last step of a scrub; 0: the
    /// time is not known.
    pub found_at_ms: u64,
}

/// Bad blocks that nobody was told of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The first [`DAMAGES_TOLD`] of them.
    pub damages: Vec<Damage>,
    /// How many they are.
    pub count: u64,
}

/// The bad blocks of a replica.
#[derive(Debug, Default)]
pub(super) struct Damages {
    known: BTreeMap<(LayerId, BlockNumber), (Flaw, u64)>,
    news: News,
    /// The time, as the caller brought it last.
    pub(super) now_ms: u64,
}

impl Damages {
    /// A bad block was met.
    pub(super) fn find(&mut self, at: ChecksumMismatch, flaw: Flaw) {
        let damage = Damage {
            at,
            flaw,
            found_at_ms: self.now_ms,
        };
        if self.know(damage) {
            self.news.count += 1;
            if self.news.damages.len() < DAMAGES_TOLD {
                self.news.damages.push(damage);
            }
        }
    }

    /// Remembers a bad block, which is no news; whether it was not known.
    pub(super) fn know(&mut self, damage: Damage) -> bool {
        let at = (damage.at.layer, damage.at.block);
        if self.known.len() >= KNOWN_MAX || self.known.contains_key(&at) {
            return false;
        }
        self.known.insert(at, (damage.flaw, damage.found_at_ms));
        true
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
        self.known.retain(|(of, _), _| *of != layer);
    }

    /// What was found since the last call.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// How many are known.
    pub(super) fn count(&self) -> u64 {
        self.known.len() as u64
    }

    /// The first of them, by layer and place.
    pub(super) fn first(&self, most: usize) -> Vec<Damage> {
        let first = self.known.iter().take(most);
        first
            .map(|((layer, block), (flaw, found_at_ms))| Damage {
                at: ChecksumMismatch {
                    layer: *layer,
                    block: *block,
                },
                flaw: *flaw,
                found_at_ms: *found_at_ms,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(layer: u64, block: u64) -> ChecksumMismatch {
        ChecksumMismatch {
            layer: LayerId::from_raw(layer).unwrap(),
            block: BlockNumber::from_raw(block),
        }
    }

    fn first(damages: &Damages) -> Vec<ChecksumMismatch> {
        let first = damages.first(DAMAGES_TOLD);
        first.iter().map(|damage| damage.at).collect()
    }

    #[test]
    fn a_bad_block_is_told_once_and_leaves_with_its_repair_or_its_layer() {
        let mut damages = Damages {
            now_ms: 7,
            ..Damages::default()
        };
        for (layer, block) in [(1, 5), (1, 5), (1, 6), (2, 5)] {
            damages.find(at(layer, block), Flaw::Mismatch);
            damages.now_ms += 1;
        }
        assert_eq!(damages.count(), 3);
        let news = damages.take_news();
        let told: Vec<_> = news.damages.iter().map(|one| one.found_at_ms).collect();
        assert_eq!((news.count, told), (3, vec![7, 9, 10]));
        damages.find(at(1, 5), Flaw::Unreadable);
        assert_eq!(damages.take_news(), News::default(), "it is known");
        let blocks = (5..6).map(BlockNumber::from_raw);
        damages.mend(at(1, 5).layer, blocks);
        assert_eq!(first(&damages), [at(1, 6), at(2, 5)]);
        damages.forget_layer(at(2, 5).layer);
        assert_eq!(first(&damages), [at(1, 6)]);
        damages.find(at(1, 5), Flaw::Unreadable);
        assert_eq!(damages.take_news().count, 1, "it is bad again");
    }

    #[test]
    fn the_list_and_the_news_are_bounded() {
        let mut damages = Damages::default();
        for block in 0..KNOWN_MAX as u64 + 10 {
            damages.find(at(1, block), Flaw::Mismatch);
        }
        assert_eq!(damages.count(), KNOWN_MAX as u64);
        let news = damages.take_news();
        assert_eq!(
            (news.count, news.damages.len()),
            (KNOWN_MAX as u64, DAMAGES_TOLD)
        );
    }
}
