//! Repair: a block that a replica cannot return is rewritten there from another replica (INV-13).
//!
//! Findings come from reads, which were served from elsewhere, and from the orders, where scrubs
//! put them. Under the block's exclusive lock, so that nothing overlapping is in flight, the block
//! of that layer is read from another in-sync replica and written to the damaged one. Of a layer
//! that the source is merging away, or has merged, the block may lie in another one there: what the
//! source does not show as present is never written. When no replica can give the layer's block and
//! the damage hides what the volume reads, the volume's present data is written anew instead, to
//! all replicas.
//!
//! A replica cannot merge away a layer of which it cannot read a block that shows. When another one
//! has merged that layer, nobody can give it the block any more, and while its merge stands still
//! nothing is rebuilt: it is asked whether the damage is still there, and then given up, to be built
//! anew from the others.
//!
//! Nothing is waited for: what cannot be done now is tried again after a pause, while the orders
//! still list it, or when it is read again.

use std::collections::BTreeMap;

use ankole_proto::wire::rebuild::{LayerBlocks, LayerOf, WriteLayer};
use ankole_proto::wire::{ErrorCode, Frame, Header, Opcode};
use ankole_proto::{BlockNumber, LayerId, ReplicaId};
use bytes::Bytes;

use super::event::{Damage, Effect};
use super::job::{CopyReason, JobId, Purpose, Stage};
use super::loss::Grace;
use super::replica::Ask;
use super::{Mirror, Phase};
use crate::volume::Moment;

/// What has been done about the damages that are known.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    known: BTreeMap<(ReplicaId, Damage), Progress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    UnderWay,
    /// Until the orders list it no more.
    Done,
    /// It could not be done; not before then.
    RetryAt(Moment),
}

impl Repairs {
    fn under_way(&self) -> usize {
        let under_way = |progress: &&Progress| **progress == Progress::UnderWay;
        self.known.values().filter(under_way).count()
    }

    /// When one that could not be done is tried again.
    pub(super) fn retry_at(&self, now: Moment) -> Option<Moment> {
        let at = |progress: &Progress| match progress {
            Progress::RetryAt(at) if *at > now => Some(*at),
            _ => None,
        };
        self.known.values().filter_map(at).min()
    }
}

/// A repair under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) target: ReplicaId,
    pub(super) damage: Damage,
    /// A read has hit it: it hides what the volume reads.
    pub(super) visible: bool,
}

impl Mirror {
    /// A read found this block bad on this replica, and has been served from another one. A replica
    /// that does not name the layer has its block written anew through the volume.
    pub(super) fn found_bad(
        &mut self,
        target: ReplicaId,
        layer: Option<LayerId>,
        offset: u64,
        now: Moment,
    ) {
        let block = BlockNumber::at(offset);
        if !self.orders.size.contains(block.extent()) {
            return;
        }
        match layer {
            Some(layer) => {
                let damage = Damage { layer, block };
                // Whatever was done about it before did not help.
                let known = self.repairs.known.get(&(target, damage)).copied();
                if known != Some(Progress::UnderWay) {
                    self.start_repair(target, damage, true, now);
                }
            }
            None => self.rewrite(target, block, now),
        }
    }

    /// A rebuild found this block bad on its source.
    pub(super) fn found_bad_copy(
        &mut self,
        target: ReplicaId,
        layer: Option<LayerId>,
        offset: u64,
        now: Moment,
    ) {
        let block = BlockNumber::at(offset);
        if let Some(layer) = layer
            && self.orders.size.contains(block.extent())
            && !self
                .repairs
                .known
                .contains_key(&(target, Damage { layer, block }))
        {
            self.start_repair(target, Damage { layer, block }, false, now);
        }
    }

    fn rewrite(&mut self, target: ReplicaId, block: BlockNumber, now: Moment) {
        let purpose = Purpose::Copy(CopyReason::Repair(target));
        self.start_job(None, block.extent(), purpose, now);
    }

    fn start_repair(&mut self, target: ReplicaId, damage: Damage, visible: bool, now: Moment) {
        if self.repairs.under_way() >= self.config.limits.repairs_max {
            return;
        }
        self.repairs
            .known
            .insert((target, damage), Progress::UnderWay);
        let purpose = Purpose::Repair(Repair {
            target,
            damage,
            visible,
        });
        self.start_job(None, damage.block.extent(), purpose, now);
    }

    /// Begins what the orders list, as far as the bound allows.
    pub(super) fn tend_repairs(&mut self, now: Moment) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        let mut due = Vec::new();
        for replica in self.replicas.values().filter(|r| r.is_readable()) {
            for damage in &replica.member.damages {
                let begin = match self.repairs.known.get(&(replica.id(), *damage)) {
                    None => true,
                    Some(Progress::RetryAt(at)) => now >= *at,
                    Some(_) => false,
                };
                if begin && self.orders.size.contains(damage.block.extent()) {
                    due.push((replica.id(), *damage));
                }
            }
        }
        for (target, damage) in due {
            self.start_repair(target, damage, false, now);
        }
    }

    /// New orders: what they no longer list is forgotten.
    pub(super) fn forget_repairs_not_listed(&mut self) {
        let members = &self.orders.replicas;
        let listed = |replica: &ReplicaId, damage: &Damage| {
            let mut members = members.iter().filter(|m| m.replica == *replica);
            members.any(|m| m.damages.contains(damage))
        };
        self.repairs.known.retain(|(replica, damage), progress| {
            *progress == Progress::UnderWay || listed(replica, damage)
        });
    }

    fn repair_of(&self, id: JobId) -> Option<Repair> {
        match self.jobs.find(id)?.purpose {
            Purpose::Repair(repair) => Some(repair),
            _ => None,
        }
    }

    /// The block is locked, or a source could not give it: asks the next one.
    pub(super) fn dispatch_repair(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(repair) = self.repair_of(id) else {
            return;
        };
        let Some(&Stage::Repairing { tried, merged, .. }) =
            self.jobs.find(id).map(|job| &job.stage)
        else {
            return;
        };
        let mut except = tried;
        let target = self.replicas.get(&repair.target);
        let Some(target) = target.filter(|replica| replica.is_readable()) else {
            self.end_repair(id, repair, false, now);
            return;
        };
        except.insert(target.slot);
        let Some(source) = self.pick_source(except) else {
            let hides = repair.visible || repair.damage.layer == self.head;
            let nobody = except.covers(self.in_sync());
            if nobody && merged && !hides {
                self.ask_damage(id, repair, now, effects);
                return;
            }
            self.end_repair(id, repair, false, now);
            if hides && nobody {
                self.rewrite(repair.target, repair.damage.block, now);
            }
            return;
        };
        if let Some(job) = self.jobs.find_mut(id) {
            job.stage = Stage::Repairing {
                tried: except,
                at: source,
                merged,
            };
        }
        let body = LayerOf(repair.damage.layer).encode();
        self.send_repair(source, id, (repair, Opcode::ReadLayer, body), now, effects);
    }

    /// Asks the damaged replica whether its block is still there, and bad.
    fn ask_damage(&mut self, id: JobId, repair: Repair, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(job) = self.jobs.find_mut(id)
            && let Stage::Repairing { at, .. } = &mut job.stage
        {
            *at = repair.target;
        }
        let body = LayerOf(repair.damage.layer).encode();
        let what = (repair, Opcode::ReadLayer, body);
        self.send_repair(repair.target, id, what, now, effects);
    }

    fn send_repair(
        &mut self,
        to: ReplicaId,
        id: JobId,
        (repair, opcode, body): (Repair, Opcode, Bytes),
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let extent = repair.damage.block.extent();
        let mut header = Header::request(opcode, 0).with_payload(&body);
        header.offset = extent.offset();
        header.length = u32::try_from(extent.length()).unwrap_or(u32::MAX);
        header.watermark = self.window.watermark().raw();
        if opcode == Opcode::RepairLayer {
            self.comparisons.is_copied(to);
        }
        if let Some(replica) = self.replicas.get_mut(&to) {
            replica.send(Ask::Repair(id), header, body, now, effects);
        }
    }

    /// Source or target answered.
    pub(super) fn repair_reply(
        &mut self,
        from: ReplicaId,
        id: JobId,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(repair) = self.repair_of(id) else {
            return;
        };
        let Some(Stage::Repairing { at, .. }) = self.jobs.find(id).map(|job| &job.stage) else {
            return;
        };
        if *at != from {
            return;
        }
        let broken = matches!(frame.header.error, Some(ErrorCode::Io | ErrorCode::Faulted));
        if broken {
            let reason = "its disk failed during a repair".to_owned();
            self.lose(from, reason, Grace::None, now, effects);
            return;
        }
        if from == repair.target && frame.header.opcode == Opcode::ReadLayer {
            self.end_repair(id, repair, false, now);
            if frame.header.error == Some(ErrorCode::Checksum) {
                let Damage { layer, block } = repair.damage;
                let reason = format!(
                    "block {} of layer {layer} is damaged, and the others have merged that layer",
                    block.raw()
                );
                self.lose(from, reason, Grace::None, now, effects);
            }
            return;
        }
        if from == repair.target {
            let error = frame.header.error;
            self.end_repair(id, repair, error.is_none(), now);
            let hides = repair.visible || repair.damage.layer == self.head;
            if hides && error.is_some_and(|error| error != ErrorCode::NoSpace) {
                self.rewrite(repair.target, repair.damage.block, now);
            }
            return;
        }
        let place = repair.damage.block.in_chunk();
        let blocks = match frame.header.error {
            None => LayerBlocks::decode(frame.payload.clone()).ok(),
            Some(_) => None,
        };
        match blocks.filter(|blocks| blocks.present.contains(place)) {
            Some(blocks) => {
                if let Some(job) = self.jobs.find_mut(id)
                    && let Stage::Repairing { at, .. } = &mut job.stage
                {
                    *at = repair.target;
                }
                let layer = repair.damage.layer;
                let body = WriteLayer { layer, blocks }.encode();
                let what = (repair, Opcode::RepairLayer, body);
                self.send_repair(repair.target, id, what, now, effects);
            }
            None => {
                let slot = self.replicas.get(&from).map(|replica| replica.slot);
                if let Some(job) = self.jobs.find_mut(id)
                    && let (Stage::Repairing { tried, merged, .. }, Some(slot)) =
                        (&mut job.stage, slot)
                {
                    tried.insert(slot);
                    *merged |= frame.header.error == Some(ErrorCode::NoSuchLayer);
                }
                self.dispatch_repair(id, now, effects);
            }
        }
    }

    /// A replica's link went: repairs that need it are tried again later.
    pub(super) fn forget_repairs_of(&mut self, lost: ReplicaId, now: Moment) {
        let stopped: Vec<(JobId, Repair)> = self
            .jobs
            .iter()
            .filter_map(|(id, job)| match (&job.purpose, &job.stage) {
                (Purpose::Repair(repair), Stage::Repairing { at, .. })
                    if *at == lost || repair.target == lost =>
                {
                    Some((id, *repair))
                }
                _ => None,
            })
            .collect();
        for (id, repair) in stopped {
            self.end_repair(id, repair, false, now);
        }
    }

    fn end_repair(&mut self, id: JobId, repair: Repair, repaired: bool, now: Moment) {
        self.finish_job(id);
        self.attention = true;
        let key = (repair.target, repair.damage);
        let replica = self.replicas.get_mut(&repair.target);
        let listed = replica.is_some_and(|replica| {
            replica.repaired_blocks += u64::from(repaired);
            replica.member.damages.contains(&repair.damage)
        });
        let progress = if repaired {
            Progress::Done
        } else {
            Progress::RetryAt(now + self.config.limits.repair_pause)
        };
        if listed {
            self.repairs.known.insert(key, progress);
        } else {
            self.repairs.known.remove(&key);
        }
    }
}
