//! `Admin`: what operators, the command line and CSI ask.

mod look;
mod snapshots;
mod volumes;

use std::time::Duration;

use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::admin_server::Admin;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status};

use super::forward::{on_leader, passed_on};
use super::{Desk, EFFECT_WAIT, MESSAGE_BYTES_MAX, Seat, Turn, status, validate, watch};
use crate::reconcile::{Now, Observed};
use crate::state::State;

/// How often a command is made anew when the state moved between making and applying it. Each time
/// another call has won, so this is how many may be made at the same moment: attaching a node's
/// volumes all at once, each after the next free port.
const ATTEMPTS_MAX: usize = 64;

/// What a command is made from, and what an effect shows in.
struct Sight<'a> {
    state: &'a State,
    observed: &'a Observed,
    now: Now,
}

impl<S: Seat> Desk<S> {
    fn sight<R>(&self, look: impl FnOnce(&Sight<'_>) -> R) -> R {
        let now = self.reports.now();
        self.seat.with_state(|state| {
            self.reports.look(|observed| {
                look(&Sight {
                    state,
                    observed,
                    now,
                })
            })
        })
    }

    /// Proposes the command that `make` makes, unless the request was carried out before.
    async fn act(
        &self,
        call: &'static str,
        request_id: &str,
        make: impl Fn(&Sight<'_>) -> Result<Command, Status> + Send + Sync,
    ) -> Result<LogAnswer, Status> {
        validate::request_id(request_id)?;
        let mut last = Status::aborted("the state keeps changing; try again");
        for _ in 0..ATTEMPTS_MAX {
            self.seat.read().await?;
            if let Some(answer) = self.carried_out(call, request_id) {
                return Ok(answer);
            }
            let command = LogCommand {
                request_id: request_id.to_owned(),
                at_ms: self.reports.now().wall_ms,
                command: Some(self.sight(&make)?),
            };
            let answer = self.seat.propose(command).await?;
            match &answer.refusal {
                None => return Ok(answer),
                Some(refusal) => last = status::refused(refusal),
            }
            if last.code() != Code::Aborted {
                break;
            }
        }
        Err(last)
    }

    /// The answer of the same call under the same request id.
    fn carried_out(&self, call: &str, request_id: &str) -> Option<LogAnswer> {
        self.seat.with_state(|state| {
            let (earlier, answer) = state.requests().find(request_id)?;
            (earlier == call).then(|| answer.clone())
        })
    }

    /// Waits until `done` answers, for at most [`EFFECT_WAIT`].
    async fn effect<T>(
        &self,
        what: &str,
        done: impl Fn(&Sight<'_>) -> Option<Result<T, Status>> + Send + Sync,
    ) -> Result<T, Status> {
        self.effect_within(EFFECT_WAIT, what, done).await
    }

    async fn effect_within<T>(
        &self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Sight<'_>) -> Option<Result<T, Status>> + Send + Sync,
    ) -> Result<T, Status> {
        let deadline = Instant::now() + limit;
        let (mut state, mut reports) = (self.seat.changed(), self.reports.changed());
        loop {
            state.borrow_and_update();
            reports.borrow_and_update();
            if let Some(result) = self.sight(&done) {
                return result;
            }
            let news = async {
                tokio::select! {
                    alive = state.changed() => alive,
                    alive = reports.changed() => alive,
                }
            };
            match timeout_at(deadline, news).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::unavailable("this manager is stopping")),
                Err(_) => {
                    let text = format!("recorded, but {what} within {} s", limit.as_secs());
                    return Err(Status::deadline_exceeded(text));
                }
            }
        }
    }
}

#[tonic::async_trait]
impl<S: Seat> Admin for Desk<S> {
    async fn create_volume(
        &self,
        request: Request<rpc::CreateVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.create_volume, create_volume_here)
    }

    async fn get_volume(
        &self,
        request: Request<rpc::GetVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.get_volume, get_volume_here)
    }

    async fn list_volumes(
        &self,
        request: Request<rpc::ListVolumesRequest>,
    ) -> Result<Response<rpc::ListVolumesResponse>, Status> {
        on_leader!(self, request, AdminClient.list_volumes, list_volumes_here)
    }

    async fn delete_volume(
        &self,
        request: Request<rpc::DeleteVolumeRequest>,
    ) -> Result<Response<rpc::DeleteVolumeResponse>, Status> {
        on_leader!(self, request, AdminClient.delete_volume, delete_volume_here)
    }

    async fn attach_volume(
        &self,
        request: Request<rpc::AttachVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.attach_volume, attach_volume_here)
    }

    async fn detach_volume(
        &self,
        request: Request<rpc::DetachVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.detach_volume, detach_volume_here)
    }

    async fn create_snapshot(
        &self,
        request: Request<rpc::CreateSnapshotRequest>,
    ) -> Result<Response<rpc::Snapshot>, Status> {
        on_leader!(
            self,
            request,
            AdminClient.create_snapshot,
            create_snapshot_here
        )
    }

    async fn list_snapshots(
        &self,
        request: Request<rpc::ListSnapshotsRequest>,
    ) -> Result<Response<rpc::ListSnapshotsResponse>, Status> {
        on_leader!(
            self,
            request,
            AdminClient.list_snapshots,
            list_snapshots_here
        )
    }

    async fn delete_snapshot(
        &self,
        request: Request<rpc::DeleteSnapshotRequest>,
    ) -> Result<Response<rpc::DeleteSnapshotResponse>, Status> {
        on_leader!(
            self,
            request,
            AdminClient.delete_snapshot,
            delete_snapshot_here
        )
    }

    async fn revert_volume(
        &self,
        request: Request<rpc::RevertVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.revert_volume, revert_volume_here)
    }

    async fn get_cluster(
        &self,
        request: Request<rpc::GetClusterRequest>,
    ) -> Result<Response<rpc::Cluster>, Status> {
        // Without a leader this manager still tells what it knows.
        match self.seat.turn(request.metadata()).await {
            Ok(Turn::Leaders(channel)) => {
                let (metadata, _, message) = request.into_parts();
                AdminClient::new(channel)
                    .get_cluster(passed_on(&metadata, message))
                    .await
            }
            Ok(Turn::Mine) | Err(_) => Ok(Response::new(self.cluster_here())),
        }
    }

    async fn list_nodes(
        &self,
        request: Request<rpc::ListNodesRequest>,
    ) -> Result<Response<rpc::ListNodesResponse>, Status> {
        on_leader!(self, request, AdminClient.list_nodes, list_nodes_here)
    }

    async fn get_node(
        &self,
        request: Request<rpc::GetNodeRequest>,
    ) -> Result<Response<rpc::Node>, Status> {
        on_leader!(self, request, AdminClient.get_node, get_node_here)
    }

    async fn list_events(
        &self,
        request: Request<rpc::ListEventsRequest>,
    ) -> Result<Response<rpc::ListEventsResponse>, Status> {
        on_leader!(self, request, AdminClient.list_events, list_events_here)
    }

    type WatchStream = watch::Items;

    async fn watch(
        &self,
        request: Request<rpc::WatchRequest>,
    ) -> Result<Response<watch::Items>, Status> {
        let (metadata, _, message) = request.into_parts();
        match self.seat.turn(&metadata).await? {
            Turn::Mine => self.watch_here().await.map(Response::new),
            Turn::Leaders(channel) => {
                let mut client =
                    AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
                let items = client
                    .watch(passed_on(&metadata, message))
                    .await?
                    .into_inner();
                Ok(Response::new(Box::pin(items) as watch::Items))
            }
        }
    }
}
