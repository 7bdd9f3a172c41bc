//! From the state to its records.

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{LayerId, ReplicaId, SnapshotId, VolumeId};

use crate::state::request::Remembered;
use crate::state::{
    Chap, CloneOrigin, Damage, Doomed, Event, GroupStage, NodeOnRecord, Phase, Replica,
    ReplicaMode, Reservations, Severity, Snapshot, SnapshotGroup, SnapshotState, State, Task,
    TaskKind, Volume, Wear, WriteCache,
};

pub(super) fn cluster(state: &State) -> rpc::ClusterRecord {
    rpc::ClusterRecord {
        cluster_id: state
            .cluster_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        next_layer: state.next_layer,
        next_event: state.events.next,
        next_request: state.requests.next,
    }
}

pub(super) fn volume(volume: &Volume) -> rpc::VolumeRecord {
    let (phase, node) = phase(&volume.phase);
    rpc::VolumeRecord {
        id: volume.id.to_string(),
        name: volume.name.clone(),
        size_bytes: volume.size.bytes(),
        phase: phase.into(),
        node,
        port: volume.port.into(),
        worker: volume
            .worker
            .as_ref()
            .map(|w| w.node.to_string())
            .unwrap_or_default(),
        worker_ending: volume.worker.as_ref().is_some_and(|worker| worker.ending),
        epoch: volume.epoch.raw(),
        restart_epoch: volume.restart_epoch.raw(),
        replicas: volume
            .replicas
            .iter()
            .map(|(id, replica)| copy(*id, replica))
            .collect(),
        head: volume.head.raw(),
        layers: volume
            .layers
            .iter()
            .map(|(id, parent)| layer(*id, *parent))
            .collect(),
        tasks: volume.tasks.iter().map(task).collect(),
        next_task: volume.next_task,
        refused: volume.refused.iter().map(refused).collect(),
        credential: volume.credential.as_bytes().to_vec(),
        revision: volume.revision,
        created_at_ms: volume.created_at_ms,
        replica_count: volume.replica_count,
        // What is as it is by default takes no place, as in records of older managers.
        write_cache: match volume.write_cache {
            WriteCache::On => rpc::WriteCache::Unspecified.into(),
            WriteCache::Off => rpc::WriteCache::Off.into(),
        },
        rebuild_bytes_per_second: volume.rebuild_bytes_per_second,
        chap: volume.chap.as_ref().map(Chap::to_message),
        repaired_blocks: volume.repaired_blocks,
        scrub_request: volume.scrub.request,
        scrub_asked_at_ms: volume.scrub.asked_at_ms,
        comparison_request: volume.comparison.request,
        comparison_ordered_at_ms: volume.comparison.ordered_at_ms,
        compared_request: volume.comparison.made,
        compared: volume.comparison.told(),
        source_snapshot_id: origin_text(volume, |origin| origin.snapshot.to_string()),
        source_volume_id: origin_text(volume, |origin| origin.volume.to_string()),
        source_layer: volume.origin.map_or(0, |origin| origin.layer.raw()),
    }
}

fn origin_text(volume: &Volume, of: impl Fn(CloneOrigin) -> String) -> String {
    volume.origin.map(of).unwrap_or_default()
}

fn phase(phase: &Phase) -> (rpc::VolumePhase, String) {
    let record = match phase {
        Phase::Creating => rpc::VolumePhase::Creating,
        Phase::Detached => rpc::VolumePhase::Detached,
        Phase::Attached(_) => rpc::VolumePhase::Attached,
        Phase::Detaching(_) => rpc::VolumePhase::Detaching,
        Phase::Deleting => rpc::VolumePhase::Deleting,
    };
    (
        record,
        phase.node().map(ToString::to_string).unwrap_or_default(),
    )
}

fn copy(id: ReplicaId, replica: &Replica) -> rpc::ReplicaRecord {
    rpc::ReplicaRecord {
        id: id.to_string(),
        node: replica.node.to_string(),
        disk_id: replica.disk.to_string(),
        mode: mode(replica.mode).into(),
        reason: replica.reason.clone(),
        since_ms: replica.since_ms,
        mode_revision: replica.mode_revision,
        wear: Some(wear(&replica.wear)).filter(|_| replica.wear != Wear::default()),
        independent: replica.independent,
        source_replica_id: optional(replica.source),
    }
}

fn wear(wear: &Wear) -> rpc::WearRecord {
    let (repairs_epoch, repairs_told) = wear.repairs_told;
    rpc::WearRecord {
        repaired_blocks: wear.repaired_blocks,
        repairs_epoch: repairs_epoch.raw(),
        repairs_told,
        damaged_blocks: wear.damaged_blocks,
        damages: wear.damages.iter().map(damage).collect(),
        faults: wear.faults,
        found_blocks: wear.found_blocks,
        day_began_ms: wear.day_began_ms,
        mended_blocks: wear.mended_blocks,
        last_fault_ms: wear.last_fault_ms,
    }
}

/// A damage as commands, orders and records carry it.
pub(super) fn damage(damage: &Damage) -> rpc::Damage {
    rpc::Damage {
        layer: damage.layer.to_string(),
        offset: damage.offset,
        ..rpc::Damage::default()
    }
}

/// The mode's name in the public contract.
pub(super) const fn mode(mode: ReplicaMode) -> rpc::ReplicaMode {
    match mode {
        ReplicaMode::Creating => rpc::ReplicaMode::Creating,
        ReplicaMode::InSync => rpc::ReplicaMode::InSync,
        ReplicaMode::OutOfSync => rpc::ReplicaMode::OutOfSync,
        ReplicaMode::Rebuilding => rpc::ReplicaMode::Rebuilding,
        ReplicaMode::Deleting => rpc::ReplicaMode::Deleting,
    }
}

/// An id that may be missing.
fn optional(id: Option<impl ToString>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn layer(id: LayerId, parent: Option<LayerId>) -> rpc::LayerRecord {
    rpc::LayerRecord {
        id: id.raw(),
        parent: parent.map_or(0, LayerId::raw),
    }
}

fn task(task: &Task) -> rpc::TaskRecord {
    let id = task.id;
    let of_snapshot = |snapshot: SnapshotId, new_head: LayerId, revert| rpc::TaskRecord {
        id,
        new_head: new_head.raw(),
        snapshot_id: snapshot.to_string(),
        revert,
        ..Default::default()
    };
    match task.kind {
        TaskKind::Seal { snapshot, new_head } => of_snapshot(snapshot, new_head, false),
        TaskKind::Revert { snapshot, new_head } => of_snapshot(snapshot, new_head, true),
        TaskKind::Expand { size } => rpc::TaskRecord {
            id,
            expand_bytes: size.bytes(),
            ..Default::default()
        },
    }
}

fn refused((id, reason): &(u64, String)) -> rpc::RefusedTaskRecord {
    rpc::RefusedTaskRecord {
        id: *id,
        reason: reason.clone(),
    }
}

pub(super) fn snapshot(snapshot: &Snapshot) -> rpc::SnapshotRecord {
    let state = match snapshot.state {
        SnapshotState::Creating => rpc::SnapshotState::Creating,
        SnapshotState::Ready => rpc::SnapshotState::Ready,
        SnapshotState::Deleting => rpc::SnapshotState::Deleting,
    };
    rpc::SnapshotRecord {
        id: snapshot.id.to_string(),
        name: snapshot.name.clone(),
        volume_id: snapshot.volume.to_string(),
        layer: snapshot.layer.map_or(0, LayerId::raw),
        state: state.into(),
        created_at_ms: snapshot.created_at_ms,
        size_bytes: snapshot.size.bytes(),
        group_id: optional(snapshot.group),
    }
}

pub(super) fn group(group: &SnapshotGroup) -> rpc::SnapshotGroupRecord {
    let (stage, reason) = match &group.stage {
        GroupStage::Gather => (rpc::SnapshotGroupStage::Gather, ""),
        GroupStage::Hold => (rpc::SnapshotGroupStage::Hold, ""),
        GroupStage::Release => (rpc::SnapshotGroupStage::Release, ""),
        GroupStage::Undone { reason } => (rpc::SnapshotGroupStage::Undone, reason.as_str()),
    };
    let members = group.members.iter();
    let members = members.map(|(volume, member)| rpc::SnapshotGroupMemberRecord {
        volume_id: volume.to_string(),
        snapshot_id: member.snapshot.to_string(),
        task_id: member.task,
        sealed: member.sealed,
    });
    rpc::SnapshotGroupRecord {
        id: group.id.to_string(),
        name: group.name.clone(),
        stage: stage.into(),
        since_ms: group.since_ms,
        members: members.collect(),
        reason: reason.to_owned(),
    }
}

pub(super) fn reservations(volume: VolumeId, one: &Reservations) -> rpc::ReservationsRecord {
    rpc::ReservationsRecord {
        volume_id: volume.to_string(),
        epoch: one.epoch.raw(),
        number: one.number,
        reservations: one.bytes.clone(),
        revision: one.revision,
    }
}

pub(super) fn node(node: &NodeOnRecord) -> rpc::NodeRecord {
    let disks = node.disks.iter().map(|(id, disk)| rpc::DiskRecord {
        id: id.to_string(),
        path: disk.path.clone(),
        capacity_bytes: disk.capacity_bytes,
    });
    rpc::NodeRecord {
        name: node.name.to_string(),
        zone: node.zone.clone(),
        has_blockd: node.has_blockd,
        has_agent: node.has_agent,
        block_address: node.block_address.clone(),
        disks: disks.collect(),
        down: node.down,
        message: node.message.clone(),
        block_socket: node.block_socket.clone(),
        rebuild_bytes_per_second: node.rebuild_bytes_per_second,
        revision: node.revision,
    }
}

pub(super) fn doomed(id: ReplicaId, doomed: &Doomed) -> rpc::DoomedRecord {
    rpc::DoomedRecord {
        replica_id: id.to_string(),
        node: doomed.node.to_string(),
        disk_id: doomed.disk.to_string(),
        volume_id: doomed.volume.to_string(),
    }
}

pub(super) fn event(number: u64, event: &Event) -> rpc::Event {
    let severity = match event.severity {
        Severity::Info => rpc::Severity::Info,
        Severity::Warning => rpc::Severity::Warning,
        Severity::Error => rpc::Severity::Error,
    };
    rpc::Event {
        number,
        at_ms: event.at_ms,
        severity: severity.into(),
        kind: event.kind.clone(),
        subject: event.subject.clone(),
        message: event.message.clone(),
    }
}

pub(super) fn request(request: &Remembered) -> rpc::RequestRecord {
    rpc::RequestRecord {
        request_id: request.id.clone(),
        at_ms: request.at_ms,
        call: request.call.clone(),
        answer: Some(request.answer.clone()),
    }
}
