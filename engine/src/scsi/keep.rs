//! What outlives the engine: handed out to be kept, in effect once it is, taken up by the next one.

use bytes::Bytes;

use super::handle::{After, Change, Step};
use super::reservation::Reservations;
use super::sanitize::{Sanitize, Work};
use super::stored::{self, RestoreError};
use super::task::{Begun, Done, Keep};
use super::unit::LogicalUnit;
use crate::volume::Failure;

impl LogicalUnit {
    /// Takes up what was kept last: the persistent reservations, and a sanitize operation that the
    /// engine before did not end.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when the bytes are no such state; nothing changes then.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        let (reservations, sanitize) = stored::read(state)?;
        self.sanitize_failed = matches!(sanitize, Sanitize::Failed { .. });
        self.sanitize = sanitize;
        self.reservations.take_up(reservations);
        Ok(())
    }

    /// What is to be kept, as it is now. At most [`super::STATE_BYTES_MAX`].
    pub fn state(&self) -> Bytes {
        self.state_with(&self.reservations, &self.sanitize)
    }

    pub(super) fn state_with(&self, reservations: &Reservations, sanitize: &Sanitize) -> Bytes {
        stored::write(reservations, sanitize)
    }

    /// Goes on with a command whose change is durable, or could not be made so: then it has no
    /// effect.
    pub fn kept(&mut self, keep: Keep, kept: Result<(), Failure>) -> Begun {
        self.keeping = false;
        let Keep { nexus, change, .. } = keep;
        let mut abort = Vec::new();
        let handled = match (kept, change) {
            (Err(failure), _) => Err(failure.into()),
            (Ok(()), Change::Reservations(change)) => {
                abort = change.apply(self);
                Ok(Step::Good)
            }
            (Ok(()), Change::Sanitize(None)) => {
                self.sanitize = Sanitize::Idle;
                Ok(Step::Good)
            }
            (Ok(()), Change::Sanitize(Some(order))) => {
                let immediate = order.is_immediate();
                self.sanitize = Sanitize::Running(Work::begin(order));
                if immediate {
                    Ok(Step::Good)
                } else {
                    Ok(Step::Run(Vec::new(), After::Sanitized))
                }
            }
        };
        match self.settle(nexus, handled) {
            Begun::Done(done) => Begun::Done(Done { abort, ..done }),
            begun => begun,
        }
    }

    /// What is to be kept once the change is made.
    pub(super) fn state_after(&self, change: &Change) -> Bytes {
        match change {
            Change::Reservations(change) => self.state_with(&change.reservations, &self.sanitize),
            Change::Sanitize(None) => self.state_with(&self.reservations, &Sanitize::Idle),
            Change::Sanitize(Some(order)) => {
                let running = Sanitize::Running(Work::begin(order.clone()));
                self.state_with(&self.reservations, &running)
            }
        }
    }
}
