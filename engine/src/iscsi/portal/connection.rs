//! One connection: waits for bytes, outcomes, notices and time, and lets the session decide.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;
use rand::Rng;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout_at};
use tracing::{debug, info};

use super::execution::Execution;
use super::registry::{ConnectionId, Control, Mailbox, Verdict};
use super::volume::CompletionQueue;
use super::{Shared, close_deadline};
use crate::iscsi::limit;
use crate::iscsi::login::{CHALLENGE_BYTES, Entropy, Established, Refusal, SessionKind};
use crate::iscsi::pdu::frame;
use crate::iscsi::session::{Action, Ending, Session};
use crate::scsi::InitiatorPort;
use crate::short_read;
use crate::volume::Moment;

/// Pieces of one vectored write.
const SLICES: usize = 64;

/// Drives a connection to its end.
pub(super) async fn run(shared: Rc<Shared>, stream: TcpStream) {
    let (id, mailbox) = shared.registry.borrow_mut().enter();
    let mut connection = Connection::new(shared.clone(), stream, id, mailbox);
    let ending = connection.serve().await;
    info!(connection = ?id, reason = %ending, "a connection ends");
    connection.flush_rest().await;
    connection.drain().await;
    let nexus = shared.registry.borrow_mut().leave(id);
    if let Some(nexus) = nexus {
        shared.unit.borrow_mut().nexus_lost(nexus);
        shared.tell_initiators();
    }
    shared.left.notify_one();
}

struct Connection {
    shared: Rc<Shared>,
    stream: TcpStream,
    id: ConnectionId,
    mailbox: Rc<Mailbox>,
    completions: Rc<CompletionQueue>,
    session: Session,
    execution: Execution,
    received: BytesMut,
    actions: Vec<Action>,
    /// A login that waits for its predecessor to end, and since when.
    admission: Option<(Established, Moment)>,
    ending: Option<Ending>,
    /// When bytes last left, or there were none to send.
    sent_at: Instant,
}

impl Connection {
    fn new(shared: Rc<Shared>, stream: TcpStream, id: ConnectionId, mailbox: Rc<Mailbox>) -> Self {
        let mut challenge = [0; CHALLENGE_BYTES];
        let mut random = rand::rng();
        random.fill(&mut challenge);
        let entropy = Entropy {
            identifier: random.random(),
            challenge,
        };
        let session = Session::new(shared.target(), entropy, shared.now());
        let execution = Execution::new(shared.clone(), id);
        Self {
            completions: execution.queue(),
            session,
            execution,
            shared,
            stream,
            id,
            mailbox,
            received: BytesMut::new(),
            actions: Vec::new(),
            admission: None,
            ending: None,
            sent_at: Instant::now(),
        }
    }

    async fn serve(&mut self) -> Ending {
        let mut ticks = interval(limit::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let io = Self::io_ready(&self.stream, self.interest());
            tokio::select! {
                biased;
                () = self.mailbox.wait() => self.obey(),
                () = self.completions.wait() => {}
                ready = io => if ready.is_err() || self.read().is_err() {
                    self.ending = Some(Ending::Disconnected);
                },
                _ = ticks.tick() => self.tick(),
            }
            self.work();
            if let Some(ending) = self.ending {
                return ending;
            }
        }
    }

    /// Waits for the socket; for ever when nothing is wanted of it.
    async fn io_ready(stream: &TcpStream, interest: Option<Interest>) -> io::Result<()> {
        match interest {
            Some(interest) => stream.ready(interest).await.map(|_| ()),
            None => std::future::pending().await,
        }
    }

    fn interest(&self) -> Option<Interest> {
        let output = self.session.output();
        let reads = self.session.listens() && output.bytes() < limit::UNSENT_BYTES;
        match (reads, !output.is_empty()) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    fn read(&mut self) -> io::Result<()> {
        if !self.session.listens() || self.session.output().bytes() >= limit::UNSENT_BYTES {
            return Ok(());
        }
        let spare = self.received.capacity() - self.received.len();
        if spare == 0 || (self.received.is_empty() && spare < limit::RECEIVE_BUFFER_BYTES / 4) {
            self.received.reserve(limit::RECEIVE_BUFFER_BYTES);
        }
        match short_read::read(&self.stream, &mut self.received) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Does all that can be done now: PDUs, outcomes, actions, then sending.
    fn work(&mut self) {
        loop {
            self.parse();
            self.execution
                .forget_unwanted(&mut self.session, &mut self.actions);
            self.execution.collect(&mut self.session, &mut self.actions);
            self.act();
            self.execution.flush();
            let sent = self.send().unwrap_or_else(|error| {
                debug!(%error, "sending failed");
                self.ending.get_or_insert(Ending::Disconnected);
                false
            });
            if self.ending.is_some() || (!sent && self.actions.is_empty()) {
                return;
            }
        }
    }

    fn parse(&mut self) {
        while self.session.listens() && self.session.output().bytes() < limit::UNSENT_BYTES {
            match frame::take(&mut self.received, self.session.framing()) {
                Ok(Some(frame)) => {
                    let now = self.shared.now();
                    self.session.receive(frame, now, &mut self.actions);
                    self.act();
                }
                Ok(None) => return,
                Err(error) => return self.session.malformed(error, &mut self.actions),
            }
        }
    }

    /// Carries out the session's actions, and those that follow from them.
    fn act(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.carry_out(action);
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Execute { task, request } => {
                self.execution
                    .begin(task, request, &mut self.session, &mut self.actions);
            }
            Action::Admit(established) => {
                self.admission = Some((established, self.shared.now()));
                self.try_admission();
            }
            Action::Purge { request, reset } => self.execution.purge(request, reset),
            Action::Drained(drain) => {
                self.shared.registry.borrow_mut().drained(drain, self.id);
            }
            Action::Close(ending) => {
                if ending == Ending::Reset {
                    self.shared
                        .registry
                        .borrow()
                        .end_others(self.id, Ending::Reset);
                }
                self.ending.get_or_insert(ending);
            }
        }
    }

    fn try_admission(&mut self) {
        let Some((established, _)) = &self.admission else {
            return;
        };
        let verdict = self
            .shared
            .registry
            .borrow_mut()
            .admit(self.id, established);
        match verdict {
            Verdict::Wait => {}
            Verdict::Refused(refusal) => {
                self.admission = None;
                self.session.refuse(refusal, &mut self.actions);
            }
            Verdict::Admitted { tsih, nexus } => {
                if let Some((established, _)) = self.admission.take() {
                    if established.kind == SessionKind::Normal {
                        let port = InitiatorPort {
                            name: established.initiator.as_str().to_owned(),
                            isid: established.isid.0,
                        };
                        self.shared.unit.borrow_mut().nexus_gained(nexus, port);
                        self.shared.tell_initiators();
                    }
                    info!(
                        connection = ?self.id,
                        initiator = %established.initiator,
                        isid = %established.isid,
                        kind = ?established.kind,
                        "logged in"
                    );
                }
                self.session.admit(tsih, nexus);
            }
        }
    }

    fn obey(&mut self) {
        while let Some(control) = self.mailbox.take() {
            match control {
                Control::End(ending) => self.session.end(ending, &mut self.actions),
                Control::Abort(drain, but) => {
                    self.session.abort(drain, but, &mut self.actions);
                }
                Control::DrainOver(drain) => {
                    self.execution
                        .drain_over(drain, &mut self.session, &mut self.actions);
                }
                Control::Look => self.try_admission(),
                Control::RequestLogout(within_s) => self.session.request_logout(within_s),
                Control::Announce => self.announce(),
                Control::SanitizeOver => {
                    self.execution
                        .sanitize_over(&mut self.session, &mut self.actions);
                }
            }
        }
    }

    /// Sends what the unit has to tell, unless a command was told it already.
    fn announce(&mut self) {
        let Some(nexus) = self.session.nexus() else {
            return;
        };
        let sense = self.shared.unit.borrow_mut().announce(nexus);
        if let Some(sense) = sense {
            self.session.announce(&sense);
        }
    }

    fn tick(&mut self) {
        let now = self.shared.now();
        self.session.tick(now, &mut self.actions);
        if self.session.output().is_empty() {
            self.sent_at = Instant::now();
        } else if self.sent_at.elapsed() > limit::SEND_DEADLINE {
            self.session.end(Ending::Dead, &mut self.actions);
        }
        let waited = self.admission.as_ref().map(|(_, since)| now.since(*since));
        if waited.is_some_and(|waited| waited > limit::REINSTATEMENT_WAIT) {
            self.admission = None;
            self.session.refuse(Refusal::Unavailable, &mut self.actions);
        }
    }

    /// Sends as much as the socket takes. Says whether anything went.
    fn send(&mut self) -> io::Result<bool> {
        let mut any = false;
        while !self.session.output().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.session.output().slices(&mut slices);
            let slices = slices.get(..used).unwrap_or_default();
            match self.stream.try_write_vectored(slices) {
                Ok(bytes) => {
                    any = true;
                    self.sent_at = Instant::now();
                    self.session.sent(bytes, &mut self.actions);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(any)
    }

    /// What is left to send goes out, for a short while.
    async fn flush_rest(&mut self) {
        let deadline = close_deadline();
        while !self.session.output().is_empty() {
            let writable = timeout_at(deadline, self.stream.writable()).await;
            if !matches!(writable, Ok(Ok(()))) || self.send().is_err() {
                return;
            }
        }
        // The peer may have closed first; there is nothing to be done about that.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await;
    }

    /// Waits until nothing of the connection is executed any more: what replaces it, and what
    /// waits for its commands, may rely on that. Each operation ends, for its completion answers
    /// even when it is dropped.
    async fn drain(&mut self) {
        self.session.end(Ending::Disconnected, &mut self.actions);
        self.execution
            .forget_unwanted(&mut self.session, &mut self.actions);
        while !self.execution.is_idle() {
            self.completions.wait().await;
            self.execution.collect(&mut self.session, &mut self.actions);
        }
    }
}
