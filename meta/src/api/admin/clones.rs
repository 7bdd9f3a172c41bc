//! Volumes that begin as a snapshot.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer};
use ankole_proto::{Credential, ReplicaId, SnapshotId, VolumeId};
use tonic::Status;

use super::Sight;
use crate::api::{Desk, Seat, validate};
use crate::reconcile::place_clone;
use crate::state::{PhaseKind, Snapshot, Volume};

impl<S: Seat> Desk<S> {
    pub(super) async fn clone_volume_here(
        &self,
        name: String,
        request: rpc::CreateVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        if request.size_bytes != 0 {
            validate::size(request.size_bytes)?;
        }
        let count = validate::replica_count(request.replica_count)?;
        let chap = validate::chap(request.chap.as_ref())?;
        validate::rebuild_rate(request.rebuild_bytes_per_second)?;
        let (volume_id, credential) = (VolumeId::random().to_string(), Credential::random());
        if self
            .carried_out("CreateVolume", &request.request_id)
            .is_none()
        {
            self.merges_are_over(&request.source_snapshot_id).await?;
        }
        let make = |sight: &Sight<'_>| {
            sight.name_is_free(&name)?;
            let (snapshot, source) = sight.source(&request.source_snapshot_id)?;
            let size = match request.size_bytes {
                0 => snapshot.size,
                bytes => validate::size(bytes)?,
            };
            let places = place_clone(sight.state, sight.observed, sight.now, source, size, count)?;
            let placements = places.into_iter().map(|place| rpc::Placement {
                replica_id: ReplicaId::random().to_string(),
                node: place.node.to_string(),
                disk_id: place.disk.to_string(),
                source_replica_id: place.replica.to_string(),
            });
            Ok(Command::CreateVolume(rpc::CreateVolumeCommand {
                volume_id: volume_id.clone(),
                name: name.clone(),
                size_bytes: size.bytes(),
                placements: placements.collect(),
                credential: credential.as_bytes().to_vec(),
                write_cache: request.write_cache,
                chap: chap.clone(),
                replica_count: u32::try_from(count).unwrap_or(u32::MAX),
                source_snapshot_id: snapshot.id.to_string(),
                rebuild_bytes_per_second: request.rebuild_bytes_per_second,
            }))
        };
        let answer = self.act("CreateVolume", &request.request_id, make).await?;
        self.effect("no replica was made of its source", |sight| {
            sight.cloned(&answer, &name)
        })
        .await
    }

    /// Waits until no layer that is to be shared is being merged: replicas do that each at its own
    /// pace, and clones of them would differ.
    async fn merges_are_over(&self, snapshot: &str) -> Result<(), Status> {
        self.seat.read().await?;
        let over = |sight: &Sight<'_>| match sight.source(snapshot) {
            Err(error) => Some(Err(error)),
            Ok((snapshot, source)) => {
                let merges = snapshot
                    .layer
                    .is_some_and(|layer| sight.state.merges_below(source, layer));
                (!merges).then_some(Ok(()))
            }
        };
        self.effect("a snapshot below it was still being deleted", over)
            .await
    }
}

impl Sight<'_> {
    /// The snapshot with this id, and its volume.
    fn source(&self, id: &str) -> Result<(&Snapshot, &Volume), Status> {
        let parsed = id.parse::<SnapshotId>();
        let snapshot = parsed
            .map_err(|error| Status::invalid_argument(error.to_string()))
            .map(|id| self.state.snapshots().get(&id))?;
        let volume = snapshot.and_then(|one| self.state.volumes().get(&one.volume));
        snapshot.zip(volume).ok_or_else(|| {
            let text = format!("there is no snapshot {id}; list the snapshots to see their ids");
            Status::not_found(text)
        })
    }

    /// What has become of a clone; nothing while that is open.
    fn cloned(&self, answer: &LogAnswer, name: &str) -> Option<Result<rpc::Volume, Status>> {
        let volume = self.state.volume_named(&answer.volume_id);
        match volume.map(|one| (one, one.phase.kind())) {
            Some((_, PhaseKind::Creating)) => None,
            Some((volume, PhaseKind::Detached | PhaseKind::Attached | PhaseKind::Detaching)) => {
                Some(Ok(self.tell(volume)))
            }
            Some((_, PhaseKind::Deleting)) | None => {
                let subject = format!("volume/{name}");
                let events = self.state.events().after(0);
                let failed = events
                    .filter(|(_, one)| one.kind == "CloneFailed" && one.subject == subject)
                    .last();
                let why = failed.map_or("it was deleted", |(_, event)| event.message.as_str());
                let text = format!("the clone did not come about: {why}");
                Some(Err(Status::failed_precondition(text)))
            }
        }
    }
}
