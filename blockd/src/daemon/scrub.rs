//! Comparing everything with its checksums in the background, and when the managers ask.
//!
//! One thread for all replicas, in small steps; after each it rests as long as the rate wants.
//! Scrubs that are due at the same time take turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_proto::BLOCK_BYTES;

use super::stop::Stop;
use crate::replica::{News, Progress};
use crate::store::{Slot, Store, now_ms};

/// What one step reads at most, with the replica held: 256 KiB.
const STEP_BLOCKS: u64 = 64;
/// Steps on one replica before the next has its turn.
const STEPS_PER_TURN: usize = 64;
/// The pause when no scrub is under way.
const PAUSE: Duration = Duration::from_millis(500);
/// The shortest rest after a step: others want the replica, too.
const REST_MIN: Duration = Duration::from_millis(1);
/// How much of a scrub a daemon that is killed does again at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// How fast and how often everything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubPace {
    /// Of all scrubs together.
    pub bytes_per_second: u64,
    /// From the begin of a replica's scrub to the begin of the next; zero: only on demand.
    pub period: Duration,
}

/// Scrubs until the daemon stops.
pub(super) fn run(store: &Arc<Store>, stop: &Stop, pace: ScrubPace) {
    let mut saved = Instant::now();
    while !stop.is_asked() {
        let mut busy = false;
        for slot in store.slots() {
            begin_if_due(&slot, pace);
            busy |= take_turn(&slot, stop, pace);
        }
        if saved.elapsed() >= SAVE_INTERVAL {
            save(store);
            saved = Instant::now();
        }
        if !busy {
            stop.rest(PAUSE);
        }
    }
    save(store);
}

fn begin_if_due(slot: &Slot, pace: ScrubPace) {
    let period_ms = u64::try_from(pace.period.as_millis()).unwrap_or(u64::MAX);
    if period_ms == 0 {
        return;
    }
    if let Some(mut replica) = slot.replica() {
        let now = now_ms();
        if replica.is_scrub_due(period_ms, now) && replica.begin_scrub(0, now) {
            tracing::debug!(replica = %slot.id(), "scrub begins");
        }
    }
}

/// Scrubs on; `false` when there is nothing to do for now.
fn take_turn(slot: &Slot, stop: &Stop, pace: ScrubPace) -> bool {
    for _ in 0..STEPS_PER_TURN {
        let Some(mut replica) = slot.replica() else {
            return false;
        };
        let stepped = replica.scrub_step(STEP_BLOCKS, now_ms());
        let news = replica.take_news();
        let report = replica.scrub_report();
        drop(replica);
        log_news(slot, &news);
        let is_over = report.finished_at_ms != 0;
        let blocks = match stepped {
            Ok(Progress::Working { blocks }) => blocks,
            Ok(Progress::Idle | Progress::Sync(_)) => return false,
            Err(error) => {
                tracing::debug!(replica = %slot.id(), "the scrub stands still: {error}");
                return false;
            }
        };
        if is_over {
            slot.tell();
            tracing::info!(replica = %slot.id(), bytes = report.done_bytes,
                findings = report.findings, "scrub done");
            return false;
        }
        let bytes = blocks * BLOCK_BYTES;
        let rest = Duration::from_nanos(bytes * 1_000_000_000 / pace.bytes_per_second.max(1));
        if stop.rest(rest.max(REST_MIN)) {
            return false;
        }
    }
    true
}

/// Names each bad block that was found since the last step, by the scrub, a read or a merge.
fn log_news(slot: &Slot, news: &News) {
    for damage in &news.damages {
        let (layer, offset) = (damage.at.layer, damage.at.block.offset());
        tracing::error!(replica = %slot.id(), %layer, offset, bytes = BLOCK_BYTES,
            "a block {}; to be repaired from another replica", damage.flaw);
    }
    let unnamed = news.count - news.damages.len() as u64;
    if unnamed > 0 {
        tracing::error!(replica = %slot.id(), blocks = unnamed, "and more bad blocks at once");
    }
    if news.count > 0 {
        slot.tell();
    }
}

/// Writes down how far those are that are under way.
fn save(store: &Store) {
    for slot in store.slots() {
        if let Some(mut replica) = slot.replica() {
            let report = replica.scrub_report();
            if report.started_at_ms != 0 && report.finished_at_ms == 0 {
                replica.save_scrub();
            }
        }
    }
}
