//! One pass over all layers: where it is, and what it has found.

use std::collections::{BTreeSet, VecDeque};

use ankole_proto::{CHUNK_BYTES, ChunkNumber, Extent, LayerId, ReplicaId, VolumeSize};

use super::TRY_PAUSE;
use super::look::Look;
use crate::mirror::rebuild::Pace;
use crate::mirror::status::{ComparisonStatus, bytes_per_second};
use crate::volume::Moment;

/// How often a chunk is tried that cannot be compared: a replica misses a layer that another has
/// merged, or its block is bad and is being repaired.
const TRIES_MAX: u32 = 30;
/// So many chunks that cannot be compared, one after the other, and the rest of the layer is given up.
const SKIPPED_IN_ROW_MAX: u32 = 8;

/// One pass over all layers.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) request: u64,
    pub(super) began: Moment,
    /// The first is under way; the head is the last.
    pub(super) layers: VecDeque<LayerId>,
    /// All that were to be looked at until now.
    pub(super) listed: BTreeSet<LayerId>,
    pub(super) chunk: u64,
    /// Of the chunk.
    pub(super) tries: u32,
    pub(super) resume_at: Moment,
    pub(super) pace: Pace,
    pub(super) look: Option<Look>,
    pub(super) differing_chunks: u64,
    pub(super) undecided_chunks: u64,
    pub(super) skipped_chunks: u64,
    pub(super) skipped_in_row: u32,
    pub(super) extensions: u32,
    /// Those that were in sync when it began and have answered alike for every chunk until now.
    pub(super) alike: BTreeSet<ReplicaId>,
}

impl Comparison {
    pub(super) fn free_at(&self, beside_others: bool) -> Moment {
        let paced = if beside_others {
            self.pace.free_beside_others_at()
        } else {
            self.pace.free_at()
        };
        paced.max(self.resume_at)
    }

    /// The chunk under way.
    pub(super) fn extent(&self, size: VolumeSize) -> Extent {
        ChunkNumber::from_raw(self.chunk).extent_in(size)
    }

    /// The chunk cannot be compared now. With nobody to compare it with, that is not its fault.
    pub(super) fn try_again(&mut self, is_alone: bool, chunks: u64, now: Moment) {
        self.resume_at = now + TRY_PAUSE;
        self.tries += u32::from(!is_alone);
        if self.tries < TRIES_MAX {
            return;
        }
        self.alike.clear();
        self.skipped_in_row += 1;
        if self.skipped_in_row < SKIPPED_IN_ROW_MAX {
            self.skipped_chunks += 1;
            self.advance(chunks);
        } else {
            self.skipped_chunks += chunks.saturating_sub(self.chunk);
            self.next_layer();
        }
    }

    /// Nothing more can be compared.
    pub(super) fn skip_rest(&mut self, chunks: u64) {
        self.skipped_chunks += self.left(chunks);
        self.alike.clear();
        self.layers.clear();
        self.chunk = 0;
    }

    /// Goes on to the next chunk.
    pub(super) fn advance(&mut self, chunks: u64) {
        self.chunk += 1;
        self.tries = 0;
        if self.chunk >= chunks {
            self.next_layer();
        }
    }

    pub(super) fn next_layer(&mut self) {
        self.layers.pop_front();
        self.chunk = 0;
        self.tries = 0;
    }

    /// Chunks that were not looked at.
    pub(super) fn left(&self, chunks: u64) -> u64 {
        (self.layers.len() as u64 * chunks).saturating_sub(self.chunk)
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        let chunk = ChunkNumber::from_raw(self.chunk);
        let from = chunk.first_block().offset();
        let layer = self.layers.front().map_or(0, |layer| layer.raw());
        let to = from + CHUNK_BYTES;
        format!("in bytes {from} to {to} of layer {layer:016x}")
    }

    pub(super) fn status(
        &self,
        size: VolumeSize,
        is_finished: bool,
        now: Moment,
    ) -> ComparisonStatus {
        let chunks = size.chunks();
        let total = self.listed.len() as u64 * chunks;
        let bytes = |part: u64| part.saturating_mul(CHUNK_BYTES);
        let done_bytes = bytes(total.saturating_sub(self.left(chunks)));
        ComparisonStatus {
            request: self.request,
            is_finished,
            done_bytes,
            total_bytes: bytes(total),
            bytes_per_second: bytes_per_second(done_bytes, now.since(self.began)),
            differing_chunks: self.differing_chunks,
            undecided_chunks: self.undecided_chunks,
            skipped_chunks: self.skipped_chunks,
            alike: if is_finished {
                self.alike.iter().copied().collect()
            } else {
                Vec::new()
            },
        }
    }
}
