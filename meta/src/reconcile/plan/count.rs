//! As many replicas as are wanted: one more, or one less.

use ankole_proto::ReplicaId;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{AddReplicaCommand, Placement, RemoveReplicaCommand};

use super::{Commands, View};
use crate::reconcile::{Liveness, Sight, liveness};
use crate::state::{Replica, ReplicaMode, Volume};

impl View<'_> {
    pub(super) fn count(self, fresh: &mut dyn FnMut() -> u128, commands: &mut Commands) {
        for volume in self.state.volumes().values() {
            let add = volume.wants_replica(self.now.wall_ms);
            commands.extend(if add {
                self.add(volume, fresh)
            } else {
                self.remove(volume)
            });
        }
    }

    fn add(self, volume: &Volume, fresh: &mut dyn FnMut() -> u128) -> Option<Command> {
        let (node, disk) = self.room_beside(volume, None)?;
        let placement = Placement {
            replica_id: ReplicaId::from_bits(fresh()).to_string(),
            node: node.to_string(),
            disk_id: disk.to_string(),
            ..Default::default()
        };
        Some(Command::AddReplica(AddReplicaCommand {
            volume_id: volume.id.to_string(),
            placement: Some(placement),
        }))
    }

    /// One that can be spared, the least useful first: out of sync, with many faults, on a node that
    /// is down, on the fullest disk. One that is on its way out is waited for.
    fn remove(self, volume: &Volume) -> Option<Command> {
        let now_ms = self.now.wall_ms;
        let spare = volume
            .live()
            .filter(|(id, _)| volume.can_spare(*id, now_ms));
        let (id, replica) = spare.max_by_key(|(id, replica)| {
            let used = self.used_permille(replica);
            let worn = replica.wear.is_worn(now_ms);
            let out = replica.mode != ReplicaMode::InSync;
            let leaving = replica.mode == ReplicaMode::OutOfSync;
            (out, leaving, worn, self.is_lost(*id, replica), used, *id)
        })?;
        if replica.mode == ReplicaMode::OutOfSync && !self.engine_knows(volume, replica) {
            return None;
        }
        let reason = if replica.wear.is_worn(now_ms) {
            "it had too many faults within a day"
        } else {
            "fewer replicas are wanted"
        };
        Some(Command::RemoveReplica(RemoveReplicaCommand {
            volume_id: volume.id.to_string(),
            replica_id: id.to_string(),
            reason: reason.to_owned(),
        }))
    }

    fn is_lost(self, id: ReplicaId, replica: &Replica) -> bool {
        let live = liveness(self.state, self.observed, self.now, &replica.node);
        let sight = self.observed.sight(&replica.node, replica.disk, id);
        matches!(live, Liveness::Down { .. }) || matches!(sight, Sight::Missing | Sight::DiskFault)
    }

    /// How full the replica's disk is.
    fn used_permille(self, replica: &Replica) -> u64 {
        let blockd = self.observed.blockds.get(&replica.node);
        let disk = blockd.and_then(|seen| seen.said.disks.get(&replica.disk));
        disk.map_or(0, |disk| {
            let used = disk.capacity_bytes.saturating_sub(disk.free_bytes);
            let permille = u128::from(used) * 1000 / u128::from(disk.capacity_bytes.max(1));
            u64::try_from(permille).unwrap_or(u64::MAX)
        })
    }

    /// Whether no engine uses a replica that left the in-sync set: none is to run, or the present
    /// one has said that it has seen the orders without it (INV-3).
    fn engine_knows(self, volume: &Volume, replica: &Replica) -> bool {
        if volume.engine_node().is_none() {
            return true;
        }
        self.observed.engines.get(&volume.id).is_some_and(|seen| {
            seen.said.epoch == volume.epoch && seen.orders >= replica.mode_revision
        })
    }
}
