//! What scrubs and reads found. Scrubs are begun by each blockd for its own replicas, or asked for.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{RecordDamagesCommand, RecordRepairsCommand};
use ankole_proto::{Epoch, ReplicaId};

use super::{Commands, View};
use crate::reconcile::Sight;
use crate::state::{DAMAGES_MAX, Replica, ReplicaMode, Volume, record};

impl View<'_> {
    pub(super) fn medium(self, commands: &mut Commands) {
        for volume in self.state.volumes().values() {
            for (id, replica) in volume.live() {
                commands.extend(self.damages(volume, id, replica));
                commands.extend(self.repairs(volume, id, replica));
            }
        }
    }

    /// What a replica's blockd has found, when that is not what is on record. Of one that is out of
    /// sync it does not matter: it is made equal, and what it lacks is no damage.
    fn damages(self, volume: &Volume, id: ReplicaId, replica: &Replica) -> Option<Command> {
        let Sight::Stored(stored) = self.observed.sight(&replica.node, replica.disk, id) else {
            return None;
        };
        let in_sync = replica.mode == ReplicaMode::InSync;
        let first = &stored.damages[..stored.damages.len().min(DAMAGES_MAX)];
        let (blocks, first) = if in_sync {
            (stored.damaged_blocks, first)
        } else {
            (0, &first[..0])
        };
        let wear = &replica.wear;
        let known = wear.damaged_blocks == blocks && wear.damages == first;
        (!known).then(|| {
            Command::RecordDamages(RecordDamagesCommand {
                volume_id: volume.id.to_string(),
                replica_id: id.to_string(),
                damaged_blocks: blocks,
                damages: record::damages_to(first),
            })
        })
    }

    /// What the present engine has repaired, when it has told of more than is on record.
    fn repairs(self, volume: &Volume, id: ReplicaId, replica: &Replica) -> Option<Command> {
        let engine = &self.observed.engines.get(&volume.id)?.said;
        let blocks = *engine.repairs.get(&id)?;
        let (epoch, told): (Epoch, u64) = replica.wear.repairs_told;
        let known = if epoch == volume.epoch { told } else { 0 };
        let news = engine.epoch == volume.epoch && blocks > known;
        (news && volume.engine_node().is_some()).then(|| {
            Command::RecordRepairs(RecordRepairsCommand {
                volume_id: volume.id.to_string(),
                epoch: volume.epoch.raw(),
                replica_id: id.to_string(),
                blocks,
            })
        })
    }
}
