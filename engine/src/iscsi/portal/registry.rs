//! Who is connected: handles, reinstatement, limits, and waits that span sessions. The connections
//! own their sessions; the registry reaches them through bounded mailboxes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::iscsi::limit;
use crate::iscsi::login::{Established, IscsiName, Refusal, SessionKind};
use crate::iscsi::pdu::InitiatorSessionId;
use crate::iscsi::session::{DrainId, Ending, TaskId};
use crate::scsi::NexusId;

/// A connection for as long as it lasts; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// End for this reason.
    End(Ending),
    /// Abort the commands that have come, but for one.
    Abort(DrainId, Option<TaskId>),
    /// The wait that this connection began is over.
    DrainOver(DrainId),
    /// A session has ended: a login that waits for that may look again.
    Look,
    /// Ask the initiator to log out.
    RequestLogout(u16),
    /// The unit may have something to tell the initiator.
    Announce,
    /// The sanitize operation has ended.
    SanitizeOver,
}

/// The way to a connection. What is posted is bounded: a connection is ended once, asked to log
/// out once, and told of a drain once per request that some session has in flight. Of the rest each
/// waits at most once.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    posted: std::cell::RefCell<VecDeque<Control>>,
    arrived: Notify,
}

impl Mailbox {
    fn post(&self, control: Control) {
        let mut posted = self.posted.borrow_mut();
        let once = matches!(
            control,
            Control::Look | Control::Announce | Control::SanitizeOver
        );
        if once && posted.contains(&control) {
            return;
        }
        posted.push_back(control);
        self.arrived.notify_one();
    }

    pub(super) fn take(&self) -> Option<Control> {
        self.posted.borrow_mut().pop_front()
    }

    pub(super) async fn wait(&self) {
        self.arrived.notified().await;
    }
}

#[derive(Debug)]
struct Entry {
    mailbox: Rc<Mailbox>,
    session: Option<Identity>,
    /// It makes room for another and is on its way out.
    told_to_end: bool,
}

impl Entry {
    fn is_logging_in(&self) -> bool {
        self.session.is_none() && !self.told_to_end
    }
}

#[derive(Debug)]
struct Identity {
    initiator: IscsiName,
    isid: InitiatorSessionId,
    tsih: u16,
    nexus: NexusId,
    kind: SessionKind,
}

/// A wait for commands of several sessions.
#[derive(Debug)]
struct Drain {
    origin: ConnectionId,
    waiting: BTreeSet<ConnectionId>,
}

/// Whether a login may become a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Admitted {
        tsih: u16,
        nexus: NexusId,
    },
    /// The session that it replaces is ending: [`Control::Look`] follows.
    Wait,
    Refused(Refusal),
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: BTreeMap<ConnectionId, Entry>,
    drains: BTreeMap<DrainId, Drain>,
    next_connection: u64,
    next_drain: u64,
    next_nexus: u64,
    next_tsih: u16,
    stopping: bool,
}

impl Registry {
    /// Takes a connection in. When too many are logging in, the oldest of them has to go.
    pub(super) fn enter(&mut self) -> (ConnectionId, Rc<Mailbox>) {
        let mut logging_in = self
            .entries
            .values_mut()
            .filter(|entry| entry.is_logging_in());
        // Connections are never numbered again, so the first is the oldest.
        if let Some(oldest) = logging_in.next()
            && logging_in.count() + 1 >= limit::LOGIN_CONNECTIONS
        {
            oldest.told_to_end = true;
            oldest.mailbox.post(Control::End(Ending::Crowded));
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let mailbox = Rc::new(Mailbox::default());
        self.entries.insert(
            id,
            Entry {
                mailbox: mailbox.clone(),
                session: None,
                told_to_end: false,
            },
        );
        (id, mailbox)
    }

    /// Whether connections that are being closed pile up: then no more are taken in.
    pub(super) fn is_crowded(&self) -> bool {
        self.entries.len() >= 2 * limit::LOGIN_CONNECTIONS + limit::SESSIONS
    }

    /// A connection has ended and nothing of it is executed any more. Returns the nexus that is
    /// lost.
    pub(super) fn leave(&mut self, id: ConnectionId) -> Option<NexusId> {
        let entry = self.entries.remove(&id)?;
        let drains: Vec<DrainId> = self.drains.keys().copied().collect();
        for drain in drains {
            self.drained(drain, id);
        }
        for entry in self
            .entries
            .values()
            .filter(|entry| entry.session.is_none())
        {
            entry.mailbox.post(Control::Look);
        }
        entry
            .session
            .filter(|it| it.kind == SessionKind::Normal)
            .map(|it| it.nexus)
    }

    /// Decides on a login (RFC 7143 §6.3.5).
    pub(super) fn admit(&mut self, id: ConnectionId, login: &Established) -> Verdict {
        if self.stopping {
            return Verdict::Refused(Refusal::Unavailable);
        }
        let sessions = || {
            self.entries
                .values()
                .filter_map(|entry| entry.session.as_ref())
        };
        if login.tsih != 0 {
            let exists = sessions().any(|session| session.tsih == login.tsih);
            return Verdict::Refused(match exists {
                true => Refusal::TooManyConnections,
                false => Refusal::NoSession,
            });
        }
        if login.kind == SessionKind::Normal && self.end_predecessors(login) {
            return Verdict::Wait;
        }
        if sessions().count() >= limit::SESSIONS {
            return Verdict::Refused(Refusal::NoResources);
        }
        let tsih = self.free_tsih();
        let nexus = NexusId(self.next_nexus);
        self.next_nexus += 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.session = Some(Identity {
                initiator: login.initiator.clone(),
                isid: login.isid,
                tsih,
                nexus,
                kind: login.kind,
            });
        }
        Verdict::Admitted { tsih, nexus }
    }

    /// Session reinstatement: an older session of the same initiator port ends first.
    fn end_predecessors(&self, login: &Established) -> bool {
        let mut found = false;
        for entry in self.entries.values() {
            let same = entry.session.as_ref().is_some_and(|session| {
                session.kind == SessionKind::Normal
                    && session.isid == login.isid
                    && session.initiator == login.initiator
            });
            if same {
                entry.mailbox.post(Control::End(Ending::Reinstated));
                found = true;
            }
        }
        found
    }

    /// Never 0, and never that of a living session: there are fewer sessions than handles.
    fn free_tsih(&mut self) -> u16 {
        loop {
            self.next_tsih = self.next_tsih.wrapping_add(1);
            let tsih = self.next_tsih;
            let mut sessions = self
                .entries
                .values()
                .filter_map(|entry| entry.session.as_ref());
            if tsih != 0 && !sessions.any(|session| session.tsih == tsih) {
                return tsih;
            }
        }
    }

    /// Initiators with a normal session.
    pub(super) fn initiators(&self) -> u32 {
        let sessions = self
            .entries
            .values()
            .filter_map(|entry| entry.session.as_ref());
        let normal = sessions
            .filter(|session| session.kind == SessionKind::Normal)
            .count();
        u32::try_from(normal).unwrap_or(u32::MAX)
    }

    /// Aborts the commands of all sessions, or of these; `but` is a command of the origin's own
    /// that goes on. [`Control::DrainOver`] tells the origin when they have ended.
    pub(super) fn drain(
        &mut self,
        origin: ConnectionId,
        of: Option<&[NexusId]>,
        but: Option<TaskId>,
    ) -> DrainId {
        let drain = DrainId(self.next_drain);
        self.next_drain += 1;
        let mut waiting = BTreeSet::new();
        for (&id, entry) in &self.entries {
            let concerned = entry.session.as_ref().is_some_and(|session| {
                session.kind == SessionKind::Normal
                    && of.is_none_or(|nexuses| nexuses.contains(&session.nexus))
            });
            if concerned {
                waiting.insert(id);
                let spared = but.filter(|_| id == origin);
                entry.mailbox.post(Control::Abort(drain, spared));
            }
        }
        if waiting.is_empty() {
            self.tell(origin, Control::DrainOver(drain));
        } else {
            self.drains.insert(drain, Drain { origin, waiting });
        }
        drain
    }

    /// A session's share of a drain is over.
    pub(super) fn drained(&mut self, drain: DrainId, id: ConnectionId) {
        let Some(entry) = self.drains.get_mut(&drain) else {
            return;
        };
        entry.waiting.remove(&id);
        if entry.waiting.is_empty() {
            let origin = entry.origin;
            self.drains.remove(&drain);
            self.tell(origin, Control::DrainOver(drain));
        }
    }

    /// Ends all sessions but one.
    pub(super) fn end_others(&self, but: ConnectionId, ending: Ending) {
        for (_, entry) in self.entries.iter().filter(|(id, _)| **id != but) {
            entry.mailbox.post(Control::End(ending));
        }
    }

    /// No logins from here on. Those in progress end; the sessions are asked to log out.
    pub(super) fn stop(&mut self, within_s: u16) {
        self.stopping = true;
        for entry in self.entries.values() {
            entry.mailbox.post(match entry.session {
                Some(_) => Control::RequestLogout(within_s),
                None => Control::End(Ending::Stopped),
            });
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Tells all that are logged in.
    pub(super) fn tell_sessions(&self, control: Control) {
        for entry in self.entries.values().filter(|it| it.session.is_some()) {
            entry.mailbox.post(control);
        }
    }

    /// Ends the logins in progress: what they prove counts no more.
    pub(super) fn end_logins(&self) {
        for entry in self.entries.values().filter(|it| it.session.is_none()) {
            entry.mailbox.post(Control::End(Ending::SecretsChanged));
        }
    }

    /// Ends all.
    pub(super) fn end_all(&self) {
        for entry in self.entries.values() {
            entry.mailbox.post(Control::End(Ending::Stopped));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn tell(&self, id: ConnectionId, control: Control) {
        if let Some(entry) = self.entries.get(&id) {
            entry.mailbox.post(control);
        }
    }
}
