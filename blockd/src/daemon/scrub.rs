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

impl ScrubPace {
    /// How long nothing is read after this much was: whoever rests so never exceeds the rate by more
    /// than the step before the rest.
    fn rest_after(self, bytes: u64) -> Duration {
        let nanos = bytes.saturating_mul(1_000_000_000);
        let rest = Duration::from_nanos(nanos.div_ceil(self.bytes_per_second.max(1)));
        rest.max(REST_MIN)
    }
}

/// Scrubs until the daemon stops.
pub(super) fn run(store: &Arc<Store>, stop: &Stop, pace: ScrubPace) {
    let mut saved = Instant::now();
    while !stop.is_asked() {
        let mut busy = false;
        for slot in store.slots() {
            begin_if_due(&slot, pace);
            busy |= take_turn(&slot, pace, &mut |time| stop.rest(time));
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

/// Scrubs on, with a `rest` after each step, which tells whether the daemon stops; `false` when there
/// is nothing to do for now.
fn take_turn(slot: &Slot, pace: ScrubPace, rest: &mut impl FnMut(Duration) -> bool) -> bool {
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
        }
        // Also after the last step: the next replica's turn may follow at once.
        if rest(pace.rest_after(blocks * BLOCK_BYTES)) || is_over {
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

#[cfg(test)]
mod tests {
    use ankole_proto::wire::body::OpenRequest;
    use ankole_proto::{
        Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize,
    };

    use super::*;
    use crate::replica::Mutation;
    use crate::store::{ConnectionId, Creation};

    const CREDENTIAL: Credential = Credential::from_bytes([3; 32]);
    const STEP_BYTES: u64 = STEP_BLOCKS * BLOCK_BYTES;

    /// A store of replicas that hold so many bytes each.
    fn store(dir: &std::path::Path, held: &[u64]) -> Store {
        let store = Store::open(&[dir.to_path_buf()]).unwrap();
        let size = VolumeSize::from_bytes(8 << 20).unwrap();
        for (number, bytes) in (1..).zip(held) {
            let (replica, volume) = (ReplicaId::from_bits(number), VolumeId::from_bits(number));
            let disk = store.disks()[0].id();
            let creation = Creation {
                replica,
                volume,
                disk,
                size,
                credential: CREDENTIAL,
                base: LayerId::from_raw(1).unwrap(),
            };
            store.create(&creation).unwrap();
            let slots = store.slots();
            let slot = slots.iter().find(|slot| slot.id() == replica).unwrap();
            let epoch = Epoch::from_raw(1);
            let request = OpenRequest {
                volume,
                replica,
                epoch,
                size,
                credential: CREDENTIAL,
            };
            slot.open(&request, ConnectionId::NONE).unwrap();
            let extent = Extent::new(0, *bytes).unwrap();
            let data = vec![7; usize::try_from(*bytes).unwrap()];
            let mutation = Mutation {
                sequence: Sequence::from_raw(1),
                watermark: Sequence::from_raw(0),
            };
            let mut replica = slot.replica().unwrap();
            replica
                .write(epoch, extent, &data, mutation, false)
                .unwrap();
        }
        store
    }

    fn read_bytes(store: &Store) -> u64 {
        let slots = store.slots();
        let reports = slots
            .iter()
            .map(|slot| slot.replica().unwrap().scrub_report());
        reports.map(|report| report.done_bytes).sum()
    }

    #[test]
    fn all_scrubs_together_read_no_more_than_the_rate_allows_and_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let held = [STEP_BYTES * 5 / 2, 4096, 4096, 4 << 20, STEP_BYTES];
        let store = store(dir.path(), &held);
        for bytes_per_second in [0, 1, 100_000, 32 << 20, 1 << 40] {
            let pace = ScrubPace {
                bytes_per_second,
                period: Duration::ZERO,
            };
            for slot in store.slots() {
                assert!(slot.replica().unwrap().begin_scrub(0, 1));
            }
            // Steps take no time here: only what is rested keeps the rate.
            let mut clock = Duration::ZERO;
            let mut turns = 0;
            loop {
                let mut busy = false;
                for slot in store.slots() {
                    busy |= take_turn(&slot, pace, &mut |time| {
                        let rate = u128::from(bytes_per_second.max(1));
                        let allowed = clock.as_nanos() * rate / 1_000_000_000;
                        let read = u128::from(read_bytes(&store));
                        assert!(read <= allowed + u128::from(STEP_BYTES), "at {clock:?}");
                        clock += time;
                        false
                    });
                }
                turns += 1;
                assert!(turns < 100);
                if !busy {
                    break;
                }
            }
            assert_eq!(read_bytes(&store), held.iter().sum::<u64>());
        }
    }
}
