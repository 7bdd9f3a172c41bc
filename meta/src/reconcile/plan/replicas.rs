//! Replicas: stored, lost, coming back, replaced, gone.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{
    Placement, ReplaceReplicaCommand, ReplicaCreatedCommand, ReplicaGoneCommand,
    ReplicaLostCommand, StartRebuildCommand,
};
use ankole_proto::{DiskId, NodeName, ReplicaId};

use super::clones::is_clone_in_the_making;
use super::rebuilds::Rebuilds;
use super::{Commands, SILENT_MS, View};
use crate::reconcile::{Liveness, Sight, StoredState, Want, liveness, place, removable_layers};
use crate::state::{Replica, ReplicaMode, Volume};

/// How long a lost replica rests before it is tried again, so that one which keeps failing does not
/// fill the log.
const REBUILD_PAUSE_MS: u64 = 3_000;

/// How long a replica must be unusable before another takes its place.
const REPLACE_PAUSE_MS: u64 = 30_000;

impl View<'_> {
    pub(super) fn replicas(self, fresh: &mut dyn FnMut() -> u128, commands: &mut Commands) {
        let mut rebuilds = Rebuilds::on_record(self);
        for volume in self.state.volumes().values() {
            for (id, replica) in &volume.replicas {
                let sight = self.observed.sight(&replica.node, replica.disk, *id);
                let command = match replica.mode {
                    ReplicaMode::Creating if is_clone_in_the_making(volume) => None,
                    ReplicaMode::Creating => self.creating(volume, *id, replica, sight, fresh),
                    ReplicaMode::InSync => self.in_sync(volume, *id, replica, sight),
                    // One too many is not made equal again.
                    ReplicaMode::OutOfSync if volume.can_spare(*id, self.now.wall_ms) => None,
                    ReplicaMode::OutOfSync => self
                        .replaced(volume, *id, replica, sight, fresh)
                        .or_else(|| self.rebuilt(volume, *id, replica, &mut rebuilds)),
                    ReplicaMode::Rebuilding => self.rebuilding(volume, *id, replica, sight),
                    ReplicaMode::Deleting => self.deleting(volume, *id, replica, sight),
                };
                commands.extend(command);
            }
        }
        for (id, doomed) in self.state.doomed() {
            let missing = self.observed.sight(&doomed.node, doomed.disk, *id) == Sight::Missing;
            if missing && self.blockd_answers(&doomed.node) {
                commands.push(gone(doomed.volume.to_string(), *id, false));
            }
        }
    }

    fn creating(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        sight: Sight<'_>,
        fresh: &mut dyn FnMut() -> u128,
    ) -> Option<Command> {
        match sight {
            Sight::Stored(stored) if stored.state == StoredState::Ready => {
                let (volume_id, replica_id) = (volume.id.to_string(), id.to_string());
                Some(Command::ReplicaCreated(ReplicaCreatedCommand {
                    volume_id,
                    replica_id,
                }))
            }
            Sight::Stored(stored) => self.replace(volume, id, replica, &stored.message, fresh),
            Sight::DiskFault => self.replace(volume, id, replica, "its disk is faulted", fresh),
            Sight::Missing | Sight::Unseen => {
                let node = &replica.node;
                let live = liveness(self.state, self.observed, self.now, node);
                let down = matches!(live, Liveness::Down { .. });
                down.then(|| self.replace(volume, id, replica, "its node is down", fresh))
                    .flatten()
            }
        }
    }

    /// An in-sync replica that cannot be used is lost, which its engine says if there is one.
    fn in_sync(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        sight: Sight<'_>,
    ) -> Option<Command> {
        let last = volume.in_mode(ReplicaMode::InSync).count() <= 1;
        if volume.engine_node().is_some() || last {
            return None; // INV-4
        }
        let reason = self.unusable(replica, sight)?;
        Some(lost(volume, id, reason))
    }

    /// A replica in rebuild that cannot be used, or whose node stays away, is given up: its engine
    /// would try for ever, and no other would take its place.
    fn rebuilding(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        sight: Sight<'_>,
    ) -> Option<Command> {
        let away = || {
            let away = self.away(&replica.node);
            away.then(|| "its node stays away".to_owned())
        };
        let reason = self.unusable(replica, sight).or_else(away)?;
        Some(lost(volume, id, reason))
    }

    /// In another place, when it cannot be used or its node stays away.
    fn replaced(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        sight: Sight<'_>,
        fresh: &mut dyn FnMut() -> u128,
    ) -> Option<Command> {
        if let Some(why) = self.unusable(replica, sight) {
            return self.replace(volume, id, replica, &why, fresh);
        }
        if replica.wear.is_worn(self.now.wall_ms) {
            let why = "it had too many faults within a day";
            return self.replace(volume, id, replica, why, fresh);
        }
        if self.away(&replica.node) {
            return self.replace(volume, id, replica, "its node stays away", fresh);
        }
        None
    }

    /// In its place, when an engine runs and it is its turn.
    fn rebuilt(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        rebuilds: &mut Rebuilds,
    ) -> Option<Command> {
        if self
            .unusable(
                replica,
                self.observed.sight(&replica.node, replica.disk, id),
            )
            .is_some()
        {
            return None;
        }
        let busy = volume.in_mode(ReplicaMode::Rebuilding).next().is_some();
        let ready = self.engine_runs(volume) && self.removal_settled(volume);
        let start = ready && !busy && self.can_rebuild(id, replica) && rebuilds.take(&replica.node);
        let (volume_id, replica_id) = (volume.id.to_string(), id.to_string());
        start.then_some({
            Command::StartRebuild(StartRebuildCommand {
                volume_id,
                replica_id,
            })
        })
    }

    fn deleting(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        sight: Sight<'_>,
    ) -> Option<Command> {
        if volume.worker.is_some() {
            return None;
        }
        let live = liveness(self.state, self.observed, self.now, &replica.node);
        let unreachable = matches!(live, Liveness::Down { .. }) || sight == Sight::DiskFault;
        let missing = sight == Sight::Missing && self.blockd_answers(&replica.node);
        (unreachable || missing).then(|| gone(volume.id.to_string(), id, unreachable))
    }

    /// Why a stored replica cannot be used, when its blockd says so.
    fn unusable(self, replica: &Replica, sight: Sight<'_>) -> Option<String> {
        match sight {
            Sight::Stored(stored) if stored.state == StoredState::Faulted => {
                Some(format!("the stored replica is faulted: {}", stored.message))
            }
            Sight::DiskFault => Some("its disk is faulted or gone".to_owned()),
            Sight::Missing if self.blockd_answers(&replica.node) => {
                Some("it is not on its disk any more".to_owned())
            }
            _ => None,
        }
    }

    /// Whether an engine under the present epoch reports.
    pub(super) fn engine_runs(self, volume: &Volume) -> bool {
        let seen = self.observed.engines.get(&volume.id);
        volume.wanted_engine().is_some()
            && seen.is_some_and(|seen| {
                seen.said.epoch == volume.epoch && self.now.tick.since_ms(seen.at.tick) <= SILENT_MS
            })
    }

    /// Whether no merge is under way that a rebuild would run into.
    pub(super) fn removal_settled(self, volume: &Volume) -> bool {
        removable_layers(self.state, volume).is_empty()
    }

    /// Whether a replica has reported since it was lost and could be made equal.
    pub(super) fn can_rebuild(self, id: ReplicaId, replica: &Replica) -> bool {
        let Some(seen) = self.observed.blockds.get(&replica.node) else {
            return false;
        };
        let usable = match self.observed.sight(&replica.node, replica.disk, id) {
            Sight::Stored(stored) => stored.state != StoredState::Faulted,
            _ => false,
        };
        let rested = self.now.wall_ms.saturating_sub(replica.since_ms) >= REBUILD_PAUSE_MS;
        let live = liveness(self.state, self.observed, self.now, &replica.node) == Liveness::Up;
        usable && rested && live && seen.at.wall_ms > replica.since_ms
    }

    /// A place for a replica beside those that a volume has, or in the stead of one of them.
    pub(super) fn room_beside(
        self,
        volume: &Volume,
        instead_of: Option<ReplicaId>,
    ) -> Option<(NodeName, DiskId)> {
        let others = volume.live().filter(|(id, _)| Some(*id) != instead_of);
        let taken = others.map(|(_, replica)| replica.node.clone()).collect();
        let want = Want {
            count: 1,
            size: volume.size_wanted(),
            taken,
        };
        place(self.state, self.observed, self.now, &want)
            .ok()?
            .pop()
    }

    fn replace(
        self,
        volume: &Volume,
        id: ReplicaId,
        replica: &Replica,
        reason: &str,
        fresh: &mut dyn FnMut() -> u128,
    ) -> Option<Command> {
        if self.now.wall_ms.saturating_sub(replica.since_ms) < REPLACE_PAUSE_MS {
            return None;
        }
        let (node, disk) = self.room_beside(volume, Some(id))?;
        let placement = Placement {
            replica_id: ReplicaId::from_bits(fresh()).to_string(),
            node: node.to_string(),
            disk_id: disk.to_string(),
            ..Default::default()
        };
        Some(Command::ReplaceReplica(ReplaceReplicaCommand {
            volume_id: volume.id.to_string(),
            replica_id: id.to_string(),
            placement: Some(placement),
            reason: reason.to_owned(),
        }))
    }
}

fn lost(volume: &Volume, id: ReplicaId, reason: String) -> Command {
    Command::ReplicaLost(ReplicaLostCommand {
        volume_id: volume.id.to_string(),
        epoch: volume.epoch.raw(),
        replica_id: id.to_string(),
        reason,
        by_managers: true,
    })
}

fn gone(volume_id: String, replica: ReplicaId, abandoned: bool) -> Command {
    let replica_id = replica.to_string();
    Command::ReplicaGone(ReplicaGoneCommand {
        volume_id,
        replica_id,
        abandoned,
    })
}
