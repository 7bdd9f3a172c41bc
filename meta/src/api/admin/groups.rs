//! Snapshots of several volumes as one cut.

use std::collections::BTreeSet;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{SnapshotGroupId, SnapshotId};
use tonic::Status;

use super::Sight;
use crate::api::{Desk, Seat, validate, view};
use crate::state::{GROUP_MEMBERS_MAX, Refusal, SnapshotState};

impl<S: Seat> Desk<S> {
    pub(super) async fn create_snapshot_group_here(
        &self,
        request: rpc::CreateSnapshotGroupRequest,
    ) -> Result<rpc::ListSnapshotsResponse, Status> {
        let name = validate::name("snapshot", &request.name)?;
        let count = request.volumes.len();
        if !(1..=GROUP_MEMBERS_MAX).contains(&count) {
            let text = format!("a group has 1 to {GROUP_MEMBERS_MAX} volumes, not {count}");
            return Err(Status::invalid_argument(text));
        }
        let group_id = SnapshotGroupId::random().to_string();
        let make = |sight: &Sight<'_>| {
            let mut seen = BTreeSet::new();
            let mut members = Vec::new();
            for text in &request.volumes {
                let volume = sight.volume(text)?;
                if !seen.insert(volume.id) {
                    let twice = Refusal::VolumeTwice(volume.name.clone());
                    return Err(Status::invalid_argument(twice.to_string()));
                }
                members.push(rpc::GroupMember {
                    volume_id: volume.id.to_string(),
                    snapshot_id: SnapshotId::random().to_string(),
                });
            }
            Ok(Command::CreateSnapshotGroup(
                rpc::CreateSnapshotGroupCommand {
                    group_id: group_id.clone(),
                    name: name.clone(),
                    members,
                },
            ))
        };
        let answer = self
            .act("CreateSnapshotGroup", &request.request_id, make)
            .await?;
        let group: SnapshotGroupId = answer
            .group_id
            .parse()
            .map_err(|_| Status::internal("the managers' record names no group; report this"))?;
        self.effect("no outcome of the group was agreed on", |sight| {
            sight.outcome(group)
        })
        .await
    }
}

impl Sight<'_> {
    /// The snapshots of a group, or why there are none; nothing while that is open.
    fn outcome(&self, id: SnapshotGroupId) -> Option<Result<rpc::ListSnapshotsResponse, Status>> {
        if let Some(group) = self.state.groups().get(&id) {
            let reason = group.failure()?;
            let text = format!("no snapshot of the group was taken: {reason}");
            return Some(Err(Status::failed_precondition(text)));
        }
        let all = self.state.snapshots().values();
        let ready = all.filter(|one| one.group == Some(id) && one.state == SnapshotState::Ready);
        let snapshots: Vec<rpc::Snapshot> =
            ready.map(|one| view::snapshot(self.state, one)).collect();
        if snapshots.is_empty() {
            let text = "the snapshots of the group are gone: they were deleted, or never taken";
            return Some(Err(Status::failed_precondition(text)));
        }
        Some(Ok(rpc::ListSnapshotsResponse { snapshots }))
    }
}
