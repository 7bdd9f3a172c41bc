//! Creating, deleting, attaching and detaching volumes.

use std::collections::BTreeSet;
use std::time::Duration;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer};
use ankole_proto::{Credential, NodeName, ReplicaId, VolumeId};
use tonic::Status;

use super::Sight;
use crate::api::{Desk, Seat, validate, view};
use crate::reconcile::{Liveness, Want, agent_alive, place};
use crate::state::{PhaseKind, ReplicaMode, Volume};

/// How long a deletion waits for the replicas to go; then it goes on by itself.
const DELETE_WAIT: Duration = Duration::from_secs(10);

impl<S: Seat> Desk<S> {
    pub(super) async fn create_volume_here(
        &self,
        request: rpc::CreateVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let name = validate::name("volume", &request.name)?;
        if !request.source_snapshot_id.is_empty() {
            return self.clone_volume_here(name, request).await;
        }
        let size = validate::size(request.size_bytes)?;
        let count = validate::replica_count(request.replica_count)?;
        let chap = validate::chap(request.chap.as_ref())?;
        validate::rebuild_rate(request.rebuild_bytes_per_second)?;
        let volume_id = VolumeId::random().to_string();
        let credential = Credential::random().as_bytes().to_vec();
        let make = |sight: &Sight<'_>| {
            let want = Want {
                count,
                size,
                taken: BTreeSet::new(),
            };
            sight.name_is_free(&name)?;
            let places = place(sight.state, sight.observed, sight.now, &want)?;
            let placements = places.into_iter().map(|(node, disk)| rpc::Placement {
                replica_id: ReplicaId::random().to_string(),
                node: node.to_string(),
                disk_id: disk.to_string(),
                ..Default::default()
            });
            Ok(Command::CreateVolume(rpc::CreateVolumeCommand {
                volume_id: volume_id.clone(),
                name: name.clone(),
                size_bytes: size.bytes(),
                placements: placements.collect(),
                credential: credential.clone(),
                write_cache: request.write_cache,
                chap: chap.clone(),
                replica_count: u32::try_from(count).unwrap_or(u32::MAX),
                rebuild_bytes_per_second: request.rebuild_bytes_per_second,
                ..Default::default()
            }))
        };
        let answer = self.act("CreateVolume", &request.request_id, make).await?;
        let done = |_: &Sight<'_>, volume: &Volume| volume.phase.kind() != PhaseKind::Creating;
        self.settled(&answer, "its replicas were not all stored", done)
            .await
    }

    pub(super) async fn delete_volume_here(
        &self,
        request: rpc::DeleteVolumeRequest,
    ) -> Result<rpc::DeleteVolumeResponse, Status> {
        let make = |sight: &Sight<'_>| {
            let volume_id = sight.volume(&request.volume)?.id.to_string();
            let revision = request.revision;
            Ok(Command::DeleteVolume(rpc::DeleteVolumeCommand {
                volume_id,
                revision,
            }))
        };
        let answer = self.act("DeleteVolume", &request.request_id, make).await?;
        let gone = |sight: &Sight<'_>| {
            sight
                .state
                .volume_named(&answer.volume_id)
                .is_none()
                .then_some(Ok(()))
        };
        // What is left is deleted when its node is back; the caller need not wait for that.
        let _ = self
            .effect_within(DELETE_WAIT, "its replicas are not gone", gone)
            .await;
        Ok(rpc::DeleteVolumeResponse {})
    }

    pub(super) async fn attach_volume_here(
        &self,
        request: rpc::AttachVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let wanted = match request.node.as_str() {
            "" => None,
            name => Some(validate::node(name)?),
        };
        let make = |sight: &Sight<'_>| {
            let volume = sight.volume(&request.volume)?;
            let force = request.mode() == rpc::AttachMode::Force;
            let node = sight.node_for(volume, wanted.as_ref(), force)?;
            let port = sight.port_for(volume, &node)?;
            Ok(Command::AttachVolume(rpc::AttachVolumeCommand {
                volume_id: volume.id.to_string(),
                node: node.to_string(),
                port: port.into(),
                revision: request.revision,
                force,
            }))
        };
        let answer = self.act("AttachVolume", &request.request_id, make).await?;
        let done = |sight: &Sight<'_>, volume: &Volume| {
            let moved = volume.phase.kind() != PhaseKind::Attached;
            moved || view::serves(sight.observed, sight.now, volume)
        };
        self.settled(&answer, "its target did not serve", done)
            .await
    }

    pub(super) async fn detach_volume_here(
        &self,
        request: rpc::DetachVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let make = |sight: &Sight<'_>| {
            let volume_id = sight.volume(&request.volume)?.id.to_string();
            let revision = request.revision;
            Ok(Command::DetachVolume(rpc::DetachVolumeCommand {
                volume_id,
                revision,
            }))
        };
        let answer = self.act("DetachVolume", &request.request_id, make).await?;
        let done = |_: &Sight<'_>, volume: &Volume| volume.phase.kind() != PhaseKind::Detaching;
        self.settled(&answer, "its engine did not end", done).await
    }

    pub(super) async fn restart_volume_here(
        &self,
        request: rpc::RestartVolumeRequest,
    ) -> Result<rpc::Volume, Status> {
        let make = |sight: &Sight<'_>| {
            Ok(Command::RestartEngine(rpc::RestartEngineCommand {
                volume_id: sight.volume(&request.volume)?.id.to_string(),
                revision: request.revision,
            }))
        };
        let answer = self.act("RestartVolume", &request.request_id, make).await?;
        let done = |sight: &Sight<'_>, volume: &Volume| {
            let moved = volume.phase.kind() != PhaseKind::Attached;
            let newer = volume.epoch.raw() > answer.epoch;
            moved || (newer && view::serves(sight.observed, sight.now, volume))
        };
        self.settled(&answer, "its next engine did not serve", done)
            .await
    }

    /// Waits until the volume of an answer is as wanted, and tells of it.
    async fn settled(
        &self,
        answer: &LogAnswer,
        otherwise: &str,
        done: impl Fn(&Sight<'_>, &Volume) -> bool + Send + Sync,
    ) -> Result<rpc::Volume, Status> {
        let look = |sight: &Sight<'_>| match sight.volume(&answer.volume_id) {
            Err(gone) => Some(Err(gone)),
            Ok(volume) => done(sight, volume).then(|| Ok(sight.tell(volume))),
        };
        self.effect(otherwise, look).await
    }
}

impl Sight<'_> {
    /// Whether a new volume can have this name.
    pub(super) fn name_is_free(&self, name: &str) -> Result<(), Status> {
        let mut volumes = self.state.volumes().values();
        if volumes.any(|volume| volume.name == name) {
            let text = format!("a volume {name:?} exists; choose another name");
            return Err(Status::already_exists(text));
        }
        Ok(())
    }

    /// The node to attach to. By force one that is chosen is another than the present.
    fn node_for(
        &self,
        volume: &Volume,
        wanted: Option<&NodeName>,
        force: bool,
    ) -> Result<NodeName, Status> {
        let alive = |node: &NodeName| agent_alive(self.observed, self.now, node) == Liveness::Up;
        if let Some(node) = wanted {
            if alive(node) || volume.phase.node() == Some(node) {
                return Ok(node.clone());
            }
            let text = format!("no agent reports from node {node}; start one, or choose another");
            return Err(Status::failed_precondition(text));
        }
        let present = volume.phase.node();
        if let Some(node) = present.filter(|_| !force) {
            return Ok(node.clone());
        }
        let engines = |node: &NodeName| {
            self.state
                .volumes()
                .values()
                .filter(|one| one.phase.node() == Some(node))
                .count()
        };
        let holds = |node: &NodeName| {
            volume
                .in_mode(ReplicaMode::InSync)
                .any(|(_, replica)| replica.node == *node)
        };
        let agents = self.observed.agents.keys();
        agents
            .filter(|node| alive(node) && Some(*node) != present)
            .min_by_key(|node| (!holds(node), engines(node)))
            .cloned()
            .ok_or_else(|| {
                Status::failed_precondition("no agent reports; start one on the node to attach to")
            })
    }

    /// The port that the volume has or had there, or the first free one.
    fn port_for(&self, volume: &Volume, node: &NodeName) -> Result<u16, Status> {
        if volume.phase.node() == Some(node) {
            return Ok(volume.port);
        }
        let Some(agent) = self.observed.agents.get(node) else {
            return Ok(volume.port);
        };
        let others = self
            .state
            .volumes()
            .values()
            .filter(|one| one.phase.node() == Some(node));
        let taken: BTreeSet<u16> = others.map(|one| one.port).collect();
        let mut range = agent.said.port_first.max(1)..=agent.said.port_last;
        if range.contains(&volume.port) && !taken.contains(&volume.port) {
            return Ok(volume.port);
        }
        range.find(|port| !taken.contains(port)).ok_or_else(|| {
            let (first, last) = (agent.said.port_first, agent.said.port_last);
            let text = format!("every port of node {node} from {first} to {last} is taken");
            Status::resource_exhausted(format!("{text}; detach a volume or widen the range"))
        })
    }
}
