//! What a chunk reads as at a layer, for comparing replicas whose merges are not equally far.
//!
//! What a layer itself holds is no measure for that: a merge moves blocks into it from the layer
//! below, at each replica in its own time. What the volume reads as there stays the same. So a layer
//! is compared together with those below it that are being removed, down to its base, the next one
//! that stays; and of these blocks only those count that read otherwise at the base, because a
//! replica may hold a block anew that it held below already (a range that was written anew to make
//! replicas equal), or as zeros what another holds as a hole.

use ankole_proto::wire::rebuild::ContentsDigest;
use ankole_proto::{BLOCK_BYTES, BlockNumber, ChunkNumber, Epoch, LayerId};

use super::read::as_index;
use super::refusal::{BlockError, LayerError, Medium};
use super::{Replica, State};
use crate::disk::Disk;
use crate::layer::{BLOCK, BlockRun};

/// Where a block reads from; `None`: as zeros.
type Source = Option<LayerId>;

/// Consecutive blocks of which each of the two readings comes from one layer.
struct Pair {
    run: BlockRun,
    above: Source,
    below: Source,
}

/// A digest in the making: of a chunk part by part, so that others may have the replica in between.
#[derive(Debug)]
pub struct ContentsHasher {
    layer: LayerId,
    chunk: ChunkNumber,
    /// The first block that is not taken in.
    next: u64,
    hash: blake3::Hasher,
    blocks: u64,
    /// Of the parts before.
    base: Option<Option<LayerId>>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashed {
    /// There is more of the chunk.
    Part,
    /// The whole chunk.
    All(ContentsDigest),
}

impl ContentsHasher {
    /// Of a chunk at a layer.
    pub fn new(layer: LayerId, chunk: ChunkNumber) -> Self {
        Self {
            layer,
            chunk,
            next: chunk.first_block().raw(),
            hash: blake3::Hasher::new(),
            blocks: 0,
            base: None,
        }
    }
}

impl<D: Disk> Replica<D> {
    /// In what a chunk reads otherwise at a layer than at its base.
    ///
    /// # Errors
    ///
    /// As [`Self::hash_contents`].
    pub fn digest_contents(
        &mut self,
        epoch: Epoch,
        layer: LayerId,
        chunk: ChunkNumber,
    ) -> Result<ContentsDigest, LayerError> {
        let mut hasher = ContentsHasher::new(layer, chunk);
        loop {
            if let Hashed::All(digest) = self.hash_contents(epoch, &mut hasher, u64::MAX)? {
                return Ok(digest);
            }
        }
    }

    /// Takes in the next blocks of the chunk; from the first on when the base has come to be removed
    /// since the part before. What is written to the chunk meanwhile is the caller's to prevent; merges
    /// may go on.
    ///
    /// # Errors
    ///
    /// [`LayerError`]; `NoSuchLayer` also for a layer that is being removed.
    pub fn hash_contents(
        &mut self,
        epoch: Epoch,
        hasher: &mut ContentsHasher,
        blocks_max: u64,
    ) -> Result<Hashed, LayerError> {
        self.admit(epoch)?;
        if self.state == State::Rebuilding {
            return Err(LayerError::Rebuilding);
        }
        let (layer, chunk) = (hasher.layer, hasher.chunk);
        let whole = chunk.extent_in(self.size);
        if whole.is_empty() {
            return Err(LayerError::OutOfRange);
        }
        if !self.tree.contains(layer) || self.is_being_removed(layer) {
            return Err(LayerError::NoSuchLayer(layer));
        }
        let chain = self.tree.chain_from(layer);
        let at_base = |below: &LayerId| *below != layer && !self.is_being_removed(*below);
        let end = chain.iter().position(at_base).unwrap_or(chain.len());
        let (own, below) = chain.split_at(end);
        let base = below.first().copied();
        if hasher.base.is_some_and(|before| before != base) {
            *hasher = ContentsHasher::new(layer, chunk);
        }
        hasher.base = Some(base);
        let last = whole.end() / BLOCK_BYTES;
        let part_end = hasher.next.saturating_add(blocks_max).min(last);
        let part: Vec<BlockNumber> = (hasher.next..part_end).map(BlockNumber::from_raw).collect();
        for pair in self.pairs(chunk, &part, own, below)? {
            let above = self.read_from(pair.above, pair.run)?;
            let beneath = self.read_from(pair.below, pair.run)?;
            let both = above.chunks_exact(BLOCK).zip(beneath.chunks_exact(BLOCK));
            for (block, (above, beneath)) in pair.run.blocks().zip(both) {
                if above != beneath {
                    hasher.hash.update(&block.raw().to_le_bytes());
                    hasher.hash.update(above);
                    hasher.blocks += 1;
                }
            }
        }
        hasher.next = part_end;
        if part_end < last {
            return Ok(Hashed::Part);
        }
        Ok(Hashed::All(ContentsDigest {
            base,
            blocks: hasher.blocks,
            data: *hasher.hash.finalize().as_bytes(),
        }))
    }

    /// Whether a layer's snapshot is deleted, and its blocks are on their way to the next newer one.
    fn is_being_removed(&self, layer: LayerId) -> bool {
        self.descriptor
            .layer(layer)
            .is_some_and(|layer| layer.removing)
    }

    /// Those of these blocks of a chunk that the layers of `own` decide, with where they read from there and
    /// where from the layers below.
    fn pairs(
        &mut self,
        chunk: ChunkNumber,
        blocks: &[BlockNumber],
        own: &[LayerId],
        below: &[LayerId],
    ) -> Result<Vec<Pair>, Medium> {
        let above = self.sources(chunk, own, blocks)?;
        let decided: Vec<BlockNumber> = above.iter().map(|(block, _)| *block).collect();
        let beneath = self.sources(chunk, below, &decided)?;
        let mut beneath = beneath.into_iter().peekable();
        let mut pairs: Vec<Pair> = Vec::new();
        for (block, above) in above {
            let below = beneath
                .next_if(|(same, _)| *same == block)
                .and_then(|(_, source)| source);
            match pairs.last_mut() {
                Some(pair)
                    if pair.run.end() == block.raw()
                        && (pair.above, pair.below) == (above, below) =>
                {
                    pair.run.count += 1;
                }
                _ => pairs.push(Pair {
                    run: BlockRun {
                        first: block,
                        count: 1,
                    },
                    above,
                    below,
                }),
            }
        }
        // What reads as zeros at both is the same.
        pairs.retain(|pair| pair.above.is_some() || pair.below.is_some());
        Ok(pairs)
    }

    /// Where those of the blocks read from that the layers, newest first, decide; in order.
    fn sources(
        &mut self,
        chunk: ChunkNumber,
        layers: &[LayerId],
        blocks: &[BlockNumber],
    ) -> Result<Vec<(BlockNumber, Source)>, Medium> {
        let mut open = blocks.to_vec();
        let mut found = Vec::new();
        for layer in layers {
            if open.is_empty() {
                break;
            }
            let record = self.record(*layer, chunk)?;
            open.retain(|block| {
                let place = block.in_chunk();
                if record.decides(place) {
                    let source = record.present.contains(place).then_some(*layer);
                    found.push((*block, source));
                }
                !record.decides(place)
            });
        }
        found.sort_unstable_by_key(|(block, _)| *block);
        Ok(found)
    }

    fn read_from(&mut self, source: Source, run: BlockRun) -> Result<Vec<u8>, BlockError> {
        let mut data = vec![0; as_index(run.bytes())];
        if let Some(layer) = source {
            self.read_layer_run(layer, run, &mut data)?;
        }
        Ok(data)
    }
}
