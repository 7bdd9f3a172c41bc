//! A state with its log and its store, and the commands that tests make.

mod apply;
mod clones;
mod features;
mod groups;
mod property;

use std::collections::BTreeMap;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use ankole_proto::{ReplicaId, SnapshotGroupId, SnapshotId, VolumeId};

use super::{ReplicaMode, Replicated, State, Volume};

/// A state, its log and its store.
#[derive(Default)]
struct Log {
    state: State,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: Vec<LogCommand>,
}

impl Log {
    fn act(&mut self, command: Command) -> LogAnswer {
        self.act_as("", command)
    }

    fn act_as(&mut self, request_id: &str, command: Command) -> LogAnswer {
        let at_ms = 1_000 * (self.entries.len() as u64 + 1);
        let entry = LogCommand {
            request_id: request_id.into(),
            at_ms,
            command: Some(command),
        };
        let (answer, changes) = self.state.apply(self.entries.len() as u64 + 1, &entry);
        self.entries.push(entry);
        assert!(
            changes.is_sorted_by(|one, other| one.0 < other.0),
            "{changes:?}"
        );
        for (key, value) in changes {
            match value {
                Some(value) => self.stored.insert(key, value),
                None => self.stored.remove(&key),
            };
        }
        answer
    }

    fn done(&mut self, command: Command) -> LogAnswer {
        let answer = self.act(command);
        assert_eq!(answer.refusal, None);
        answer
    }

    fn refused(&mut self, command: Command) -> rpc::LogRefusal {
        let before = self.state.clone();
        let refusal = self.act(command).refusal.expect("refused");
        assert_eq!(self.state, before, "a refusal changes nothing");
        refusal
    }

    fn volume(&self) -> &Volume {
        &self.state.volumes()[&VolumeId::from_bits(1)]
    }
}

fn vid(n: u128) -> String {
    VolumeId::from_bits(n).to_string()
}

fn rid(n: u128) -> String {
    ReplicaId::from_bits(n).to_string()
}

fn sid(n: u128) -> String {
    SnapshotId::from_bits(n).to_string()
}

fn placement(replica: u128, node: u128) -> rpc::Placement {
    rpc::Placement {
        replica_id: rid(replica),
        node: format!("n{node}"),
        disk_id: format!("{:032x}", 0xd0 + node),
        ..Default::default()
    }
}

fn create(volume: u128, name: &str) -> Command {
    Command::CreateVolume(rpc::CreateVolumeCommand {
        volume_id: vid(volume),
        name: name.into(),
        size_bytes: 1 << 30,
        placements: (1..=3)
            .map(|node| placement(10 * volume + node, node))
            .collect(),
        credential: vec![7; 32],
        ..Default::default()
    })
}

fn created(volume: u128, replica: u128) -> Command {
    let (volume_id, replica_id) = (vid(volume), rid(replica));
    Command::ReplicaCreated(rpc::ReplicaCreatedCommand {
        volume_id,
        replica_id,
    })
}

fn attach(volume: u128, node: &str, port: u32) -> Command {
    let (volume_id, node) = (vid(volume), node.into());
    Command::AttachVolume(rpc::AttachVolumeCommand {
        volume_id,
        node,
        port,
        ..Default::default()
    })
}

fn detach(volume: u128) -> Command {
    Command::DetachVolume(rpc::DetachVolumeCommand {
        volume_id: vid(volume),
        revision: 0,
    })
}

fn grant(volume: u128, node: &str, expected_epoch: u64) -> Command {
    let (volume_id, node) = (vid(volume), node.into());
    Command::GrantEpoch(rpc::GrantEpochCommand {
        volume_id,
        node,
        expected_epoch,
    })
}

fn ended(volume: u128, node: &str) -> Command {
    let (volume_id, node, reason) = (vid(volume), node.into(), String::new());
    Command::EngineEnded(rpc::EngineEndedCommand {
        volume_id,
        node,
        reason,
    })
}

fn lost(volume: u128, epoch: u64, replica: u128) -> Command {
    Command::ReplicaLost(rpc::ReplicaLostCommand {
        volume_id: vid(volume),
        epoch,
        replica_id: rid(replica),
        reason: "it missed a write".into(),
        by_managers: false,
    })
}

fn rebuild(volume: u128, replica: u128) -> Command {
    let (volume_id, replica_id) = (vid(volume), rid(replica));
    Command::StartRebuild(rpc::StartRebuildCommand {
        volume_id,
        replica_id,
    })
}

fn in_sync(volume: u128, epoch: u64, replica: u128) -> Command {
    let (volume_id, replica_id) = (vid(volume), rid(replica));
    Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
        volume_id,
        epoch,
        replica_id,
    })
}

fn snapshot(volume: u128, id: u128, name: &str) -> Command {
    let (volume_id, snapshot_id, name) = (vid(volume), sid(id), name.into());
    Command::CreateSnapshot(rpc::CreateSnapshotCommand {
        volume_id,
        snapshot_id,
        name,
    })
}

fn task_done(volume: u128, epoch: u64, task_id: u64, refusal: &str) -> Command {
    let (volume_id, refusal) = (vid(volume), refusal.into());
    Command::TaskDone(rpc::TaskDoneCommand {
        volume_id,
        epoch,
        task_id,
        refusal,
    })
}

fn revert(volume: u128, id: u128) -> Command {
    let (volume_id, snapshot_id) = (vid(volume), sid(id));
    Command::RevertVolume(rpc::RevertVolumeCommand {
        volume_id,
        snapshot_id,
    })
}

fn delete_snapshot(id: u128) -> Command {
    Command::DeleteSnapshot(rpc::DeleteSnapshotCommand {
        snapshot_id: sid(id),
    })
}

fn layer_gone(id: u128) -> Command {
    Command::LayerGone(rpc::LayerGoneCommand {
        volume_id: String::new(),
        layer: String::new(),
        snapshot_id: sid(id),
    })
}

fn delete(volume: u128) -> Command {
    Command::DeleteVolume(rpc::DeleteVolumeCommand {
        volume_id: vid(volume),
        revision: 0,
    })
}

fn gone(volume: u128, replica: u128, abandoned: bool) -> Command {
    let (volume_id, replica_id) = (vid(volume), rid(replica));
    Command::ReplicaGone(rpc::ReplicaGoneCommand {
        volume_id,
        replica_id,
        abandoned,
    })
}

fn worker(volume: u128, node: &str) -> Command {
    let (volume_id, node) = (vid(volume), node.into());
    Command::StartWorker(rpc::StartWorkerCommand { volume_id, node })
}

fn replace(volume: u128, old: u128, new: u128, node: u128) -> Command {
    Command::ReplaceReplica(rpc::ReplaceReplicaCommand {
        volume_id: vid(volume),
        replica_id: rid(old),
        placement: Some(placement(new, node)),
        reason: "its node stays away".into(),
    })
}

fn expand(volume: u128, size_bytes: u64) -> Command {
    Command::ExpandVolume(rpc::ExpandVolumeCommand {
        volume_id: vid(volume),
        size_bytes,
        revision: 0,
    })
}

fn update(volume: u128, replica_count: u32) -> rpc::UpdateVolumeCommand {
    rpc::UpdateVolumeCommand {
        volume_id: vid(volume),
        replica_count,
        ..Default::default()
    }
}

fn with_chap(command: rpc::UpdateVolumeCommand) -> rpc::UpdateVolumeCommand {
    rpc::UpdateVolumeCommand {
        change_chap: true,
        chap: Some(rpc::Chap {
            user: "alice".into(),
            secret: "open sesame 1".into(),
            mutual_user: "target".into(),
            mutual_secret: "open sesame 2".into(),
        }),
        ..command
    }
}

fn scrub(volume: u128) -> Command {
    Command::ScrubVolume(rpc::ScrubVolumeCommand {
        volume_id: vid(volume),
        periodic: false,
    })
}

fn restart(volume: u128) -> Command {
    Command::RestartEngine(rpc::RestartEngineCommand {
        volume_id: vid(volume),
        revision: 0,
    })
}

fn add(volume: u128, replica: u128, node: u128) -> Command {
    Command::AddReplica(rpc::AddReplicaCommand {
        volume_id: vid(volume),
        placement: Some(placement(replica, node)),
    })
}

fn remove(volume: u128, replica: u128) -> Command {
    Command::RemoveReplica(rpc::RemoveReplicaCommand {
        volume_id: vid(volume),
        replica_id: rid(replica),
        reason: "fewer replicas are wanted".into(),
    })
}

fn damaged(volume: u128, replica: u128, blocks: u64) -> Command {
    let layer = format!("{:016x}", 1);
    Command::RecordDamages(rpc::RecordDamagesCommand {
        volume_id: vid(volume),
        replica_id: rid(replica),
        damaged_blocks: blocks,
        damages: (0..blocks.min(16))
            .map(|block| rpc::Damage {
                layer: layer.clone(),
                offset: 4096 * block,
                ..Default::default()
            })
            .collect(),
    })
}

fn repaired(volume: u128, epoch: u64, replica: u128, blocks: u64) -> Command {
    Command::RecordRepairs(rpc::RecordRepairsCommand {
        volume_id: vid(volume),
        epoch,
        replica_id: rid(replica),
        blocks,
    })
}

fn take(volume: u128, node: &str, port: u32) -> Command {
    let (volume_id, node) = (vid(volume), node.into());
    Command::AttachVolume(rpc::AttachVolumeCommand {
        volume_id,
        node,
        port,
        force: true,
        ..Default::default()
    })
}

fn gid(n: u128) -> String {
    SnapshotGroupId::from_bits(n).to_string()
}

fn snapshot_group(group: u128, members: &[(u128, u128)], name: &str) -> Command {
    let member = |(volume, snapshot): &(u128, u128)| rpc::GroupMember {
        volume_id: vid(*volume),
        snapshot_id: sid(*snapshot),
    };
    Command::CreateSnapshotGroup(rpc::CreateSnapshotGroupCommand {
        group_id: gid(group),
        name: name.into(),
        members: members.iter().map(member).collect(),
    })
}

fn hold(group: u128) -> Command {
    let group_id = gid(group);
    Command::HoldSnapshotGroup(rpc::HoldSnapshotGroupCommand { group_id })
}

fn release(group: u128, held: &[(u128, u64)]) -> Command {
    let member = |(volume, epoch): &(u128, u64)| rpc::HeldMember {
        volume_id: vid(*volume),
        epoch: *epoch,
    };
    Command::ReleaseSnapshotGroup(rpc::ReleaseSnapshotGroupCommand {
        group_id: gid(group),
        held: held.iter().map(member).collect(),
    })
}

fn undo(group: u128) -> Command {
    let (group_id, reason) = (gid(group), "it took too long".into());
    Command::UndoSnapshotGroup(rpc::UndoSnapshotGroupCommand { group_id, reason })
}

fn reserve(volume: u128, epoch: u64, number: u64, bytes: usize) -> Command {
    Command::RecordReservations(rpc::RecordReservationsCommand {
        volume_id: vid(volume),
        epoch,
        number,
        reservations: vec![7; bytes],
    })
}

/// A clone whose replicas begin as those of volume 1 with these numbers, on the nodes 1, 2, 3.
fn clone(volume: u128, name: &str, snapshot: u128, sources: &[u128]) -> Command {
    let Command::CreateVolume(mut command) = create(volume, name) else {
        unreachable!("create creates");
    };
    command.source_snapshot_id = sid(snapshot);
    command.placements.truncate(sources.len());
    for (placement, source) in command.placements.iter_mut().zip(sources) {
        placement.source_replica_id = rid(*source);
    }
    command.replica_count = 3;
    Command::CreateVolume(command)
}

fn give_up(volume: u128, replica: u128) -> Command {
    Command::GiveUpClone(rpc::GiveUpCloneCommand {
        volume_id: vid(volume),
        replica_id: rid(replica),
        reason: "its node is down".into(),
    })
}

fn detached() -> Log {
    let mut log = Log::default();
    log.done(create(1, "data"));
    for replica in 11..=13 {
        log.done(created(1, replica));
    }
    log
}

/// Attached to n1 under epoch 1.
fn attached() -> Log {
    let mut log = detached();
    log.done(attach(1, "n1", 4000));
    log.done(grant(1, "n1", 0));
    log
}

fn mode(log: &Log, replica: u128) -> ReplicaMode {
    log.volume().replicas[&ReplicaId::from_bits(replica)].mode
}
