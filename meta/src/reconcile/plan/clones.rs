//! Replicas of clones that are being created: stored, or given up.

use ankole_proto::ReplicaId;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{GiveUpCloneCommand, ReplicaCreatedCommand};

use super::{Commands, View};
use crate::reconcile::{Liveness, Sight, StoredState, liveness};
use crate::state::{Phase, Replica, ReplicaMode, Volume};

/// How long a replica of a clone may take when another one is there already: it can be built from
/// that.
const WITH_OTHERS_MS: u64 = 15_000;

/// How long when there is none yet: the source may be settling after an unclean stop.
const ALONE_MS: u64 = 120_000;

impl View<'_> {
    pub(super) fn clones(self, commands: &mut Commands) {
        let volumes = self.state.volumes().values();
        for volume in volumes.filter(|one| is_clone_in_the_making(one)) {
            for (id, replica) in volume.in_mode(ReplicaMode::Creating) {
                commands.extend(self.clone_replica(volume, id, replica));
            }
        }
    }

    fn clone_replica(self, volume: &Volume, id: ReplicaId, replica: &Replica) -> Option<Command> {
        let (volume_id, replica_id) = (volume.id.to_string(), id.to_string());
        let sight = self.observed.sight(&replica.node, replica.disk, id);
        if matches!(sight, Sight::Stored(stored) if stored.state == StoredState::Ready) {
            return Some(Command::ReplicaCreated(ReplicaCreatedCommand {
                volume_id,
                replica_id,
            }));
        }
        let reason = self.cannot_be_made(volume, replica, sight)?;
        Some(Command::GiveUpClone(GiveUpCloneCommand {
            volume_id,
            replica_id,
            reason,
        }))
    }

    /// Why a replica will not come about.
    fn cannot_be_made(
        self,
        volume: &Volume,
        replica: &Replica,
        sight: Sight<'_>,
    ) -> Option<String> {
        match sight {
            Sight::Stored(stored) => return Some(stored.message.clone()),
            Sight::DiskFault => return Some("its disk is faulted or gone".to_owned()),
            Sight::Missing | Sight::Unseen => {}
        }
        let origin = volume
            .origin
            .and_then(|one| self.state.volumes().get(&one.volume));
        let source = replica.source.and_then(|id| origin?.replicas.get(&id));
        if source.is_none_or(|one| one.mode != ReplicaMode::InSync) {
            return Some("its source is not in sync any more".to_owned());
        }
        let live = liveness(self.state, self.observed, self.now, &replica.node);
        if matches!(live, Liveness::Down { .. }) {
            return Some("its node is down".to_owned());
        }
        let others = volume.in_mode(ReplicaMode::InSync).next().is_some();
        let limit_ms = if others { WITH_OTHERS_MS } else { ALONE_MS };
        let waited_ms = self.now.wall_ms.saturating_sub(replica.since_ms);
        (waited_ms > limit_ms).then(|| format!("it was not made within {} s", limit_ms / 1000))
    }
}

/// Whether the volume's replicas are made of those of another one.
pub(super) fn is_clone_in_the_making(volume: &Volume) -> bool {
    volume.phase == Phase::Creating && volume.origin.is_some()
}
