//! What scrubs, reads and comparisons found. Scrubs are begun by each blockd for its own replicas, or
//! asked for; comparisons of the replicas with each other are made by the volume's engine.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{
    OrderComparisonCommand, RecordComparisonCommand, RecordDamagesCommand, RecordRepairsCommand,
};
use ankole_proto::{Epoch, ReplicaId};

use super::{Commands, View};
use crate::reconcile::Sight;
use crate::state::{DAMAGES_MAX, Phase, Replica, ReplicaMode, Volume, record};

/// From the end of a comparison to the next one, of a volume that is attached.
const COMPARISON_PERIOD_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How many comparisons there may be in the cluster for the managers to order the next one that is
/// due: all read the same disks.
const COMPARISONS_MAX: usize = 2;

impl View<'_> {
    pub(super) fn medium(self, commands: &mut Commands) {
        let volumes = self.state.volumes().values();
        let under_way =
            volumes.filter(|one| one.comparison.wanted().is_some() && one.is_comparable());
        let mut turns = COMPARISONS_MAX.saturating_sub(under_way.count());
        for volume in self.state.volumes().values() {
            commands.extend(self.comparison(volume));
            if turns > 0
                && let Some(command) = self.due_comparison(volume)
            {
                commands.push(command);
                turns -= 1;
            }
            for (id, replica) in volume.live() {
                commands.extend(self.damages(volume, id, replica));
                commands.extend(self.repairs(volume, id, replica));
            }
        }
    }

    /// The next comparison, when the last is long ago.
    fn due_comparison(self, volume: &Volume) -> Option<Command> {
        let comparison = &volume.comparison;
        let last = comparison.finished_at_ms.max(volume.created_at_ms);
        let is_due = self.now.wall_ms.saturating_sub(last) >= COMPARISON_PERIOD_MS;
        let is_attached = matches!(volume.phase, Phase::Attached(_));
        let free = comparison.wanted().is_none() && volume.is_comparable();
        (is_due && is_attached && free).then(|| {
            Command::OrderComparison(OrderComparisonCommand {
                volume_id: volume.id.to_string(),
                request: comparison.request + 1,
            })
        })
    }

    /// What the comparison that was wanted has found.
    fn comparison(self, volume: &Volume) -> Option<Command> {
        let volume_id = volume.id.to_string();
        let wanted = volume.comparison.wanted()?;
        let engine = &self.observed.engines.get(&volume.id)?.said;
        let made = engine.comparison.as_ref()?;
        let is_it = engine.epoch == volume.epoch && made.finished && made.request == wanted;
        (is_it && volume.engine_node().is_some()).then(|| {
            Command::RecordComparison(RecordComparisonCommand {
                volume_id,
                epoch: volume.epoch.raw(),
                request: wanted,
                found: made.progress,
            })
        })
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
