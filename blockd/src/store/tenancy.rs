//! Who has a replica open, and how long the engines before may still believe that they have.
//!
//! Pure: times are handed in, counted from the start of the daemon. A reply lets an engine believe
//! in its lease for [`LEASE_MS`] from when it *sent* the request, which is before the request was
//! received here; so counting from the reception never ends a lease too early.

use std::time::Duration;

use ankole_proto::Epoch;
use ankole_proto::wire::LEASE_MS;

const LEASE: Duration = Duration::from_millis(LEASE_MS as u64);

/// Names a connection; never used again while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// No connection has this one.
    pub const NONE: Self = Self(0);
}

/// What a replica of an engine's lease knows.
#[derive(Debug)]
pub struct Tenancy {
    /// Of the engine that was the last to open the replica.
    epoch: Epoch,
    /// When the lease of that engine ends at the latest; `None` when it has none.
    lease_until: Option<Duration>,
    /// When the leases of all engines before it end at the latest.
    older_until: Duration,
}

impl Tenancy {
    /// A replica as the daemon finds it when it starts. `in_use` unless the last engine closed in
    /// order, or there was none: it may have been answered until a moment ago.
    pub const fn found(epoch: Epoch, in_use: bool) -> Self {
        let until = if in_use { LEASE } else { Duration::ZERO };
        Self {
            epoch,
            lease_until: if in_use { Some(until) } else { None },
            // The reply that told the last engine to wait may be lost with the daemon.
            older_until: until,
        }
    }

    /// An engine has opened the replica. Answers how long the engines before it may believe in
    /// their leases.
    pub fn opened(&mut self, epoch: Epoch, now: Duration) -> Duration {
        if epoch > self.epoch {
            self.older_until = self.older_until.max(self.lease_until.unwrap_or_default());
            self.epoch = epoch;
        }
        self.lease_until = Some(now + LEASE);
        self.older_until.saturating_sub(now)
    }

    /// A request of the present engine came and will be answered.
    pub fn heard(&mut self, now: Duration) {
        if let Some(until) = &mut self.lease_until {
            *until = (now + LEASE).max(*until);
        }
    }

    /// The present engine closed in order: it believes in nothing any more.
    pub fn closed(&mut self) {
        self.lease_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const E1: Epoch = Epoch::from_raw(1);
    const E2: Epoch = Epoch::from_raw(2);
    const E3: Epoch = Epoch::from_raw(3);

    #[test]
    fn the_first_engine_waits_for_nobody() {
        let mut tenancy = Tenancy::found(Epoch::ZERO, false);
        assert_eq!(tenancy.opened(E1, at(10)), Duration::ZERO);
    }

    #[test]
    fn a_newer_engine_waits_for_what_is_left_of_the_last_reply() {
        let mut tenancy = Tenancy::found(Epoch::ZERO, false);
        tenancy.opened(E1, at(0));
        tenancy.heard(at(5000));
        assert_eq!(tenancy.opened(E2, at(6000)), LEASE - at(1000));
    }

    #[test]
    fn an_orderly_close_ends_the_lease() {
        let mut tenancy = Tenancy::found(Epoch::ZERO, false);
        tenancy.opened(E1, at(0));
        tenancy.closed();
        assert_eq!(tenancy.opened(E2, at(1)), Duration::ZERO);
    }

    #[test]
    fn the_wait_for_an_engine_outlives_the_one_between() {
        let mut tenancy = Tenancy::found(Epoch::ZERO, false);
        tenancy.opened(E1, at(0));
        tenancy.opened(E2, at(1000));
        tenancy.closed();
        assert_eq!(tenancy.opened(E3, at(1500)), at(1500));
    }

    #[test]
    fn the_same_engine_does_not_wait_for_itself() {
        let mut tenancy = Tenancy::found(Epoch::ZERO, false);
        tenancy.opened(E1, at(0));
        assert_eq!(tenancy.opened(E1, at(100)), Duration::ZERO);
        assert_eq!(tenancy.opened(E2, at(200)), LEASE - at(100));
    }

    #[test]
    fn after_a_restart_in_use_a_full_lease_counts_from_the_start() {
        let mut tenancy = Tenancy::found(E1, true);
        assert_eq!(tenancy.opened(E2, at(400)), LEASE - at(400));
        let mut clean = Tenancy::found(E1, false);
        assert_eq!(clean.opened(E2, at(400)), Duration::ZERO);
    }

    #[test]
    fn a_lease_that_ran_out_is_not_waited_for() {
        let mut tenancy = Tenancy::found(E1, true);
        assert_eq!(tenancy.opened(E2, at(9000)), Duration::ZERO);
    }
}
