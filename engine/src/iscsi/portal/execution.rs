//! Commands between the session and the volume: batches of operations in flight, and commands that
//! wait for something besides.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Shared;
use super::registry::ConnectionId;
use super::volume::{Completed, Completion, CompletionQueue};
use crate::iscsi::session::{Action, DrainId, PurgeRequest, Session, TaskId};
use crate::scsi::{Begun, Done, Keep, Pending, Request, Reset};
use crate::volume::{Failure, Outcome};

/// What one command waits for.
enum Flight {
    /// A batch of operations.
    Operations {
        pending: Pending,
        outcomes: Vec<Option<Outcome>>,
        missing: usize,
    },
    /// That a change is durable.
    Keep(Keep),
    /// That the sanitize operation ends.
    Sanitize(Pending),
}

/// What a wait for other sessions' commands is for.
enum After {
    Purge(PurgeRequest),
    Answer(TaskId, Done),
}

/// The commands of one connection that SCSI has.
pub(super) struct Execution {
    shared: Rc<Shared>,
    connection: ConnectionId,
    queue: Rc<CompletionQueue>,
    flights: BTreeMap<TaskId, Flight>,
    drains: BTreeMap<DrainId, After>,
    /// How many of the flights wait for the sanitize operation.
    sanitizes: usize,
    submitted: bool,
}

impl Execution {
    pub(super) fn new(shared: Rc<Shared>, connection: ConnectionId) -> Self {
        Self {
            shared,
            connection,
            queue: Rc::default(),
            flights: BTreeMap::new(),
            drains: BTreeMap::new(),
            sanitizes: 0,
            submitted: false,
        }
    }

    /// Where outcomes arrive.
    pub(super) fn queue(&self) -> Rc<CompletionQueue> {
        self.queue.clone()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// The commands that wait for the sanitize operation go on.
    pub(super) fn sanitize_over(&mut self, session: &mut Session, actions: &mut Vec<Action>) {
        let waiting = self
            .flights
            .extract_if(.., |_, flight| matches!(flight, Flight::Sanitize(_)));
        let waiting: Vec<_> = waiting.collect();
        self.sanitizes -= waiting.len();
        for (task, flight) in waiting {
            if let Flight::Sanitize(pending) = flight {
                let begun = self.shared.unit.borrow_mut().resume(pending, Vec::new());
                if session.wants(task) {
                    self.go_on(task, begun, session, actions);
                } else {
                    session.drop_task(task, actions);
                }
            }
        }
    }

    /// Begins a command.
    pub(super) fn begin(
        &mut self,
        task: TaskId,
        request: Request,
        session: &mut Session,
        actions: &mut Vec<Action>,
    ) {
        let begun = self.shared.unit.borrow_mut().begin(request);
        self.go_on(task, begun, session, actions);
        self.shared.announce();
    }

    /// Lets the volume send what was submitted since the last call.
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.submitted) {
            self.shared.volume.submitted();
        }
    }

    /// Takes all outcomes that have come.
    pub(super) fn collect(&mut self, session: &mut Session, actions: &mut Vec<Action>) {
        while let Some(completed) = self.queue.pop() {
            self.complete(completed, session, actions);
        }
    }

    /// Resets the device, and aborts what is in progress in all sessions.
    pub(super) fn purge(&mut self, request: PurgeRequest, reset: Reset) {
        self.shared.unit.borrow_mut().reset(reset);
        self.shared.announce();
        let drain = self
            .shared
            .registry
            .borrow_mut()
            .drain(self.connection, None, None);
        self.drains.insert(drain, After::Purge(request));
    }

    /// A wait for other sessions is over.
    pub(super) fn drain_over(
        &mut self,
        drain: DrainId,
        session: &mut Session,
        actions: &mut Vec<Action>,
    ) {
        match self.drains.remove(&drain) {
            Some(After::Purge(request)) => session.purged(request, actions),
            Some(After::Answer(task, done)) => session.finish(task, done, actions),
            None => {}
        }
    }

    /// Forgets commands that nobody wants any more and that wait for other sessions, or for the
    /// sanitize operation, which goes on without them. Without this, two sessions that preempt each
    /// other would wait for each other.
    pub(super) fn forget_unwanted(&mut self, session: &mut Session, actions: &mut Vec<Action>) {
        if self.sanitizes > 0 {
            self.forget_sanitizes(session, actions);
        }
        if self.drains.is_empty() {
            return;
        }
        let unwanted = self.drains.extract_if(.., |_, after| match after {
            After::Answer(task, _) => !session.wants(*task),
            After::Purge(_) => false,
        });
        let unwanted: Vec<After> = unwanted.map(|(_, after)| after).collect();
        for after in unwanted {
            if let After::Answer(task, _) = after {
                session.drop_task(task, actions);
            }
        }
    }

    fn forget_sanitizes(&mut self, session: &mut Session, actions: &mut Vec<Action>) {
        let unwanted = self.flights.extract_if(.., |task, flight| {
            matches!(flight, Flight::Sanitize(_)) && !session.wants(*task)
        });
        let unwanted: Vec<TaskId> = unwanted.map(|(task, _)| task).collect();
        self.sanitizes -= unwanted.len();
        for task in unwanted {
            session.drop_task(task, actions);
        }
    }

    fn go_on(
        &mut self,
        task: TaskId,
        mut begun: Begun,
        session: &mut Session,
        actions: &mut Vec<Action>,
    ) {
        loop {
            let mut pending = match begun {
                Begun::Done(done) => return self.end(task, done, session, actions),
                Begun::Keep(keep) => return self.keep(task, keep),
                Begun::Pending(pending) if pending.waits_for_sanitize() => {
                    self.flights.insert(task, Flight::Sanitize(pending));
                    self.sanitizes += 1;
                    return self.shared.sanitize();
                }
                Begun::Pending(pending) => pending,
            };
            let operations = pending.operations();
            if operations.is_empty() {
                begun = self.shared.unit.borrow_mut().resume(pending, Vec::new());
                continue;
            }
            let flight = Flight::Operations {
                pending,
                outcomes: vec![None; operations.len()],
                missing: operations.len(),
            };
            self.flights.insert(task, flight);
            self.submitted = true;
            for (index, operation) in operations.into_iter().enumerate() {
                let completion = Completion::new(self.queue.clone(), task, index);
                self.shared.volume.submit(operation, completion);
            }
            return;
        }
    }

    fn complete(&mut self, completed: Completed, session: &mut Session, actions: &mut Vec<Action>) {
        let Completed {
            task,
            index,
            outcome,
        } = completed;
        if let Some(Flight::Operations {
            outcomes, missing, ..
        }) = self.flights.get_mut(&task)
        {
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = Some(outcome.clone());
            }
            *missing -= 1;
            if *missing > 0 {
                return;
            }
        }
        let begun = match self.flights.remove(&task) {
            // What was kept holds, whether its command is wanted or not.
            Some(Flight::Keep(keep)) => {
                let mut unit = self.shared.unit.borrow_mut();
                let begun = unit.kept(keep, kept(&outcome));
                drop(unit);
                self.shared.announce();
                self.shared.sanitize();
                begun
            }
            Some(Flight::Operations {
                pending, outcomes, ..
            }) if session.wants(task) => {
                let outcomes = outcomes.into_iter().flatten().collect();
                self.shared.unit.borrow_mut().resume(pending, outcomes)
            }
            // Aborted: what it has not submitted yet is never submitted.
            Some(Flight::Operations { .. }) => return session.drop_task(task, actions),
            Some(flight @ Flight::Sanitize(_)) => {
                self.flights.insert(task, flight);
                return;
            }
            None => return,
        };
        if session.wants(task) {
            self.go_on(task, begun, session, actions);
        } else {
            session.drop_task(task, actions);
        }
    }

    /// Has a change made durable.
    fn keep(&mut self, task: TaskId, keep: Keep) {
        let state = keep.state();
        self.flights.insert(task, Flight::Keep(keep));
        let completion = Completion::new(self.queue.clone(), task, 0);
        self.shared.keeper.keep(state, completion);
    }

    /// Answers a command, once what the answer promises holds.
    fn end(
        &mut self,
        task: TaskId,
        mut done: Done,
        session: &mut Session,
        actions: &mut Vec<Action>,
    ) {
        let preempted = std::mem::take(&mut done.abort);
        if preempted.is_empty() {
            return session.finish(task, done, actions);
        }
        let mut registry = self.shared.registry.borrow_mut();
        let drain = registry.drain(self.connection, Some(&preempted), Some(task));
        self.drains.insert(drain, After::Answer(task, done));
    }
}

fn kept(outcome: &Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Done(_) => Ok(()),
        Outcome::Failed(failure) => Err(*failure),
        Outcome::Miscompare { .. } => Err(Failure::Unavailable),
    }
}
