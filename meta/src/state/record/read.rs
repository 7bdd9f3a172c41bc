//! From records to the state.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{Credential, Epoch, LayerId, NodeName, ReplicaId, VolumeSize};

use crate::state::request::Remembered;
use crate::state::{
    Chap, CloneOrigin, Comparison, Damage, DiskOnRecord, Doomed, Event, GroupMember, GroupStage,
    NodeOnRecord, Phase, Replica, ReplicaMode, Reservations, Scrub, Severity, Snapshot,
    SnapshotGroup, SnapshotState, State, Task, TaskKind, Volume, Wear, Worker, WriteCache,
};

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// An id that may be missing.
fn optional<T: FromStr<Err: Display>>(text: &str) -> Result<Option<T>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some)
}

fn layer(raw: u64) -> Result<LayerId, String> {
    LayerId::from_raw(raw).ok_or_else(|| "layer 0".to_owned())
}

fn size(bytes: u64) -> Result<VolumeSize, String> {
    VolumeSize::from_bytes(bytes).map_err(|error| error.to_string())
}

fn unknown(what: &'static str) -> String {
    format!("an unknown {what}; it may be of a newer version")
}

pub(super) fn cluster(state: &mut State, record: &rpc::ClusterRecord) -> Result<(), String> {
    if record.next_layer == 0 || record.next_event == 0 || record.next_request == 0 {
        return Err("a counter is 0".to_owned());
    }
    if !record.cluster_id.is_empty() {
        state.cluster_id = Some(parse(&record.cluster_id)?);
    }
    state.next_layer = record.next_layer;
    state.events.next = record.next_event;
    state.requests.next = record.next_request;
    Ok(())
}

pub(super) fn volume(record: &rpc::VolumeRecord) -> Result<Volume, String> {
    let replicas = record
        .replicas
        .iter()
        .map(copy)
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let layers = record
        .layers
        .iter()
        .map(|link| Ok((layer(link.id)?, LayerId::from_raw(link.parent))))
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    let head = layer(record.head)?;
    if !layers.contains_key(&head) {
        return Err("the head is no layer of the tree".to_owned());
    }
    let worker = match record.worker.as_str() {
        "" => None,
        node => Some(Worker {
            node: parse(node)?,
            ending: record.worker_ending,
        }),
    };
    Ok(Volume {
        id: parse(&record.id)?,
        name: record.name.clone(),
        size: size(record.size_bytes)?,
        replica_count: record.replica_count,
        phase: phase(record)?,
        port: u16::try_from(record.port).map_err(|error| error.to_string())?,
        worker,
        epoch: Epoch::from_raw(record.epoch),
        restart_epoch: Epoch::from_raw(record.restart_epoch),
        replicas,
        head,
        layers,
        tasks: record.tasks.iter().map(task).collect::<Result<_, _>>()?,
        next_task: record.next_task,
        refused: record
            .refused
            .iter()
            .map(|one| (one.id, one.reason.clone()))
            .collect(),
        credential: Credential::from_slice(&record.credential)
            .ok_or("the credential has not 32 bytes")?,
        revision: record.revision,
        created_at_ms: record.created_at_ms,
        write_cache: write_cache(record.write_cache()),
        rebuild_bytes_per_second: record.rebuild_bytes_per_second,
        chap: chap(record.chap.as_ref())?,
        scrub: Scrub {
            request: record.scrub_request,
            asked_at_ms: record.scrub_asked_at_ms,
        },
        comparison: comparison(record),
        repaired_blocks: record.repaired_blocks,
        origin: origin(record)?,
    })
}

fn comparison(record: &rpc::VolumeRecord) -> Comparison {
    let found = record.compared.unwrap_or_default();
    Comparison {
        request: record.comparison_request,
        ordered_at_ms: record.comparison_ordered_at_ms,
        made: record.compared_request,
        finished_at_ms: found.finished_at_ms,
        total_bytes: found.total_bytes,
        differing_chunks: found.differing_chunks,
        undecided_chunks: found.undecided_chunks,
        skipped_chunks: found.skipped_chunks,
    }
}

fn origin(record: &rpc::VolumeRecord) -> Result<Option<CloneOrigin>, String> {
    if record.source_snapshot_id.is_empty() {
        return Ok(None);
    }
    Ok(Some(CloneOrigin {
        snapshot: parse(&record.source_snapshot_id)?,
        volume: parse(&record.source_volume_id)?,
        layer: layer(record.source_layer)?,
    }))
}

pub(super) const fn write_cache(message: rpc::WriteCache) -> WriteCache {
    match message {
        rpc::WriteCache::Off => WriteCache::Off,
        rpc::WriteCache::Unspecified | rpc::WriteCache::On => WriteCache::On,
    }
}

fn chap(record: Option<&rpc::Chap>) -> Result<Option<Chap>, String> {
    let read = record.map(Chap::from_message).transpose();
    read.map_err(|error| error.to_string())
}

fn phase(record: &rpc::VolumeRecord) -> Result<Phase, String> {
    Ok(match record.phase() {
        rpc::VolumePhase::Creating => Phase::Creating,
        rpc::VolumePhase::Detached => Phase::Detached,
        rpc::VolumePhase::Attached => Phase::Attached(parse(&record.node)?),
        rpc::VolumePhase::Detaching => Phase::Detaching(parse(&record.node)?),
        rpc::VolumePhase::Deleting => Phase::Deleting,
        rpc::VolumePhase::Unspecified => return Err(unknown("phase")),
    })
}

fn copy(record: &rpc::ReplicaRecord) -> Result<(ReplicaId, Replica), String> {
    let mode = match record.mode() {
        rpc::ReplicaMode::Creating => ReplicaMode::Creating,
        rpc::ReplicaMode::InSync => ReplicaMode::InSync,
        rpc::ReplicaMode::OutOfSync => ReplicaMode::OutOfSync,
        rpc::ReplicaMode::Rebuilding => ReplicaMode::Rebuilding,
        rpc::ReplicaMode::Deleting => ReplicaMode::Deleting,
        rpc::ReplicaMode::Unspecified => return Err(unknown("replica mode")),
    };
    let replica = Replica {
        node: parse(&record.node)?,
        disk: parse(&record.disk_id)?,
        mode,
        reason: record.reason.clone(),
        since_ms: record.since_ms,
        mode_revision: record.mode_revision,
        wear: record
            .wear
            .as_ref()
            .map(wear)
            .transpose()?
            .unwrap_or_default(),
        independent: record.independent,
        source: optional(&record.source_replica_id)?,
    };
    Ok((parse(&record.id)?, replica))
}

fn wear(record: &rpc::WearRecord) -> Result<Wear, String> {
    Ok(Wear {
        repaired_blocks: record.repaired_blocks,
        repairs_told: (Epoch::from_raw(record.repairs_epoch), record.repairs_told),
        damaged_blocks: record.damaged_blocks,
        damages: record
            .damages
            .iter()
            .map(damage)
            .collect::<Result<_, _>>()?,
        faults: record.faults,
        found_blocks: record.found_blocks,
        day_began_ms: record.day_began_ms,
        mended_blocks: record.mended_blocks,
        last_fault_ms: record.last_fault_ms,
    })
}

/// A damage as commands and records carry it.
pub(super) fn damage(message: &rpc::Damage) -> Result<Damage, String> {
    Ok(Damage {
        layer: parse(&message.layer)?,
        offset: message.offset,
    })
}

fn task(record: &rpc::TaskRecord) -> Result<Task, String> {
    let id = record.id;
    if record.expand_bytes > 0 {
        let size = size(record.expand_bytes)?;
        let kind = TaskKind::Expand { size };
        return Ok(Task { id, kind });
    }
    let (snapshot, new_head) = (parse(&record.snapshot_id)?, layer(record.new_head)?);
    let kind = if record.revert {
        TaskKind::Revert { snapshot, new_head }
    } else {
        TaskKind::Seal { snapshot, new_head }
    };
    Ok(Task { id, kind })
}

pub(super) fn snapshot(record: &rpc::SnapshotRecord) -> Result<Snapshot, String> {
    let state = match record.state() {
        rpc::SnapshotState::Creating => SnapshotState::Creating,
        rpc::SnapshotState::Ready => SnapshotState::Ready,
        rpc::SnapshotState::Deleting => SnapshotState::Deleting,
        rpc::SnapshotState::Unspecified => return Err(unknown("snapshot state")),
    };
    Ok(Snapshot {
        id: parse(&record.id)?,
        name: record.name.clone(),
        volume: parse(&record.volume_id)?,
        layer: LayerId::from_raw(record.layer),
        state,
        created_at_ms: record.created_at_ms,
        size: size(record.size_bytes)?,
        group: optional(&record.group_id)?,
    })
}

pub(super) fn group(record: &rpc::SnapshotGroupRecord) -> Result<SnapshotGroup, String> {
    let stage = match record.stage() {
        rpc::SnapshotGroupStage::Gather => GroupStage::Gather,
        rpc::SnapshotGroupStage::Hold => GroupStage::Hold,
        rpc::SnapshotGroupStage::Release => GroupStage::Release,
        rpc::SnapshotGroupStage::Undone => GroupStage::Undone {
            reason: record.reason.clone(),
        },
        rpc::SnapshotGroupStage::Unspecified => return Err(unknown("stage of a group")),
    };
    let members = record.members.iter().map(|member| {
        let one = GroupMember {
            snapshot: parse(&member.snapshot_id)?,
            task: member.task_id,
            sealed: member.sealed,
        };
        Ok((parse(&member.volume_id)?, one))
    });
    Ok(SnapshotGroup {
        id: parse(&record.id)?,
        name: record.name.clone(),
        stage,
        since_ms: record.since_ms,
        members: members.collect::<Result<_, String>>()?,
    })
}

pub(super) fn reservations(record: rpc::ReservationsRecord) -> Reservations {
    Reservations {
        epoch: Epoch::from_raw(record.epoch),
        number: record.number,
        bytes: record.reservations,
        revision: record.revision,
    }
}

pub(super) fn node(record: &rpc::NodeRecord) -> Result<NodeOnRecord, String> {
    let mut disks = BTreeMap::new();
    for disk in &record.disks {
        let on_record = DiskOnRecord {
            path: disk.path.clone(),
            capacity_bytes: disk.capacity_bytes,
        };
        disks.insert(parse(&disk.id)?, on_record);
    }
    Ok(NodeOnRecord {
        name: parse::<NodeName>(&record.name)?,
        zone: record.zone.clone(),
        has_blockd: record.has_blockd,
        has_agent: record.has_agent,
        block_address: record.block_address.clone(),
        disks,
        down: record.down,
        message: record.message.clone(),
        block_socket: record.block_socket.clone(),
        rebuild_bytes_per_second: record.rebuild_bytes_per_second,
        revision: record.revision,
    })
}

pub(super) fn doomed(record: &rpc::DoomedRecord) -> Result<Doomed, String> {
    Ok(Doomed {
        node: parse(&record.node)?,
        disk: parse(&record.disk_id)?,
        volume: parse(&record.volume_id)?,
    })
}

pub(super) fn event(record: &rpc::Event) -> Result<Event, String> {
    let severity = match record.severity() {
        rpc::Severity::Info => Severity::Info,
        rpc::Severity::Warning => Severity::Warning,
        rpc::Severity::Error => Severity::Error,
        rpc::Severity::Unspecified => return Err(unknown("severity")),
    };
    Ok(Event {
        at_ms: record.at_ms,
        severity,
        kind: record.kind.clone(),
        subject: record.subject.clone(),
        message: record.message.clone(),
    })
}

pub(super) fn request(record: rpc::RequestRecord) -> Remembered {
    Remembered {
        id: record.request_id,
        at_ms: record.at_ms,
        call: record.call,
        answer: record.answer.unwrap_or_default(),
    }
}
