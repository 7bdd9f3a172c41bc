use std::collections::BTreeMap;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{Epoch, SnapshotId};

use super::*;
use crate::state::{Phase, ReplicaMode, SnapshotState};

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
