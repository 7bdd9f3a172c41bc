//! How fast a rebuild copies.

use std::time::Duration;

use crate::volume::Moment;

/// Lets `bytes_per_second` through: what was taken has to be paid off in time before more is.
#[derive(Debug)]
pub(super) struct Bucket {
    bytes_per_second: u64,
    free_at: Moment,
}

impl Bucket {
    pub(super) fn new(bytes_per_second: u64, now: Moment) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: now,
        }
    }

    /// When more may be taken.
    pub(super) fn free_at(&self) -> Moment {
        self.free_at
    }

    /// Takes bytes.
    pub(super) fn take(&mut self, bytes: u64, now: Moment) {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_paid_off_in_time() {
        let second = |s| Moment::after_start(Duration::from_secs(s));
        let mut bucket = Bucket::new(1000, second(5));
        bucket.take(2000, second(5));
        bucket.take(1000, second(5));
        assert_eq!(bucket.free_at(), second(8));
        bucket.take(1000, second(20));
        assert_eq!(bucket.free_at(), second(21), "idle time is not saved up");
    }
}
