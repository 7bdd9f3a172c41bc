//! In-sync replicas are compared with each other, and one that differs is made equal.

use std::time::Duration;

use ankole_proto::{CHUNK_BYTES, VolumeSize};
use bytes::Bytes;

use super::super::event::{Event, Task, TaskId, TaskKind};
use super::super::status::ComparisonStatus;
use super::rules::{AWAY, outcome, serving, settle};
use super::world::{World, layer, replica_id};
use crate::volume::Outcome;

/// Sealed layers below the head; each has a block of its own in both of its chunks.
const SEALED: u64 = 3;

fn layered(in_sync: u128) -> World {
    let mut world = serving(in_sync);
    for number in 0..=SEALED {
        for block in [number, 512 + number] {
            let id = world.write(block, 1, false);
            outcome(&mut world, id);
        }
        if number < SEALED {
            world.add_task(None);
            let sealed = usize::try_from(number).unwrap() + 1;
            world.run_until("a seal", |world| world.tasks_done.len() == sealed);
        }
    }
    world
}

fn order(world: &mut World) {
    world.orders.comparison += 1;
    world.publish();
}

fn is_finished(world: &World) -> bool {
    let told = world.mirror.status().comparison;
    told.is_some_and(|told| told.is_finished && told.request == world.orders.comparison)
}

fn compared(world: &mut World) -> ComparisonStatus {
    order(world);
    world.run_until("the end of the comparison", is_finished);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(told.done_bytes, told.total_bytes);
    told
}

fn found(told: &ComparisonStatus) -> (u64, u64, u64) {
    (
        told.differing_chunks,
        told.undecided_chunks,
        told.skipped_chunks,
    )
}

/// Has a replica hold another block there.
fn spoil(world: &mut World, replica: u128, of: u64, block: u64) {
    let store = &mut world.replicas.get_mut(&replica_id(replica)).unwrap().store;
    let layer = store.layers.get_mut(&layer(of)).unwrap();
    layer
        .blocks
        .insert(block, Some(Bytes::from(vec![0xee; 4096])));
}

#[test]
fn equal_replicas_are_found_equal_also_under_load() {
    let mut world = layered(3);
    assert_eq!(found(&compared(&mut world)), (0, 0, 0));
    order(&mut world);
    for number in 0.. {
        if world.history.in_flight() < 6 {
            world.write(number % 8, 1, false);
        }
        world.deliver();
        world.pass(Duration::from_millis(1));
        if is_finished(&world) {
            if world.orders.comparison == 6 {
                break;
            }
            order(&mut world);
        }
    }
    world.run_until("the end of the comparison", is_finished);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(found(&told), (0, 0, 0));
    assert_eq!(told.request, 6);
    assert_eq!(world.losses, 0);
}

#[test]
fn how_a_replica_holds_what_reads_the_same_is_no_difference() {
    let mut world = layered(2);
    let head = world.orders.head;
    let store = &mut world.replicas.get_mut(&replica_id(2)).unwrap().store;
    let below = store.layers[&layer(1)].blocks[&0].clone();
    let blocks = &mut store.layers.get_mut(&head).unwrap().blocks;
    blocks.insert(0, below);
    blocks.insert(6, None);
    blocks.insert(7, Some(Bytes::from(vec![0; 4096])));
    assert_eq!(found(&compared(&mut world)), (0, 0, 0));
}

#[test]
fn a_replica_that_lost_a_write_is_made_equal_to_the_majority() {
    let head = SEALED + 1;
    for (of, block) in [(1, 0), (2, 513), (head, SEALED), (head, 7), (head, 515)] {
        let mut world = layered(3);
        spoil(&mut world, 2, of, block);
        let told = compared(&mut world);
        assert_eq!(found(&told), (1, 0, 0), "layer {of} block {block}");
        world.run_until("the rebuild", |world| world.promotions == 1);
        assert_eq!(world.losses, 1);
        world.check_equal("after the rebuild");
        assert_eq!(found(&compared(&mut world)), (0, 0, 0));
    }
}

#[test]
fn without_a_majority_nothing_is_done_and_it_is_told() {
    let mut world = layered(2);
    spoil(&mut world, 1, SEALED + 1, 5);
    spoil(&mut world, 2, 2, 514);
    assert_eq!(found(&compared(&mut world)), (2, 2, 0));
    let mut three = layered(3);
    for (replica, block) in [(1, 4), (2, 5)] {
        spoil(&mut three, replica, SEALED + 1, block);
    }
    assert_eq!(found(&compared(&mut three)), (1, 1, 0), "three contents");
    for world in [world, three] {
        assert_eq!(world.losses, 0);
    }
}

#[test]
fn replicas_that_were_copied_from_one_another_do_not_outvote_the_others() {
    let mut world = layered(3);
    spoil(&mut world, 2, 1, 0);
    assert_eq!(found(&compared(&mut world)), (1, 0, 0));
    world.run_until("the rebuild", |world| world.promotions == 1);
    // Whichever of the others it was made equal to: if that one is wrong, so is the copy.
    for replica in [2, 3] {
        spoil(&mut world, replica, SEALED + 1, 6);
    }
    let told = compared(&mut world);
    assert_eq!((found(&told), told.alike), ((1, 1, 0), Vec::new()));
    assert_eq!(world.losses, 1);
    // Once all were found alike, the copy is as good as the others.
    spoil(&mut world, 1, SEALED + 1, 6);
    let told = compared(&mut world);
    assert_eq!((found(&told), told.alike.len()), ((0, 0, 0), 3));
    for member in &mut world.orders.replicas {
        member.independent = true;
    }
    spoil(&mut world, 1, SEALED + 1, 7);
    assert_eq!(found(&compared(&mut world)), (1, 0, 0));
    world.run_until("the rebuild", |world| world.promotions == 2);
}

#[test]
fn a_replica_that_differs_counts_until_its_loss_is_on_record() {
    let mut world = layered(3);
    spoil(&mut world, 3, SEALED + 1, 6);
    world.managers_away = true;
    order(&mut world);
    run_until_one_differs(&mut world);
    for number in 0..4 {
        let id = world.write(number, 1, false);
        assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    }
    let id = world.read(0, 1);
    assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
    world.managers_away = false;
    world.run_until("the rebuild", |world| world.promotions == 1);
    world.check_equal("after the rebuild");
}

#[test]
fn one_that_is_away_is_waited_for() {
    let mut world = layered(3);
    spoil(&mut world, 3, SEALED + 1, 6);
    world.crash(replica_id(3), false, Duration::from_millis(200));
    order(&mut world);
    world.run_until("the end of the comparison", is_finished);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(found(&told), (1, 0, 0), "the two others are alike");
    world.run_until("the rebuild", |world| world.promotions == 1);
}

#[test]
fn what_comes_about_meanwhile_is_looked_at_too() {
    let mut world = layered(3);
    order(&mut world);
    for _ in 0..6 {
        world.deliver();
    }
    let sealed = world.tasks_done.len() + 1;
    world.add_task(None);
    world.run_until("a seal", |world| world.tasks_done.len() == sealed);
    assert!(!is_finished(&world));
    spoil(&mut world, 2, SEALED + 2, 6);
    world.run_until("the end of the comparison", is_finished);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(
        (found(&told), told.total_bytes),
        ((1, 0, 0), (SEALED + 2) * 2 * CHUNK_BYTES)
    );
}

/// Until the comparison under way has found one chunk that differs.
fn run_until_one_differs(world: &mut World) {
    world.run_until("the difference", |world| {
        let told = world.mirror.status().comparison;
        told.is_some_and(|told| told.differing_chunks == 1)
    });
}

#[test]
fn no_loss_is_recorded_while_only_one_that_is_wrong_answers() {
    let mut world = layered(3);
    spoil(&mut world, 3, SEALED + 1, 6);
    order(&mut world);
    world.managers_gone = true;
    run_until_one_differs(&mut world);
    for other in [1, 2] {
        world.crash(replica_id(other), false, Duration::from_secs(60));
    }
    settle(&mut world, Duration::from_secs(5));
    world.managers_gone = false;
    settle(&mut world, Duration::from_secs(45));
    assert_eq!((world.losses, world.in_sync().len()), (0, 3));
    world.run_until("the rebuild", |world| world.promotions == 1);
    assert_eq!(world.losses, 1);
    world.check_equal("after the rebuild");
}

#[test]
fn a_comparison_under_way_is_finished_before_the_next() {
    let mut world = layered(3);
    order(&mut world);
    for _ in 0..6 {
        world.deliver();
    }
    let begun = world.mirror.status().comparison.unwrap();
    assert!(begun.request == 1 && !begun.is_finished, "{begun:?}");
    order(&mut world);
    assert_eq!(world.mirror.status().comparison.unwrap().request, 1);
    world.run_until("the end of the comparison", is_finished);
    assert_eq!(world.mirror.status().comparison.unwrap().request, 2);
}

#[test]
fn what_a_volume_has_grown_by_is_looked_at_under_a_lock_of_its_own() {
    let mut world = layered(3);
    let grown = VolumeSize::from_bytes(world.orders.size.bytes() + CHUNK_BYTES).unwrap();
    order(&mut world);
    world.orders.tasks.push(Task {
        id: TaskId(100),
        kind: TaskKind::Expand { size: grown },
    });
    world.publish();
    let done = |world: &World| is_finished(world) && world.orders.size == grown;
    world.run_until("both", done);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(found(&told), (0, 0, 0));
    assert_eq!(world.losses, 0);
}

#[test]
fn a_replica_that_does_not_answer_holds_nobody_up_and_is_not_given_up_for_it() {
    let mut world = layered(3);
    let deaf = &mut world.replicas.get_mut(&replica_id(3)).unwrap();
    deaf.keeps_digests = true;
    order(&mut world);
    for number in 0..40 {
        let id = world.write(number % 4, 1, false);
        assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
        settle(&mut world, Duration::from_secs(2));
    }
    world.run_until("the end of the comparison", is_finished);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!((told.differing_chunks, world.losses), (0, 0));
    assert_eq!(told.skipped_chunks, 2 * (SEALED + 1));
}

#[test]
fn a_write_goes_on_beside_the_comparison_of_its_chunk() {
    let mut world = layered(3);
    // One replica never answers: the range is locked until it is given up.
    order(&mut world);
    world.down.insert(replica_id(3), world.now + AWAY);
    let id = world.write(1, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    world.down.clear();
    world.run_until("the end of the comparison", is_finished);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(found(&told), (0, 0, 0));
}

#[test]
fn a_bad_block_is_repaired_and_then_compared() {
    let mut world = layered(3);
    let block = SEALED;
    let bad = &mut world.replicas.get_mut(&replica_id(2)).unwrap().bad;
    bad.push(block);
    assert_eq!(found(&compared(&mut world)), (0, 0, 0));
    assert_eq!(world.replicas[&replica_id(2)].repaired, 1);
    assert_eq!(world.losses, 0);
}

#[test]
fn one_replica_alone_is_compared_when_there_is_another() {
    let mut world = World::new(3, 1, 1);
    let id = replica_id(2);
    world.down.insert(id, world.now + AWAY);
    world.feed(Event::Tick);
    world.run_until("Serve", |world| world.serving);
    order(&mut world);
    settle(&mut world, Duration::from_secs(120));
    assert!(!is_finished(&world));
    world.down.clear();
    world.run_until("the end of the comparison", is_finished);
    assert_eq!(world.in_sync().len(), 2);
    let told = world.mirror.status().comparison.unwrap();
    assert_eq!(found(&told), (0, 0, 0));
}

#[test]
fn an_older_blockd_is_left_in_peace() {
    let mut world = layered(3);
    let old = &mut world.replicas.get_mut(&replica_id(2)).unwrap();
    old.knows_no_contents = true;
    let told = compared(&mut world);
    assert_eq!(found(&told), (0, 0, 2 * (SEALED + 1)));
    assert_eq!(world.losses, 0);
}

#[test]
fn an_engine_that_stops_in_the_middle_closes_in_order() {
    let mut world = layered(3);
    order(&mut world);
    for _ in 0..4 {
        world.deliver();
    }
    world.feed(Event::Stop);
    world.run_until("the end", |world| world.stopped.is_some());
    let stopped = format!("{:?}", world.stopped);
    assert_eq!(stopped, "Some(Closed)");
}
