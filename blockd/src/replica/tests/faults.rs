//! Sequences in which one call fails, or the disk is full for a while, and that go on as far as the
//! replicas let them: what is acknowledged is right, what is refused has changed nothing, and a crash
//! at the end leaves what was promised.

use ankole_proto::wire::ErrorCode;

use super::crash::{BLOCKS, Context, Left};
use super::pair::{Pair, Second};
use super::refused::Refused;
use super::steps::{Operation, Step, Work, sequence};
use super::support::sequences;
use super::world::World;
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
/// at what a crash would leave. Whether a replica is faulted.
fn check_end(mut pair: Pair, seed: u64) -> bool {
    let mut is_faulted = matches!(pair.second, Second::Faulted(_));
    for world in pair.worlds() {
        let ended = world.end_all();
        if world.is_faulted() {
            check_refuses_all(world);
            is_faulted = true;
            continue;
        }
        ended.unwrap();
        world.compare();
    }
    for left in Left::in_all_ways(&pair, seed) {
        left.check();
    }
    is_faulted
}

/// Whether a step on a replica has met an I/O error of a sync. Of a clone that is being made nothing is
/// in use yet.
fn is_failed_sync(met: Option<&(CallKind, Fault)>, step: &Step) -> bool {
    let is_sync = met == Some(&(CallKind::Sync, Fault::Io));
    is_sync && matches!(step, Step::Operate { .. })
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
            let mut is_final = false;
            for step in &steps {
                if is_lost(&pair, step) {
                    continue;
                }
                let met = pair.disk.met().len();
                let done = pair.apply(step);
                is_final |= is_failed_sync(pair.disk.met().get(met), step);
                // The one that has failed may be gone with this.
                is_final &= !matches!(step, Step::Destroy);
                if let Err(refused) = done {
                    self.refused += 1;
                    go_on(&mut pair, step, &refused);
                }
            }
            if pair.disk.calls() <= start + call {
                return;
            }
            self.calls += 1;
            let is_faulted = check_end(pair, seed * 1000 + call);
            assert!(is_faulted || !is_final, "a failed sync was passed over");
            self.faulted += u64::from(is_faulted);
        }
    }
}

#[test]
fn an_io_error_at_any_call_never_turns_into_other_data_and_a_failed_sync_is_final() {
    let mut seen = Seen::default();
    for seed in 0..sequences(15) {
        seen.of_sequence(seed, Fault::Io, |pair, _, _| take_refusal(pair));
    }
    assert!(seen.calls > 1000 && seen.faulted > 500, "{seen:?}");
}

#[test]
fn a_full_disk_at_any_call_is_a_refusal_and_all_goes_on_when_there_is_space_again() {
    let mut seen = Seen::default();
    for seed in 0..sequences(15) {
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
    // Most are refusals, and a few a sync that failed.
    assert!(
        seen.refused > 500 && seen.faulted < seen.refused / 2,
        "{seen:?}"
    );
}

#[test]
fn a_disk_that_stays_full_refuses_and_all_goes_on_when_there_is_space_again() {
    let (mut refused, mut done) = (0, 0);
    for seed in 0..sequences(150) {
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
    assert!(
        refused > 1000 && done > 5000,
        "{refused} refused, {done} done"
    );
}
