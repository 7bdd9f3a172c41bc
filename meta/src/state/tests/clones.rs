//! Volumes that begin as a snapshot of another one.

use ankole_proto::LayerId;

use super::*;
use crate::state::{Phase, PhaseKind};

/// Volume 1 is attached and has the ready snapshots 1 and 2; replica 13 is out of sync.
fn source() -> Log {
    let mut log = attached();
    for id in [1, 2] {
        let task = log.done(snapshot(1, id, &format!("s{id}"))).task_id;
        log.done(task_done(1, 1, task, ""));
    }
    log.done(lost(1, 1, 13));
    log
}

fn kind(log: &Log, volume: u128) -> Option<PhaseKind> {
    let found = log.state.volumes().get(&VolumeId::from_bits(volume));
    found.map(|volume| volume.phase.kind())
}

#[test]
fn a_clone_begins_with_the_chain_of_its_snapshot() {
    let mut log = source();
    log.done(clone(2, "copy", 2, &[11, 12]));
    let copy = log.state.volumes()[&VolumeId::from_bits(2)].clone();
    let origin = copy.origin.expect("a clone");
    let chain = log.volume().chain(origin.layer);
    assert_eq!(chain.len(), 2);
    assert_eq!(copy.layers.len(), 3);
    assert_eq!(copy.layers[&copy.head], Some(origin.layer));
    for busy in [delete_snapshot(2), detach(1)] {
        let refusal = log.act(busy).refusal;
        let told = refusal.is_none_or(|one| one.message.contains("copy"));
        assert!(told);
    }
    log.done(ended(1, "n1"));
    assert_eq!(log.refused(delete(1)).code, 9, "the clone is not made yet");
    log.done(created(2, 21));
    log.done(created(2, 22));
    assert_eq!(kind(&log, 2), Some(PhaseKind::Detached));
    log.done(delete_snapshot(2));
    log.done(delete(1));
    assert_eq!(kind(&log, 2), Some(PhaseKind::Detached));
    log.done(add(2, 29, 4));
    assert!(log.refused(attach(1, "n1", 1)).message.contains("deleted"));
}

#[test]
fn what_is_being_merged_is_not_shared() {
    let mut log = source();
    log.done(delete_snapshot(1));
    let message = log.refused(clone(2, "copy", 2, &[11, 12])).message;
    assert!(message.contains("being deleted"), "{message}");
    // A rebuild only makes the merges pause: some replica may have merged it already.
    log.done(rebuild(1, 13));
    log.refused(clone(2, "copy", 2, &[11, 12]));
    log.done(lost(1, 1, 13));
    log.done(layer_gone(1));
    log.done(clone(2, "copy", 2, &[11, 12]));
}

#[test]
fn a_replica_whose_source_went_out_of_sync_is_given_up() {
    let mut log = source();
    log.done(clone(2, "copy", 1, &[11, 12]));
    log.done(lost(1, 1, 12));
    log.done(created(2, 22));
    assert_eq!(kind(&log, 2), Some(PhaseKind::Creating));
    log.done(created(2, 21));
    let copy = &log.state.volumes()[&VolumeId::from_bits(2)];
    assert_eq!(copy.phase, Phase::Detached);
    assert_eq!(copy.in_mode(ReplicaMode::InSync).count(), 1);
    assert!(copy.wants_replica(0), "the others are built later");
}

#[test]
fn a_clone_without_any_replica_fails_and_goes() {
    let mut log = source();
    log.done(clone(2, "copy", 1, &[11, 12]));
    let refusal = log.refused(replace(2, 21, 29, 4));
    assert_eq!(refusal.code, 9, "an empty replica would not be equal");
    log.done(give_up(2, 21));
    log.done(give_up(2, 22));
    log.done(give_up(2, 22));
    assert_eq!(kind(&log, 2), Some(PhaseKind::Deleting));
    let failed = |log: &Log| {
        let mut told = log.state.events().after(0);
        told.any(|(_, event)| event.kind == "CloneFailed")
    };
    assert!(failed(&log));
    log.done(gone(2, 21, false));
    log.done(gone(2, 22, false));
    assert_eq!(kind(&log, 2), None);
}

#[test]
fn what_cannot_be_cloned_is_refused() {
    let mut log = source();
    assert_eq!(
        log.refused(clone(2, "copy", 1, &[11, 13])).code,
        10,
        "out of sync"
    );
    assert_eq!(
        log.refused(clone(2, "copy", 1, &[12, 11])).code,
        10,
        "not there"
    );
    assert_eq!(log.refused(clone(2, "copy", 9, &[11])).code, 5);
    let Command::CreateVolume(mut small) = clone(2, "copy", 1, &[11]) else {
        unreachable!("a clone is created");
    };
    small.size_bytes = 1 << 20;
    let refusal = log.refused(Command::CreateVolume(small.clone()));
    assert!(
        refusal.message.contains("1073741824"),
        "{}",
        refusal.message
    );
    small.size_bytes = 1 << 30;
    small.source_snapshot_id.clear();
    assert_eq!(log.refused(Command::CreateVolume(small)).code, 3);
    log.done(snapshot(1, 3, "s3"));
    assert_eq!(log.refused(clone(2, "copy", 3, &[11])).code, 9, "not ready");
    log.done(delete_snapshot(1));
    assert_eq!(log.refused(clone(2, "copy", 1, &[11])).code, 9, "it goes");
}

#[test]
fn a_chain_at_its_limit_is_not_cloned() {
    let mut log = attached();
    for id in 1..=254 {
        let task = log.done(snapshot(1, id, &format!("s{id}"))).task_id;
        log.done(task_done(1, 1, task, ""));
    }
    let refusal = log.refused(clone(2, "copy", 254, &[11]));
    assert!(refusal.message.contains("254"), "{}", refusal.message);
    log.done(clone(2, "copy", 253, &[11]));
}

#[test]
fn a_layer_that_a_clone_was_born_with_goes_only_when_nobody_else_has_it() {
    let mut log = source();
    log.done(clone(2, "copy", 2, &[11, 12]));
    log.done(created(2, 21));
    log.done(created(2, 22));
    let copy = |log: &Log| log.state.volumes()[&VolumeId::from_bits(2)].clone();
    let nameless = |log: &Log| copy(log).nameless_layers(&log.state);
    let layer = log.state.snapshots()[&SnapshotId::from_bits(1)]
        .layer
        .unwrap();
    let merged = |layer: LayerId| {
        Command::LayerGone(rpc::LayerGoneCommand {
            snapshot_id: String::new(),
            volume_id: vid(2),
            layer: layer.to_string(),
        })
    };
    assert_eq!(nameless(&log), [], "the source has both");
    log.done(merged(layer));
    assert_eq!(copy(&log).layers.len(), 3, "it stays");
    log.done(delete_snapshot(1));
    log.done(layer_gone(1));
    assert_eq!(nameless(&log), [layer]);
    let head = copy(&log).head;
    log.done(merged(layer));
    log.done(merged(layer));
    log.done(merged(head));
    assert_eq!(copy(&log).layers.len(), 2);
    assert_eq!(nameless(&log), [], "the source has the second");
    log.done(clone(3, "second", 2, &[11, 12]));
    log.done(created(3, 31));
    log.done(created(3, 32));
    log.done(detach(1));
    log.done(ended(1, "n1"));
    log.done(delete(1));
    for replica in 11..=13 {
        log.done(gone(1, replica, false));
    }
    assert_eq!(nameless(&log), [], "the other clone has it");
    log.done(delete(3));
    for replica in [31, 32] {
        log.done(gone(3, replica, false));
    }
    assert_eq!(nameless(&log).len(), 1, "nobody else has it");
}
