//! What scrubs, reads and comparisons found. Scrubs are begun by each blockd for its own replicas, or
//! asked for; comparisons of the replicas with each other are made by the volume's engine.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{
    OrderComparisonCommand, RecordComparisonCommand, RecordDamagesCommand, RecordRepairsCommand,
};
use ankole_proto::{Epoch, ReplicaId};

use super::{Commands, SILENT_MS, View};
use crate::reconcile::Sight;
use crate::state::{DAMAGES_MAX, Phase, Replica, ReplicaMode, Volume, record};

/// From the end of a comparison to the next one, of a volume that is attached.
const COMPARISON_PERIOD_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How many comparisons there may be in the cluster for the managers to order the next one that is
/// due: all read the same disks.
const COMPARISONS_MAX: usize = 2;

/// How long an engine may take to say that it has begun one.
const COMPARISON_BEGIN_MS: u64 = 60_000;

impl View<'_> {
    pub(super) fn medium(self, commands: &mut Commands) {
        let volumes = self.state.volumes().values();
        let under_way = volumes.filter(|volume| self.is_comparing(volume));
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

    /// Whether a comparison was ordered just now, or the volume's engine says that it makes one. Of an
    /// engine that does not know of comparisons nothing is heard, and it keeps nobody waiting.
    fn is_comparing(self, volume: &Volume) -> bool {
        let Some(wanted) = volume.wanted_comparison() else {
            return false;
        };
        let age_ms = self
            .now
            .wall_ms
            .saturating_sub(volume.comparison.ordered_at_ms);
        let seen = self.observed.engines.get(&volume.id);
        let fresh = seen.filter(|seen| self.now.tick.since_ms(seen.at.tick) <= SILENT_MS);
        let told = fresh.and_then(|seen| seen.said.comparison.as_ref());
        age_ms < COMPARISON_BEGIN_MS
            || told.is_some_and(|told| !told.finished && told.request <= wanted)
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

    /// What the engine's last comparison has found, when that is not on record.
    fn comparison(self, volume: &Volume) -> Option<Command> {
        let volume_id = volume.id.to_string();
        let engine = &self.observed.engines.get(&volume.id)?.said;
        let made = engine.comparison.as_ref()?;
        let (last, ordered) = (volume.comparison.made, volume.comparison.request);
        let is_news = made.request > last && made.request <= ordered;
        let is_it = engine.epoch == volume.epoch && made.finished && is_news;
        (is_it && volume.engine_node().is_some()).then(|| {
            Command::RecordComparison(RecordComparisonCommand {
                volume_id,
                epoch: volume.epoch.raw(),
                request: made.request,
                found: made.progress,
                alike_replicas: made.alike_replicas.clone(),
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
