//! Making a replica equal to the others while the volume is served.
//!
//! Owns the way from an open link to the record that the replica is in sync. From the end of
//! BeginRebuild on the target receives every mutation; each chunk of each layer is compared by
//! digest and copied where it differs ([`copy`], [`answer`]); chunks of the head under the range lock. Why no
//! write is lost is told in `docs/replication.md`. A rebuilding replica serves no read and is not
//! needed by any acknowledgement (INV-9), until it is about to be recorded in sync: from then on
//! every acknowledgement needs it.

mod answer;
mod copy;
mod mark;
mod pace;
mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::BeginRebuild;
use ankole_proto::wire::{Frame, Header, Opcode};
use ankole_proto::{CHUNK_BYTES, ChunkNumber, LayerId, ReplicaId, VolumeSize};
use bytes::Bytes;

use super::event::{Effect, Record, RecordRefusal};
use super::loss::Grace;
use super::replica::{Ask, Kind, Promotion, Replica, SlotSet};
use super::status::{RebuildProgress, bytes_per_second};
use super::window::Verdict;
use super::{Mirror, Phase};
use crate::volume::Moment;
use copy::Copy;
use mark::Marks;
pub(super) use pace::Pace;
use plan::Plan;

/// A chunk of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkKey {
    layer: LayerId,
    chunk: ChunkNumber,
}

/// One rebuild, from one link's opening to its end.
#[derive(Debug)]
pub(super) struct Rebuild {
    stage: Stage,
    began: Moment,
    /// All of it comes from this one replica.
    source: Option<ReplicaId>,
    plan: Plan,
    copies: BTreeMap<ChunkKey, Copy>,
    pace: Pace,
    /// Of a target that keeps a note of how far it is.
    marks: Option<Marks>,
}

/// ```text
///  Waiting ──▶ Beginning ──▶ Copying ──▶ Syncing ──▶ Synced ─┐
///              BeginRebuild  attached:   Flush               │
///                            receives                        │
///                            mutations                       │
///      ┌─────────────────────────────────────────────────────┘
///      └─▶ Settling ──▶ Finishing ──▶ Recording ──▶ (Live)
///          counts for   FinishRebuild  the managers
///          acknowledgements            commit
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waiting,
    Beginning,
    Copying,
    Syncing,
    Synced,
    Settling,
    Finishing,
    Recording,
}

impl Rebuild {
    /// Of a link that has just opened.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            stage: Stage::Waiting,
            began: now,
            source: None,
            plan: Plan::default(),
            copies: BTreeMap::new(),
            pace: Pace::new(None, now),
            marks: None,
        }
    }

    /// Whether mutations go to the target.
    pub(super) fn is_attached(&self) -> bool {
        self.stage >= Stage::Copying
    }

    /// Whether every acknowledgement needs the target.
    pub(super) fn is_settling(&self) -> bool {
        self.stage >= Stage::Settling
    }

    /// How far it is.
    pub(super) fn progress(&self, size: VolumeSize, now: Moment) -> RebuildProgress {
        let total_bytes = (self.plan.total() / size.chunks()).saturating_mul(size.bytes());
        let done = self.plan.begun().saturating_sub(self.copies.len() as u64);
        let done_bytes = done.saturating_mul(CHUNK_BYTES).min(total_bytes);
        let bytes_per_second = bytes_per_second(done_bytes, now.since(self.began));
        let left = total_bytes.saturating_sub(done_bytes);
        RebuildProgress {
            done_bytes,
            total_bytes,
            bytes_per_second,
            remaining: left.checked_div(bytes_per_second).map(Duration::from_secs),
        }
    }

    /// Chunks that are being compared and copied.
    #[cfg(test)]
    pub(super) fn chunks_under_way(&self) -> usize {
        self.copies.len()
    }

    /// What it does, for people.
    pub(super) fn message(&self) -> String {
        match self.stage {
            Stage::Waiting => "waits for a source to be rebuilt from",
            Stage::Beginning => "its rebuild begins",
            Stage::Copying => "is being rebuilt",
            Stage::Syncing | Stage::Synced => "is equal; its disk is being synced",
            Stage::Settling | Stage::Finishing => "its rebuild ends",
            Stage::Recording => "is equal; waits for the managers' record",
        }
        .to_owned()
    }
}

impl Mirror {
    /// Goes on with every rebuild as far as it can.
    pub(super) fn tend_rebuilds(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let ids: Vec<ReplicaId> = self
            .replicas
            .values()
            .filter(|replica| replica.rebuild().is_some() || replica.may_be_in_sync())
            .map(Replica::id)
            .collect();
        for id in ids {
            let stage = self
                .replicas
                .get(&id)
                .and_then(Replica::rebuild)
                .map(|r| r.stage);
            match stage {
                Some(Stage::Waiting) => self.begin_rebuild(id, now, effects),
                Some(Stage::Copying) => {
                    self.mark(id, now, effects);
                    self.fill(id, now, effects);
                }
                Some(Stage::Synced) => self.settle_rebuild(id, now, effects),
                Some(Stage::Settling) => self.finish_when_settled(id, now, effects),
                _ => {}
            }
            self.ask_promotion(id, now, effects);
        }
    }

    fn set_rebuild_stage(&mut self, id: ReplicaId, stage: Stage) {
        if let Some(rebuild) = self.replicas.get_mut(&id).and_then(Replica::rebuild_mut) {
            rebuild.stage = stage;
            self.attention = true;
        }
    }

    /// Gives the target the source's tree.
    fn begin_rebuild(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let idle = self.task.is_none() && matches!(self.phase, Phase::Serving);
        let unable = self.unable_sources(id);
        let source = self.pick_source(unable);
        let Some(source) = source.and_then(|source| self.replicas.get(&source)) else {
            if !unable.is_empty() && unable.covers(self.in_sync()) {
                let reason = "no replica can be read as a whole".to_owned();
                self.target_failed(id, reason, now, effects);
                if let Some(replica) = self.replicas.get_mut(&id) {
                    replica.unable_sources.clear();
                }
            }
            return;
        };
        if !idle {
            return;
        }
        let from = source.id();
        let body = BeginRebuild {
            head: self.head,
            size: self.orders.size,
            layers: source.tree.clone(),
        };
        let rate = self.rebuild_rate(id);
        let size = self.orders.size;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if let Some(rebuild) = replica.rebuild_mut() {
            rebuild.source = Some(from);
            let nothing = RebuildCursor::nothing(from);
            rebuild.plan = Plan::new(&body.layers, body.head, size, &nothing);
            rebuild.pace = Pace::new(rate, now);
            rebuild.stage = Stage::Beginning;
        }
        replica.tree.clone_from(&body.layers);
        let body = body.encode();
        let header = Header::request(Opcode::BeginRebuild, 0).with_payload(&body);
        replica.send(Ask::BeginRebuild, header, body, now, effects);
    }

    /// Those that could not give a chunk of the target's rebuild.
    fn unable_sources(&self, target: ReplicaId) -> SlotSet {
        let mut set = SlotSet::default();
        let unable = self.replicas.get(&target).map(|r| &r.unable_sources);
        for replica in unable
            .into_iter()
            .flatten()
            .filter_map(|id| self.replicas.get(id))
        {
            set.insert(replica.slot);
        }
        set
    }

    /// The target answered BeginRebuild, MarkRebuilt, FinishRebuild, or the Flush before it.
    pub(super) fn rebuild_reply(
        &mut self,
        id: ReplicaId,
        ask: Ask,
        frame: &Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(error) = frame.header.error {
            self.target_failed(id, format!("its rebuild failed: {error}"), now, effects);
            return;
        }
        let stage = self
            .replicas
            .get(&id)
            .and_then(Replica::rebuild)
            .map(|r| r.stage);
        match (ask, stage) {
            (Ask::BeginRebuild, Some(Stage::Beginning)) => {
                self.rebuild_begun(id, frame, now, effects);
            }
            (Ask::MarkRebuilt, Some(_)) => self.marked(id),
            (Ask::SyncRebuilt, Some(Stage::Syncing)) => self.set_rebuild_stage(id, Stage::Synced),
            (Ask::FinishRebuild, Some(Stage::Finishing)) => {
                self.set_rebuild_stage(id, Stage::Recording);
                if let Some(replica) = self.replicas.get_mut(&id) {
                    replica.promotion = Promotion::Pause(now);
                }
            }
            _ => {}
        }
    }

    /// All is copied: it goes to the target's disk before anybody has to wait for the target, which
    /// FinishRebuild keeps from everything else.
    fn sync_rebuilt(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let header = self.flush_header();
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.send(Ask::SyncRebuilt, header, Bytes::new(), now, effects);
        }
        self.set_rebuild_stage(id, Stage::Syncing);
    }

    /// From now on the target counts, and flushes in hand wait for it, too.
    fn settle_rebuild(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        if self.task.is_none() {
            self.set_rebuild_stage(id, Stage::Settling);
            self.resend_flushes(id, now, effects);
        }
    }

    /// What was acknowledged without the target has to have reached it before it syncs.
    fn finish_when_settled(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let slot = replica.slot;
        let owes = self.window.iter().any(|(_, mutation)| {
            mutation.verdict != Verdict::Open && mutation.outstanding.contains(slot)
        });
        if owes {
            return;
        }
        let header = Header::request(Opcode::FinishRebuild, 0);
        replica.send(Ask::FinishRebuild, header, Bytes::new(), now, effects);
        self.set_rebuild_stage(id, Stage::Finishing);
    }

    fn ask_promotion(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let open = matches!(replica.state().kind(), Kind::Rebuilding | Kind::Live);
        if let Promotion::Pause(at) = replica.promotion
            && open
            && now >= at
        {
            replica.promotion = Promotion::Asked;
            effects.push(Effect::Record(Record::ReplicaInSync { replica: id }));
        }
    }

    /// The managers answered whether it is in sync. What they did was done with the orders that
    /// came along.
    pub(super) fn promotion_recorded(
        &mut self,
        id: ReplicaId,
        refusal: Option<RecordRefusal>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let pause = self.config.limits.record_pause;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if replica.promotion != Promotion::Asked {
            return;
        }
        if refusal == Some(RecordRefusal::Unknown) {
            replica.promotion = Promotion::None;
            let reason = "the managers do not have it on record as rebuilding".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
        } else {
            replica.promotion = Promotion::Pause(now + pause);
        }
    }

    /// The target refused or failed: the managers are told and decide; until they do, the rebuild
    /// begins again after a pause.
    fn target_failed(
        &mut self,
        id: ReplicaId,
        reason: String,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.lose(id, reason.clone(), Grace::None, now, effects);
        self.pause_rebuild(id, now);
        let counts = self.replicas.get(&id).is_some_and(Replica::counts);
        if !counts {
            let replica = id;
            effects.push(Effect::Record(Record::ReplicaLost { replica, reason }));
        }
    }

    fn pause_rebuild(&mut self, id: ReplicaId, now: Moment) {
        let pause = self.config.limits.rebuild_pause;
        let down = self.replicas.get_mut(&id).and_then(Replica::connecting_mut);
        if let Some(down) = down {
            down.retry_at = now + pause;
        }
    }

    /// The layers change: rebuilds that are not done begin again with the new tree. Over a new
    /// link, so that nothing of the old plan is under way.
    pub(super) fn pause_rebuilds(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let begun = |replica: &Replica| {
            let waiting = replica.rebuild().is_none_or(|r| r.stage == Stage::Waiting);
            !replica.counts() && !waiting
        };
        for id in self.rebuilding(begun) {
            let reason = "its rebuild begins again with new layers".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
        }
    }

    fn rebuilding(&self, wanted: impl Fn(&Replica) -> bool) -> Vec<ReplicaId> {
        self.replicas
            .values()
            .filter(|replica| replica.rebuild().is_some() && wanted(replica))
            .map(Replica::id)
            .collect()
    }

    /// What was copied from this source may be wrong.
    pub(super) fn restart_rebuilds_from(
        &mut self,
        source: ReplicaId,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let from_it = |replica: &Replica| {
            let rebuild = replica.rebuild();
            !replica.counts() && rebuild.is_some_and(|one| one.source == Some(source))
        };
        for id in self.rebuilding(from_it) {
            let reason = "the replica that it was rebuilt from differs from the others".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
        }
    }

    /// These targets did otherwise than the in-sync replicas did.
    pub(super) fn restart_rebuilds_of(
        &mut self,
        slots: SlotSet,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if slots.is_empty() {
            return;
        }
        for id in self.rebuilding(|replica| !replica.counts() && slots.contains(replica.slot)) {
            let reason = "a disk became full during its rebuild".to_owned();
            self.target_failed(id, reason, now, effects);
        }
    }
}
