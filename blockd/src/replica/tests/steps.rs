//! Random sequences of every operation on a replica and on a clone of it.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What a thread of the daemon does with syncs that do not hold the replica. Each kind is done by one
/// thread at a time, beside the others and beside whatever else goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// An engine's flush: the gate of the slot lets one be under way.
    Flush,
    /// What the writeback thread does.
    Writeback,
    /// A merge's step, and what it copies of shared layers: the upkeep thread's.
    Merge,
}

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Write {
        first: u64,
        count: u64,
        byte: u8,
    },
    Unmap {
        first: u64,
        count: u64,
    },
    Read {
        first: u64,
        count: u64,
    },
    /// All of a work: what is left of it when it is under way, else anew.
    Do(Work),
    /// Its beginning only, which holds the replica.
    Begin(Work),
    /// The next sync of what is under way.
    Sync(Work),
    Seal,
    Expand {
        blocks: u64,
    },
    Revert {
        which: usize,
    },
    Remove {
        which: usize,
    },
    Settle,
    /// The next engine opens the replica as it is.
    Open,
    Close,
    /// The process is killed, and another one loads the replica.
    Reload,
}

/// A step of a sequence: on one of two replicas, or one that makes or removes the second.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Operate {
        on_clone: bool,
        operation: Operation,
    },
    Clone {
        which: usize,
    },
    Destroy,
}

/// Ranges of sectors around the borders of blocks and chunks, so that they overlap often.
fn range(sectors: u64) -> impl Strategy<Value = (u64, u64)> {
    // The last lie partly in what an expansion adds.
    let near = prop_oneof![Just(0), Just(512 * 8 - 16), Just(sectors - 40)];
    (near, 0..32u64, prop_oneof![Just(8), 1..40u64])
        .prop_map(move |(near, at, count)| (near + at, count))
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![Just(Work::Flush), Just(Work::Writeback), Just(Work::Merge)]
}

/// An operation on a volume that begins with so many sectors.
pub(super) fn operation(sectors: u64) -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => (range(sectors), 1..=255u8)
            .prop_map(|((first, count), byte)| Operation::Write { first, count, byte }),
        5 => range(sectors).prop_map(|(first, count)| Operation::Unmap { first, count }),
        1 => range(sectors).prop_map(|(first, count)| Operation::Read { first, count }),
        3 => Just(Operation::Do(Work::Flush)),
        1 => Just(Operation::Do(Work::Writeback)),
        4 => Just(Operation::Do(Work::Merge)),
        4 => work().prop_map(Operation::Begin),
        3 => work().prop_map(Operation::Sync),
        2 => Just(Operation::Seal),
        1 => (0..=5u64).prop_map(|blocks| Operation::Expand { blocks }),
        1 => any::<usize>().prop_map(|which| Operation::Revert { which }),
        2 => any::<usize>().prop_map(|which| Operation::Remove { which }),
        1 => Just(Operation::Settle),
        1 => Just(Operation::Open),
        1 => Just(Operation::Close),
        1 => Just(Operation::Reload),
    ]
}

/// A step with a volume that begins with so many sectors.
pub(super) fn step(sectors: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => (any::<bool>(), operation(sectors))
            .prop_map(|(on_clone, operation)| Step::Operate { on_clone, operation }),
        2 => any::<usize>().prop_map(|which| Step::Clone { which }),
        1 => Just(Step::Destroy),
    ]
}

/// Few blocks, a snapshot that comes and goes, and syncs at every moment: what takes one of them many
/// operations to go wrong is often drawn.
pub(super) fn narrow_step() -> impl Strategy<Value = Step> {
    let few = || (0..2u64).prop_map(|block| block * 8);
    let operation = prop_oneof![
        8 => (few(), 1..=255u8)
            .prop_map(|(first, byte)| Operation::Write { first, count: 8, byte }),
        6 => few().prop_map(|first| Operation::Unmap { first, count: 8 }),
        5 => Just(Operation::Do(Work::Flush)),
        5 => Just(Operation::Begin(Work::Flush)),
        5 => Just(Operation::Sync(Work::Flush)),
        1 => Just(Operation::Do(Work::Writeback)),
        5 => Just(Operation::Do(Work::Merge)),
        1 => Just(Operation::Begin(Work::Merge)),
        1 => Just(Operation::Seal),
        1 => any::<usize>().prop_map(|which| Operation::Remove { which }),
        2 => Just(Operation::Close),
        2 => Just(Operation::Reload),
    ];
    operation.prop_map(|operation| Step::Operate {
        on_clone: false,
        operation,
    })
}

/// The narrow sequence with this number.
pub(super) fn narrow_sequence(seed: u64, steps: usize) -> Vec<Step> {
    drawn(seed, prop::collection::vec(narrow_step(), steps))
}

/// A value of a strategy, the same for the same seed.
pub(super) fn drawn<T: std::fmt::Debug>(seed: u64, from: impl Strategy<Value = T>) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    from.new_tree(&mut runner).unwrap().current()
}

/// The sequence with this number.
pub(super) fn sequence(seed: u64, sectors: u64, steps: usize) -> Vec<Step> {
    drawn(seed, prop::collection::vec(step(sectors), steps))
}
