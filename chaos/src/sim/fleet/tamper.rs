//! Managers that break their own rules, to see that the checkers bite.
//!
//! The real state machine carries no switches: its records are changed behind its back.

use std::time::Duration;

use ankole_meta::reconcile::{Liveness, liveness};
use ankole_meta::state::{GroupStage, ReplicaMode, Replicated, Snapshot, SnapshotState, State};
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use ankole_proto::{ReplicaId, VolumeId};
use prost::Message;

use super::super::mutation::Mutation;
use super::{Fleet, clock};

/// The first byte of a volume's key.
const VOLUME_KEY: u8 = 0x02;

/// How long a group holds before it is released although some of its engines do not hold yet: one
/// that was not told to hold before refuses to seal.
const RELEASE_EARLY_MS: u64 = 1000;

impl Fleet {
    /// Mutation: the volume's present epoch is granted again.
    pub(super) fn grant_again(&self, command: &LogCommand) -> Option<LogAnswer> {
        let Some(Command::GrantEpoch(grant)) = &command.command else {
            return None;
        };
        let volume = self.volume(grant.volume_id.parse().ok()?)?;
        let twice = self.mutation == Some(Mutation::GrantTwice) && volume.epoch.raw() > 1;
        twice.then(|| LogAnswer {
            epoch: volume.epoch.raw(),
            volume_id: grant.volume_id.clone(),
            revision: volume.revision,
            ..LogAnswer::default()
        })
    }

    /// Mutations of what an entry has just done.
    pub(super) fn tamper_after(&mut self, command: &LogCommand) {
        match (&command.command, self.mutation) {
            (Some(Command::StartRebuild(start)), Some(Mutation::PromoteAtOnce)) => {
                self.set_mode(&start.volume_id, &start.replica_id, ReplicaMode::InSync);
            }
            (Some(Command::ReplicaLost(lost)), Some(Mutation::ForgetLosses))
                if !lost.by_managers =>
            {
                self.forgotten = Some((lost.volume_id.clone(), lost.replica_id.clone()));
            }
            _ => {}
        }
    }

    /// Mutation: the loss that was just answered for is not on record after all.
    pub(in super::super) fn forget_loss(&mut self) {
        if let Some((volume, replica)) = self.forgotten.take() {
            self.set_mode(&volume, &replica, ReplicaMode::InSync);
        }
    }

    /// Mutation: replicas on nodes that are down are dropped, the last one too.
    pub(super) fn tamper_with_the_down(&mut self, now: Duration) {
        if self.mutation != Some(Mutation::DropLast) {
            return;
        }
        let mut down = Vec::new();
        for volume in self.state.volumes().values() {
            for (id, replica) in volume.in_mode(ReplicaMode::InSync) {
                let live = liveness(&self.state, &self.observed, clock(now), &replica.node);
                if matches!(live, Liveness::Down { .. }) {
                    down.push((volume.id.to_string(), id.to_string()));
                }
            }
        }
        for (volume, replica) in down {
            self.set_mode(&volume, &replica, ReplicaMode::OutOfSync);
        }
    }

    /// Mutation: groups of which some engines have been told to hold, and others have not yet.
    pub(super) fn released_early(&self, now: Duration) -> Vec<LogCommand> {
        if self.mutation != Some(Mutation::ReleaseEarly) {
            return Vec::new();
        }
        let groups = self.state.groups().values();
        let holding = groups.filter(|group| {
            let age_ms = clock(now).wall_ms.saturating_sub(group.since_ms);
            group.stage == GroupStage::Hold && age_ms >= RELEASE_EARLY_MS
        });
        let released = holding.map(|group| {
            let held = group.members.keys().filter_map(|volume| {
                Some(rpc::HeldMember {
                    volume_id: volume.to_string(),
                    epoch: self.volume(*volume)?.epoch.raw(),
                })
            });
            let command = rpc::ReleaseSnapshotGroupCommand {
                group_id: group.id.to_string(),
                held: held.collect(),
            };
            self.entry(now, Command::ReleaseSnapshotGroup(command))
        });
        released.collect()
    }

    fn set_mode(&mut self, volume: &str, replica: &str, mode: ReplicaMode) {
        let (Ok(volume), Ok(id)) = (volume.parse(), replica.parse::<ReplicaId>()) else {
            return;
        };
        let mode = match mode {
            ReplicaMode::InSync => rpc::ReplicaMode::InSync,
            _ => rpc::ReplicaMode::OutOfSync,
        };
        let index = self.index;
        self.rewrite(volume, |record| {
            for replica in &mut record.replicas {
                if replica.id == id.to_string() {
                    replica.mode = mode.into();
                    replica.mode_revision = index;
                }
            }
            record.revision = index;
        });
    }

    /// Mutation: with each layer that is to go, another snapshot's is to go, too.
    pub(super) fn tamper_with_removals(&self, orders: &mut rpc::BlockdOrders) {
        if self.mutation != Some(Mutation::RemoveWrongLayer) {
            return;
        }
        for order in &mut orders.replicas {
            let Ok(volume) = order.volume_id.parse::<VolumeId>() else {
                continue;
            };
            let ready = |one: &&Snapshot| one.state == SnapshotState::Ready;
            let other = self.state.snapshots_of(volume).find(ready);
            if let (false, Some(layer)) = (
                order.remove_layers.is_empty(),
                other.and_then(|one| one.layer),
            ) {
                order.remove_layers.push(layer.to_string());
            }
        }
    }

    /// The state with one volume's record changed.
    fn rewrite(&mut self, volume: VolumeId, change: impl FnOnce(&mut rpc::VolumeRecord)) {
        let mut records = self.state.to_records();
        let found = records.iter_mut().find_map(|(key, value)| {
            let record = rpc::VolumeRecord::decode(value.as_slice()).ok()?;
            let ours = key.first() == Some(&VOLUME_KEY) && record.id == volume.to_string();
            ours.then_some((value, record))
        });
        if let Some((value, mut record)) = found {
            change(&mut record);
            *value = record.encode_to_vec();
        }
        if let Ok(state) = State::from_records(&mut records.into_iter()) {
            self.state = state;
            self.changes += 1;
        }
    }
}
