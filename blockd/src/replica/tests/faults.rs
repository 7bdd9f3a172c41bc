//! Sequences in which one call fails, or the disk is full for a while, and that go on as far as the
//! replicas let them: what is acknowledged is right, what is refused has changed nothing, and a crash
//! at the end leaves what was promised.

use ankole_proto::wire::ErrorCode;

use super::crash::{BLOCKS, Left};
use super::steps::{Operation, Step, Work, sequence};
use super::world::{Pair, Refused, Second, World};
use crate::disk::Disk;
use crate::disk::sim::{CallKind, Fault};

const STEPS: usize = 20;

/// A faulted replica does nothing any more, and says why.
fn check_refuses_all(world: &mut World) {
    let model = world.model.clone();
    let (first, count) = (0, 8);
    let mut operations = vec![
        Operation::Read { first, count },
        Operation::Write {
            first,
            count,
            byte: 1,
        },
        Operation::Unmap { first, count },
        Operation::Do(Work::Flush),
        Operation::Do(Work::Merge),
        Operation::Seal,
        Operation::Expand { blocks: 1 },
        Operation::Settle,
        Operation::Open,
        Operation::Close,
    ];
    if !model.sealed.is_empty() {
        operations.push(Operation::Remove { which: 0 });
        operations.push(Operation::Revert { which: 0 });
    }
    for operation in operations {
        let refused = world.apply(&operation).unwrap_err();
        assert_eq!(refused.code, Some(ErrorCode::Faulted), "{operation:?}");
    }
    world.model = model;
}

/// Whether the step is one on a replica that has failed for good.
fn is_lost(pair: &Pair, step: &Step) -> bool {
    let is_original = pair.original.is_faulted();
    match (step, &pair.second) {
        (Step::Operate { on_clone: true, .. }, Second::Loaded(clone)) => clone.is_faulted(),
        (Step::Destroy, _) => false,
        _ => is_original,
    }
}

/// After a step that was refused: what is not faulted reads as it did.
fn take_refusal(pair: &mut Pair) {
    for world in pair.worlds() {
        if !world.is_faulted() {
            world.take_refusal();
        }
    }
}

/// Ends what is under way in the replicas that are sound, which then read as their models, and looks
/// at what a crash would leave.
fn check_end(mut pair: Pair, seed: u64) {
    for world in pair.worlds() {
        let ended = world.end_all();
        if world.is_faulted() {
            check_refuses_all(world);
            continue;
        }
        ended.unwrap();
        world.compare();
    }
    for left in Left::in_all_ways(&pair, seed) {
        left.check();
    }
}

/// What a run with a fault has shown.
#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    refused: u64,
    faulted: u64,
}

impl Seen {
    /// Runs a sequence with a fault at each call in turn; `go_on` is told of each refusal.
    fn of_sequence(&mut self, seed: u64, fault: Fault, go_on: impl Fn(&mut Pair, &Step, &Refused)) {
        let steps = sequence(seed, BLOCKS * 8, STEPS);
        for call in 0.. {
            let _context = Context(seed, call, &steps);
            let mut pair = Pair::new(BLOCKS);
            let start = pair.disk.calls();
            pair.disk.fail(start + call, fault);
            for step in &steps {
                if is_lost(&pair, step) {
                    continue;
                }
                if let Err(refused) = pair.apply(step) {
                    self.refused += 1;
                    go_on(&mut pair, step, &refused);
                }
            }
            if pair.disk.calls() <= start + call {
                return;
            }
            self.calls += 1;
            self.faulted += u64::from(pair.worlds().into_iter().any(|world| world.is_faulted()));
            check_end(pair, seed * 1000 + call);
        }
    }
}

/// Tells where in the search a check fails.
struct Context<'a>(u64, u64, &'a [Step]);

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("sequence {}, call {}: {:?}", self.0, self.1, self.2);
        }
    }
}

fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let count = std::env::var("SEEDS").map_or(count, |n| n.parse().unwrap());
    first..first + count
}

#[test]
fn an_io_error_at_any_call_never_turns_into_other_data_and_a_failed_sync_is_final() {
    let begun = std::time::Instant::now();
    let mut seen = Seen::default();
    for seed in seeds(5000, 20) {
        seen.of_sequence(seed, Fault::Io, |pair, _, _| take_refusal(pair));
    }
    eprintln!("{seen:?} in {:?}", begun.elapsed());
}

#[test]
fn a_full_disk_at_any_call_is_a_refusal_and_all_goes_on_when_there_is_space_again() {
    let begun = std::time::Instant::now();
    let mut seen = Seen::default();
    for seed in seeds(6000, 20) {
        seen.of_sequence(seed, Fault::Full, |pair, step, refused| {
            let met = pair.disk.met();
            let is_faulted = pair.worlds().into_iter().any(|world| world.is_faulted());
            take_refusal(pair);
            if is_faulted || matches!(pair.second, Second::Faulted(_)) {
                assert_eq!(
                    met,
                    [(CallKind::Sync, Fault::Full)],
                    "{step:?}: {refused:?}"
                );
            } else {
                assert_eq!(
                    refused.code,
                    Some(ErrorCode::NoSpace),
                    "{step:?}: {refused:?}"
                );
                pair.apply(step).unwrap();
            }
        });
    }
    eprintln!("{seen:?} in {:?}", begun.elapsed());
}

#[test]
fn a_disk_that_stays_full_refuses_and_all_goes_on_when_there_is_space_again() {
    let begun = std::time::Instant::now();
    let (mut refused, mut done) = (0, 0);
    for seed in seeds(7000, 400) {
        let steps = sequence(seed, BLOCKS * 8, 60);
        for free_pages in [0, 1, 2, 4, 8, 16] {
            let _context = Context(seed, free_pages, &steps);
            let mut pair = Pair::new(BLOCKS);
            let (before, rest) = steps.split_at(STEPS);
            let (full, after) = rest.split_at(STEPS);
            for step in before {
                pair.apply(step).unwrap();
            }
            let space = pair.disk.space().unwrap();
            let used = space.capacity_bytes - space.free_bytes;
            pair.disk.set_capacity(used + free_pages * 4096);
            for step in full {
                let Err(error) = pair.apply(step) else {
                    done += 1;
                    continue;
                };
                refused += 1;
                assert_eq!(error.code, Some(ErrorCode::NoSpace), "{step:?}: {error:?}");
                assert!(!pair.worlds().into_iter().any(|world| world.is_faulted()));
                take_refusal(&mut pair);
            }
            pair.disk.set_capacity(space.capacity_bytes);
            for step in after {
                pair.apply(step).unwrap();
            }
            check_end(pair, seed);
        }
    }
    eprintln!("{refused} refused, {done} done in {:?}", begun.elapsed());
}
