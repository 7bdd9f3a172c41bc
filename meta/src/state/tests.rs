use std::collections::BTreeMap;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use ankole_proto::{Epoch, ReplicaId, SnapshotId, VolumeId};
use proptest::prelude::*;

use super::{Phase, ReplicaMode, Replicated, SnapshotState, State, Volume};

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
        revision: 0,
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

#[test]
fn a_new_volume_can_be_attached_once_all_replicas_are_stored() {
    let mut log = Log::default();
    log.done(create(1, "data"));
    log.done(created(1, 11));
    log.done(created(1, 12));
    assert_eq!(log.refused(attach(1, "n1", 4000)).code, 9);
    log.done(created(1, 13));
    assert_eq!(log.volume().phase, Phase::Detached);
    log.done(attach(1, "n1", 4000));
}

#[test]
fn names_ports_and_nodes_are_taken_once() {
    let mut log = attached();
    assert_eq!(log.refused(create(2, "data")).code, 6);
    log.done(create(2, "other"));
    for replica in 21..=23 {
        log.done(created(2, replica));
    }
    assert_eq!(log.refused(attach(2, "n1", 4000)).code, 10);
    log.done(attach(2, "n2", 4000));
    let mut crowded = create(3, "third");
    if let Command::CreateVolume(command) = &mut crowded {
        command.placements[1].node = "n1".into();
    }
    assert_eq!(log.refused(crowded).code, 3);
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_unknown() {
    let mut log = attached();
    log.done(grant(1, "n1", 1));
    assert_eq!(log.refused(lost(1, 1, 12)).kind, "fenced");
    assert_eq!(log.refused(in_sync(1, 1, 12)).kind, "fenced");
    assert_eq!(log.refused(task_done(1, 1, 1, "")).kind, "fenced");
    assert_eq!(log.refused(lost(1, 3, 12)).kind, "");
    assert_eq!(
        log.refused(lost(9, 1, 12)).kind,
        "fenced",
        "of a volume that is gone"
    );
    log.done(lost(1, 2, 12));
}

#[test]
fn an_epoch_is_granted_only_where_the_volume_is_to_run() {
    let mut log = detached();
    assert_eq!(log.refused(grant(1, "n1", 0)).code, 9);
    log.done(attach(1, "n1", 4000));
    assert_eq!(log.refused(grant(1, "n2", 0)).code, 9);
    assert_eq!(log.done(grant(1, "n1", 0)).epoch, 1);
    assert_eq!(
        log.refused(grant(1, "n1", 0)).code,
        9,
        "the caller knows an old epoch"
    );
}

#[test]
fn a_grant_repeated_with_its_request_id_grows_the_epoch_once() {
    let mut log = detached();
    log.done(attach(1, "n1", 4000));
    let first = log.act_as("g", grant(1, "n1", 0));
    assert_eq!(log.act_as("g", grant(1, "n1", 0)), first);
    assert_eq!(log.volume().epoch, Epoch::from_raw(1));
    assert_eq!(
        log.act_as("g", detach(1))
            .refusal
            .map(|refusal| refusal.code),
        Some(3)
    );
}

#[test]
fn the_last_in_sync_replica_stays_on_record() {
    let mut log = attached();
    log.done(lost(1, 1, 11));
    log.done(lost(1, 1, 12));
    log.done(lost(1, 1, 12));
    assert_eq!(log.refused(lost(1, 1, 13)).kind, "last-in-sync");
    assert_eq!(mode(&log, 13), ReplicaMode::InSync);
}

#[test]
fn a_replica_comes_back_through_a_rebuild_only() {
    let mut log = attached();
    log.done(lost(1, 1, 12));
    assert_eq!(log.refused(in_sync(1, 1, 12)).kind, "unknown-replica");
    log.done(rebuild(1, 12));
    assert_eq!(mode(&log, 12), ReplicaMode::Rebuilding);
    log.done(in_sync(1, 1, 12));
    assert_eq!(mode(&log, 12), ReplicaMode::InSync);
}

#[test]
fn a_replacement_is_new_and_has_to_be_rebuilt() {
    let mut log = attached();
    assert_eq!(
        log.refused(replace(1, 12, 14, 4)).kind,
        "unknown-replica",
        "it is in sync"
    );
    log.done(lost(1, 1, 12));
    assert_eq!(log.refused(replace(1, 12, 14, 3)).code, 3, "n3 has one");
    log.done(replace(1, 12, 14, 4));
    assert_eq!(mode(&log, 12), ReplicaMode::Deleting);
    log.done(created(1, 14));
    assert_eq!(mode(&log, 14), ReplicaMode::OutOfSync);
    log.done(gone(1, 12, false));
    assert_eq!(log.volume().replicas.len(), 3);
}

#[test]
fn a_snapshot_is_ready_when_its_task_is_done() {
    let mut log = attached();
    let first_head = log.volume().head;
    let answer = log.done(snapshot(1, 1, "s1"));
    assert_eq!(log.volume().head, first_head, "nothing is sealed yet");
    log.done(task_done(1, 1, answer.task_id, ""));
    log.done(task_done(1, 1, answer.task_id, ""));
    let taken = &log.state.snapshots()[&SnapshotId::from_bits(1)];
    assert_eq!(
        (taken.state, taken.layer),
        (SnapshotState::Ready, Some(first_head))
    );
    assert_eq!(log.volume().layers[&log.volume().head], Some(first_head));
    assert_eq!(log.refused(task_done(1, 1, 9, "")).kind, "unknown-task");
    assert_eq!(log.refused(snapshot(1, 2, "s1")).code, 6);
}

#[test]
fn a_refused_snapshot_leaves_nothing_but_the_reason() {
    let mut log = attached();
    let task = log.done(snapshot(1, 1, "s1")).task_id;
    log.done(task_done(1, 1, task, "the disks are full"));
    assert!(log.state.snapshots().is_empty());
    assert_eq!(log.volume().refusal_of(task), Some("the disks are full"));
    assert_eq!(log.volume().layers.len(), 1);
}

#[test]
fn a_reverted_volume_branches_and_a_hidden_layer_waits_for_one_child() {
    let mut log = attached();
    for id in 1..=2 {
        let task = log.done(snapshot(1, id, &format!("s{id}"))).task_id;
        log.done(task_done(1, 1, task, ""));
    }
    assert_eq!(log.refused(delete_snapshot(9)).code, 5);
    let task = log.done(revert(1, 1)).task_id;
    assert_eq!(
        log.refused(delete_snapshot(1)).code,
        9,
        "a revert to it waits"
    );
    log.done(task_done(1, 1, task, ""));
    let layer = |log: &Log, id| {
        log.state.snapshots()[&SnapshotId::from_bits(id)]
            .layer
            .unwrap()
    };
    let (one, two) = (layer(&log, 1), layer(&log, 2));
    let head = log.volume().head;
    assert_eq!(
        log.volume().children(one).collect::<Vec<_>>(),
        vec![two, head]
    );
    log.done(delete_snapshot(1));
    assert_eq!(log.refused(layer_gone(1)).code, 9, "two branches lie on it");
    log.done(delete_snapshot(2));
    log.done(layer_gone(2));
    log.done(layer_gone(1));
    assert_eq!(log.volume().layers, BTreeMap::from([(head, None)]));
}

#[test]
fn a_volume_has_at_most_254_sealed_layers() {
    let mut log = attached();
    for id in 1..=254 {
        let task = log.done(snapshot(1, id, &format!("s{id}"))).task_id;
        log.done(task_done(1, 1, task, ""));
    }
    assert_eq!(log.refused(snapshot(1, 255, "s255")).code, 8);
    let record = log.stored.values().map(Vec::len).max();
    assert!(
        record < Some(56 * 1024),
        "{record:?} bytes are too many for one record"
    );
}

#[test]
fn a_worker_ends_before_a_target_may_start() {
    let mut log = detached();
    log.done(worker(1, "n2"));
    log.done(grant(1, "n2", 0));
    log.done(attach(1, "n1", 4000));
    assert_eq!(log.volume().wanted_engine(), None);
    assert_eq!(log.refused(grant(1, "n1", 1)).code, 9);
    log.done(ended(1, "n2"));
    log.done(grant(1, "n1", 1));
    assert_eq!(
        log.refused(lost(1, 1, 12)).kind,
        "fenced",
        "the worker's epoch is over"
    );
}

#[test]
fn an_engine_of_a_detached_volume_is_fenced() {
    let mut log = attached();
    log.done(detach(1));
    log.done(lost(1, 1, 12));
    log.done(ended(1, "n1"));
    assert_eq!(log.volume().phase, Phase::Detached);
    assert_eq!(log.refused(lost(1, 1, 11)).kind, "fenced");
}

#[test]
fn a_deleted_volume_goes_with_its_last_replica() {
    let mut log = attached();
    assert_eq!(log.refused(delete(1)).code, 9);
    log.done(detach(1));
    log.done(ended(1, "n1"));
    log.done(delete(1));
    log.done(gone(1, 11, false));
    log.done(gone(1, 12, false));
    log.done(gone(1, 13, true));
    assert!(log.state.volumes().is_empty());
    assert_eq!(
        log.state.doomed().len(),
        1,
        "its node will be told when it is back"
    );
    log.done(gone(1, 13, false));
    assert!(log.state.doomed().is_empty());
}

#[test]
fn a_stale_revision_is_refused() {
    let mut log = detached();
    let (volume_id, revision) = (vid(1), log.volume().revision);
    log.done(attach(1, "n1", 4000));
    let stale = Command::DetachVolume(rpc::DetachVolumeCommand {
        volume_id,
        revision,
    });
    assert_eq!(log.refused(stale).code, 10);
}

#[test]
fn a_volume_record_has_these_bytes() {
    let mut log = Log::default();
    log.done(create(1, "data"));
    let key = [&[2][..], &1_u128.to_be_bytes()].concat();
    let hex: String = log.stored[&key]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, GOLDEN_VOLUME);
}

const GOLDEN_VOLUME: &str = concat!(
    "0a203030303030303030303030303030303030303030303030303030303030303031120464617461",
    "18808080800420014a4d0a2030303030303030303030303030303030303030303030303030303030",
    "3030306212026e311a20303030303030303030303030303030303030303030303030303030303030",
    "6431200130e8074a4d0a203030303030303030303030303030303030303030303030303030303030",
    "30306312026e321a2030303030303030303030303030303030303030303030303030303030303064",
    "32200130e8074a4d0a20303030303030303030303030303030303030303030303030303030303030",
    "306412026e331a203030303030303030303030303030303030303030303030303030303030306433",
    "200130e80750015a02080168017a2007070707070707070707070707070707070707070707070707",
    "070707070707078001018801e807900103",
);

fn any_command() -> impl Strategy<Value = Command> {
    let volume = || 1..=2_u128;
    let replica = || 11..=24_u128;
    let id = || 1..=4_u128;
    let node = || prop::sample::select(vec!["n1", "n2", "n3"]);
    prop_oneof![
        2 => volume().prop_map(|v| create(v, "a")),
        1 => volume().prop_map(|v| create(v, "b")),
        6 => (volume(), 1..=3_u128).prop_map(|(v, r)| created(v, 10 * v + r)),
        4 => (volume(), node(), 1..=2_u32).prop_map(|(v, n, p)| attach(v, n, p)),
        2 => volume().prop_map(detach),
        4 => (volume(), node(), 0..4_u64).prop_map(|(v, n, e)| grant(v, n, e)),
        2 => (volume(), node()).prop_map(|(v, n)| ended(v, n)),
        4 => (volume(), 0..4_u64, replica()).prop_map(|(v, e, r)| lost(v, e, r)),
        4 => (volume(), replica()).prop_map(|(v, r)| rebuild(v, r)),
        4 => (volume(), 0..4_u64, replica()).prop_map(|(v, e, r)| in_sync(v, e, r)),
        4 => (volume(), id(), id()).prop_map(|(v, s, n)| snapshot(v, s, &format!("s{n}"))),
        8 => (volume(), 0..4_u64, 1..6_u64, any::<bool>())
            .prop_map(|(v, e, t, no)| task_done(v, e, t, if no { "no" } else { "" })),
        3 => (volume(), id()).prop_map(|(v, s)| revert(v, s)),
        2 => id().prop_map(delete_snapshot),
        2 => id().prop_map(layer_gone),
        1 => volume().prop_map(delete),
        2 => (volume(), replica(), any::<bool>()).prop_map(|(v, r, a)| gone(v, r, a)),
        1 => (volume(), node()).prop_map(|(v, n)| worker(v, n)),
        2 => (volume(), replica(), replica(), 1..=5_u128)
            .prop_map(|(v, o, n, at)| replace(v, o, n, at)),
    ]
}

/// What must hold whatever is proposed.
fn check(state: &State, epochs: &mut BTreeMap<VolumeId, Epoch>) {
    let mut names = std::collections::BTreeSet::new();
    let mut ports = std::collections::BTreeSet::new();
    for (id, volume) in state.volumes() {
        assert!(
            names.insert(&volume.name),
            "two volumes are named {}",
            volume.name
        );
        if let Some(node) = volume.phase.node() {
            assert!(
                ports.insert((node, volume.port)),
                "two targets share a port"
            );
        }
        let epoch = epochs.entry(*id).or_default();
        assert!(volume.epoch >= *epoch, "INV-1");
        *epoch = volume.epoch;
        let with_data = matches!(
            volume.phase,
            Phase::Detached | Phase::Attached(_) | Phase::Detaching(_)
        );
        assert!(
            !with_data || volume.in_mode(ReplicaMode::InSync).count() > 0,
            "INV-4"
        );
        assert_eq!(
            volume.children(volume.head).count(),
            0,
            "INV-7: the head is the top"
        );
        assert!(volume.layers.len() <= 255, "INV-7");
        for start in volume.layers.keys() {
            let mut layer = Some(*start);
            for _ in 0..=volume.layers.len() {
                layer = layer.and_then(|layer| volume.layers[&layer]);
            }
            assert_eq!(layer, None, "INV-7: a cycle");
        }
        for snapshot in state.snapshots_of(*id) {
            let sealed = snapshot
                .layer
                .is_some_and(|layer| volume.layers.contains_key(&layer));
            assert_eq!(sealed, snapshot.state != SnapshotState::Creating);
        }
    }
    let numbers: Vec<u64> = state.events().after(0).map(|(number, _)| number).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "events have a gap"
    );
}

proptest! {
    #[test]
    fn any_log_keeps_the_invariants_and_makes_the_same_bytes(
        commands in prop::collection::vec((any_command(), 0..6_u8), 1..120),
    ) {
        let mut log = Log::default();
        let mut epochs = BTreeMap::new();
        for (command, request) in commands {
            let request = if request < 2 { format!("r{request}") } else { String::new() };
            log.act_as(&request, command);
            check(&log.state, &mut epochs);
        }
        let records = log.state.to_records();
        prop_assert_eq!(&records, &log.stored.into_iter().collect::<Vec<_>>());
        let read = State::from_records(&mut records.clone().into_iter());
        prop_assert_eq!(read.expect("readable"), log.state);
        let mut again = State::default();
        for (index, entry) in log.entries.iter().enumerate() {
            again.apply(index as u64 + 1, entry);
        }
        prop_assert_eq!(again.to_records(), records, "INV-11");
    }

    #[test]
    fn damaged_records_are_refused_without_a_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut records = attached().state.to_records();
        let record = at.index(records.len());
        let byte = byte.index(records[record].1.len());
        records[record].1[byte] = value;
        let _ = State::from_records(&mut records.into_iter());
    }
}
