//! Background work on the replicas: merging layers away, settling sums after an unclean stop,
//! writing back what is dirty, keeping space for merges, removing what was deleted.
//!
//! One thread, one replica at a time, in steps that hold it for milliseconds; after each step it
//! rests for a multiple of what the step took, so that I/O keeps the greater part of the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stop::Stop;
use crate::disk::LocalDisk;
use crate::replica::{Progress, WorkError};
use crate::store::{Room, Slot, Store, StoreReplica};

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
/// How long data may stay dirty: bounds what a flush has to wait for.
const WRITEBACK_INTERVAL: Duration = Duration::from_secs(5);
/// How old the count of what a live head hides of the layer below may become.
const CENSUS_INTERVAL: Duration = Duration::from_secs(30);

/// Works until the daemon stops.
pub(super) fn run(store: &Arc<Store>, stop: &Stop) {
    let mut written_back = Instant::now();
    let mut counted = Instant::now();
    let mut low = Vec::new();
    while !stop.is_asked() {
        reserve_space(store, &mut low);
        let mut busy = store.empty_trash();
        for slot in store.slots() {
            busy |= work_on(&slot, stop);
            slot.close_removed();
        }
        if written_back.elapsed() >= WRITEBACK_INTERVAL {
            for slot in store.slots() {
                slot.write_back();
            }
            written_back = Instant::now();
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

/// Refuses new blocks on disks that are nearly full, and allows them again. `low` holds those that
/// were full before, so that each change is told once.
fn reserve_space(store: &Store, low: &mut Vec<ankole_proto::DiskId>) {
    for root in store.disks() {
        let Ok(space) = root.space() else { continue };
        let allowed = Room::of(space) != Room::None;
        let id = root.id();
        if allowed == low.contains(&id) {
            if allowed {
                low.retain(|other| *other != id);
                tracing::info!(disk = %root.path().display(), "takes new data again");
            } else {
                low.push(id);
                tracing::error!(
                    disk = %root.path().display(),
                    free_bytes = space.free_bytes,
                    "nearly full: only overwrites are taken; delete snapshots or volumes"
                );
            }
        }
        for slot in store.slots().iter().filter(|slot| slot.disk() == id) {
            if let Some(mut replica) = slot.replica() {
                replica.allow_allocation(allowed);
            }
        }
    }
}

/// Whether more is to be done on this replica.
fn work_on(slot: &Slot, stop: &Stop) -> bool {
    step_on(slot, stop, StoreReplica::settle_step)
        || step_on(slot, stop, StoreReplica::merge_step)
        || step_on(slot, stop, StoreReplica::private_step)
        || step_on(slot, stop, StoreReplica::census_step)
}

type Step = fn(&mut StoreReplica, u64) -> Result<Progress<LocalDisk>, WorkError>;

fn step_on(slot: &Slot, stop: &Stop, step: Step) -> bool {
    for _ in 0..STEPS_PER_TURN {
        let begun = Instant::now();
        let Some(mut replica) = slot.replica() else {
            return false;
        };
        let progress = step(&mut replica, STEP_BLOCKS);
        drop(replica);
        match progress {
            Ok(Progress::Idle) => return false,
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
            Err(error) => {
                tracing::debug!(replica = %slot.id(), "background work stands still: {error}");
                return false;
            }
        }
        let rest = (begun.elapsed() * REST_FACTOR).clamp(REST_MIN, REST_MAX);
        if stop.rest(rest) {
            return false;
        }
    }
    true
}
