//! Snapshots: taking, deleting, going back.

use ankole_proto::SnapshotId;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer};
use tonic::Status;

use super::Sight;
use crate::api::{Desk, Seat, validate, view};
use crate::state::SnapshotState;

impl<S: Seat> Desk<S> {
    pub(super) async fn create_snapshot_here(
        &self,
        request: rpc::CreateSnapshotRequest,
    ) -> Result<rpc::Snapshot, Status> {
        let name = validate::name("snapshot", &request.name)?;
        let snapshot_id = SnapshotId::random().to_string();
        let make = |sight: &Sight<'_>| {
            Ok(Command::CreateSnapshot(rpc::CreateSnapshotCommand {
                volume_id: sight.volume(&request.volume)?.id.to_string(),
                snapshot_id: snapshot_id.clone(),
                name: name.clone(),
            }))
        };
        let answer = self
            .act("CreateSnapshot", &request.request_id, make)
            .await?;
        let done = |sight: &Sight<'_>| {
            if let Some(refused) = refused(sight, &answer) {
                return Some(Err(refused));
            }
            let id = answer.snapshot_id.parse().ok();
            match id.and_then(|id: SnapshotId| sight.state.snapshots().get(&id)) {
                None => Some(Err(Status::not_found("the snapshot was deleted meanwhile"))),
                Some(snapshot) if snapshot.state == SnapshotState::Creating => None,
                Some(snapshot) => Some(Ok(view::snapshot(sight.state, snapshot))),
            }
        };
        self.effect("no engine took the snapshot", done).await
    }

    pub(super) async fn delete_snapshot_here(
        &self,
        request: rpc::DeleteSnapshotRequest,
    ) -> Result<rpc::DeleteSnapshotResponse, Status> {
        let make = |sight: &Sight<'_>| {
            let volume = sight.volume(&request.volume)?;
            let snapshot_id = sight.snapshot(volume, &request.snapshot)?.id.to_string();
            Ok(Command::DeleteSnapshot(rpc::DeleteSnapshotCommand {
                snapshot_id,
            }))
        };
        self.act("DeleteSnapshot", &request.request_id, make)
            .await?;
        Ok(rpc::DeleteSnapshotResponse {})
    }

    pub(super) async fn revert_volume_here(
        &self,
        request: rpc::RevertVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let make = |sight: &Sight<'_>| {
            let volume = sight.volume(&request.volume)?;
            // Whether initiators are logged in is the engine's to say: what it last reported is
            // older than the last logout.
            Ok(Command::RevertVolume(rpc::RevertVolumeCommand {
                volume_id: volume.id.to_string(),
                snapshot_id: sight.snapshot(volume, &request.snapshot)?.id.to_string(),
            }))
        };
        let answer = self.act("RevertVolume", &request.request_id, make).await?;
        self.task_is_done(&answer, "no engine reverted the volume")
            .await
    }

    /// Waits until the task of an answer is done, and tells of its volume.
    pub(super) async fn task_is_done(
        &self,
        answer: &LogAnswer,
        otherwise: &str,
    ) -> Result<rpc::Volume, Status> {
        let done = |sight: &Sight<'_>| {
            let volume = match sight.volume(&answer.volume_id) {
                Ok(volume) => volume,
                Err(gone) => return Some(Err(gone)),
            };
            if let Some(refused) = refused(sight, answer) {
                return Some(Err(refused));
            }
            (!volume.task_waits(answer.task_id)).then(|| Ok(sight.tell(volume)))
        };
        self.effect(otherwise, done).await
    }
}

/// What the engine said when it refused the task of an answer.
fn refused(sight: &Sight<'_>, answer: &LogAnswer) -> Option<Status> {
    let volume = sight.state.volume_named(&answer.volume_id)?;
    let reason = volume.refusal_of(answer.task_id)?;
    Some(Status::failed_precondition(format!(
        "the engine refused: {reason}"
    )))
}
