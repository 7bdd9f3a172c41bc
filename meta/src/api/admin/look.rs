//! Calls that only look.

use ankole_proto::rpc::v1 as rpc;
use tonic::Status;

use super::Sight;
use crate::api::{Desk, Seat, validate, view};
use crate::state::{Snapshot, Volume};

const EVENTS_DEFAULT: usize = 100;
const EVENTS_MAX: usize = 1000;

impl Sight<'_> {
    /// The volume that a caller names.
    pub(super) fn volume(&self, text: &str) -> Result<&Volume, Status> {
        self.state.volume_named(text).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            let text = format!("there is no volume {shown:?}; list the volumes to see their names");
            Status::not_found(text)
        })
    }

    /// The snapshot of a volume that a caller names.
    pub(super) fn snapshot(&self, volume: &Volume, text: &str) -> Result<&Snapshot, Status> {
        self.state.snapshot_named(volume.id, text).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            let (name, hint) = (&volume.name, "list its snapshots to see their names");
            Status::not_found(format!("volume {name:?} has no snapshot {shown:?}; {hint}"))
        })
    }

    /// The volume as it is told.
    pub(super) fn tell(&self, volume: &Volume) -> rpc::Volume {
        view::volume(self.state, self.observed, self.now, volume)
    }
}

impl<S: Seat> Desk<S> {
    pub(super) async fn get_volume_here(
        &self,
        request: rpc::GetVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        self.seat.read().await?;
        self.sight(|sight| Ok(sight.tell(sight.volume(&request.volume)?)))
    }

    pub(super) async fn list_volumes_here(
        &self,
        _: rpc::ListVolumesRequest,
    ) -> Result<rpc::ListVolumesResponse, Status> {
        self.seat.read().await?;
        let mut volumes: Vec<rpc::Volume> = self.sight(|sight| {
            sight
                .state
                .volumes()
                .values()
                .map(|one| sight.tell(one))
                .collect()
        });
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(rpc::ListVolumesResponse { volumes })
    }

    pub(super) async fn list_snapshots_here(
        &self,
        request: rpc::ListSnapshotsRequest,
    ) -> Result<rpc::ListSnapshotsResponse, Status> {
        self.seat.read().await?;
        self.sight(|sight| {
            let of = match request.volume.as_str() {
                "" => None,
                text => Some(sight.volume(text)?.id),
            };
            let wanted = sight
                .state
                .snapshots()
                .values()
                .filter(|one| of.is_none_or(|id| one.volume == id));
            let mut snapshots: Vec<_> =
                wanted.map(|one| view::snapshot(sight.state, one)).collect();
            snapshots.sort_by(|one, other| {
                let key = |one: &rpc::Snapshot| (one.volume_id.clone(), one.created_at_ms);
                key(one).cmp(&key(other))
            });
            Ok(rpc::ListSnapshotsResponse { snapshots })
        })
    }

    pub(super) fn cluster_here(&self) -> rpc::Cluster {
        let group = self.seat.group();
        let id = self
            .seat
            .with_state(|state| state.cluster_id().map(|id| id.to_string()));
        let managers = group.members.into_iter().map(|member| rpc::Manager {
            id: member.id,
            address: member.address,
            leader: member.id == group.leader,
            matched: member.matched,
        });
        rpc::Cluster {
            id: id.unwrap_or_default(),
            managers: managers.collect(),
            leader: group.leader,
            term: group.term,
            applied: group.applied,
        }
    }

    pub(super) async fn list_nodes_here(
        &self,
        _: rpc::ListNodesRequest,
    ) -> Result<rpc::ListNodesResponse, Status> {
        self.seat.read().await?;
        let nodes = self.sight(|sight| view::nodes(sight.state, sight.observed, sight.now));
        Ok(rpc::ListNodesResponse { nodes })
    }

    pub(super) async fn get_node_here(
        &self,
        request: rpc::GetNodeRequest,
    ) -> Result<rpc::Node, Status> {
        let name = validate::node(&request.name)?;
        self.seat.read().await?;
        let nodes = self.sight(|sight| view::nodes(sight.state, sight.observed, sight.now));
        let found = nodes.into_iter().find(|node| node.name == name.as_str());
        found.ok_or_else(|| {
            let text = format!("there is no node {name}; list the nodes to see which report");
            Status::not_found(text)
        })
    }

    pub(super) async fn list_events_here(
        &self,
        request: rpc::ListEventsRequest,
    ) -> Result<rpc::ListEventsResponse, Status> {
        let limit = match usize::try_from(request.limit).unwrap_or(EVENTS_MAX) {
            0 => EVENTS_DEFAULT,
            limit => limit.min(EVENTS_MAX),
        };
        self.seat.read().await?;
        let events = self.seat.with_state(|state| {
            let found: Vec<_> = state.events().after(request.after).collect();
            // Without a place to go on from, the newest are wanted.
            let skipped = if request.after == 0 {
                found.len().saturating_sub(limit)
            } else {
                0
            };
            let page = found.into_iter().skip(skipped).take(limit);
            page.map(|(number, event)| view::event(number, event))
                .collect()
        });
        Ok(rpc::ListEventsResponse { events })
    }
}
