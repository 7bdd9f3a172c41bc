//! When a silent initiator is asked for a sign of life, and when it counts as dead.

use crate::iscsi::limit;
use crate::volume::Moment;

/// What to do about the silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    Ping,
    Dead,
}

#[derive(Debug)]
pub(super) struct Liveness {
    accepted: Moment,
    heard: Moment,
    pinged: Option<Moment>,
}

impl Liveness {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            accepted: now,
            heard: now,
            pinged: None,
        }
    }

    /// Anything at all has come.
    pub(super) fn heard(&mut self, now: Moment) {
        self.heard = now;
        self.pinged = None;
    }

    pub(super) fn login_is_late(&self, now: Moment) -> bool {
        now.since(self.accepted) > limit::LOGIN_DEADLINE
    }

    pub(super) fn check(&mut self, now: Moment) -> Verdict {
        match self.pinged {
            Some(pinged) if now.since(pinged) > limit::PING_DEADLINE => Verdict::Dead,
            None if now.since(self.heard) > limit::PING_AFTER => {
                self.pinged = Some(now);
                Verdict::Ping
            }
            _ => Verdict::Alive,
        }
    }
}
