//! Each rule by itself.

use std::time::Duration;

use ankole_proto::wire::body::Memory;
use ankole_proto::{BLOCK_BYTES, Epoch, Extent};
use bytes::Bytes;

use super::super::event::{Effect, Event, Orders, Role, StopReason};
use super::world::{World, layer, replica_id};
use crate::volume::{Failure, Operation, OperationId, Outcome};

pub(super) const AWAY: Duration = Duration::from_secs(3600);

pub(super) fn block(number: u64) -> Extent {
    Extent::new(number * BLOCK_BYTES, BLOCK_BYTES).unwrap()
}

pub(super) fn bytes(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 4096])
}

/// A world of this many in-sync replicas that serves.
pub(super) fn serving(in_sync: u128) -> World {
    let mut world = World::new(7, in_sync, 0);
    world.feed(Event::Tick);
    world.run_until("Serve", |world| world.serving);
    world
}

pub(super) fn outcome(world: &mut World, id: OperationId) -> Outcome {
    world.run_until("an outcome", |world| {
        world.history.outcomes.contains_key(&id)
    });
    world.history.outcomes[&id].clone()
}

pub(super) fn settle(world: &mut World, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        if !world.deliver() {
            world.pass(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_was_written_is_read() {
    let mut world = serving(3);
    let id = world.write(1, 2, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    let id = world.read(1, 2);
    assert!(matches!(outcome(&mut world, id), Outcome::Done(data) if data.len() == 8192));
    assert_eq!(world.losses, 0);
}

#[test]
fn nothing_is_served_before_every_in_sync_replica_is_open_or_recorded_lost() {
    let mut world = World::new(1, 3, 0);
    world.down.insert(replica_id(3), world.now + AWAY);
    world.feed(Event::Tick);
    let early = world.read(0, 1);
    settle(&mut world, Duration::from_secs(4));
    assert!(!world.serving && world.losses == 0);
    world.run_until("Serve", |world| world.serving);
    assert_eq!(world.losses, 1, "it was recorded lost first");
    assert!(matches!(outcome(&mut world, early), Outcome::Done(_)));
}

#[test]
fn a_write_that_a_replica_missed_waits_for_the_record_of_its_loss() {
    let mut world = serving(2);
    world.managers_away = true;
    world.crash(replica_id(2), false, AWAY);
    let id = world.write(0, 1, false);
    settle(&mut world, Duration::from_secs(2));
    let known = world.history.outcomes.contains_key(&id);
    assert!(
        !known || world.in_sync().len() == 1,
        "acknowledged before the record"
    );
    world.managers_away = false;
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!(world.in_sync(), [replica_id(1)]);
}

#[test]
fn writes_go_on_while_the_managers_are_away() {
    let mut world = serving(3);
    world.managers_away = true;
    for number in 0..6 {
        let id = world.write(number, 1, false);
        assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    }
}

#[test]
fn a_replica_that_comes_back_in_time_is_sent_what_it_missed_and_stays() {
    let mut world = serving(3);
    world.write(0, 1, false);
    world.crash(replica_id(2), false, Duration::from_millis(150));
    let id = world.write(0, 2, true);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!((world.losses, world.in_sync().len()), (0, 3));
}

#[test]
fn a_lease_that_still_runs_is_no_answer_of_the_replica_that_gave_it() {
    let mut world = serving(2);
    let warm = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, warm), Outcome::Done(Bytes::new()));
    // Its host is gone without a word; the other's blockd is killed a moment later.
    world
        .down
        .insert(replica_id(1), world.now + Duration::from_secs(3));
    world.crash(replica_id(2), false, Duration::from_secs(20));
    let id = world.write(0, 1, false);
    settle(&mut world, Duration::from_millis(2_500));
    assert_eq!(world.losses, 0, "recorded lost while nobody answers");
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!(world.in_sync(), [replica_id(1)]);
}

#[test]
fn when_all_are_silent_all_stay_on_record_and_io_is_held_then_fails_for_a_retry() {
    let mut world = serving(3);
    for number in 1..=3 {
        world.crash(replica_id(number), false, Duration::from_secs(40));
    }
    let id = world.write(0, 1, false);
    settle(&mut world, Duration::from_secs(15));
    assert!(!world.history.outcomes.contains_key(&id), "held");
    assert!(world.mirror.status().held_because.is_some());
    assert_eq!(
        outcome(&mut world, id),
        Outcome::Failed(Failure::Unavailable)
    );
    assert_eq!((world.losses, world.in_sync().len()), (0, 3));
    settle(&mut world, Duration::from_secs(30));
    let id = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    world.check_equal("after all came back");
    assert_eq!(world.losses, 0);
}

#[test]
fn the_last_in_sync_replica_is_never_recorded_lost() {
    let mut world = serving(1);
    world.crash(replica_id(1), false, Duration::from_secs(10));
    let id = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!(world.losses, 0);
}

#[test]
fn a_newer_epoch_stops_the_engine_for_good() {
    let mut world = serving(2);
    let id = world.write(0, 1, false);
    let epoch = Epoch::from_raw(9);
    let orders = Orders {
        epoch,
        revision: 99,
        ..world.orders.clone()
    };
    world.feed(Event::Orders(orders));
    assert_eq!(world.stopped, Some(StopReason::Fenced(epoch)));
    let stopping = Outcome::Failed(Failure::Stopping);
    assert_eq!(world.history.outcomes[&id], stopping);
    let id = world.read(0, 1);
    assert_eq!(world.history.outcomes[&id], stopping);
    assert_eq!(world.mirror.wake_at(), None);
}

#[test]
fn a_replica_that_obeys_a_newer_epoch_stops_the_engine() {
    let mut world = serving(2);
    world.replicas.get_mut(&replica_id(2)).unwrap().epoch = Epoch::from_raw(5);
    world.cut(replica_id(2));
    world.run_until("the stop", |world| world.stopped.is_some());
    assert_eq!(world.stopped, Some(StopReason::Fenced(Epoch::from_raw(5))));
}

#[test]
fn the_next_engine_waits_out_the_lease_unless_the_last_one_is_known_to_have_ended() {
    let mut world = serving(2);
    let id = world.write(0, 1, false);
    outcome(&mut world, id);
    let died = world.now;
    world.restart_engine(false);
    world.run_until("Serve", |world| world.serving);
    assert!(
        world.now >= died + Duration::from_millis(2900),
        "{:?}",
        world.now
    );
    let died = world.now;
    world.restart_engine(true);
    world.run_until("Serve", |world| world.serving);
    assert!(world.now < died + Duration::from_secs(1));
}

#[test]
fn an_engine_that_stops_closes_every_replica_so_the_next_need_not_wait() {
    let mut world = serving(3);
    let id = world.write(0, 1, false);
    world.feed(Event::Stop);
    world.run_until("the stop", |world| world.stopped.is_some());
    assert_eq!(world.history.outcomes[&id], Outcome::Done(Bytes::new()));
    assert_eq!(world.stopped, Some(StopReason::Closed));
    let ended = world.now;
    world.restart_engine(false);
    world.run_until("Serve", |world| world.serving);
    assert!(world.now < ended + Duration::from_secs(1));
}

#[test]
fn full_disks_everywhere_fail_the_write_and_lose_nobody() {
    let mut world = serving(3);
    for replica in world.replicas.values_mut() {
        replica.full = true;
    }
    let id = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Failed(Failure::NoSpace));
    assert_eq!(world.losses, 0);
}

#[test]
fn a_full_disk_on_one_replica_costs_it_its_place() {
    let mut world = serving(3);
    world.replicas.get_mut(&replica_id(2)).unwrap().full = true;
    let id = world.write(0, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!(world.losses, 1);
    assert!(!world.in_sync().contains(&replica_id(2)));
}

#[test]
fn a_block_with_a_bad_checksum_is_read_elsewhere_and_repaired() {
    let mut world = serving(2);
    let id = world.write(3, 1, false);
    outcome(&mut world, id);
    world.replicas.get_mut(&replica_id(1)).unwrap().bad.push(3);
    let id = world.read(3, 1);
    assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
    world.run_until("the repair", |world| {
        world.replicas[&replica_id(1)].bad.is_empty()
    });
    assert_eq!(world.losses, 0);
}

#[test]
fn a_block_that_is_bad_everywhere_is_an_error_and_never_zeros() {
    let mut world = serving(2);
    for replica in world.replicas.values_mut() {
        replica.bad.push(3);
    }
    let id = world.read(3, 1);
    assert_eq!(
        outcome(&mut world, id),
        Outcome::Failed(Failure::Unreadable)
    );
}

#[test]
fn compare_and_write_and_or_are_atomic() {
    let mut world = serving(2);
    let extent = block(2);
    let mut compare = |expected: u8, data: u8| {
        let id = world.submit(Operation::CompareAndWrite {
            extent,
            expected: bytes(expected),
            data: bytes(data),
            fua: false,
        });
        outcome(&mut world, id)
    };
    assert_eq!(compare(0, 1), Outcome::Done(Bytes::new()));
    let first_difference = 0;
    assert_eq!(compare(0, 2), Outcome::Miscompare { first_difference });
    let id = world.submit(Operation::Or {
        extent,
        data: bytes(6),
        fua: true,
    });
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    for replica in world.replicas.values() {
        assert_eq!(replica.store.read(extent), bytes(7));
    }
}

#[test]
fn a_seal_drains_and_every_replica_gets_the_new_head() {
    let mut world = serving(3);
    for number in 0..5 {
        world.write(number, 1, false);
    }
    world.add_task(None);
    world.run_until("the snapshot", |world| !world.tasks_done.is_empty());
    let late = world.write(1, 1, false);
    outcome(&mut world, late);
    for replica in world.replicas.values() {
        assert_eq!(replica.store.head, layer(2));
        let sealed = &replica.store.layers[&layer(1)];
        let first = &world.replicas[&replica_id(1)].store.layers[&layer(1)];
        assert_eq!(
            sealed.blocks, first.blocks,
            "the cut is the same everywhere"
        );
    }
}

#[test]
fn the_next_engine_completes_a_seal_that_was_half_done() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3, 0);
        world.feed(Event::Tick);
        world.run_until("Serve", |world| world.serving);
        let id = world.write(0, 2, false);
        outcome(&mut world, id);
        world.add_task(None);
        for _ in 0..seed {
            world.deliver();
        }
        world.restart_engine(true);
        world.run_until("the snapshot", |world| {
            world.serving && !world.tasks_done.is_empty()
        });
        for replica in world.replicas.values() {
            assert_eq!(replica.store.head, layer(2), "seed {seed}");
        }
    }
}

#[test]
fn a_revert_goes_back_and_is_refused_while_initiators_are_logged_in() {
    let mut world = serving(2);
    let id = world.write(0, 1, false);
    outcome(&mut world, id);
    let before = world.replicas[&replica_id(1)].store.read(block(0));
    world.add_task(None);
    world.run_until("the snapshot", |world| world.tasks_done.len() == 1);
    let id = world.write(0, 1, false);
    outcome(&mut world, id);
    world.feed(Event::Initiators(1));
    world.add_task(Some(layer(1)));
    world.run_until("the refusal", |world| world.tasks_done.len() == 2);
    assert!(world.tasks_done[1].1.is_some());
    world.feed(Event::Initiators(0));
    world.add_task(Some(layer(1)));
    world.run_until("the revert", |world| world.tasks_done.len() == 3);
    assert_eq!(world.tasks_done[2].1, None);
    for replica in world.replicas.values() {
        assert_eq!(replica.store.read(block(0)), before);
    }
}

#[test]
fn a_new_replica_is_rebuilt_and_counts_only_after_the_record() {
    let mut world = World::new(3, 2, 1);
    world.feed(Event::Tick);
    world.run_until("Serve", |world| world.serving);
    for number in [0, 3, 513] {
        let id = world.write(number, 1, false);
        outcome(&mut world, id);
    }
    world.run_until("the promotion", |world| world.promotions == 1);
    assert!(world.orders.replicas.iter().all(|m| m.role == Role::InSync));
    world.check_equal("after the promotion");
    let id = world.write(0, 1, true);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
}

#[test]
fn a_rebuild_ends_under_a_load_that_never_rests() {
    const IN_FLIGHT: u64 = 40;
    const CHUNK_BLOCKS: u64 = 512;
    for seed in 0..50 {
        let mut world = World::new(seed, 2, 1);
        world.feed(Event::Tick);
        world.run_until("Serve", |world| world.serving);
        // No time passes, so nothing happens but for what is submitted and answered.
        for delivery in 0..200_000 {
            let done = world.history.outcomes.len() as u64;
            if world.next_operation - done < IN_FLIGHT {
                // In both chunks, so that either may be the last to be copied.
                let second = CHUNK_BLOCKS + delivery % 4;
                let first = delivery * 97 % CHUNK_BLOCKS;
                let block = if delivery % 2 == 0 { first } else { second };
                world.write(block, 1, false);
            }
            assert!(world.deliver(), "seed {seed}: nothing is under way");
            if world.promotions == 1 {
                break;
            }
        }
        assert_eq!(world.promotions, 1, "seed {seed}: the rebuild never ends");
    }
}

#[test]
fn when_every_replica_forgot_one_is_chosen_and_the_others_are_rebuilt() {
    let mut world = serving(3);
    let id = world.write(0, 1, true);
    outcome(&mut world, id);
    for number in 1..=3 {
        world.crash(replica_id(number), true, Duration::from_millis(10));
    }
    world.restart_engine(true);
    world.run_until("all in sync again", |world| world.promotions == 2);
    assert_eq!(world.losses, 2);
    let id = world.read(0, 1);
    assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
    world.check_equal("after the rebuilds");
}

#[test]
fn a_replica_that_forgot_hears_soon_that_all_it_forgot_is_complete() {
    let moment = Duration::from_millis(10);
    for restart in [false, true] {
        let mut world = serving(2);
        let id = world.write(0, 1, false);
        outcome(&mut world, id);
        if restart {
            // The next engine finds it so at its start, and the same engine again while it serves.
            world.crash(replica_id(1), false, moment);
            world.crash(replica_id(2), false, moment);
            world.restart_engine(true);
            world.run_until("all in sync again", |world| world.promotions == 1);
        }
        world.crash(replica_id(2), false, moment);
        for number in 0..8 {
            let id = world.write(number, 1, false);
            assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
        }
        world.run_until("a whole memory", |world| {
            let mut replicas = world.replicas.values();
            replicas.all(|replica| replica.memory == Memory::Kept)
        });
        assert_eq!(world.losses, usize::from(restart), "restart: {restart}");
    }
}

#[test]
fn a_replica_that_has_everything_is_waited_for_before_one_that_lost_its_power() {
    for restart in [false, true] {
        let mut world = serving(2);
        let id = world.write(0, 1, false);
        outcome(&mut world, id);
        world.crash(replica_id(1), true, Duration::from_millis(10));
        world.crash(replica_id(2), false, Duration::from_secs(15));
        if restart {
            world.restart_engine(true);
        }
        let id = world.read(0, 1);
        // The history knows what has to be read.
        assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
        world.run_until("the other is rebuilt", |world| world.promotions == 1);
        assert!(!world.mirror.status().unflushed_lost);
    }
}

#[test]
fn one_that_lost_its_power_is_chosen_in_the_end_and_the_loss_is_told() {
    for restart in [false, true] {
        let mut world = serving(2);
        world.crash(replica_id(1), true, Duration::from_millis(10));
        world.crash(replica_id(2), false, AWAY);
        if restart {
            world.restart_engine(true);
        }
        let begun = world.now;
        world.run_until("the loss of the other", |world| world.losses == 1);
        assert!(world.now.since(begun) >= Duration::from_secs(20));
        let id = world.read(0, 1);
        assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
        assert!(world.mirror.status().unflushed_lost);
    }
}

#[test]
fn nothing_is_acknowledged_while_a_replica_that_lost_its_memory_is_on_record() {
    let mut world = serving(2);
    let id = world.write(0, 1, false);
    outcome(&mut world, id);
    world.managers_away = true;
    world.crash(replica_id(2), true, Duration::from_millis(10));
    let id = world.write(1, 1, false);
    settle(&mut world, Duration::from_secs(2));
    assert!(!world.history.outcomes.contains_key(&id), "INV-3");
    world.managers_away = false;
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!(world.losses, 1);
}

#[test]
fn a_flush_tells_when_every_replica_lost_what_was_not_flushed() {
    let mut world = serving(2);
    let id = world.write(0, 1, false);
    outcome(&mut world, id);
    for number in 1..=2 {
        world.crash(replica_id(number), true, Duration::from_millis(10));
    }
    settle(&mut world, Duration::from_secs(1));
    let first = world.submit(Operation::Flush);
    assert_eq!(outcome(&mut world, first), Outcome::Failed(Failure::Lost));
}

#[test]
fn without_leases_outcomes_are_held() {
    let mut world = serving(2);
    let id = world.write(0, 1, false);
    outcome(&mut world, id);
    let away = world.now + Duration::from_millis(4500);
    world.down.insert(replica_id(2), away);
    settle(&mut world, Duration::from_millis(3500));
    let id = world.read(0, 1);
    settle(&mut world, Duration::from_millis(500));
    assert!(
        !world.history.outcomes.contains_key(&id),
        "replica 2 has been silent"
    );
    assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
}

#[test]
fn more_operations_than_are_held_are_busy() {
    let mut world = serving(1);
    world
        .down
        .insert(replica_id(1), world.now + Duration::from_secs(1));
    let ids: Vec<_> = (0..520).map(|_| world.read(0, 1)).collect();
    let last = ids[ids.len() - 1];
    assert_eq!(
        world.history.outcomes[&last],
        Outcome::Failed(Failure::Busy)
    );
    assert!(matches!(outcome(&mut world, ids[0]), Outcome::Done(_)));
}

#[test]
fn an_engine_that_was_stopped_blames_nobody_for_answers_that_it_could_not_hear() {
    let mut world = serving(3);
    let id = world.write(0, 1, false);
    // Stopped with requests in flight, longer than any deadline; the answers wait in the sockets.
    world.now = world.now + Duration::from_secs(15);
    let mut effects = Vec::new();
    world.mirror.step(world.now, Event::Tick, &mut effects);
    for effect in effects {
        let given_up = matches!(effect, Effect::Disconnect { .. });
        assert!(!given_up, "{effect:?}");
        world.carry_out(effect);
    }
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!((world.losses, world.in_sync().len()), (0, 3));
}

#[test]
fn a_replica_that_stays_silent_after_the_engine_was_stopped_is_lost() {
    let mut world = serving(3);
    world.down.insert(replica_id(2), world.now + AWAY);
    let id = world.write(0, 1, false);
    world.now = world.now + Duration::from_secs(15);
    world.feed(Event::Tick);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!((world.losses, world.in_sync().len()), (1, 2));
}
