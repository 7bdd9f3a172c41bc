//! From the portal's commands to the mirror's operations and back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::inbox::Inbox;
use crate::iscsi::portal::{Completion, Volume};
use crate::mirror::event::Event;
use crate::volume::{Operation, OperationId, Outcome};

/// The volume as the portal sees it. Operations are collected in the inbox, so that all that came
/// with one wake-up goes to the replicas together.
#[derive(Debug)]
pub(super) struct Submissions {
    inbox: Rc<Inbox>,
    waiting: RefCell<BTreeMap<OperationId, Completion>>,
    last: Cell<u64>,
}

impl Submissions {
    pub(super) fn new(inbox: Rc<Inbox>) -> Self {
        Self {
            inbox,
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
