//! A replica whose blocks are spread evenly over many layers.

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

/// Which of `layers` holds a block.
pub(crate) const fn owner(block: u64, layers: u64) -> u64 {
    (block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % layers
}

/// Every block with its layer, in the order in which they are written.
pub(crate) fn writes(bytes: u64, sealed: u64) -> impl Iterator<Item = (u64, u64)> {
    let blocks = bytes / BLOCK as u64;
    let of_layer = move |layer| {
        let held = move |block: &u64| owner(*block, sealed + 1) == layer;
        (0..blocks).filter(held).map(move |block| (layer, block))
    };
    (0..=sealed).flat_map(of_layer)
}

/// A replica of this size with so many sealed layers, every block written once, in any of the
/// layers or in the head.
pub(crate) fn build(folder: &Path, bytes: u64, sealed: u64) -> anyhow::Result<Store> {
    let mut store = Store::create(folder, "chain", bytes)?;
    for layer in 0..=sealed {
        for block in 0..bytes / BLOCK as u64 {
            if owner(block, sealed + 1) == layer {
                store.write(block)?;
            }
        }
        if layer < sealed {
            store.seal()?;
        }
    }
    store.flush()?;
    Ok(store)
}
