//! Snapshots of several volumes, and reservations.

use super::*;
use crate::state::{GroupStage, RESERVATIONS_BYTES_MAX, SnapshotState, UNDONE_MAX};

/// Volumes 1 and 2 are attached under epoch 1, and group 1 of their snapshots 1 and 2 is asked for.
fn gathering() -> Log {
    let mut log = attached();
    log.done(create(2, "more"));
    for replica in 21..=23 {
        log.done(created(2, replica));
    }
    log.done(attach(2, "n2", 4000));
    log.done(grant(2, "n2", 0));
    log.done(snapshot_group(1, &[(1, 1), (2, 2)], "cut"));
    log
}

fn states(log: &Log) -> Vec<SnapshotState> {
    log.state
        .snapshots()
        .values()
        .map(|one| one.state)
        .collect()
}

fn stage(log: &Log, group: u128) -> Option<GroupStage> {
    let found = log.state.groups().get(&SnapshotGroupId::from_bits(group));
    found.map(|group| group.stage.clone())
}

#[test]
fn a_group_is_ready_when_every_volume_has_sealed() {
    let mut log = gathering();
    let early = log.refused(release(1, &[(1, 1)]));
    assert!(early.message.contains("hold"), "{}", early.message);
    log.done(hold(1));
    assert_eq!(
        log.refused(release(1, &[(1, 1), (2, 0)])).code,
        9,
        "an older engine held"
    );
    log.done(release(1, &[(1, 1), (2, 1)]));
    log.done(task_done(1, 1, 1, ""));
    assert_eq!(states(&log), [SnapshotState::Creating; 2]);
    assert_eq!(log.refused(delete_snapshot(1)).code, 9);
    assert_eq!(
        log.refused(revert(1, 1)).code,
        9,
        "the cut may still be undone"
    );
    log.done(task_done(2, 1, 1, ""));
    log.done(task_done(2, 1, 1, ""));
    assert_eq!(states(&log), [SnapshotState::Ready; 2]);
    assert_eq!(stage(&log, 1), None);
    log.done(delete_snapshot(1));
    assert_eq!(states(&log)[1], SnapshotState::Ready);
}

#[test]
fn a_group_that_holds_is_withdrawn_whole() {
    let mut log = gathering();
    log.done(hold(1));
    log.done(task_done(2, 1, 1, "the disk is full"));
    assert_eq!(states(&log), []);
    let Some(GroupStage::Undone { reason }) = stage(&log, 1) else {
        panic!("it is undone");
    };
    assert_eq!(reason, "volume more: the disk is full");
    assert!(log.volume().tasks.is_empty());
    assert_eq!(log.refused(release(1, &[(1, 1), (2, 1)])).code, 9);
    log.done(task_done(1, 1, 1, "it was held for too long"));
    log.done(snapshot_group(2, &[(1, 3), (2, 4)], "cut"));
}

#[test]
fn of_a_released_group_that_is_undone_nothing_stays() {
    let mut log = gathering();
    log.done(hold(1));
    log.done(release(1, &[(1, 1), (2, 1)]));
    log.done(task_done(1, 1, 1, ""));
    log.done(undo(1));
    assert_eq!(
        states(&log),
        [SnapshotState::Deleting, SnapshotState::Creating]
    );
    assert_eq!(
        log.volume().layers.len(),
        2,
        "its tree is as the replicas have it"
    );
    log.done(grant(2, "n2", 1));
    assert_eq!(log.refused(task_done(2, 1, 1, "")).kind, "fenced");
    log.done(task_done(2, 2, 1, ""));
    assert_eq!(states(&log), [SnapshotState::Deleting; 2]);
    for id in [1, 2] {
        log.done(layer_gone(id));
    }
    assert_eq!(states(&log), []);
}

#[test]
fn a_refused_member_of_a_released_group_undoes_it() {
    let mut log = gathering();
    log.done(hold(1));
    log.done(release(1, &[(1, 1), (2, 1)]));
    log.done(task_done(1, 1, 1, ""));
    log.done(task_done(2, 1, 1, "this engine has not held"));
    assert_eq!(states(&log), [SnapshotState::Deleting]);
}

#[test]
fn a_volume_that_is_deleted_takes_its_group_with_it() {
    let mut log = gathering();
    log.done(hold(1));
    log.done(detach(2));
    log.done(ended(2, "n2"));
    log.done(delete(2));
    assert_eq!(states(&log), []);
    assert!(log.volume().tasks.is_empty());
    assert!(matches!(stage(&log, 1), Some(GroupStage::Undone { .. })));
}

#[test]
fn what_is_wrong_with_one_volume_refuses_the_group_before_anything_happens() {
    let mut log = gathering();
    type Wrong<'a> = (&'a [(u128, u128)], &'a str, u32);
    let wrong: [Wrong<'_>; 6] = [
        (&[(1, 3), (1, 4)], "other", 3),
        (&[(1, 3), (2, 3)], "other", 3),
        (&[(1, 3), (3, 4)], "other", 5),
        (&[(1, 3), (2, 4)], "cut", 6),
        (&[], "other", 3),
        (&[(1, 2)], "other", 6),
    ];
    for (members, name, code) in wrong {
        let refusal = log.refused(snapshot_group(2, members, name));
        assert_eq!(refusal.code, code, "{members:?} {}", refusal.message);
    }
    let many: Vec<(u128, u128)> = (1..=65).map(|n| (n, n)).collect();
    assert_eq!(log.refused(snapshot_group(2, &many, "other")).code, 3);
}

#[test]
fn groups_that_were_undone_are_forgotten_in_the_end() {
    let mut log = attached();
    for group in 1..=UNDONE_MAX as u128 + 5 {
        log.done(snapshot_group(group, &[(1, group)], "cut"));
        log.done(undo(group));
    }
    assert_eq!(log.state.groups().len(), UNDONE_MAX);
    assert_eq!(stage(&log, 5), None);
}

#[test]
fn a_revert_to_a_snapshot_that_is_refused_is_given_up() {
    let mut log = attached();
    log.done(snapshot(1, 1, "a"));
    let going_back = log.done(revert(1, 1)).task_id;
    log.done(task_done(1, 1, 1, "no room"));
    assert!(log.volume().tasks.is_empty());
    let why = log.volume().refusal_of(going_back).expect("told");
    assert!(why.contains("no room"), "{why}");
}

#[test]
fn reservations_move_with_the_volume_and_only_its_engine_changes_them() {
    let mut log = attached();
    log.done(reserve(1, 1, 1, RESERVATIONS_BYTES_MAX));
    log.done(reserve(1, 1, 1, RESERVATIONS_BYTES_MAX));
    assert_eq!(log.refused(reserve(1, 1, 1, 3)).code, 9, "another change");
    log.done(reserve(1, 1, 3, 20));
    assert_eq!(log.refused(reserve(1, 1, 2, 30)).code, 9, "it comes late");
    let large = log.refused(reserve(1, 1, 4, RESERVATIONS_BYTES_MAX + 1));
    assert_eq!(large.code, 3);
    assert!(large.message.contains("16384"), "{}", large.message);
    log.done(grant(1, "n1", 1));
    assert_eq!(log.refused(reserve(1, 1, 5, 30)).kind, "fenced");
    let kept = |log: &Log| {
        log.state.reservations()[&VolumeId::from_bits(1)]
            .bytes
            .len()
    };
    assert_eq!(kept(&log), 20);
    log.done(reserve(1, 2, 1, 0));
    assert_eq!(kept(&log), 0);
    log.done(detach(1));
    log.done(ended(1, "n1"));
    log.done(delete(1));
    assert!(log.state.reservations().is_empty());
}
