//! Blocks that a replica cannot return.

use std::time::Duration;

use bytes::Bytes;

use super::super::event::{Damage, Task, TaskId, TaskKind};
use super::rules::{block, outcome, serving, settle};
use super::world::{World, layer, replica_id};
use ankole_proto::{BlockNumber, SnapshotId};

use crate::volume::{Failure, Operation, Outcome};

fn repaired(world: &World, number: u128) -> u64 {
    let status = world.mirror.status();
    let mut replicas = status.replicas.iter();
    let replica = replicas.find(|r| r.replica == replica_id(number));
    replica.unwrap().repaired_blocks
}

/// A world in which block 2 was written, and is bad on replica 1, which is read first.
fn damaged(in_sync: u128) -> World {
    let mut world = serving(in_sync);
    let id = world.write(2, 1, false);
    outcome(&mut world, id);
    world.replicas.get_mut(&replica_id(1)).unwrap().bad.push(2);
    world
}

fn tell_damage(world: &mut World, damages: &[u64]) {
    let damages = damages.iter().map(|block| Damage {
        layer: layer(1),
        block: BlockNumber::from_raw(*block),
    });
    world.orders.replicas[0].damages = damages.collect();
    world.publish();
}

#[test]
fn a_bad_block_is_served_from_elsewhere_and_rewritten_in_its_layer() {
    let mut world = damaged(3);
    let id = world.read(2, 1);
    assert!(matches!(outcome(&mut world, id), Outcome::Done(_)));
    world.run_until("the repair", |world| repaired(world, 1) == 1);
    assert_eq!(world.replicas[&replica_id(1)].repaired, 1);
    assert!(world.replicas[&replica_id(1)].bad.is_empty());
    assert_eq!((repaired(&world, 2), world.losses), (0, 0));
}

#[test]
fn what_a_scrub_found_is_repaired_once() {
    let mut world = damaged(2);
    tell_damage(&mut world, &[2]);
    world.run_until("the repair", |world| repaired(world, 1) == 1);
    // The orders still list it, until the blockd has looked again.
    settle(&mut world, Duration::from_secs(90));
    assert_eq!(repaired(&world, 1), 1);
    tell_damage(&mut world, &[]);
    world.replicas.get_mut(&replica_id(1)).unwrap().bad.push(2);
    tell_damage(&mut world, &[2]);
    world.run_until("the second repair", |world| repaired(world, 1) == 2);
}

#[test]
fn many_findings_are_repaired_a_few_at_a_time() {
    let mut world = serving(2);
    for number in 0..8 {
        let id = world.write(number, 1, false);
        outcome(&mut world, id);
    }
    let bad: Vec<u64> = (0..8).collect();
    world
        .replicas
        .get_mut(&replica_id(1))
        .unwrap()
        .bad
        .clone_from(&bad);
    tell_damage(&mut world, &bad);
    let most = world.mirror.status().operations_in_flight;
    assert!(most <= 4, "{most} repairs at a time");
    world.run_until("all repairs", |world| repaired(world, 1) == 8);
}

#[test]
fn what_no_other_has_waits_for_a_better_moment() {
    let mut world = damaged(2);
    world.replicas.get_mut(&replica_id(2)).unwrap().bad.push(2);
    world.crash(replica_id(2), false, Duration::from_secs(2));
    world.run_until("its loss", |world| world.losses == 1);
    tell_damage(&mut world, &[2]);
    settle(&mut world, Duration::from_secs(1));
    assert_eq!(repaired(&world, 1), 0);
    // Nothing is held up by it.
    let id = world.write(2, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
}

/// A world with a sealed layer 1 that holds block 2, and that replica 2 has merged into its head.
fn merged_on_the_other() -> World {
    let mut world = serving(2);
    let id = world.write(2, 1, false);
    outcome(&mut world, id);
    let kind = TaskKind::Seal {
        snapshot: SnapshotId::from_bits(1),
        head: layer(1),
        new_head: layer(2),
        group: None,
    };
    world.orders.tasks = vec![Task {
        id: TaskId(1),
        kind,
    }];
    world.publish();
    world.run_until("the seal", |world| !world.tasks_done.is_empty());
    let store = &mut world.replicas.get_mut(&replica_id(2)).unwrap().store;
    let merged = store.layers.remove(&layer(1)).unwrap();
    let head = store.layers.get_mut(&layer(2)).unwrap();
    head.parent = None;
    head.blocks.extend(merged.blocks);
    world
}

#[test]
fn damage_that_keeps_a_replica_from_merging_what_others_have_merged_costs_it_its_place() {
    let mut world = merged_on_the_other();
    let damaged = world.replicas.get_mut(&replica_id(1)).unwrap();
    damaged.bad_sealed = Some((layer(1), 2));
    tell_damage(&mut world, &[2]);
    world.run_until("its loss", |world| world.losses == 1);
    assert_eq!(world.in_sync(), [replica_id(2)]);
}

#[test]
fn damage_that_went_with_its_layer_costs_nobody_anything() {
    let mut world = merged_on_the_other();
    tell_damage(&mut world, &[2]);
    settle(&mut world, Duration::from_secs(90));
    world.replicas.get_mut(&replica_id(1)).unwrap().store =
        world.replicas[&replica_id(2)].store.clone();
    settle(&mut world, Duration::from_secs(90));
    assert_eq!((repaired(&world, 1), world.losses), (0, 0));
}

#[test]
fn a_link_that_breaks_during_a_repair_does_not_keep_its_range_locked() {
    for number in [1, 2] {
        let mut world = damaged(2);
        tell_damage(&mut world, &[2]);
        world.cut(replica_id(number));
        let id = world.write(2, 1, false);
        assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    }
}

#[test]
fn a_part_of_a_bad_block_cannot_be_written_when_no_other_replica_has_it() {
    let mut world = damaged(1);
    let half = ankole_proto::Extent::new(block(2).offset(), 512).unwrap();
    let id = world.submit(Operation::Write {
        extent: half,
        data: Bytes::from(vec![7; 512]),
        fua: false,
    });
    let failed = Outcome::Failed(Failure::Unreadable);
    assert_eq!(outcome(&mut world, id), failed);
    let id = world.write(2, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
}
