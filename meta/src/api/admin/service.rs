//! Each call to whoever carries it out.

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use crate::api::forward::{on_leader, passed_on};
use crate::api::{Desk, MESSAGE_BYTES_MAX, Seat, Turn, watch};

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

    async fn restart_volume(
        &self,
        request: Request<rpc::RestartVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(
            self,
            request,
            AdminClient.restart_volume,
            restart_volume_here
        )
    }

    async fn update_volume(
        &self,
        request: Request<rpc::UpdateVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.update_volume, update_volume_here)
    }

    async fn expand_volume(
        &self,
        request: Request<rpc::ExpandVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.expand_volume, expand_volume_here)
    }

    async fn scrub_volume(
        &self,
        request: Request<rpc::ScrubVolumeRequest>,
    ) -> Result<Response<rpc::Volume>, Status> {
        on_leader!(self, request, AdminClient.scrub_volume, scrub_volume_here)
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

    async fn create_snapshot_group(
        &self,
        request: Request<rpc::CreateSnapshotGroupRequest>,
    ) -> Result<Response<rpc::ListSnapshotsResponse>, Status> {
        on_leader!(
            self,
            request,
            AdminClient.create_snapshot_group,
            create_snapshot_group_here
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
