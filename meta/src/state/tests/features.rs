use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{Epoch, ReplicaId};

use super::*;
use crate::state::{Phase, ReplicaMode, WriteCache};

fn seen(log: &Log, replica: u128) -> bool {
    let replica = ReplicaId::from_bits(replica);
    log.volume().replicas.contains_key(&replica)
}

#[test]
fn a_volume_grows_when_its_engine_has_done_so_and_never_shrinks() {
    let mut log = attached();
    let size = |log: &Log| log.volume().size.bytes();
    let task = log.done(expand(1, 2 << 30)).task_id;
    assert_eq!(size(&log), 1 << 30, "nothing has grown yet");
    assert_eq!(log.done(expand(1, 2 << 30)).task_id, task, "asked again");
    assert_eq!(
        log.refused(expand(1, 1 << 30)).code,
        3,
        "less than is asked for"
    );
    assert_eq!(log.refused(expand(1, 4097)).code, 3);
    log.done(task_done(1, 1, task, ""));
    assert_eq!(size(&log), 2 << 30);
    assert_eq!(log.done(expand(1, 2 << 30)).task_id, 0, "it has that size");
    assert_eq!(log.refused(expand(1, 1 << 30)).code, 3);
    let task = log.done(expand(1, 3 << 30)).task_id;
    log.done(task_done(1, 1, task, "a disk is full"));
    assert_eq!(
        (size(&log), log.volume().size_wanted().bytes()),
        (2 << 30, 2 << 30)
    );
    assert_eq!(log.volume().refusal_of(task), Some("a disk is full"));
}

#[test]
fn a_snapshot_has_the_size_at_which_it_is_taken() {
    let mut log = attached();
    let before = log.done(snapshot(1, 1, "before")).task_id;
    let grow = log.done(expand(1, 2 << 30)).task_id;
    let after = log.done(snapshot(1, 2, "after")).task_id;
    for task in [before, grow, after] {
        log.done(task_done(1, 1, task, ""));
    }
    let sizes: Vec<u64> = log
        .state
        .snapshots()
        .values()
        .map(|one| one.size.bytes())
        .collect();
    assert_eq!(sizes, [1 << 30, 2 << 30]);
    let task = log.done(revert(1, 1)).task_id;
    log.done(task_done(1, 1, task, ""));
    assert_eq!(
        log.volume().size.bytes(),
        2 << 30,
        "reverting keeps the greater size"
    );
}

#[test]
fn settings_change_one_by_one_and_an_unchanged_volume_keeps_its_revision() {
    let mut log = detached();
    let off = rpc::WriteCache::Off.into();
    log.done(Command::UpdateVolume(rpc::UpdateVolumeCommand {
        write_cache: off,
        ..update(1, 0)
    }));
    assert_eq!(log.volume().write_cache, WriteCache::Off);
    assert_eq!(log.volume().replica_count, 3);
    log.done(Command::UpdateVolume(with_chap(update(1, 2))));
    let volume = log.volume();
    assert_eq!(
        (volume.replica_count, volume.write_cache),
        (2, WriteCache::Off)
    );
    assert_eq!(
        volume.chap.as_ref().map(|chap| chap.user.as_str()),
        Some("alice")
    );
    let revision = volume.revision;
    log.done(Command::UpdateVolume(with_chap(update(1, 2))));
    assert_eq!(log.volume().revision, revision);
    let shown = format!("{:?} {:?}", log.state, log.entries);
    assert!(!shown.contains("sesame"), "a secret is shown");
    let mut wrong = with_chap(update(1, 0));
    wrong.chap.as_mut().unwrap().secret = "short".into();
    let refused = log.refused(Command::UpdateVolume(wrong));
    assert!(!refused.message.contains("short"), "{}", refused.message);
    assert_eq!(log.refused(Command::UpdateVolume(update(1, 9))).code, 3);
    log.done(Command::UpdateVolume(rpc::UpdateVolumeCommand {
        change_chap: true,
        ..update(1, 0)
    }));
    assert_eq!(log.volume().chap, None);
}

#[test]
fn replicas_are_added_up_to_the_wanted_count() {
    let mut log = attached();
    assert_eq!(
        log.refused(add(1, 14, 4)).code,
        9,
        "there are as many as wanted"
    );
    log.done(Command::UpdateVolume(update(1, 4)));
    assert_eq!(log.refused(add(1, 14, 3)).code, 3, "n3 has one");
    log.done(add(1, 14, 4));
    log.done(created(1, 14));
    assert_eq!(
        mode(&log, 14),
        ReplicaMode::OutOfSync,
        "to be rebuilt first"
    );
    assert_eq!(log.refused(add(1, 15, 5)).code, 9);
}

#[test]
fn a_surplus_replica_leaves_the_in_sync_set_before_it_is_deleted() {
    let mut log = attached();
    assert_eq!(log.refused(remove(1, 12)).code, 9, "all are wanted");
    log.done(Command::UpdateVolume(update(1, 1)));
    for replica in [12, 13] {
        log.done(remove(1, replica));
        assert_eq!(mode(&log, replica), ReplicaMode::OutOfSync);
        log.done(remove(1, replica));
        assert_eq!(mode(&log, replica), ReplicaMode::Deleting);
        log.done(gone(1, replica, false));
        assert!(!seen(&log, replica));
    }
    assert_eq!(log.refused(remove(1, 11)).code, 9);
    assert_eq!(mode(&log, 11), ReplicaMode::InSync);
}

#[test]
fn the_in_sync_replicas_that_are_wanted_stay_while_others_are_rebuilt() {
    let mut log = attached();
    log.done(lost(1, 1, 12));
    log.done(lost(1, 1, 13));
    log.done(Command::UpdateVolume(update(1, 2)));
    assert_eq!(log.refused(remove(1, 11)).code, 9, "the only one in sync");
    log.done(remove(1, 12));
    assert_eq!(mode(&log, 12), ReplicaMode::Deleting);
    assert_eq!(log.refused(remove(1, 13)).code, 9, "two are wanted");
}

#[test]
fn a_worn_replica_goes_when_another_is_in_sync_in_its_stead() {
    let mut log = attached();
    log.done(damaged(1, 12, 300));
    log.done(damaged(1, 12, 0));
    assert_eq!(log.refused(remove(1, 12)).code, 9, "it is still needed");
    log.done(add(1, 14, 4));
    assert_eq!(log.refused(add(1, 15, 5)).code, 9, "one at a time");
    log.done(created(1, 14));
    log.done(rebuild(1, 14));
    assert_eq!(
        log.refused(remove(1, 12)).code,
        9,
        "the new one is not in sync yet"
    );
    log.done(in_sync(1, 1, 14));
    assert_eq!(log.refused(remove(1, 11)).code, 9, "the worn one is to go");
    log.done(remove(1, 12));
    log.done(remove(1, 12));
    assert_eq!(mode(&log, 12), ReplicaMode::Deleting);
}

#[test]
fn repairs_are_added_up_over_engines_and_told() {
    let mut log = attached();
    for blocks in [2, 2, 3] {
        log.done(repaired(1, 1, 12, blocks));
    }
    log.done(grant(1, "n1", 1));
    assert_eq!(log.refused(repaired(1, 1, 12, 9)).kind, "fenced");
    log.done(repaired(1, 2, 12, 1));
    assert_eq!(log.volume().repaired_blocks, 4);
    let told = log.state.events().after(0);
    let repaired = told.filter(|(_, event)| event.kind == "BlocksRepaired");
    assert_eq!(repaired.count(), 3);
}

#[test]
fn a_volume_taken_by_force_is_fenced_where_it_was() {
    let mut log = attached();
    assert_eq!(log.refused(attach(1, "n2", 4000)).code, 9);
    log.done(take(1, "n2", 4000));
    log.done(take(1, "n2", 4000));
    assert_eq!(log.volume().phase, Phase::Attached("n2".parse().unwrap()));
    log.done(lost(1, 1, 13));
    assert_eq!(log.refused(grant(1, "n1", 1)).code, 9, "not there any more");
    log.done(grant(1, "n2", 1));
    assert_eq!(log.refused(lost(1, 1, 12)).kind, "fenced");
    assert_eq!(log.volume().epoch, Epoch::from_raw(2));
    log.done(detach(1));
    assert_eq!(
        log.refused(attach(1, "n1", 4000)).code,
        9,
        "n2 is still to end"
    );
    log.done(take(1, "n1", 4000));
    assert_eq!(log.volume().phase, Phase::Attached("n1".parse().unwrap()));
}

#[test]
fn a_scrub_that_is_asked_for_has_a_greater_number_than_the_last() {
    let mut log = Log::default();
    log.done(create(1, "data"));
    assert_eq!(log.refused(scrub(1)).code, 9, "nothing is stored yet");
    for replica in 11..=13 {
        log.done(created(1, replica));
    }
    log.done(scrub(1));
    log.act_as("same", scrub(1));
    log.act_as("same", scrub(1));
    assert_eq!(log.volume().scrub.request, 2);
}

#[test]
fn the_largest_volume_record_fits_the_store() {
    let mut log = attached();
    for id in 1..=254 {
        let task = log.done(snapshot(1, id, &format!("s{id}"))).task_id;
        log.done(task_done(1, 1, task, ""));
    }
    let long = |text: &str| text.repeat(512 / text.len());
    let mut change = with_chap(update(1, 8));
    if let Some(chap) = &mut change.chap {
        chap.secret = "s".repeat(128);
        chap.mutual_secret = "m".repeat(128);
    }
    log.done(Command::UpdateVolume(change));
    for replica in 14..=18 {
        log.done(add(1, replica, replica));
    }
    for replica in 11..=18 {
        log.done(damaged(1, replica, 64));
    }
    for _ in 0..8 {
        let task = log
            .done(expand(1, log.volume().size.bytes() + 4096))
            .task_id;
        log.done(task_done(1, 1, task, &long("no room ")));
    }
    for replica in 12..=13 {
        let mut lost = lost(1, 1, replica);
        if let Command::ReplicaLost(lost) = &mut lost {
            lost.reason = long("it missed a write ");
        }
        log.done(lost);
    }
    // Beside these some may be on their way out: there is room for three times as many.
    let record = log.stored.values().map(Vec::len).max().unwrap();
    assert!(record < 32 * 1024, "{record} bytes");
}
