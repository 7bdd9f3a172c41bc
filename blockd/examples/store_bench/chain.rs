//! Volumes whose blocks lie in many layers.

use std::path::Path;

use crate::store::{BLOCK, Store};

/// Places without an order, the same in each run (xorshift).
#[derive(Debug, Clone)]
pub(crate) struct Places {
    state: u64,
    blocks: u64,
}

impl Places {
    pub(crate) const fn new(blocks: u64, seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            blocks,
        }
    }

    pub(crate) const fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % self.blocks
    }
}

/// Which layer holds which block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// Size of the volume.
    pub(crate) bytes: u64,
    /// Sealed layers; the head comes on top.
    pub(crate) sealed: u64,
    /// How many blocks of a hundred are spread evenly over all layers and the head; the others lie in
    /// the oldest layer, as in a volume of which little has changed since its first snapshot.
    pub(crate) scattered: u64,
}

impl Chain {
    pub(crate) const fn blocks(&self) -> u64 {
        self.bytes / BLOCK as u64
    }

    /// The layer of a block, counted from the oldest; the last is the head.
    pub(crate) const fn owner(&self, block: u64) -> u64 {
        let hash = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        if hash % 100 < self.scattered {
            (hash / 100) % (self.sealed + 1)
        } else {
            0
        }
    }

    /// Every block with its layer, in the order in which they are written.
    pub(crate) fn writes(self) -> impl Iterator<Item = (u64, u64)> {
        (0..=self.sealed).flat_map(move |layer| {
            let held = move |block: &u64| self.owner(*block) == layer;
            (0..self.blocks())
                .filter(held)
                .map(move |block| (layer, block))
        })
    }

    /// A replica with these layers, every block written once.
    pub(crate) fn build(self, folder: &Path) -> anyhow::Result<Store> {
        let mut store = Store::create(folder, "chain", self.bytes)?;
        let mut newest = 0;
        for (layer, block) in self.writes() {
            while newest < layer {
                store.seal()?;
                newest += 1;
            }
            store.write(block)?;
        }
        for _ in newest..self.sealed {
            store.seal()?;
        }
        store.flush()?;
        Ok(store)
    }
}
