//! The seam to what executes volume operations, and how outcomes come back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::iscsi::session::TaskId;
use crate::volume::{Failure, Operation, Outcome};

/// Executes operations: the mirror and its links in production, memory in an example.
pub trait Volume {
    /// Starts an operation; its outcome is given to `completion`, now or later, on this thread.
    fn submit(&self, operation: Operation, completion: Completion);

    /// All that is ready has been submitted: what was collected may be sent.
    fn submitted(&self) {}
}

/// Keeps what the unit must know again after a restart, on whatever node: the persistent
/// reservations, and a sanitize operation that has not ended.
pub trait ReservationKeeper {
    /// Makes the state durable in place of the one before, now or later, on this thread; `kept` is
    /// answered with `Outcome::Done`, or with `Outcome::Failed` when it may not be there after a
    /// restart: the change has no effect then, and the initiator is told. At most
    /// [`crate::scsi::STATE_BYTES_MAX`] bytes; there is one at a time. Hand the last state that was
    /// kept to [`crate::scsi::LogicalUnit::restore`] before serving.
    fn keep(&self, state: Bytes, kept: Completion);
}

/// Where one operation's outcome goes. Dropped without an outcome it reports
/// [`Failure::Stopping`]: an operation may fail, but is never forgotten.
#[derive(Debug)]
pub struct Completion {
    queue: Option<Rc<CompletionQueue>>,
    task: TaskId,
    index: usize,
}

impl Completion {
    pub(super) fn new(queue: Rc<CompletionQueue>, task: TaskId, index: usize) -> Self {
        Self {
            queue: Some(queue),
            task,
            index,
        }
    }

    /// Of an operation whose outcome concerns no command.
    pub(super) fn unheard() -> Self {
        Self {
            queue: None,
            task: TaskId(0),
            index: 0,
        }
    }

    /// The operation ended so. Wakes the connection that waits for it.
    pub fn complete(mut self, outcome: Outcome) {
        self.deliver(outcome);
    }

    fn deliver(&mut self, outcome: Outcome) {
        if let Some(queue) = self.queue.take() {
            queue.push(Completed {
                task: self.task,
                index: self.index,
                outcome,
            });
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.deliver(Outcome::Failed(Failure::Stopping));
    }
}

/// One operation of a command is answered.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) task: TaskId,
    /// Which operation of the command's batch.
    pub(super) index: usize,
    pub(super) outcome: Outcome,
}

/// The outcomes that wait for one connection. Bounded by what the connection has submitted.
#[derive(Debug, Default)]
pub(super) struct CompletionQueue {
    completed: RefCell<VecDeque<Completed>>,
    arrived: Notify,
}

impl CompletionQueue {
    fn push(&self, completed: Completed) {
        self.completed.borrow_mut().push_back(completed);
        self.arrived.notify_one();
    }

    pub(super) fn pop(&self) -> Option<Completed> {
        self.completed.borrow_mut().pop_front()
    }

    pub(super) async fn wait(&self) {
        self.arrived.notified().await;
    }
}
