//! One chunk of one layer: compared by digest, copied where it differs.
//!
//! ```text
//!            ┌─────────┐  lock held   ┌───────────┐  differ   ┌─────────┐         ┌─────────┐
//!   head ───▶│ Locking │─────────────▶│ Comparing │──────────▶│ Reading │────────▶│ Writing │──▶ done
//!            └─────────┘   sealed ───▶│           │──▶ done   └─────────┘         └─────────┘
//!                                     └───────────┘  equal
//! ```

use ankole_proto::wire::rebuild::{ChunkDigest, LayerOf};
use ankole_proto::wire::{Header, Opcode};
use ankole_proto::{Extent, ReplicaId};
use bytes::Bytes;

use super::{ChunkKey, Rebuild};
use crate::mirror::Mirror;
use crate::mirror::event::Effect;
use crate::mirror::job::{JobId, Purpose};
use crate::mirror::loss::Grace;
use crate::mirror::replica::{Ask, Replica};
use crate::mirror::session::CopyOf;
use crate::volume::Moment;

/// A chunk under way.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) began: Moment,
    /// Holds the head chunk's range.
    pub(super) job: Option<JobId>,
    pub(super) step: Step,
    /// Who is asked; `None` while nobody can be.
    pub(super) source: Option<ReplicaId>,
    /// What the target said: `Some(None)` when its own copy is damaged.
    pub(super) target: Option<Option<ChunkDigest>>,
    /// What the source said.
    pub(super) wanted: Option<ChunkDigest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Locking,
    Comparing,
    Reading,
    Writing,
}

impl Mirror {
    /// Begins as many chunks as the window and the rate allow.
    pub(super) fn fill(&mut self, target: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        self.ask_waiting_sources(target, now, effects);
        let beside_others = self.is_beside_others(now);
        let chunks_max = self.config.limits.rebuild_chunks_max;
        loop {
            let Some(rebuild) = self.rebuild_of(target) else {
                return;
            };
            let idle = rebuild.copies.is_empty();
            let Some(key) = rebuild.plan.peek() else {
                // What ends the rebuild comes with nothing else unanswered.
                if idle && !rebuild.is_marking() {
                    self.sync_rebuilt(target, now, effects);
                }
                return;
            };
            let full = if beside_others {
                !idle || now < rebuild.pace.free_beside_others_at()
            } else {
                rebuild.copies.len() >= chunks_max || now < rebuild.pace.free_at()
            };
            if full || (rebuild.plan.at_layer_start() && !idle) {
                return;
            }
            rebuild.plan.advance();
            self.begin_copy(target, key, now, effects);
        }
    }

    pub(super) fn rebuild_of(&mut self, target: ReplicaId) -> Option<&mut Rebuild> {
        self.replicas.get_mut(&target)?.rebuild_mut()
    }

    pub(super) fn copy_of(&mut self, target: ReplicaId, key: ChunkKey) -> Option<&mut Copy> {
        self.rebuild_of(target)?.copies.get_mut(&key)
    }

    fn chunk_extent(&self, key: ChunkKey) -> Extent {
        key.chunk.extent_in(self.orders.size)
    }

    fn begin_copy(
        &mut self,
        target: ReplicaId,
        key: ChunkKey,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let is_head = key.layer == self.head;
        let job = is_head.then(|| {
            let extent = self.chunk_extent(key);
            self.start_job(None, extent, Purpose::Chunk { target }, now)
        });
        let copy = Copy {
            began: now,
            job,
            step: if is_head {
                Step::Locking
            } else {
                Step::Comparing
            },
            source: None,
            target: None,
            wanted: None,
        };
        if let Some(rebuild) = self.rebuild_of(target) {
            rebuild.copies.insert(key, copy);
        }
        if !is_head {
            self.compare(target, key, now, effects);
        }
    }

    /// A head chunk's range is locked: nothing overlapping is in flight anywhere.
    pub(in crate::mirror) fn chunk_locked(
        &mut self,
        target: ReplicaId,
        job: JobId,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let found = self.rebuild_of(target).and_then(|rebuild| {
            let mut copies = rebuild.copies.iter_mut();
            let (key, copy) = copies.find(|(_, copy)| copy.job == Some(job))?;
            copy.step = Step::Comparing;
            Some(*key)
        });
        match found {
            Some(key) => self.compare(target, key, now, effects),
            None => {
                self.finish_job(job);
            }
        }
    }

    /// Asks source and target for their digests, as far as that is still to be done.
    fn compare(
        &mut self,
        target: ReplicaId,
        key: ChunkKey,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let needs_target = self
            .copy_of(target, key)
            .is_some_and(|copy| copy.target.is_none());
        if needs_target {
            self.send_copy(target, target, key, Opcode::Digest, now, effects);
        }
        self.ask_source(target, key, now, effects);
    }

    pub(super) fn ask_source(
        &mut self,
        target: ReplicaId,
        key: ChunkKey,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pinned) = self.rebuild_of(target).and_then(|rebuild| rebuild.source) else {
            return;
        };
        let replica = self.replicas.get(&pinned);
        if !replica.is_some_and(Replica::is_in_sync) {
            let reason = "the replica that it was rebuilt from has left; begins again".to_owned();
            self.lose(target, reason, Grace::None, now, effects);
            return;
        }
        // One that is away for a moment is waited for.
        let source = replica
            .filter(|replica| replica.is_readable())
            .map(Replica::id);
        if let Some(copy) = self.copy_of(target, key) {
            copy.source = source;
            copy.step = Step::Comparing;
            copy.wanted = None;
        }
        if let Some(source) = source {
            self.send_copy(source, target, key, Opcode::Digest, now, effects);
        }
    }

    fn ask_waiting_sources(&mut self, target: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(rebuild) = self.rebuild_of(target) else {
            return;
        };
        let waiting: Vec<ChunkKey> = rebuild
            .copies
            .iter()
            .filter(|(_, copy)| copy.source.is_none() && copy.step == Step::Comparing)
            .map(|(key, _)| *key)
            .collect();
        for key in waiting {
            self.ask_source(target, key, now, effects);
        }
    }

    pub(super) fn send_copy(
        &mut self,
        to: ReplicaId,
        target: ReplicaId,
        key: ChunkKey,
        opcode: Opcode,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let body = LayerOf(key.layer).encode();
        self.send_copy_body(to, target, key, opcode, body, now, effects);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one frame: where to, what for, what it carries, and where effects go"
    )]
    pub(super) fn send_copy_body(
        &mut self,
        to: ReplicaId,
        target: ReplicaId,
        key: ChunkKey,
        opcode: Opcode,
        body: Bytes,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let extent = self.chunk_extent(key);
        let mut header = Header::request(opcode, 0).with_payload(&body);
        header.offset = extent.offset();
        header.length = u32::try_from(extent.length()).unwrap_or(u32::MAX);
        header.watermark = self.window.watermark().raw();
        let Some(over) = self.replicas.get(&target).and_then(Replica::link) else {
            return;
        };
        if let Some(replica) = self.replicas.get_mut(&to) {
            let copy = CopyOf { target, over, key };
            replica.send(Ask::Copy(copy), header, body, now, effects);
        }
    }

    /// The rebuild is over, one way or the other: its locks are given back.
    pub(in crate::mirror) fn drop_copies(&mut self, rebuild: &Rebuild) {
        for job in rebuild.copies.values().filter_map(|copy| copy.job) {
            self.finish_job(job);
        }
    }

    /// A replica went: chunks that were read from it are asked of another one. What is on its way
    /// to the target stays.
    pub(in crate::mirror) fn forget_source(&mut self, id: ReplicaId) {
        for rebuild in self.replicas.values_mut().filter_map(Replica::rebuild_mut) {
            for copy in rebuild.copies.values_mut() {
                if copy.source == Some(id) && copy.step != Step::Writing {
                    copy.source = None;
                    copy.wanted = None;
                    if copy.step == Step::Reading {
                        copy.step = Step::Comparing;
                    }
                }
            }
        }
    }
}
