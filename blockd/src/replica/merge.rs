//! Removing a sealed layer: its blocks that the next newer layer lacks move into that layer, chunk
//! by chunk, while I/O goes on; then it leaves the tree.
//!
//! A step copies blocks, the caller syncs them, the next step marks them present in the target
//! (never before their data is durable), and once all is marked and durable the layer goes. A chunk
//! that is marked, durably, is given back by the source on the way: its map record is cleared, and
//! once that is durable its place is punched ([`release`]). So a merge needs free space for a few
//! steps, however large the layer. Until then both layers hold the block, so a stop at any point
//! loses nothing, and the merge begins again from the first chunk, where it finds its work done. A
//! layer without children is dropped; one with several waits.

use std::collections::BTreeMap;
use std::io;

use ankole_proto::{ChunkNumber, LayerId};

use super::rebuild::present_runs;
use super::refusal::{BlockError, Medium, WorkError};
use super::{Progress, Replica, State};
use crate::disk::Disk;
use crate::layer::{BLOCK, BlockRun, MapRecord, PLACES};

use super::read::as_index;
use release::Release;

mod release;

/// The most chunks whose maps one step looks at: bounds the time of a step over empty space.
const CHUNKS_PER_STEP_MAX: u64 = 1024;
/// How many blocks are copied before a sync: enough that syncs are not what a merge waits for, few
/// enough to be synced at once and to fit in what is kept free.
const BLOCKS_PER_SYNC: u64 = 512;
/// The same in chunks, where each holds little: bounds what is remembered between two syncs, and
/// how long it takes to mark it.
const CHUNKS_PER_SYNC: usize = 64;

/// What a merge waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// For the sync with this number.
    Sync(u64),
}

/// How far a merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    /// Everything is marked; the sync that is waited for is the last.
    Finishing,
}

/// A layer on its way into the next newer one.
#[derive(Debug)]
pub(super) struct Merge {
    source: LayerId,
    target: LayerId,
    next_chunk: u64,
    /// Of that chunk: the first that was not looked at.
    next_place: usize,
    /// Copied since the last sync.
    copied: BTreeMap<ChunkNumber, MapRecord>,
    copied_blocks: u64,
    /// Copied, durable, and not yet marked in the target.
    durable: BTreeMap<ChunkNumber, MapRecord>,
    release: Release,
    wait: Wait,
    stage: Stage,
}

impl Merge {
    /// A sync has succeeded.
    pub(super) fn synced(&mut self, number: u64) {
        if self.wait == Wait::Sync(number) {
            self.wait = Wait::Nothing;
            self.durable = std::mem::take(&mut self.copied);
            self.copied_blocks = 0;
            self.release.synced();
        }
    }

    /// The layer that it writes to.
    pub(super) const fn target(&self) -> LayerId {
        self.target
    }

    /// Whether nothing was written to the target: its files may still be shared.
    const fn is_new(&self) -> bool {
        self.next_chunk == 0 && self.next_place == 0
    }

    /// Takes what was copied of a chunk.
    fn add(&mut self, chunk: ChunkNumber, moved: &MapRecord) {
        self.copied_blocks += moved.present.count() as u64;
        let copied = self.copied.entry(chunk).or_default();
        *copied = copied.union(moved);
    }

    /// What is to be marked next.
    fn first_durable(&self) -> Option<(ChunkNumber, MapRecord)> {
        self.durable
            .first_key_value()
            .map(|(chunk, moved)| (*chunk, *moved))
    }

    /// A chunk is marked. Copied whole, it may be given back.
    fn marked(&mut self, chunk: ChunkNumber) {
        self.durable.remove(&chunk);
        if chunk.raw() < self.next_chunk {
            self.release.mark(chunk);
        }
    }

    /// Goes back to the first chunk with copies that are not marked. What is marked is found done.
    fn copy_again(&mut self) {
        let copied = self.copied.keys().chain(self.durable.keys());
        let first = copied.map(|chunk| chunk.raw()).min();
        self.next_chunk = first.map_or(self.next_chunk, |first| first.min(self.next_chunk));
        self.next_place = 0;
        self.copied.clear();
        self.copied_blocks = 0;
        self.durable.clear();
    }

    /// Goes on behind this place of the chunk.
    fn advance(&mut self, end: usize) {
        self.next_place = end;
        if end >= PLACES {
            self.next_place = 0;
            self.next_chunk += 1;
        }
    }

    /// Whether what was copied is to be synced before more is.
    fn is_full(&self) -> bool {
        self.copied_blocks >= BLOCKS_PER_SYNC || self.copied.len() >= CHUNKS_PER_SYNC
    }

    /// Whether places of a chunk of `layer` may hold copies that its map does not count yet; of the
    /// chunk in hand a refused step may have left some.
    pub(super) fn has_copied(&self, layer: LayerId, chunk: ChunkNumber) -> bool {
        self.target == layer
            && (chunk.raw() == self.next_chunk
                || self.copied.contains_key(&chunk)
                || self.durable.contains_key(&chunk))
    }
}

impl<D: Disk> Replica<D> {
    /// Moves at most about `budget_blocks` blocks of a layer that is to go away.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn merge_step(&mut self, budget_blocks: u64) -> Result<Progress<D>, WorkError> {
        self.check_sound()?;
        if self.state == State::Rebuilding {
            return Ok(Progress::Idle);
        }
        let Some(merge) = &self.merge else {
            return self.begin_merge();
        };
        let (wait, stage) = (merge.wait, merge.stage);
        let (source, target) = (merge.source, merge.target);
        if let Wait::Sync(_) = wait {
            return self.sync_merge(stage);
        }
        if stage == Stage::Finishing {
            self.commit_tree(self.tree.without(source))?;
            self.merge = None;
            self.remove_files(source);
            return Ok(Progress::Working { blocks: 0 });
        }
        if self.merge.as_ref().is_some_and(Merge::is_new)
            && let Some(progress) = self.make_private_step(target, budget_blocks)?
        {
            return Ok(progress);
        }
        self.give_back()?;
        self.mark_copied()?;
        let (blocks, at_end) = self.copy_chunks(budget_blocks)?;
        let (is_full, is_under_way) = self.merge.as_ref().map_or((false, false), |merge| {
            let waits = !merge.copied.is_empty() || merge.release.waits_for_sync();
            (merge.is_full(), waits)
        });
        if is_full || at_end && is_under_way {
            self.sync_merge(Stage::Copying)
        } else if at_end {
            self.sync_merge(Stage::Finishing)
        } else {
            Ok(Progress::Working { blocks })
        }
    }

    /// Finds a layer that can go now.
    fn begin_merge(&mut self) -> Result<Progress<D>, WorkError> {
        for source in self.descriptor.removing() {
            let children: Vec<LayerId> = self.tree.children(source).take(2).collect();
            match children.as_slice() {
                [] => {
                    self.commit_tree(self.tree.without(source))?;
                    self.remove_files(source);
                    return Ok(Progress::Working { blocks: 0 });
                }
                [target] => {
                    // A file that a clone has too stays as it is.
                    let release = Release::new(!self.is_shared(source)?);
                    self.merge = Some(Merge {
                        source,
                        target: *target,
                        next_chunk: 0,
                        next_place: 0,
                        copied: BTreeMap::new(),
                        copied_blocks: 0,
                        durable: BTreeMap::new(),
                        release,
                        wait: Wait::Nothing,
                        stage: Stage::Copying,
                    });
                    return Ok(Progress::Working { blocks: 0 });
                }
                _ => {}
            }
        }
        Ok(Progress::Idle)
    }

    /// Asks for the sync that the merge has to wait for.
    fn sync_merge(&mut self, stage: Stage) -> Result<Progress<D>, WorkError> {
        let Some(target) = self.merge.as_ref().map(|merge| merge.target) else {
            return Ok(Progress::Idle);
        };
        let files = match self.files.of(&self.disk, target) {
            Ok(files) => files.clone(),
            Err(error) => return Err(self.failed("opening a layer", error).into()),
        };
        let mut synced = vec![files.image, files.sums, files.map];
        synced.extend(self.cleared_map()?);
        let plan = self.plan_merge(synced);
        if let Some(merge) = &mut self.merge {
            merge.wait = Wait::Sync(plan.number());
            merge.stage = stage;
        }
        Ok(Progress::Sync(plan))
    }

    /// Copies piece after piece; how many blocks, and whether the last chunk is behind.
    fn copy_chunks(&mut self, budget_blocks: u64) -> Result<(u64, bool), WorkError> {
        let chunks = self.size.chunks();
        let mut blocks = 0;
        for _ in 0..CHUNKS_PER_STEP_MAX {
            let Some(merge) = &self.merge else { break };
            if merge.next_chunk >= chunks {
                return Ok((blocks, true));
            }
            if blocks >= budget_blocks || merge.is_full() {
                break;
            }
            blocks += self.copy_piece(budget_blocks - blocks)?;
        }
        Ok((blocks, false))
    }

    /// Copies, of the next chunk, what the target does not decide, at most so many blocks; how many.
    fn copy_piece(&mut self, blocks_max: u64) -> Result<u64, BlockError> {
        let Some(merge) = &self.merge else {
            return Ok(0);
        };
        let (source, target, first) = (merge.source, merge.target, merge.next_place);
        let chunk = ChunkNumber::from_raw(merge.next_chunk);
        let from = self.record(source, chunk)?;
        if !from.is_empty() {
            let to = self.record(target, chunk)?;
            let mut moved = undecided(&from, &to);
            let end = keep_piece(&mut moved, first, blocks_max);
            self.copy_present(source, target, chunk, &moved)?;
            if let Some(merge) = &mut self.merge {
                merge.add(chunk, &moved);
                merge.advance(end);
            }
            return Ok(moved.present.count() as u64);
        }
        if let Some(merge) = &mut self.merge {
            merge.advance(PLACES);
        }
        Ok(0)
    }

    /// Copies the blocks that `moved` has.
    fn copy_present(
        &mut self,
        source: LayerId,
        target: LayerId,
        chunk: ChunkNumber,
        moved: &MapRecord,
    ) -> Result<(), BlockError> {
        let extent = chunk.extent_in(self.size);
        let mut data = Vec::new();
        for run in present_runs(&moved.present, extent) {
            data.clear();
            data.resize(as_index(run.bytes()), 0);
            // Compared with its sums first: a block that fails stays where a peer's is put over it.
            self.read_layer_run(source, run, &mut data)?;
            let copied = self.copy_run(source, target, run, &data);
            if target == self.tree.head() {
                self.dirty.data_changes(run.bytes());
                self.dirty.sum_changes += 1;
                self.vacated.reuse(&(run.first.raw()..run.end()));
            }
            copied.map_err(|error| self.failed("merging blocks", error))?;
        }
        debug_assert!(data.len() <= PLACES * BLOCK);
        Ok(())
    }

    fn copy_run(
        &mut self,
        source: LayerId,
        target: LayerId,
        run: BlockRun,
        data: &[u8],
    ) -> io::Result<()> {
        let from = self.files.of(&self.disk, source)?.clone();
        let to = self.files.of(&self.disk, target)?;
        from.copy_run(run, data, to, &mut self.sums)
    }

    /// What lies at these places of the head is none of a merge's copies any more: what was copied
    /// there and is not marked has to be copied again.
    pub(super) fn lose_copies(&mut self, run: BlockRun) {
        let head = self.tree.head();
        if let Some(merge) = &mut self.merge
            && run
                .blocks()
                .any(|block| merge.has_copied(head, block.chunk()))
        {
            merge.copy_again();
        }
    }

    /// Tells the target's map of what was copied and is durable now. What a full disk refuses stays
    /// to be marked.
    fn mark_copied(&mut self) -> Result<(), Medium> {
        while let Some((chunk, moved)) = self.merge.as_ref().and_then(Merge::first_durable) {
            self.mark_chunk(chunk, &moved)?;
            if let Some(merge) = &mut self.merge {
                merge.marked(chunk);
            }
        }
        Ok(())
    }

    fn mark_chunk(&mut self, chunk: ChunkNumber, moved: &MapRecord) -> Result<(), Medium> {
        let Some(merge) = &self.merge else {
            return Ok(());
        };
        let (source, target) = (merge.source, merge.target);
        let old = self.record(target, chunk)?;
        // What was written or unmapped meanwhile is newer.
        let moved = undecided(moved, &old);
        let new = old.union(&moved);
        if new == old {
            return Ok(());
        }
        if target == self.tree.head() {
            self.dirty.map_changes += 1;
        }
        self.put_record(target, chunk, &new)?;
        self.index.recount(target, &old, &new);
        let (from, to) = (self.index.slot(source), self.index.slot(target));
        for block in chunk.extent_in(self.size).blocks() {
            if moved.present.contains(block.in_chunk()) && self.index.slot_of(block) == from {
                self.set_newest(block, to);
            }
        }
        Ok(())
    }
}

/// The part of `from` that `to` says nothing of.
fn undecided(from: &MapRecord, to: &MapRecord) -> MapRecord {
    let mut moved = *from;
    for block in 0..PLACES {
        if to.decides(block) {
            moved.present.set(block, false);
            moved.zero.set(block, false);
        }
    }
    moved
}

/// Keeps of a record what lies at or behind `first` and holds at most so many present blocks; where
/// it ends.
fn keep_piece(record: &mut MapRecord, first: usize, blocks_max: u64) -> usize {
    let (mut end, mut blocks) = (PLACES, 0);
    for place in 0..PLACES {
        if place >= first && record.present.contains(place) {
            if blocks == blocks_max {
                end = end.min(place);
            }
            blocks += 1;
        }
        if place < first || place >= end {
            record.present.set(place, false);
            record.zero.set(place, false);
        }
    }
    end
}
