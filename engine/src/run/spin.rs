//! Whether to look again for a moment before going to sleep.
//!
//! Waking a thread that sleeps takes longer than a replica on the same host takes to answer, above
//! all in a virtual machine. So where the last wait was short, the next one begins with a few looks
//! at the sockets. With more than one operation in flight there is little sleep to spare, and the
//! CPU is left to those who work on them.

use std::time::{Duration, Instant};

/// How long it looks: about what a wake-up costs.
const LOOK: Duration = Duration::from_micros(25);
/// A wait that was no longer than this promises another short one. Where all are about as long,
/// looks in vain take an eighth of the time, and none while the volume is idle or waits for media.
const SHORT: Duration = Duration::from_micros(200);

/// Operations in flight up to which it looks: one that the replicas have, or none, and the initiator
/// is about to send the next.
const IN_FLIGHT_MAX: usize = 1;

/// So many waits in a row must have begun with no more: a deep queue that has run empty for a moment
/// is no shallow one.
const SHALLOW: u32 = 8;

/// Decides by how long the last wait was, and how much has been in flight lately.
#[derive(Debug)]
pub(super) struct Spin {
    /// On a single CPU looking would only keep others from working.
    others_can_work: bool,
    last_was_short: bool,
    /// Waits in a row that began with little in flight, up to [`SHALLOW`].
    shallow: u32,
    since: Instant,
}

impl Spin {
    /// On a host, or in a container, with this many CPUs.
    pub(super) fn new(cpus: usize, now: Instant) -> Self {
        Self {
            others_can_work: cpus > 1,
            last_was_short: false,
            shallow: 0,
            since: now,
        }
    }

    /// There is nothing to do from now on; the replicas have this many operations.
    pub(super) fn begin(&mut self, now: Instant, in_flight: usize) {
        self.shallow = if in_flight > IN_FLIGHT_MAX {
            0
        } else {
            (self.shallow + 1).min(SHALLOW)
        };
        self.since = now;
    }

    /// Whether to look once more.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        self.others_can_work
            && self.last_was_short
            && self.shallow == SHALLOW
            && now.duration_since(self.since) < LOOK
    }

    /// Something has come.
    pub(super) fn end(&mut self, now: Instant) {
        self.last_was_short = now.duration_since(self.since) <= SHORT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it looks, of a wait of this length.
    fn looks(spin: &mut Spin, now: &mut Instant, wait: Duration) -> Duration {
        looks_beside(1, spin, now, wait)
    }

    /// The same, with this many operations in flight.
    fn looks_beside(
        in_flight: usize,
        spin: &mut Spin,
        now: &mut Instant,
        wait: Duration,
    ) -> Duration {
        let step = Duration::from_micros(1);
        let (begin, end) = (*now, *now + wait);
        spin.begin(begin, in_flight);
        while *now < end && spin.goes_on(*now) {
            *now += step;
        }
        let looked = *now - begin;
        *now = end;
        spin.end(end);
        looked
    }

    /// One that has seen short waits with one operation in flight.
    fn warm(now: &mut Instant) -> Spin {
        let mut spin = Spin::new(2, *now);
        for _ in 0..SHALLOW {
            let looked = looks(&mut spin, now, Duration::from_micros(5));
            assert!(looked.is_zero() || spin.shallow == SHALLOW);
        }
        spin
    }

    #[test]
    fn it_looks_after_a_short_wait_only_and_not_for_long() {
        let mut now = Instant::now();
        let mut spin = warm(&mut now);
        let (soon, late) = (Duration::from_micros(10), Duration::from_millis(5));
        assert_eq!(looks(&mut spin, &mut now, soon), soon);
        assert_eq!(looks(&mut spin, &mut now, SHORT), LOOK);
        assert_eq!(looks(&mut spin, &mut now, late), LOOK);
        assert_eq!(looks(&mut spin, &mut now, late), Duration::ZERO);
        assert_eq!(looks(&mut spin, &mut now, soon), Duration::ZERO);
        assert_eq!(looks(&mut spin, &mut now, soon), soon);
        assert!(LOOK * 8 <= SHORT, "an eighth");
    }

    #[test]
    fn a_deep_queue_is_not_looked_for_even_when_it_has_run_empty() {
        let mut now = Instant::now();
        let mut spin = warm(&mut now);
        let wait = Duration::from_micros(10);
        assert_eq!(looks_beside(16, &mut spin, &mut now, wait), Duration::ZERO);
        for _ in 1..SHALLOW {
            assert_eq!(looks_beside(0, &mut spin, &mut now, wait), Duration::ZERO);
        }
        assert_eq!(looks_beside(1, &mut spin, &mut now, wait), wait);
        assert_eq!(looks_beside(2, &mut spin, &mut now, wait), Duration::ZERO);
    }

    #[test]
    fn a_single_cpu_is_left_to_others() {
        let mut now = Instant::now();
        let mut spin = Spin::new(1, now);
        for _ in 0..2 * SHALLOW {
            let looked = looks(&mut spin, &mut now, Duration::from_micros(5));
            assert_eq!(looked, Duration::ZERO);
        }
    }
}
