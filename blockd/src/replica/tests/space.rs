//! Space: what is refused when it is short and what goes on, and when it comes back.

use ankole_proto::BlockNumber;
use ankole_proto::wire::ErrorCode;
use proptest::prelude::*;

use super::model::sectors;
use super::steps::{Operation, operation};
use super::support::{BLOCK, Rig, cases, directory, layer};
use super::world::{World, exported};
use crate::disk::Disk;
use crate::disk::sim::{Fate, SimDisk};
use crate::replica::{DataError, Medium, Progress, Refusal, State, WorkError};

const BLOCKS: u64 = 516;

/// What is free once the names that are gone are gone for good.
fn free_bytes(disk: &SimDisk) -> u64 {
    disk.sync_dir(&directory().join("layers")).unwrap();
    disk.space().unwrap().free_bytes
}

fn blocks(count: usize, byte: u8) -> Vec<u8> {
    vec![byte; count * 4096]
}

/// Layers 1 and 2 under the head 3, each of eight blocks, of which four are in the next one too; and
/// a branch: layer 20, on which nothing stands.
fn nearly_full() -> (SimDisk, Rig<SimDisk>) {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &blocks(8, 1)).unwrap();
    rig.seal(20).unwrap();
    rig.write(100 * BLOCK, &blocks(50, 9)).unwrap();
    rig.seal(21).unwrap();
    rig.revert(layer(1), 2).unwrap();
    rig.write(4 * BLOCK, &blocks(8, 2)).unwrap();
    rig.seal(3).unwrap();
    rig.write(8 * BLOCK, &blocks(8, 3)).unwrap();
    rig.flush().unwrap();
    // The names of the head that was left are gone.
    let free = free_bytes(&disk);
    let space = disk.space().unwrap();
    disk.set_capacity(space.capacity_bytes - free + 24 * BLOCK);
    rig.replica.allow_allocation(false);
    (disk, rig)
}

fn wanted() -> Vec<u8> {
    let held = [blocks(4, 1), blocks(4, 2), blocks(8, 3)].concat();
    [held, blocks(500, 0)].concat()
}

#[test]
fn above_the_high_water_mark_a_first_write_is_refused_and_changes_nothing() {
    let (_, mut rig) = nearly_full();
    // A block of no layer; of a lower layer; beside one that the head holds; a part of one.
    let writes = [
        (40 * BLOCK, BLOCK),
        (4 * BLOCK, BLOCK),
        (7 * BLOCK, 3 * BLOCK),
        (15 * BLOCK, 2 * BLOCK),
        (4 * BLOCK + 512, 512),
    ];
    for (offset, bytes) in writes {
        let data = vec![7; usize::try_from(bytes).unwrap()];
        let refused = rig.write(offset, &data).unwrap_err();
        assert!(matches!(refused, DataError::Medium(Medium::NoSpace)));
        assert_eq!(refused.code(), ErrorCode::NoSpace);
        assert!(rig.read_all() == wanted(), "{bytes} bytes at {offset}");
    }
    // Of a block of a lower layer a part alone cannot be hidden.
    let refused = rig.unmap(4 * BLOCK + 512, 512).unwrap_err();
    assert!(matches!(refused, DataError::Medium(Medium::NoSpace)));
    assert!(rig.read_all() == wanted());
    assert_eq!(*rig.replica.state(), State::Ready);
}

#[test]
fn above_the_high_water_mark_overwrites_unmaps_and_flushes_go_on() {
    let (disk, mut rig) = nearly_full();
    let mut wanted = wanted();
    let (ten, twelve) = (10 * 4096, 12 * 4096);
    rig.write(10 * BLOCK, &blocks(2, 4)).unwrap();
    wanted[ten..twelve].fill(4);
    rig.write(10 * BLOCK + 512, &[5; 512]).unwrap();
    wanted[ten + 512..ten + 1024].fill(5);
    assert!(rig.read_all() == wanted, "overwritten");
    // Blocks that the head holds, and blocks of each layer below.
    for (first, count) in [(14, 2), (0, 2), (5, 2)] {
        rig.unmap(first * BLOCK, count * BLOCK).unwrap();
        let start = usize::try_from(first * BLOCK).unwrap();
        wanted[start..start + usize::try_from(count * BLOCK).unwrap()].fill(0);
        assert!(rig.read_all() == wanted, "unmapped {count} at {first}");
    }
    let free = free_bytes(&disk);
    rig.flush().unwrap();
    assert_eq!(free_bytes(&disk), free + 2 * BLOCK);
    let mut again = Rig::load(&disk.crash(Fate::Dropped, 0), BLOCKS, 2);
    assert!(again.read_all() == wanted, "after a power cut");
    // What was unmapped is a first write again.
    let refused = rig.write(14 * BLOCK, &blocks(1, 6)).unwrap_err();
    assert!(matches!(refused, DataError::Medium(Medium::NoSpace)));
}

#[test]
fn above_the_high_water_mark_snapshots_are_deleted_and_their_space_is_written_again() {
    let (disk, mut rig) = nearly_full();
    let free = free_bytes(&disk);
    let delete = |rig: &mut Rig<SimDisk>, gone: u64, least_blocks: u64| {
        let before = free_bytes(&disk);
        rig.replica.remove_layer(layer(gone)).unwrap();
        rig.merge_all();
        assert!(rig.read_all() == wanted(), "without layer {gone}");
        assert!(free_bytes(&disk) >= before + least_blocks * BLOCK);
    };
    // Nothing stands on it: dropped. Into a sealed layer. Into the head.
    delete(&mut rig, 20, 50);
    delete(&mut rig, 1, 4);
    assert_eq!(exported(&disk, 2)[..64], sectors(&wanted()[..8 * 4096]));
    delete(&mut rig, 2, 4);
    assert_eq!(rig.replica.layers().len(), 1);
    assert!(free_bytes(&disk) >= free + 58 * BLOCK);
    // As the daemon does once it sees that.
    rig.write(40 * BLOCK, &blocks(58, 7)).unwrap_err();
    rig.replica.allow_allocation(true);
    rig.write(40 * BLOCK, &blocks(58, 7)).unwrap();
    assert_eq!(rig.read(40 * BLOCK, 58 * BLOCK).unwrap(), blocks(58, 7));
}

#[test]
fn above_the_high_water_mark_a_shared_layer_is_not_copied() {
    use super::cloning::clone_at;
    let (disk, mut rig) = nearly_full();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    for gone in [20, 1] {
        rig.replica.remove_layer(layer(gone)).unwrap();
    }
    let refused = loop {
        match rig.replica.merge_step(3) {
            Ok(progress) => assert!(!matches!(progress, Progress::Idle)),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WorkError::Medium(Medium::NoSpace)));
    assert!(rig.read_all() == wanted());
    rig.replica.allow_allocation(true);
    let space = disk.space().unwrap();
    disk.set_capacity(space.capacity_bytes + 100 * BLOCK);
    rig.merge_all();
    assert!(rig.read_all() == wanted());
}

/// Whether an operation needs space for a block that the head does not hold.
fn needs_a_block(world: &World, operation: &Operation) -> bool {
    let (replica, model) = (&world.rig.replica, &world.model);
    let head = replica.index.slot(replica.head());
    let blocks = |first: u64, end: u64| (first / 8..end.div_ceil(8)).map(BlockNumber::from_raw);
    match *operation {
        Operation::Write { first, count, .. } => {
            let (first, count) = model.inside(first, count);
            blocks(first, first + count).any(|block| replica.index.slot_of(block) != head)
        }
        Operation::Unmap { first, count } => {
            let (first, count) = model.inside(first, count);
            // Only of blocks that it covers in part something is written, unless they read as zeros.
            let is_whole = |block: &BlockNumber| {
                let start = block.raw() * 8;
                first <= start && start + 8 <= first + count
            };
            blocks(first, first + count)
                .filter(|block| !is_whole(block) && !replica.reads_as_hole(*block))
                .any(|block| replica.index.slot_of(block) != head)
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn above_the_high_water_mark_first_writes_are_refused_and_all_else_goes_on(
        before in prop::collection::vec(operation(BLOCKS * 8), 1..30),
        above in prop::collection::vec(operation(BLOCKS * 8), 1..30),
        after in prop::collection::vec(operation(BLOCKS * 8), 1..10),
    ) {
        let (disk, rig) = Rig::new(BLOCKS);
        let mut world = World::new(disk.clone(), rig);
        for operation in &before {
            world.apply(operation).unwrap();
        }
        let space = disk.space().unwrap();
        // What is kept free for merges, maps and descriptions.
        let reserve = 64 * BLOCK;
        disk.set_capacity(space.capacity_bytes - space.free_bytes + reserve);
        for operation in &above {
            world.rig.replica.allow_allocation(false);
            let is_refused = needs_a_block(&world, operation);
            let done = world.apply(operation);
            prop_assert_eq!(done.is_err(), is_refused, "{:?}: {:?}", operation, done);
            if let Err(refused) = done {
                prop_assert_eq!(refused.code, Some(ErrorCode::NoSpace));
                world.take_refusal();
            }
        }
        disk.set_capacity(space.capacity_bytes);
        world.rig.replica.allow_allocation(true);
        for operation in &after {
            world.apply(operation).unwrap();
        }
        world.end_all().unwrap();
        world.compare();
        world.merge_all().unwrap();
        world.compare();
    }
}

#[test]
fn the_head_gives_back_what_is_unmapped_and_a_snapshot_that_has_it_too_when_it_is_deleted() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &blocks(500, 1)).unwrap();
    rig.seal(2).unwrap();
    rig.write(0, &blocks(400, 2)).unwrap();
    rig.flush().unwrap();
    let before = free_bytes(&disk);
    // Of these the head holds the first 400.
    rig.unmap(0, 500 * BLOCK).unwrap();
    rig.flush().unwrap();
    assert_eq!(free_bytes(&disk), before + 400 * BLOCK);
    assert_eq!(rig.replica.used_bytes(), 500 * BLOCK);
    let snapshot = [blocks(500, 1), blocks(16, 0)].concat();
    assert_eq!(exported(&disk, 1), sectors(&snapshot));
    assert!(rig.read_all() == blocks(516, 0));
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    assert!(free_bytes(&disk) >= before + 900 * BLOCK);
    assert_eq!(rig.replica.used_bytes(), 0);
    assert!(rig.read_all() == blocks(516, 0));
    let mut again = Rig::load(&disk.crash(Fate::Dropped, 0), BLOCKS, 2);
    assert!(again.read_all() == blocks(516, 0));
}
