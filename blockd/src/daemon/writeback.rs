//! Writing back what is dirty, so that a flush finds little to do; and keeping space for merges.
//!
//! A thread of its own: what it promises must not wait for long work on other replicas.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_proto::DiskId;

use super::stop::Stop;
use crate::store::{Room, Store};

/// How often it is looked what is dirty, and how full the disks are.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long data may stay dirty.
const WRITEBACK_INTERVAL: Duration = Duration::from_secs(5);
/// How much of a replica may be dirty before it is written back early.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;

/// Works until the daemon stops.
pub(super) fn run(store: &Arc<Store>, stop: &Stop) {
    let mut written_back = Instant::now();
    let mut low = Vec::new();
    while !stop.rest(LOOK_INTERVAL) {
        reserve_space(store, &mut low);
        let is_due = written_back.elapsed() >= WRITEBACK_INTERVAL;
        if is_due {
            written_back = Instant::now();
        }
        write_back(store, is_due);
    }
}

/// Writes back all replicas, or only those of which much is dirty.
fn write_back(store: &Store, all: bool) {
    for slot in store.slots() {
        let has_much = || {
            slot.replica()
                .is_some_and(|replica| replica.unsynced_bytes() >= UNSYNCED_BYTES_MAX)
        };
        if all || has_much() {
            slot.write_back();
        }
    }
}

/// Refuses new blocks on disks that are nearly full, and allows them again. `low` holds those that
/// were full before, so that each change is told once.
fn reserve_space(store: &Store, low: &mut Vec<DiskId>) {
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
