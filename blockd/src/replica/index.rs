//! Which layer of the head's chain holds the newest copy of each block.

use std::collections::BTreeMap;

use ankole_proto::wire::rebuild::ChunkBitmap;
use ankole_proto::{BlockNumber, ChunkNumber, LayerId, VolumeSize};

use super::descriptor::Mapped;
use crate::layer::{MapRecord, PLACES};

/// No layer holds the block, or it is hidden: it reads as zeros.
pub(super) const HOLE: u8 = 0;

/// One byte for each block: [`HOLE`], or the slot of the layer with the newest copy. A layer keeps
/// its slot as long as the replica is loaded; the tree knows the order.
pub(super) struct Index {
    blocks: Vec<u8>,
    slots: BTreeMap<LayerId, u8>,
    layers: [Option<LayerId>; 256],
    mapped: BTreeMap<LayerId, Mapped>,
}

/// Every bit of a byte as a byte: all ones or zero, the lowest first.
const fn spread(bits: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Byte i keeps bit i; then whatever it kept becomes its highest bit, and that all eight.
    let kept = (bits as u64).wrapping_mul(EACH) & 0x8040_2010_0804_0201;
    let highest = ((kept + EACH * 0x7f) >> 7) & EACH;
    highest * 0xff
}

/// At most eight places at once.
fn overlay_eight(places: &mut [u8], slot: u8, present: u8, zero: u8) {
    let mut eight = [HOLE; 8];
    if let Some(part) = eight.get_mut(..places.len()) {
        part.copy_from_slice(places);
    }
    let (present, zero) = (spread(present), spread(zero));
    let slots = u64::from_le_bytes([slot; 8]);
    let now = u64::from_le_bytes(eight);
    let next = ((now & !zero & !present) | (slots & present)).to_le_bytes();
    places.copy_from_slice(next.get(..places.len()).unwrap_or_default());
}

impl Index {
    /// Of a volume without a block.
    pub(super) fn empty(size: VolumeSize) -> Self {
        Self {
            blocks: vec![HOLE; usize::try_from(size.blocks()).unwrap_or(usize::MAX)],
            slots: BTreeMap::new(),
            layers: [None; 256],
            mapped: BTreeMap::new(),
        }
    }

    /// Makes room for a larger volume, whose new blocks are holes.
    pub(super) fn grow(&mut self, size: VolumeSize) {
        let blocks = usize::try_from(size.blocks()).unwrap_or(usize::MAX);
        self.blocks.resize(blocks.max(self.blocks.len()), HOLE);
    }

    /// Forgets where the blocks are, not how many each layer holds.
    pub(super) fn clear_blocks(&mut self) {
        self.blocks.fill(HOLE);
    }

    /// Gives a layer a slot.
    ///
    /// # Panics
    ///
    /// When 255 layers have one: the tree holds no more (INV-7).
    pub(super) fn add_layer(&mut self, layer: LayerId) -> u8 {
        if let Some(slot) = self.slots.get(&layer) {
            return *slot;
        }
        let free = (1..=u8::MAX).find(|slot| self.layers[usize::from(*slot)].is_none());
        assert!(free.is_some(), "more than 255 layers: {:?}", self.slots);
        let slot = free.unwrap_or(u8::MAX);
        self.layers[usize::from(slot)] = Some(layer);
        self.slots.insert(layer, slot);
        self.mapped.insert(layer, Mapped::default());
        slot
    }

    /// Takes a layer's slot back; no block may be in it any more.
    pub(super) fn remove_layer(&mut self, layer: LayerId) {
        if let Some(slot) = self.slots.remove(&layer) {
            self.layers[usize::from(slot)] = None;
        }
        self.mapped.remove(&layer);
    }

    /// A layer's slot, or [`HOLE`] when it has none.
    pub(super) fn slot(&self, layer: LayerId) -> u8 {
        self.slots.get(&layer).copied().unwrap_or(HOLE)
    }

    /// The layer in a slot.
    pub(super) fn layer(&self, slot: u8) -> Option<LayerId> {
        self.layers[usize::from(slot)]
    }

    /// The slot of the block's newest copy.
    pub(super) fn slot_of(&self, block: BlockNumber) -> u8 {
        usize::try_from(block.raw())
            .ok()
            .and_then(|block| self.blocks.get(block))
            .copied()
            .unwrap_or(HOLE)
    }

    /// The slots of at most `count` blocks from `first` on.
    pub(super) fn slots_from(&self, first: BlockNumber, count: usize) -> &[u8] {
        let start = usize::try_from(first.raw()).unwrap_or(usize::MAX);
        let end = start.saturating_add(count).min(self.blocks.len());
        self.blocks.get(start..end).unwrap_or_default()
    }

    /// Says where the block's newest copy is. Only for [`super::Replica::set_newest`].
    pub(super) fn set(&mut self, block: BlockNumber, slot: u8) {
        if let Ok(block) = usize::try_from(block.raw())
            && let Some(place) = self.blocks.get_mut(block)
        {
            *place = slot;
        }
    }

    /// How many blocks from `first` on, before `end`, are in the same slot.
    pub(super) fn same_slot(&self, first: BlockNumber, end: u64) -> u64 {
        let slot = self.slot_of(first);
        let mut block = first.raw() + 1;
        while block < end && self.slot_of(BlockNumber::from_raw(block)) == slot {
            block += 1;
        }
        block - first.raw()
    }

    /// Puts a layer's record on top of what is below.
    pub(super) fn overlay(&mut self, slot: u8, chunk: ChunkNumber, record: &MapRecord) {
        let first = usize::try_from(chunk.first_block().raw()).unwrap_or(usize::MAX);
        let end = first.saturating_add(PLACES).min(self.blocks.len());
        let places = self.blocks.get_mut(first..end).unwrap_or_default();
        let bits = record.present.as_bytes().iter().zip(record.zero.as_bytes());
        for (places, (present, zero)) in places.chunks_mut(8).zip(bits) {
            if *present == u8::MAX {
                places.fill(slot);
            } else if present | zero != 0 {
                overlay_eight(places, slot, *present, *zero);
            }
        }
    }

    /// Blocks that a layer holds.
    pub(super) fn present_blocks(&self, layer: LayerId) -> u64 {
        self.mapped(layer).unwrap_or_default().present
    }

    /// What a layer's map says; `None` of a layer without a slot.
    pub(super) fn mapped(&self, layer: LayerId) -> Option<Mapped> {
        self.mapped.get(&layer).copied()
    }

    /// Says it.
    pub(super) fn set_mapped(&mut self, layer: LayerId, mapped: Mapped) {
        if let Some(entry) = self.mapped.get_mut(&layer) {
            *entry = mapped;
        }
    }

    /// A layer holds more or fewer blocks.
    pub(super) fn count(&mut self, layer: LayerId, before: u64, after: u64) {
        if let Some(Mapped { present, .. }) = self.mapped.get_mut(&layer) {
            *present = (*present + after).saturating_sub(before);
        }
    }

    /// A record of a layer's map has become another.
    pub(super) fn recount(&mut self, layer: LayerId, before: &MapRecord, after: &MapRecord) {
        let count = |bits: &ChunkBitmap| bits.count() as u64;
        self.count(layer, count(&before.present), count(&after.present));
        if let Some(Mapped { zero, .. }) = self.mapped.get_mut(&layer) {
            *zero = (*zero + count(&after.zero)).saturating_sub(count(&before.zero));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_put_on_the_index_bit_by_bit_or_word_by_word(
            below in prop::collection::vec(0..4_u8, 520..1100),
            present in any::<[u64; 8]>(), zero in any::<[u64; 8]>(), chunk in 0..3_u64,
        ) {
            let size = VolumeSize::from_bytes(below.len() as u64 * 4096).unwrap();
            let mut index = Index::empty(size);
            index.blocks.copy_from_slice(&below);
            let mut record = MapRecord::default();
            for block in 0..PLACES {
                record.present.set(block, present[block / 64] >> (block % 64) & 1 == 1);
                record.zero.set(block, zero[block / 64] >> (block % 64) & 1 == 1);
            }
            index.overlay(9, ChunkNumber::from_raw(chunk), &record);
            for (number, old) in below.iter().enumerate() {
                let block = BlockNumber::from_raw(number as u64);
                let wanted = if block.chunk().raw() != chunk {
                    *old
                } else if record.present.contains(block.in_chunk()) {
                    9
                } else if record.zero.contains(block.in_chunk()) {
                    HOLE
                } else {
                    *old
                };
                prop_assert_eq!(index.slot_of(block), wanted);
            }
        }
    }
}
