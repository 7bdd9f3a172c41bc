//! Sequences that stop at every call, with every fate for what was not synced. What is found must
//! load, and every sector must read as one of the values it has had since the last flush.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::model::sectors;
use super::operations::{Operation, World, exported, operation};
use super::support::{Rig, new_disk};
use crate::disk::sim::{Fate, Fault, SimDisk};

/// One chunk and a bit, so that runs cross a border.
const BLOCKS: u64 = 516;
const SEQUENCES: u64 = 12;
const OPERATIONS: usize = 14;

fn sequence(seed: u64) -> Vec<Operation> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    prop::collection::vec(operation(BLOCKS * 8), OPERATIONS)
        .new_tree(&mut runner)
        .unwrap()
        .current()
}

/// For each sector of the head the values that it may have after a crash.
struct Allowed {
    values: Vec<BTreeSet<u8>>,
}

impl Allowed {
    fn only(now: &[u8]) -> Self {
        Self {
            values: now.iter().map(|byte| BTreeSet::from([*byte])).collect(),
        }
    }

    fn add(&mut self, now: &[u8]) {
        if self.values.len() < now.len() {
            self.values.resize(now.len(), BTreeSet::from([0]));
        }
        for (values, byte) in self.values.iter_mut().zip(now) {
            values.insert(*byte);
        }
    }
}

/// Runs until the machine stops at `call`; what may be found then. `None` when it never stopped.
fn run_until(operations: &[Operation], call: u64) -> Option<(World, Allowed)> {
    let disk = new_disk(BLOCKS);
    let rig = Rig::load(&disk, BLOCKS, 1);
    let mut world = World::new(disk.clone(), rig);
    let mut allowed = Allowed::only(&world.model.now);
    disk.fail(disk.calls() + call, Fault::Stop);
    for operation in operations {
        let before = world.model.clone();
        let done = world.apply(operation);
        if done.is_err() {
            // Cut short: as before, as after, or anything between, sector by sector.
            let mut after = before.clone();
            match operation {
                Operation::Write { first, count, byte } => after.fill(*first, *count, *byte),
                Operation::Unmap { first, count } => after.fill(*first, *count, 0),
                Operation::Revert { which } if !before.sealed.is_empty() => {
                    let to = before
                        .sealed
                        .keys()
                        .nth(which % before.sealed.len())
                        .unwrap();
                    after.now = before.sealed[to].clone();
                    after.grow(before.now.len());
                }
                // What is new reads as zeros, if it is there.
                Operation::Expand { blocks } => {
                    let sectors = before.now.len() + usize::try_from(blocks * 8).unwrap();
                    after.grow(sectors);
                }
                _ => {}
            }
            allowed.add(&after.now);
            return Some((world, allowed));
        }
        match operation {
            Operation::Flush | Operation::Seal | Operation::Close => {
                allowed = Allowed::only(&world.model.now);
            }
            Operation::Revert { .. } if before.head != world.model.head => {
                allowed = Allowed::only(&world.model.now);
            }
            _ => allowed.add(&world.model.now),
        }
    }
    None
}

fn check(found: &SimDisk, world: &World, allowed: &Allowed, context: &str) {
    let mut rig = Rig::load(found, BLOCKS, 1000);
    let read = sectors(&rig.read_all());
    let (least, most) = (world.model.now.len(), allowed.values.len());
    assert!((least..=most).contains(&read.len()), "{context}: a size");
    for (sector, (byte, values)) in read.iter().zip(&allowed.values).enumerate() {
        assert!(
            values.contains(byte),
            "{context}: sector {sector} reads as {byte}, not as one of {values:?}"
        );
    }
    for (sealed, wanted) in &world.model.sealed {
        assert_eq!(
            &exported(found, *sealed),
            wanted,
            "{context}: layer {sealed}"
        );
    }
    // It goes on: what is left to merge is merged, and nothing changes by that.
    rig.merge_all();
    assert_eq!(sectors(&rig.read_all()), read, "{context}: after merging");
    rig.replica.close(rig.epoch).unwrap();
    let again = Rig::load(&found.crash(Fate::Dropped, 0), BLOCKS, 1001).read_all();
    assert_eq!(sectors(&again), read, "{context}: after closing");
}

#[test]
fn a_stop_at_every_call_leaves_what_was_promised() {
    let mut stops = 0;
    for seed in 0..SEQUENCES {
        let operations = sequence(seed);
        for call in 0.. {
            let Some((world, allowed)) = run_until(&operations, call) else {
                stops += call;
                break;
            };
            for fate in Fate::ALL {
                let found = world.disk.crash(fate, seed * 1000 + call);
                let context = format!("seed {seed}, call {call}, {fate:?}, {operations:?}");
                check(&found, &world, &allowed, &context);
            }
        }
    }
    assert!(stops > 50 * SEQUENCES, "only {stops} stops");
}

#[test]
fn an_io_error_at_any_call_is_reported_and_never_turns_into_other_data() {
    let mut calls = 0;
    for seed in 0..SEQUENCES {
        let operations = sequence(seed);
        let mut call = 0;
        loop {
            let disk = new_disk(BLOCKS);
            let rig = Rig::load(&disk, BLOCKS, 1);
            let mut world = World::new(disk.clone(), rig);
            let (start, mut failed) = (disk.calls(), false);
            disk.fail(start + call, Fault::Io);
            for operation in &operations {
                if world.apply(operation).is_err() {
                    failed = true;
                    break;
                }
            }
            if disk.calls() <= start + call {
                break;
            }
            if !failed {
                // The fault met a call whose failure does no harm.
                world.compare();
            }
            call += 1;
        }
        calls += call;
    }
    assert!(calls > 50 * SEQUENCES, "only {calls} calls");
}

#[test]
fn a_full_disk_at_any_call_is_a_refusal_and_loses_nothing() {
    let mut calls = 0;
    for seed in 0..SEQUENCES {
        let operations = sequence(seed);
        let mut call = 0;
        loop {
            let disk = new_disk(BLOCKS);
            let rig = Rig::load(&disk, BLOCKS, 1);
            let mut world = World::new(disk.clone(), rig);
            let (start, mut refused) = (disk.calls(), 0);
            disk.fail(start + call, Fault::Full);
            for operation in &operations {
                if world.apply(operation).is_err() {
                    refused += 1;
                    if *world.rig.replica.state() != crate::replica::State::Ready {
                        break;
                    }
                    if matches!(operation, Operation::Reopen | Operation::Close)
                        && world.apply(&Operation::Reopen).is_err()
                    {
                        // Which `replica.json` the disk has is not known: its directory's sync failed.
                        break;
                    }
                    // An overwrite can be refused here too, and then a part may be done, sector by
                    // sector; nothing else changes.
                    let now = sectors(&world.rig.read_all());
                    let mut after = world.model.clone();
                    match operation {
                        Operation::Write { first, count, byte } => {
                            after.fill(*first, *count, *byte);
                        }
                        Operation::Unmap { first, count } => after.fill(*first, *count, 0),
                        _ => {}
                    }
                    let states = world.model.now.iter().zip(&after.now);
                    for (sector, (found, (old, new))) in now.iter().zip(states).enumerate() {
                        assert!(
                            found == old || found == new,
                            "seed {seed} call {call} {operation:?}: sector {sector} is {found}"
                        );
                    }
                    world.model.now = now;
                }
            }
            if disk.calls() <= start + call {
                break;
            }
            assert!(refused <= 2, "seed {seed} call {call}: {refused} refusals");
            call += 1;
        }
        calls += call;
    }
    assert!(calls > 50 * SEQUENCES, "only {calls} calls");
}

#[test]
fn sequences_are_varied() {
    let kinds: BTreeSet<String> = (0..SEQUENCES)
        .flat_map(sequence)
        .map(|operation| format!("{operation:?}").chars().take(4).collect())
        .collect();
    assert!(kinds.len() > 10, "{kinds:?}");
}
