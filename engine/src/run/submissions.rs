//! From the portal's commands to the mirror's operations and back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::inbox::Inbox;
use crate::iscsi::portal::{Completion, ReservationKeeper, Volume};
use crate::managers::Keeper;
use crate::mirror::event::Event;
use crate::volume::{Failure, Operation, OperationId, Outcome};

/// The volume as the portal sees it. Operations are collected in the inbox, so that all that came
/// with one wake-up goes to the replicas together.
#[derive(Debug)]
pub(super) struct Submissions {
    inbox: Rc<Inbox>,
    keeper: Keeper,
    keeping: RefCell<Option<Completion>>,
    waiting: RefCell<BTreeMap<OperationId, Completion>>,
    last: Cell<u64>,
}

impl Submissions {
    pub(super) fn new(inbox: Rc<Inbox>, keeper: Keeper) -> Self {
        Self {
            inbox,
            keeper,
            keeping: RefCell::default(),
            waiting: RefCell::default(),
            last: Cell::new(0),
        }
    }

    /// Operations that have not been answered.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Answers the change of the reservations that was on its way.
    pub(super) fn kept(&self, result: Result<(), String>) {
        let outcome = match result {
            Ok(()) => Outcome::Done(Bytes::new()),
            Err(error) => {
                tracing::error!(
                    error,
                    "the managers did not keep a change of the reservations"
                );
                Outcome::Failed(Failure::Unavailable)
            }
        };
        let keeping = self.keeping.borrow_mut().take();
        if let Some(kept) = keeping {
            kept.complete(outcome);
        }
    }

    /// Answers an operation.
    pub(super) fn complete(&self, id: OperationId, outcome: Outcome) {
        let completion = self.waiting.borrow_mut().remove(&id);
        // The mirror answers each operation once; a second answer is a bug.
        assert!(completion.is_some(), "{id:?} was answered twice");
        if let Some(completion) = completion {
            completion.complete(outcome);
        }
    }
}

impl Volume for Submissions {
    fn submit(&self, operation: Operation, completion: Completion) {
        let id = OperationId(self.last.get() + 1);
        self.last.set(id.0);
        self.waiting.borrow_mut().insert(id, completion);
        self.inbox.push(Event::Submit { id, operation });
    }
}

impl ReservationKeeper for Submissions {
    /// By the managers, so that the reservations move with the volume. The initiator waits for
    /// them.
    fn keep(&self, state: Bytes, kept: Completion) {
        match self.keeper.keep(state) {
            Ok(()) => *self.keeping.borrow_mut() = Some(kept),
            Err(error) => {
                tracing::error!(%error, "a change of the reservations cannot be kept");
                kept.complete(Outcome::Failed(Failure::Unavailable));
            }
        }
    }
}
