//! How fast a rebuild copies.

use std::num::NonZeroU64;
use std::time::Duration;

use ankole_proto::ReplicaId;

use super::{Rebuild, Stage};
use crate::mirror::Mirror;
use crate::mirror::replica::Replica;
use crate::volume::Moment;

/// Lets so many bytes per second through: what was taken has to be paid off in time before more is.
/// And rests between chunks, which others may make use of.
#[derive(Debug)]
pub(in crate::mirror) struct Pace {
    /// `None`: no limit.
    bytes_per_second: Option<NonZeroU64>,
    free_at: Moment,
    rested_at: Moment,
}

impl Pace {
    pub(in crate::mirror) fn new(bytes_per_second: Option<NonZeroU64>, now: Moment) -> Self {
        Self {
            bytes_per_second,
            free_at: now,
            rested_at: now,
        }
    }

    /// Another rate; what was owed by the old one is forgotten.
    pub(in crate::mirror) fn set(&mut self, bytes_per_second: Option<NonZeroU64>, now: Moment) {
        if self.bytes_per_second != bytes_per_second {
            *self = Self::new(bytes_per_second, now);
        }
    }

    /// When more may be taken.
    pub(in crate::mirror) fn free_at(&self) -> Moment {
        self.free_at
    }

    /// When more may be taken beside others.
    pub(in crate::mirror) fn free_beside_others_at(&self) -> Moment {
        self.free_at.max(self.rested_at)
    }

    /// Takes bytes.
    pub(in crate::mirror) fn take(&mut self, bytes: u64, now: Moment) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now) + time;
    }

    /// Rests.
    pub(in crate::mirror) fn rest(&mut self, time: Duration, now: Moment) {
        self.rested_at = self.rested_at.max(now + time);
    }
}

impl Mirror {
    /// What the orders let a rebuild copy.
    pub(super) fn rebuild_rate(&self, target: ReplicaId) -> Option<NonZeroU64> {
        let mut members = self.orders.replicas.iter();
        members
            .find(|one| one.replica == target)?
            .rebuild_bytes_per_second
    }

    /// The orders have changed: rebuilds under way keep to the new limits.
    pub(in crate::mirror) fn pace_rebuilds(&mut self, now: Moment) {
        for id in self.rebuilding(|_| true) {
            let rate = self.rebuild_rate(id);
            if let Some(rebuild) = self.replicas.get_mut(&id).and_then(Replica::rebuild_mut) {
                rebuild.pace.set(rate, now);
            }
        }
    }

    /// Whether somebody has done I/O a moment ago, who is to feel little of a rebuild.
    pub(in crate::mirror) fn is_beside_others(&self, now: Moment) -> bool {
        self.last_user_at
            .is_some_and(|at| now < at + self.config.limits.rebuild_idle)
    }

    /// When the rebuild has something to do.
    pub(in crate::mirror) fn rebuild_wake_at(&self, rebuild: &Rebuild) -> Option<Moment> {
        let free_at = if self.is_beside_others(self.now) {
            rebuild.pace.free_beside_others_at()
        } else {
            rebuild.pace.free_at()
        };
        (rebuild.stage == Stage::Copying && free_at > self.now).then_some(free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn without_a_limit_nothing_is_owed_and_a_rest_counts_beside_others_only() {
        let mut pace = Pace::new(None, second(5));
        pace.take(u64::MAX, second(5));
        pace.rest(Duration::from_secs(2), second(5));
        assert_eq!(pace.free_at(), second(5));
        assert_eq!(pace.free_beside_others_at(), second(7));
        pace.set(NonZeroU64::new(1000), second(6));
        pace.take(3000, second(6));
        assert_eq!(pace.free_beside_others_at(), second(9));
        pace.set(NonZeroU64::new(1000), second(6));
        assert_eq!(pace.free_at(), second(9), "the same limit forgives nothing");
    }

    #[test]
    fn what_was_taken_is_paid_off_in_time() {
        let mut pace = Pace::new(NonZeroU64::new(1000), second(5));
        pace.take(2000, second(5));
        pace.take(1000, second(5));
        assert_eq!(pace.free_at(), second(8));
        pace.take(1000, second(20));
        assert_eq!(pace.free_at(), second(21), "idle time is not saved up");
    }
}
