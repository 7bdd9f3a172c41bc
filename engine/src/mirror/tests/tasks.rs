//! Expansions, and seals of several volumes as one cut.

use std::time::Duration;

use ankole_proto::{BLOCK_BYTES, CHUNK_BYTES, SnapshotId, VolumeSize};
use bytes::Bytes;

use super::super::event::{Event, GroupStage, Task, TaskId, TaskKind};
use super::rules::{AWAY, bytes, outcome, serving, settle};
use super::world::{World, layer, replica_id, size};
use crate::volume::{Operation, Outcome};

const GROUP: TaskId = TaskId(77);

fn larger() -> VolumeSize {
    VolumeSize::from_bytes(size().bytes() + CHUNK_BYTES).unwrap()
}

fn expand(world: &mut World) {
    let (id, size) = (TaskId(5), larger());
    let kind = TaskKind::Expand { size };
    world.orders.tasks = vec![Task { id, kind }];
    world.publish();
}

/// Tells the engine how far the group is; `None`: it is undone.
fn tell_group(world: &mut World, stage: Option<GroupStage>) {
    let kind = TaskKind::Seal {
        snapshot: SnapshotId::from_bits(1),
        head: layer(1),
        new_head: layer(2),
        group: stage,
    };
    let tasks = stage.map(|_| Task { id: GROUP, kind });
    world.orders.tasks = tasks.into_iter().collect();
    world.publish();
}

fn held(world: &World) -> bool {
    world.mirror.status().held_task == Some(GROUP)
}

#[test]
fn every_replica_grows_before_the_target_does() {
    let mut world = serving(3);
    world.write(0, 1, false);
    expand(&mut world);
    let during = world.write(1, 1, false);
    world.run_until("the target grows", |world| world.resized.is_some());
    assert_eq!(world.resized, Some(larger()));
    assert!(world.replicas.values().all(|r| r.size == larger()));
    assert_eq!(outcome(&mut world, during), Outcome::Done(Bytes::new()));
    let beyond = world.write(size().bytes() / BLOCK_BYTES, 1, true);
    assert_eq!(outcome(&mut world, beyond), Outcome::Done(Bytes::new()));
    assert_eq!(world.tasks_done, [(TaskId(5), None)]);
}

#[test]
fn an_expansion_that_the_previous_engine_left_half_done_is_finished() {
    let mut world = serving(3);
    let first = world.replicas.get_mut(&replica_id(2)).unwrap();
    first.size = larger();
    expand(&mut world);
    world.restart_engine(true);
    world.run_until("the target grows", |world| world.resized.is_some());
    assert!(world.replicas.values().all(|r| r.size == larger()));
    assert_eq!(world.losses, 0);
}

#[test]
fn a_replica_that_is_away_is_recorded_lost_before_the_volume_grows() {
    let mut world = serving(3);
    world.crash(replica_id(3), false, AWAY);
    expand(&mut world);
    world.run_until("the target grows", |world| world.resized.is_some());
    assert_eq!(world.losses, 1);
    world.down.clear();
    world.run_until("it is in sync again", |world| world.in_sync().len() == 3);
    assert!(world.replicas.values().all(|r| r.size == larger()));
}

#[test]
fn a_group_is_held_until_it_is_released() {
    let mut world = serving(3);
    let before = world.write(0, 1, false);
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    assert!(world.history.outcomes.contains_key(&before), "drained");
    let waits = world.write(1, 1, false);
    let read = world.read(0, 1);
    settle(&mut world, Duration::from_secs(5));
    assert!(world.history.outcomes.contains_key(&read), "reads go on");
    assert!(!world.history.outcomes.contains_key(&waits));
    assert!(world.tasks_done.is_empty(), "not sealed before");
    tell_group(&mut world, Some(GroupStage::Release));
    assert_eq!(outcome(&mut world, waits), Outcome::Done(Bytes::new()));
    world.run_until("it is recorded", |world| !world.tasks_done.is_empty());
    assert_eq!(world.tasks_done, [(GROUP, None)]);
    assert!(world.replicas.values().all(|r| r.store.head == layer(2)));
    let sealed = &world.replicas[&replica_id(1)].store.layers[&layer(1)].blocks;
    assert!(sealed.contains_key(&0) && !sealed.contains_key(&1));
}

#[test]
fn a_group_that_is_not_released_in_time_is_refused_for_good() {
    let mut world = serving(2);
    world.managers_away = true;
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    let waits = world.write(1, 1, false);
    assert_eq!(outcome(&mut world, waits), Outcome::Done(Bytes::new()));
    assert!(!held(&world));
    // Too late: a write has come in between.
    tell_group(&mut world, Some(GroupStage::Release));
    world.managers_away = false;
    world.run_until("it is recorded", |world| !world.tasks_done.is_empty());
    assert!(world.tasks_done[0].1.is_some());
    assert!(world.replicas.values().all(|r| r.store.head == layer(1)));
}

#[test]
fn a_group_that_is_undone_is_held_no_longer() {
    let mut world = serving(2);
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    tell_group(&mut world, None);
    let id = world.write(1, 1, false);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert!(world.tasks_done.is_empty());
}

#[test]
fn an_engine_that_has_not_held_refuses_a_released_group() {
    let mut world = serving(2);
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    tell_group(&mut world, None);
    world.orders.tasks.clear();
    world.restart_engine(true);
    world.run_until("Serve", |world| world.serving);
    tell_group(&mut world, Some(GroupStage::Release));
    world.run_until("it is recorded", |world| !world.tasks_done.is_empty());
    assert!(world.tasks_done[0].1.is_some());
}

#[test]
fn a_released_seal_that_was_begun_is_completed_by_the_next_engine() {
    let mut world = serving(2);
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    tell_group(&mut world, Some(GroupStage::Release));
    world.run_until("one has sealed", |world| {
        world.replicas.values().any(|r| r.store.head == layer(2))
    });
    world.restart_engine(false);
    world.run_until("it is recorded", |world| !world.tasks_done.is_empty());
    assert_eq!(world.tasks_done, [(GROUP, None)]);
    assert!(world.replicas.values().all(|r| r.store.head == layer(2)));
}

#[test]
fn an_engine_that_is_to_end_does_not_wait_for_a_group() {
    let mut world = serving(2);
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    let begun = world.now;
    world.feed(Event::Stop);
    world.run_until("the end", |world| world.stopped.is_some());
    assert!(world.now.since(begun) < Duration::from_secs(2));
}

#[test]
fn compares_and_ors_wait_for_a_group_too() {
    let mut world = serving(2);
    tell_group(&mut world, Some(GroupStage::Hold));
    world.run_until("it holds", held);
    let extent = super::rules::block(3);
    let id = world.submit(Operation::Or {
        extent,
        data: bytes(9),
        fua: false,
    });
    settle(&mut world, Duration::from_secs(3));
    assert!(!world.history.outcomes.contains_key(&id));
    tell_group(&mut world, Some(GroupStage::Release));
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
}
