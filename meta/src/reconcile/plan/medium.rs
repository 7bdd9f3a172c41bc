//! Scrubs, and what they and reads found.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{RecordDamagesCommand, RecordRepairsCommand, ScrubVolumeCommand};
use ankole_proto::{Epoch, ReplicaId};

use super::{Commands, View};
use crate::reconcile::{Sight, Stored};
use crate::state::{DAMAGES_MAX, Replica, ReplicaMode, Volume, record};

/// How long after a scrub the next is ordered: a week. Bits rot slowly, and a scrub reads
/// everything.
pub const SCRUB_INTERVAL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How long a scrub keeps the next from being ordered: what hangs must not end all scrubbing.
const SCRUB_PATIENCE_MS: u64 = 24 * 60 * 60 * 1000;

impl View<'_> {
    pub(super) fn medium(self, commands: &mut Commands) {
        for volume in self.state.volumes().values() {
            for (id, replica) in volume.live() {
                commands.extend(self.damages(volume, id, replica));
                commands.extend(self.repairs(volume, id, replica));
            }
        }
        commands.extend(self.periodic_scrub());
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

    /// The volume that was not scrubbed for the longest time, when that is long, one at a time.
    fn periodic_scrub(self) -> Option<Command> {
        let volumes = self.state.volumes().values();
        let busy = volumes.clone().any(|volume| self.is_scrubbed(volume));
        let last = |volume: &Volume| {
            let asked = volume.scrub.asked_at_ms.max(volume.created_at_ms);
            asked.max(self.scrubbed_by_itself(volume))
        };
        let due = volumes
            .filter(|volume| volume.may_be_scrubbed())
            .min_by_key(|volume| last(volume))
            .filter(|volume| self.now.wall_ms.saturating_sub(last(volume)) >= SCRUB_INTERVAL_MS)?;
        (!busy).then(|| {
            Command::ScrubVolume(ScrubVolumeCommand {
                volume_id: due.id.to_string(),
                periodic: true,
            })
        })
    }

    /// When the last of its replicas was scrubbed, whoever asked for it: a blockd scrubs by itself
    /// what nobody asks it to. 0 when one has not told of any.
    fn scrubbed_by_itself(self, volume: &Volume) -> u64 {
        let in_sync = volume.in_mode(ReplicaMode::InSync);
        let ended = in_sync.map(|(id, replica)| {
            match self.observed.sight(&replica.node, replica.disk, id) {
                Sight::Stored(stored) => stored.scrub.finished_at_ms,
                _ => 0,
            }
        });
        ended.min().unwrap_or(0)
    }

    /// Whether a replica of the volume is being scrubbed, or is to begin. One that does not for too
    /// long holds nobody up.
    fn is_scrubbed(self, volume: &Volume) -> bool {
        let since_ms = self.now.wall_ms.saturating_sub(volume.scrub.asked_at_ms);
        since_ms < SCRUB_PATIENCE_MS
            && volume.in_mode(ReplicaMode::InSync).any(|(id, replica)| {
                match self.observed.sight(&replica.node, replica.disk, id) {
                    Sight::Stored(stored) => {
                        scrub_runs(stored) || stored.scrub_request < volume.scrub.request
                    }
                    _ => false,
                }
            })
    }
}

const fn scrub_runs(stored: &Stored) -> bool {
    stored.scrub.started_at_ms > 0 && stored.scrub.finished_at_ms == 0
}
