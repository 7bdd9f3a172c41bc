//! Copies from one place of the volume to another.

use ankole_proto::{BLOCK_BYTES, Extent};
use bytes::Bytes;

use super::super::event::Event;
use super::rules::{block, outcome, serving};
use super::world::{World, replica_id};
use crate::volume::{Failure, Operation, OperationId, Outcome};

fn blocks(first: u64, count: u64) -> Extent {
    Extent::new(first * BLOCK_BYTES, count * BLOCK_BYTES).unwrap()
}

fn copy(world: &mut World, from: Extent, to: Extent, fua: bool) -> OperationId {
    world.submit(Operation::Copy { from, to, fua })
}

/// Writes a number of its own to each of these blocks: that of the operation.
fn write(world: &mut World, extent: Extent) -> OperationId {
    let (first, count) = (extent.offset() / BLOCK_BYTES, extent.length() / BLOCK_BYTES);
    world.write(first, count, false)
}

/// What every replica holds in each of these blocks, by the number of the write; 0 for none.
fn held(world: &World, extent: Extent) -> Vec<u64> {
    let mut stores = world.replicas.values().map(|r| r.store.read(extent));
    let first = stores.next().unwrap();
    assert!(stores.all(|other| other == first), "the replicas differ");
    let step = usize::try_from(BLOCK_BYTES).unwrap();
    let number = |block: &[u8]| u64::from_le_bytes(*block.first_chunk().unwrap());
    first.chunks(step).map(number).collect()
}

#[test]
fn no_write_comes_between_a_copys_read_and_its_write() {
    for seed in 0..200 {
        let mut world = World::new(seed, 2, 0);
        world.feed(Event::Tick);
        world.run_until("Serve", |world| world.serving);
        let asked = [
            write(&mut world, blocks(0, 2)),
            copy(&mut world, blocks(0, 2), blocks(4, 2), false),
            write(&mut world, blocks(0, 1)),
            write(&mut world, blocks(5, 1)),
        ];
        for id in asked {
            assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
        }
        let [old, _, source, destination] = asked.map(|id| id.0);
        let expected = [source, old, 0, 0, old, destination];
        assert_eq!(held(&world, blocks(0, 6)), expected, "seed {seed}");
    }
}

#[test]
fn a_long_copy_is_one_operation_although_it_goes_in_pieces() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2, 0);
        world.feed(Event::Tick);
        world.run_until("Serve", |world| world.serving);
        let (from, to) = (blocks(0, 257), blocks(258, 257));
        let asked = [
            write(&mut world, from),
            copy(&mut world, from, to, seed % 2 == 0),
            write(&mut world, blocks(256, 1)),
            write(&mut world, blocks(258, 1)),
        ];
        for id in asked {
            assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
        }
        let [old, _, _, destination] = asked.map(|id| id.0);
        let expected = [vec![destination], vec![old; 256]].concat();
        assert_eq!(held(&world, to), expected, "seed {seed}");
        assert_eq!(world.mirror.status().operations_in_flight, 0);
    }
}

#[test]
fn places_that_overlap_are_copied_in_ascending_order() {
    let mut world = serving(2);
    for number in 0..4 {
        let id = write(&mut world, block(number));
        outcome(&mut world, id);
    }
    let [_, one, two, three] = held(&world, blocks(0, 4))[..] else {
        unreachable!("four blocks");
    };
    let id = copy(&mut world, blocks(1, 3), blocks(0, 3), false);
    outcome(&mut world, id);
    assert_eq!(held(&world, blocks(0, 4)), [one, two, three, three]);
    let id = copy(&mut world, blocks(0, 4), blocks(0, 4), true);
    assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    assert_eq!(held(&world, blocks(0, 4)), [one, two, three, three]);
}

#[test]
fn a_copy_with_fua_is_durable_and_one_of_zeros_takes_no_space() {
    let mut world = serving(2);
    let id = write(&mut world, block(0));
    outcome(&mut world, id);
    let id = copy(&mut world, block(0), block(3), true);
    outcome(&mut world, id);
    let id = copy(&mut world, block(9), block(3), false);
    for replica in world.replicas.values() {
        assert_eq!(replica.durable.read(block(3)), replica.store.read(block(0)));
    }
    outcome(&mut world, id);
    for replica in world.replicas.values() {
        let head = &replica.store.layers[&replica.store.head];
        assert!(
            !matches!(head.blocks.get(&3), Some(Some(_))),
            "zeros are stored"
        );
    }
}

#[test]
fn a_copy_of_what_nobody_can_read_fails_and_leaves_the_rest_alone() {
    let mut world = serving(2);
    for replica in world.replicas.values_mut() {
        replica.bad.push(256);
    }
    let id = copy(&mut world, blocks(0, 257), blocks(258, 257), false);
    let failed = Outcome::Failed(Failure::Unreadable);
    assert_eq!(outcome(&mut world, id), failed);
    // Its ranges are free again.
    for extent in [block(0), block(514)] {
        let id = write(&mut world, extent);
        assert_eq!(outcome(&mut world, id), Outcome::Done(Bytes::new()));
    }
    assert!(world.replicas.contains_key(&replica_id(1)));
}
