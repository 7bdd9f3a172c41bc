//! Which layer of the head's chain holds the newest copy of each block.

use std::collections::BTreeMap;

use ankole_proto::{BlockNumber, ChunkNumber, LayerId, VolumeSize};

use crate::layer::{MapRecord, PLACES};

/// No layer holds the block, or it is hidden: it reads as zeros.
pub(super) const HOLE: u8 = 0;

/// One byte for each block: [`HOLE`], or the slot of the layer with the newest copy. A layer keeps
/// its slot as long as the replica is loaded; the tree knows the order.
pub(super) struct Index {
    blocks: Vec<u8>,
    slots: BTreeMap<LayerId, u8>,
    layers: [Option<LayerId>; 256],
    present: BTreeMap<LayerId, u64>,
}

impl Index {
    /// Of a volume without a block.
    pub(super) fn empty(size: VolumeSize) -> Self {
        Self {
            blocks: vec![HOLE; usize::try_from(size.blocks()).unwrap_or(usize::MAX)],
            slots: BTreeMap::new(),
            layers: [None; 256],
            present: BTreeMap::new(),
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
        self.present.insert(layer, 0);
        slot
    }

    /// Takes a layer's slot back; no block may be in it any more.
    pub(super) fn remove_layer(&mut self, layer: LayerId) {
        if let Some(slot) = self.slots.remove(&layer) {
            self.layers[usize::from(slot)] = None;
        }
        self.present.remove(&layer);
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

    /// Says where the block's newest copy is.
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
        let first = chunk.first_block().raw();
        for (block, number) in (0..PLACES).zip(first..) {
            if record.present.contains(block) {
                self.set(BlockNumber::from_raw(number), slot);
            } else if record.zero.contains(block) {
                self.set(BlockNumber::from_raw(number), HOLE);
            }
        }
    }

    /// Blocks that a layer holds.
    pub(super) fn present_blocks(&self, layer: LayerId) -> u64 {
        self.present.get(&layer).copied().unwrap_or(0)
    }

    /// A layer holds more or fewer blocks.
    pub(super) fn count(&mut self, layer: LayerId, before: u64, after: u64) {
        if let Some(count) = self.present.get_mut(&layer) {
            *count = (*count + after).saturating_sub(before);
        }
    }
}
