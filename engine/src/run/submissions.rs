//! From the portal's commands to the mirror's operations and back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::directory::HeldDirectory;
use super::inbox::Inbox;
use crate::iscsi::portal::{Completion, ReservationKeeper, Volume};
use crate::mirror::event::Event;
use crate::volume::{Failure, Operation, OperationId, Outcome};

/// The volume as the portal sees it. Operations are collected in the inbox, so that all that came
/// with one wake-up goes to the replicas together.
#[derive(Debug)]
pub(super) struct Submissions {
    inbox: Rc<Inbox>,
    held: Rc<HeldDirectory>,
    waiting: RefCell<BTreeMap<OperationId, Completion>>,
    last: Cell<u64>,
}

impl Submissions {
    pub(super) fn new(inbox: Rc<Inbox>, held: Rc<HeldDirectory>) -> Self {
        Self {
            inbox,
            held,
            waiting: RefCell::default(),
            last: Cell::new(0),
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
    /// A small file, synced on the engine's thread: reservations change when a cluster of
    /// initiators does, not with I/O.
    fn keep(&self, state: Bytes, kept: Completion) {
        kept.complete(match self.held.store_reservations(&state) {
            Ok(()) => Outcome::Done(Bytes::new()),
            Err(error) => {
                tracing::error!(%error, "the reservations cannot be kept");
                Outcome::Failed(Failure::Unavailable)
            }
        });
    }
}
