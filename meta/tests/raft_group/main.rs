//! Three real managers, each a process of its own, killed and started again: they elect, agree,
//! and in the end hold the same bytes (INV-11). Each process is this test program, in the role in
//! `child.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod child;
mod group;

use std::time::{Duration, Instant};

use group::Group;

/// For anything that is awaited, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_group_survives_the_loss_of_its_leader_and_then_of_everybody() {
    let mut group = Group::start(3);
    let first = group.leader();
    for number in 0..40 {
        group.put(first, &format!("first{number}=x{number}"));
    }

    group.kill(first);
    let started = Instant::now();
    let second = group.leader_other_than(first);
    group.put(second, "after=failover");
    let gap = started.elapsed();
    println!("failover took {gap:?}");
    assert!(gap < Duration::from_secs(10), "failover took {gap:?}");
    for number in 0..20 {
        group.put(second, &format!("first{number}=y{number}"));
    }

    group.kill_all();
    group.start_all();
    let third = group.leader();
    group.put(third, "after=everything");
    let dumps = group.dumps(third);
    for dump in &dumps {
        assert_eq!(dump, &dumps[0], "the managers differ");
    }
    group.assert_holds_all_acknowledged(&dumps[0]);
}

#[test]
fn a_follower_that_was_away_for_long_catches_up_from_a_snapshot() {
    let mut group = Group::start(3);
    let leader = group.leader();
    let away = group.any_but(leader);
    group.kill(away);
    group.ask(leader, "fill 5600");
    group.start_one(away);
    let dumps = group.dumps(leader);
    assert_eq!(dumps[0].lines().count(), 5600);
    for dump in &dumps {
        assert!(dump == &dumps[0], "the managers differ");
    }
    let status = group.ask(away, "snapshot");
    assert!(
        status.parse::<u64>().unwrap() >= 4000,
        "no snapshot: {status}"
    );
    // It starts again from what it installed.
    group.kill(away);
    group.start_one(away);
    let again = group.dumps(leader);
    assert!(
        again.iter().all(|dump| dump == &dumps[0]),
        "they differ after a restart"
    );
}

#[test]
fn members_are_added_and_removed_while_the_group_works() {
    let mut group = Group::start(3);
    let leader = group.leader();
    group.put(leader, "before=1");
    let address = group.add_address();
    group.start_one(4);
    group.ask(leader, &format!("learner 4={address}"));
    group.ask(leader, "promote 4");
    let removed = group.any_but(leader);
    group.ask(leader, &format!("remove {removed}"));
    group.kill(removed);
    let other = (1..=3).find(|id| *id != leader && *id != removed).unwrap();
    // Two of three are a majority: the new one counts.
    group.kill(other);
    group.put(leader, "after=2");
    group.assert_holds_all_acknowledged(&group.dumps(leader)[0]);
}

#[test]
fn a_manager_that_lost_its_directory_is_refused_under_its_old_id() {
    let mut group = Group::start(3);
    let leader = group.leader();
    let lost = group.any_but(leader);
    group.kill(lost);
    group.delete_directory(lost);
    let complaint = group.start_and_fail(lost);
    assert!(
        complaint.contains("must come back under a new id"),
        "{complaint}"
    );
    // The founder too: it must not found a second cluster.
    group.put(leader, "still=works");
}

#[test]
fn a_manager_ends_at_sigterm_and_refuses_a_taken_port() {
    let mut group = Group::start(1);
    let leader = group.leader();
    assert_eq!(leader, 1);
    group.put(1, "a=1");
    let complaint = group.start_and_fail(1);
    assert!(
        complaint.contains("Is another process using the port?"),
        "{complaint}"
    );
    group.terminate(1);
    group.start_one(1);
    group.leader();
    group.assert_holds_all_acknowledged(&group.dumps(1)[0]);
}
