//! All in-sync replicas are gone: I/O is held up to a limit, then fails for a retry, and the volume
//! works again by itself when any of them is back.

use std::time::Duration;

use bytes::Bytes;

use super::super::event::Event;
use super::rules::{AWAY, outcome, serving, settle};
use super::world::{World, replica_id};
use crate::volume::{Failure, Outcome};

fn done() -> Outcome {
    Outcome::Done(Bytes::new())
}

/// Something is acknowledged by all three, and then none answers; only one comes back.
fn all_gone(back: u128, after: Duration) -> World {
    let mut world = serving(3);
    let id = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, id), done());
    for number in 1..=3 {
        let away = if number == back { after } else { AWAY };
        world.crash(replica_id(number), false, away);
    }
    world
}

#[test]
fn what_is_held_fails_for_a_retry_when_the_limit_is_over_and_not_before() {
    let mut world = all_gone(1, AWAY);
    let limit = world.mirror.config.limits.hold_limit;
    let ids = [world.write(0, 1, false), world.read(4, 1)];
    let begun = world.now;
    for id in ids {
        let failed = Outcome::Failed(Failure::Unavailable);
        assert_eq!(outcome(&mut world, id), failed);
        let held = world.now.since(begun);
        assert!(held >= limit, "{held:?}");
        assert!(held < limit + Duration::from_secs(1), "{held:?}");
    }
    assert!(world.mirror.status().held_because.is_some(), "it says why");
    assert_eq!((world.losses, world.in_sync().len()), (0, 3));
}

#[test]
fn what_is_held_is_done_when_one_is_back_in_time() {
    for back in 1..=3 {
        let mut world = all_gone(back, Duration::from_secs(10));
        let write = world.write(0, 1, false);
        let read = world.read(0, 1);
        assert_eq!(outcome(&mut world, write), done());
        assert!(matches!(outcome(&mut world, read), Outcome::Done(_)));
        assert_eq!(world.in_sync(), [replica_id(back)], "the others are lost");
    }
}

#[test]
fn any_that_was_in_sync_salvages_the_volume_however_late_it_is_back() {
    for restart in [false, true] {
        for back in 1..=3 {
            let mut world = all_gone(back, Duration::from_secs(120));
            if restart {
                world.restart_engine(true);
            }
            settle(&mut world, Duration::from_secs(100));
            assert!(!restart || !world.serving, "nothing is served before");
            assert_eq!((world.losses, world.in_sync().len()), (0, 3));
            settle(&mut world, Duration::from_secs(40));
            assert_eq!(world.in_sync(), [replica_id(back)]);
            // The history knows what has to be read.
            let read = world.read(0, 1);
            assert!(matches!(outcome(&mut world, read), Outcome::Done(_)));
            let write = world.write(0, 1, true);
            assert_eq!(outcome(&mut world, write), done());
            assert!(!world.mirror.status().unflushed_lost);
        }
    }
}

#[test]
fn one_that_missed_writes_does_not_salvage_the_volume() {
    for restart in [false, true] {
        let mut world = serving(3);
        world.crash(replica_id(3), false, Duration::from_secs(60));
        let id = world.write(0, 1, false);
        assert_eq!(outcome(&mut world, id), done());
        assert_eq!(world.losses, 1);
        for number in 1..=2 {
            world.crash(replica_id(number), false, Duration::from_secs(300));
        }
        if restart {
            world.restart_engine(true);
        }
        settle(&mut world, Duration::from_secs(90));
        let id = world.read(0, 1);
        let failed = Outcome::Failed(Failure::Unavailable);
        assert_eq!(outcome(&mut world, id), failed);
        assert_eq!(world.in_sync(), [replica_id(1), replica_id(2)]);
        world.run_until("all are in sync again", |world| world.in_sync().len() == 3);
        world.check_equal("after all came back");
    }
}

#[test]
fn without_managers_the_volume_works_again_when_all_are_back() {
    let mut world = serving(3);
    world.managers_away = true;
    for number in 1..=3 {
        world.crash(replica_id(number), false, Duration::from_secs(30));
    }
    settle(&mut world, Duration::from_secs(29));
    let id = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, id), done());
    assert_eq!(world.losses, 0);
    world.feed(Event::Tick);
}
