//! Background work on the replicas: merging layers away, settling sums after an unclean stop, copying
//! what is to be repaired, counting what layers hide.
//!
//! One thread, one replica at a time, in steps that hold it for milliseconds; after each step it
//! rests for a multiple of what the step took, so that I/O keeps the greater part of the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stop::Stop;
use crate::disk::LocalDisk;
use crate::replica::{Progress, WorkError};
use crate::store::{Slot, Store, StoreReplica, Work};

/// What one step reads or moves at most: 128 KiB, so that I/O to the same replica waits for no more
/// than about 100 µs.
const STEP_BLOCKS: u64 = 32;
/// The rest after a step, as a multiple of the step.
const REST_FACTOR: u32 = 3;
/// The shortest and the longest rest after a step.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(200);
/// The pause when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(500);
/// Steps on one replica before the next has its turn.
const STEPS_PER_TURN: usize = 64;
/// How old the count of what a live head hides of the layer below may become.
const CENSUS_INTERVAL: Duration = Duration::from_secs(30);

/// Works until the daemon stops.
pub(super) fn run(store: &Arc<Store>, stop: &Stop) {
    let mut counted = Instant::now();
    while !stop.is_asked() {
        let mut busy = false;
        for slot in store.slots() {
            busy |= work_on(&slot, stop);
            slot.close_removed();
        }
        if counted.elapsed() >= CENSUS_INTERVAL {
            for slot in store.slots() {
                if let Some(mut replica) = slot.replica() {
                    replica.refresh_census();
                }
            }
            counted = Instant::now();
        }
        if !busy {
            stop.rest(PAUSE);
        }
    }
}

/// Removes what was deleted, until the daemon stops: one file after the other, each of which takes the
/// system half a second for a GiB.
pub(super) fn empty_trash(store: &Arc<Store>, stop: &Stop) {
    while !stop.is_asked() {
        if !store.empty_trash() {
            stop.rest(PAUSE);
        }
    }
}

/// Whether more is to be done on this replica.
fn work_on(slot: &Slot, stop: &Stop) -> bool {
    step_on(slot, stop, Work::Settle, StoreReplica::settle_step)
        || step_on(slot, stop, Work::Merge, StoreReplica::merge_step)
        || step_on(slot, stop, Work::Copy, StoreReplica::private_step)
        || step_on(slot, stop, Work::Count, StoreReplica::census_step)
}

type Step = fn(&mut StoreReplica, u64) -> Result<Progress<LocalDisk>, WorkError>;

fn step_on(slot: &Slot, stop: &Stop, work: Work, step: Step) -> bool {
    for _ in 0..STEPS_PER_TURN {
        let begun = Instant::now();
        let Some(mut replica) = slot.replica() else {
            return false;
        };
        let progress = step(&mut replica, STEP_BLOCKS);
        drop(replica);
        slot.note_work(work, &progress);
        match progress {
            Ok(Progress::Idle) | Err(_) => return false,
            Ok(Progress::Working { .. }) => {}
            Ok(Progress::Sync(plan)) => {
                let result = plan.run();
                let finished = slot
                    .replica()
                    .map(|mut replica| replica.finish_flush(plan, result));
                if let Some(Err(error)) = finished {
                    tracing::error!(replica = %slot.id(), "background sync: {error}");
                    slot.tell();
                    return false;
                }
            }
        }
        let rest = (begun.elapsed() * REST_FACTOR).clamp(REST_MIN, REST_MAX);
        if stop.rest(rest) {
            return false;
        }
    }
    true
}
