//! Changing a volume that exists: settings, size, scrubs.

use std::collections::BTreeSet;
use std::time::Duration;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::log_command::Command;
use tonic::Status;

use super::Sight;
use crate::api::{Desk, Seat, validate};
use crate::reconcile::{Liveness, Sight as Seen, Want, liveness, place, room_to_grow};
use crate::state::{ReplicaMode, Volume};

/// How long a call waits for scrubs to begin; each blockd takes them one after the other.
const SCRUB_WAIT: Duration = Duration::from_secs(10);

impl<S: Seat> Desk<S> {
    pub(super) async fn update_volume_here(
        &self,
        request: rpc::UpdateVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let chap = match &request.chap {
            None => None,
            Some(change) => Some(validate::chap(change.chap.as_ref())?),
        };
        if request.replica_count != 0 {
            validate::replica_count(request.replica_count)?;
        }
        validate::rebuild_rate(request.rebuild_bytes_per_second.unwrap_or(0))?;
        let make = |sight: &Sight<'_>| {
            let volume = sight.volume(&request.volume)?;
            sight.room_for(volume, request.replica_count)?;
            Ok(Command::UpdateVolume(rpc::UpdateVolumeCommand {
                volume_id: volume.id.to_string(),
                revision: request.revision,
                replica_count: request.replica_count,
                write_cache: request.write_cache,
                change_chap: chap.is_some(),
                chap: chap.clone().flatten(),
                rebuild_bytes_per_second: request.rebuild_bytes_per_second,
            }))
        };
        let answer = self.act("UpdateVolume", &request.request_id, make).await?;
        self.sight(|sight| Ok(sight.tell(sight.volume(&answer.volume_id)?)))
    }

    pub(super) async fn expand_volume_here(
        &self,
        request: rpc::ExpandVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let size = validate::size(request.size_bytes)?;
        let make = |sight: &Sight<'_>| {
            let volume = sight.volume(&request.volume)?;
            room_to_grow(sight.state, sight.observed, volume, size)?;
            Ok(Command::ExpandVolume(rpc::ExpandVolumeCommand {
                volume_id: volume.id.to_string(),
                size_bytes: size.bytes(),
                revision: request.revision,
            }))
        };
        let answer = self.act("ExpandVolume", &request.request_id, make).await?;
        self.task_is_done(&answer, "no engine has grown the volume")
            .await
    }

    pub(super) async fn scrub_volume_here(
        &self,
        request: rpc::ScrubVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let make = |sight: &Sight<'_>| {
            Ok(Command::ScrubVolume(rpc::ScrubVolumeCommand {
                volume_id: sight.volume(&request.volume)?.id.to_string(),
                periodic: false,
            }))
        };
        let answer = self.act("ScrubVolume", &request.request_id, make).await?;
        let begun = |sight: &Sight<'_>| match sight.volume(&answer.volume_id) {
            Err(gone) => Some(Err(gone)),
            Ok(volume) => sight
                .scrub_has_begun(volume)
                .then(|| Ok(sight.tell(volume))),
        };
        let otherwise = "not every replica has begun to be scrubbed";
        self.effect_within(SCRUB_WAIT, otherwise, begun).await
    }
}

impl Sight<'_> {
    /// Whether the replicas that a count asks for on top of those on record have a place.
    fn room_for(&self, volume: &Volume, count: u32) -> Result<(), Status> {
        let more = (count as usize).saturating_sub(volume.live().count());
        if more == 0 {
            return Ok(());
        }
        let taken: BTreeSet<_> = volume.live().map(|(_, one)| one.node.clone()).collect();
        let want = Want {
            count: more,
            size: volume.size_wanted(),
            taken,
        };
        place(self.state, self.observed, self.now, &want)?;
        Ok(())
    }

    /// Whether every in-sync replica on a node that is up has begun the last scrub.
    fn scrub_has_begun(&self, volume: &Volume) -> bool {
        volume.in_mode(ReplicaMode::InSync).all(|(id, replica)| {
            let live = liveness(self.state, self.observed, self.now, &replica.node);
            match self.observed.sight(&replica.node, replica.disk, id) {
                Seen::Stored(stored) => stored.scrub_request >= volume.scrub.request,
                Seen::Missing | Seen::DiskFault => true,
                Seen::Unseen => live != Liveness::Up,
            }
        })
    }
}
