//! How much of a sealed layer the layer on it decides itself: what is given back when the layer is
//! merged away. Counted in steps, one pair of layers after the other, and kept until one of the two
//! changes.

use std::collections::BTreeMap;

use ankole_proto::{BLOCK_BYTES, ChunkNumber, LayerId};

use super::refusal::WorkError;
use super::{LayerUsage, Progress, Replica, State};
use crate::disk::Disk;
use crate::layer::MapRecord;

/// The most chunks whose maps one step looks at.
const CHUNKS_PER_STEP_MAX: u64 = 1024;

/// A layer and the only one that stands on it.
type Pair = (LayerId, LayerId);

/// Blocks of a layer that the one above decides.
#[derive(Debug, Clone, Copy)]
struct Count {
    blocks: u64,
    /// How often the head's map had changed when the count began.
    map_changes: u64,
}

/// A pair that is being counted.
#[derive(Debug)]
struct Counting {
    pair: Pair,
    next_chunk: u64,
    count: Count,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Census {
    known: BTreeMap<Pair, Count>,
    counting: Option<Counting>,
}

impl Census {
    /// The map of a layer changes, or its place in the tree.
    pub(super) fn forget(&mut self, layer: LayerId) {
        let of = |pair: &Pair| pair.0 == layer || pair.1 == layer;
        self.known.retain(|pair, _| !of(pair));
        if self.counting.as_ref().is_some_and(|now| of(&now.pair)) {
            self.counting = None;
        }
    }

    fn reclaimable(&self, pair: Pair) -> u64 {
        self.known.get(&pair).map_or(0, |count| count.blocks)
    }
}

/// How many blocks of `below` the record above decides.
pub(super) fn decided_above(below: &MapRecord, above: &MapRecord) -> u64 {
    let bits = above.present.as_bytes().iter().zip(above.zero.as_bytes());
    let both = below.present.as_bytes().iter().zip(bits);
    both.map(|(below, (present, zero))| u64::from((below & (present | zero)).count_ones()))
        .sum()
}

impl<D: Disk> Replica<D> {
    /// Every layer with its use of space, a parent before its children. What is reclaimable of a
    /// layer is known once [`Self::census_step`] has counted it; 0 until then.
    pub fn usage(&self) -> Vec<LayerUsage> {
        self.tree
            .links()
            .into_iter()
            .map(|link| {
                let used_bytes = self.index.present_blocks(link.layer) * BLOCK_BYTES;
                let reclaimable_bytes = match self.only_child(link.layer) {
                    Children::None if link.layer != self.tree.head() => used_bytes,
                    Children::One(child) => {
                        self.census.reclaimable((link.layer, child)) * BLOCK_BYTES
                    }
                    Children::None | Children::Several => 0,
                };
                LayerUsage {
                    link,
                    used_bytes,
                    reclaimable_bytes: reclaimable_bytes.min(used_bytes),
                    removing: self
                        .descriptor
                        .layer(link.layer)
                        .is_some_and(|layer| layer.removing),
                }
            })
            .collect()
    }

    fn only_child(&self, layer: LayerId) -> Children {
        let mut children = self.tree.children(layer);
        match (children.next(), children.next()) {
            (None, _) => Children::None,
            (Some(child), None) => Children::One(child),
            (Some(_), Some(_)) => Children::Several,
        }
    }

    /// Has the layer below the head counted anew if the head has changed since. The caller bounds
    /// how often.
    pub fn refresh_census(&mut self) {
        let head = self.tree.head();
        let Some(parent) = self.tree.parent(head) else {
            return;
        };
        let now = self.dirty.map_changes;
        let pair = (parent, head);
        let known = self.census.known.get(&pair);
        if known.is_some_and(|count| count.map_changes != now) {
            // The old count stands until there is a new one.
            self.census.counting = Some(Counting {
                pair,
                next_chunk: 0,
                count: Count {
                    blocks: 0,
                    map_changes: now,
                },
            });
        }
    }

    /// Counts on: looks at the maps of about a thousand chunks.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn census_step(&mut self, _budget_blocks: u64) -> Result<Progress<D>, WorkError> {
        self.check_sound()?;
        if self.state == State::Rebuilding {
            // Its maps change all the time.
            return Ok(Progress::Idle);
        }
        let Some(mut counting) = self.census.counting.take().or_else(|| self.next_pair()) else {
            return Ok(Progress::Idle);
        };
        let (below, above) = counting.pair;
        let chunks = self.descriptor.size_of(below).chunks();
        let end = chunks.min(counting.next_chunk + CHUNKS_PER_STEP_MAX);
        for chunk in (counting.next_chunk..end).map(ChunkNumber::from_raw) {
            let lower = self.record(below, chunk)?;
            if !lower.present.is_empty() {
                let upper = self.record(above, chunk)?;
                counting.count.blocks += decided_above(&lower, &upper);
            }
        }
        counting.next_chunk = end;
        if end < chunks {
            self.census.counting = Some(counting);
        } else {
            self.census.known.insert(counting.pair, counting.count);
        }
        Ok(Progress::Working { blocks: 0 })
    }

    /// A pair that nobody has counted.
    fn next_pair(&self) -> Option<Counting> {
        let pair = self.tree.layers().find_map(|layer| {
            let Children::One(child) = self.only_child(layer) else {
                return None;
            };
            let pair = (layer, child);
            (!self.census.known.contains_key(&pair)).then_some(pair)
        })?;
        Some(Counting {
            pair,
            next_chunk: 0,
            count: Count {
                blocks: 0,
                map_changes: self.dirty.map_changes,
            },
        })
    }
}

/// What stands on a layer.
enum Children {
    None,
    One(LayerId),
    Several,
}
