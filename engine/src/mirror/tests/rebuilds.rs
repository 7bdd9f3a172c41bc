//! Rebuilds that are broken off, and where they come from.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use ankole_proto::LayerId;
use ankole_proto::wire::ErrorCode;

use super::super::event::Event;
use super::rules::{AWAY, outcome, settle};
use super::world::{World, layer, replica_id};

/// Sealed layers below the head; each has two chunks, and a block of its own in both.
const SEALED: u64 = 12;

/// What may be under way when a rebuild is broken off, and so is done again.
const WINDOW: usize = 4;

/// Chunks that are equal but not noted yet: those that ended while a note was on its way.
const NOT_NOTED: usize = 4;

fn note_at_once(world: &mut World) {
    world.mirror.config.limits.rebuild_mark_pause = Duration::ZERO;
}

/// All but the last replica are in sync; that is new, and its rebuild begins.
fn layered(seed: u64, in_sync: u128) -> World {
    let mut world = World::new(seed, in_sync, 1);
    note_at_once(&mut world);
    let target = replica_id(in_sync + 1);
    world.down.insert(target, world.now + AWAY);
    world.feed(Event::Tick);
    world.run_until("Serve", |world| world.serving);
    for number in 0..=SEALED {
        for block in [number % 8, 512 + number % 4] {
            let id = world.write(block, 1, false);
            outcome(&mut world, id);
        }
        if number < SEALED {
            world.add_task(None);
            let sealed = usize::try_from(number).unwrap() + 1;
            world.run_until("a seal", |world| world.tasks_done.len() == sealed);
        }
    }
    world.down.remove(&target);
    world
}

fn half_way(world: &mut World, target: u128) {
    let half = usize::try_from(SEALED).unwrap();
    world.run_until("half of the rebuild", |world| {
        world.replicas[&replica_id(target)].copied.len() >= half
    });
}

fn rebuilt(world: &mut World) {
    world.run_until("the promotion", |world| world.promotions == 1);
    world.check_equal("after the rebuild");
}

/// How many chunks of sealed layers the target was asked for again, and given again.
fn again(world: &World, target: u128) -> (usize, usize) {
    let replica = &world.replicas[&replica_id(target)];
    let head = world.orders.head;
    let sealed = |counts: &BTreeMap<(LayerId, u64), usize>| {
        let counts = counts.iter().filter(|((layer, _), _)| *layer != head);
        counts.map(|(_, count)| count - 1).sum()
    };
    (sealed(&replica.compared), sealed(&replica.copied))
}

fn asked(world: &World, replica: u128) -> usize {
    world.replicas[&replica_id(replica)].compared.len()
}

/// Breaks a rebuild off in the middle; tells how much was compared and copied again.
fn broken_off(seed: u64, fault: impl Fn(&mut World)) -> (usize, usize) {
    let mut world = layered(seed, 2);
    half_way(&mut world, 3);
    fault(&mut world);
    note_at_once(&mut world);
    rebuilt(&mut world);
    again(&world, 3)
}

#[test]
fn a_rebuild_that_nothing_breaks_off_compares_and_copies_everything_once() {
    for seed in 0..10 {
        let mut world = layered(seed, 2);
        rebuilt(&mut world);
        assert_eq!(again(&world, 3), (0, 0), "seed {seed}");
        let copied = world.replicas[&replica_id(3)].copied.len();
        assert_eq!(copied as u64, 2 * (SEALED + 1), "seed {seed}");
        assert_eq!(asked(&world, 2), 0, "all comes from the one on this node");
    }
}

#[test]
fn a_rebuild_goes_on_after_a_crash_of_the_engine_or_of_the_targets_blockd() {
    let moment = Duration::from_millis(100);
    for seed in 0..20 {
        let engine = broken_off(seed, |world| world.restart_engine(true));
        let blockd = broken_off(seed, |world| world.crash(replica_id(3), false, moment));
        for (compared, copied) in [engine, blockd] {
            assert!(copied <= WINDOW, "seed {seed}: {copied} copied twice");
            let most = WINDOW + NOT_NOTED;
            assert!(compared <= most, "seed {seed}: {compared} compared twice");
        }
    }
}

#[test]
fn a_target_that_lost_its_power_has_what_was_noted() {
    let moment = Duration::from_millis(100);
    for seed in 0..20 {
        let (compared, copied) = broken_off(seed, |world| world.crash(replica_id(3), true, moment));
        let most = WINDOW + NOT_NOTED;
        assert!(copied <= most, "seed {seed}: {copied} copied twice");
        assert!(compared <= most, "seed {seed}: {compared} compared twice");
    }
}

#[test]
fn a_new_snapshot_does_not_make_a_rebuild_compare_sealed_layers_again() {
    for seed in 0..20 {
        let (compared, copied) = broken_off(seed, |world| world.add_task(None));
        assert!(copied <= WINDOW, "seed {seed}: {copied} copied twice");
        let most = WINDOW + NOT_NOTED;
        assert!(compared <= most, "seed {seed}: {compared} compared twice");
    }
}

#[test]
fn a_source_that_is_away_for_a_moment_is_waited_for() {
    for seed in 0..20 {
        let mut world = layered(seed, 2);
        half_way(&mut world, 3);
        world.crash(replica_id(1), false, Duration::from_millis(150));
        rebuilt(&mut world);
        assert_eq!(world.losses, 0, "seed {seed}");
        let (compared, copied) = again(&world, 3);
        assert!(copied <= WINDOW, "seed {seed}: {copied} copied twice");
        assert!(compared <= WINDOW, "seed {seed}: {compared} compared twice");
        assert_eq!(asked(&world, 2), 0, "seed {seed}");
    }
}

#[test]
fn when_the_source_is_lost_another_is_compared_and_nothing_equal_is_copied_again() {
    for seed in 0..20 {
        let mut world = layered(seed, 2);
        half_way(&mut world, 3);
        assert_eq!(asked(&world, 2), 0, "all comes from one");
        world.crash(replica_id(1), false, AWAY);
        rebuilt(&mut world);
        assert_eq!(world.losses, 1, "seed {seed}");
        let (_, copied) = again(&world, 3);
        assert!(copied <= WINDOW, "seed {seed}: {copied} copied twice");
        let all = 2 * (SEALED + 1);
        assert_eq!(asked(&world, 2) as u64, all, "from the other as a whole");
    }
}

#[test]
fn a_note_of_another_source_is_taken_back_before_anything_is_copied() {
    for seed in 0..20 {
        let mut world = layered(seed, 2);
        half_way(&mut world, 3);
        world.crash(replica_id(3), false, Duration::from_secs(2));
        world.crash(replica_id(1), false, AWAY);
        world.run_until("the loss of the source", |world| world.losses == 1);
        world.restart_engine(true);
        // The layers differ as they may while one replica has merged further than the other.
        let other = world.replicas.get_mut(&replica_id(2)).unwrap();
        let below = other.store.layers.get_mut(&layer(1)).unwrap();
        let moved = below.blocks.remove(&0).unwrap();
        let above = other.store.layers.get_mut(&layer(2)).unwrap();
        above.blocks.insert(0, moved);
        world.run_until("the promotion", |world| world.promotions == 1);
        let target = &world.replicas[&replica_id(3)].store;
        let source = &world.replicas[&replica_id(2)].store;
        for layer in [layer(1), layer(2)] {
            let (here, there) = (&target.layers[&layer], &source.layers[&layer]);
            assert_eq!(here.blocks, there.blocks, "seed {seed}: layer {layer}");
        }
    }
}

#[test]
fn a_source_that_answers_an_error_in_the_middle_is_left_for_another() {
    for error in [ErrorCode::Io, ErrorCode::Overloaded, ErrorCode::Malformed] {
        let mut world = layered(3, 2);
        half_way(&mut world, 3);
        world.replicas.get_mut(&replica_id(1)).unwrap().failing = Some(error);
        rebuilt(&mut world);
        let disk_failed = usize::from(error == ErrorCode::Io);
        assert_eq!(world.losses, disk_failed, "{error:?}");
        let all = 2 * (SEALED + 1);
        assert_eq!(asked(&world, 2) as u64, all, "{error:?}");
        let (_, copied) = again(&world, 3);
        assert!(copied <= WINDOW, "{error:?}: {copied} copied twice");
    }
}

#[test]
fn a_block_that_is_damaged_on_the_source_comes_from_another_and_is_mended() {
    let mut world = layered(4, 2);
    let source = world.replicas.get_mut(&replica_id(1)).unwrap();
    source.bad.push(SEALED % 8);
    rebuilt(&mut world);
    let all = 2 * (SEALED + 1);
    assert_eq!(asked(&world, 2) as u64, all, "it is taken there");
    world.run_until("the repair", |world| {
        world.replicas[&replica_id(1)].bad.is_empty()
    });
    assert_eq!(world.losses, 0);
}

#[test]
fn without_another_source_a_damaged_block_holds_the_rebuild_up_until_it_is_written_anew() {
    let mut world = layered(5, 1);
    let block = SEALED % 8;
    let source = world.replicas.get_mut(&replica_id(1)).unwrap();
    source.bad.push(block);
    settle(&mut world, Duration::from_secs(60));
    assert_eq!(world.promotions, 0, "what nobody has is not made up");
    let id = world.write(block, 1, false);
    outcome(&mut world, id);
    rebuilt(&mut world);
}

#[test]
fn a_rebuild_ends_only_when_its_last_note_is_answered() {
    for seed in 0..50 {
        let mut world = layered(seed, 2);
        rebuilt(&mut world);
        // It comes back with everything, so that comparing is all there is to do. The replica itself
        // checks what is unanswered when its rebuild is to end.
        world.crash(replica_id(3), false, Duration::from_secs(1));
        let id = world.write(0, 1, false);
        outcome(&mut world, id);
        assert_eq!(world.losses, 1);
        world.run_until("the second promotion", |world| world.promotions == 2);
    }
}

/// How many chunks the rebuild of the third replica has under way.
fn under_way(world: &World) -> usize {
    let target = world.mirror.replicas.get(&replica_id(3));
    target
        .and_then(|target| target.rebuild())
        .map_or(0, |rebuild| rebuild.chunks_under_way())
}

#[test]
fn beside_io_a_rebuild_has_one_chunk_under_way_and_alone_several() {
    for (beside, most) in [(true, 1), (false, 2)] {
        let mut world = World::new(7, 2, 1);
        world.feed(Event::Tick);
        world.run_until("Serve", |world| world.serving);
        let mut seen = 0;
        while world.promotions == 0 {
            if beside {
                let id = world.read(3, 1);
                seen = seen.max(under_way(&world));
                outcome(&mut world, id);
            } else if !world.deliver() {
                world.pass(Duration::from_millis(50));
            }
            seen = seen.max(under_way(&world));
        }
        assert_eq!(seen, most, "beside I/O: {beside}");
    }
}

#[test]
fn a_rebuild_keeps_to_the_limit_of_the_orders_and_to_a_new_one() {
    let limit = |world: &mut World, bytes_per_second| {
        world.orders.replicas[2].rebuild_bytes_per_second = NonZeroU64::new(bytes_per_second);
        world.publish();
    };
    // A block in each of 26 chunks.
    let taken = |slow: u64, then: u64| {
        let mut world = layered(3, 2);
        limit(&mut world, slow);
        let begun = world.now;
        half_way(&mut world, 3);
        limit(&mut world, then);
        rebuilt(&mut world);
        world.now.since(begun)
    };
    let slow = taken(4096, 4096);
    assert!(slow >= Duration::from_secs(24), "{slow:?}");
    let freed = taken(4096, 0);
    assert!(freed >= Duration::from_secs(10), "{freed:?}");
    assert!(freed < Duration::from_secs(16), "{freed:?}");
}
