//! One connection to one replica: frames out, replies in, on the engine's one thread.
//!
//! Owns the socket, the first frame and the framing. Promises: frames leave in the order in which
//! they were queued, everything that is ready in one vectored write ([`Link::flush`]); a link that
//! was opened or could not be had ends with exactly one `LinkClosed`, and nothing of it follows
//! (unless it was dropped before, then nothing at all); a replica that answers what nobody asked,
//! or sends what is no frame, loses the connection. Bounded by the protocol's requests in flight
//! (INV-12).
//!
//! It decides nothing: when to connect again, what a late reply means and when a silent replica is
//! given up are the mirror's.

mod connect;
mod outgoing;
mod pump;
mod socket;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ankole_proto::wire::body::OpenRequest;
use ankole_proto::wire::{Frame, REQUESTS_IN_FLIGHT_MAX};
use ankole_proto::{NodeName, ReplicaAddress, ReplicaId};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub use connect::is_passing;

use crate::mirror::event::{Event, LinkFailure, LinkId};
use outgoing::Outgoing;
use socket::Socket;

/// How long connecting may take, over each of unix socket and TCP.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the replica may take to answer the Open frame: it makes the epoch durable, and reads
/// the maps of a replica that it has not had open.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes what a link says; called on the link's thread, never from within [`Link::queue`].
pub type Deliver = Rc<dyn Fn(Event)>;

/// What to connect to, and how.
#[derive(Debug, Clone)]
pub struct LinkSpec {
    /// Which replica.
    pub replica: ReplicaId,
    /// The connection's name.
    pub link: LinkId,
    /// Where the replica is served.
    pub address: ReplicaAddress,
    /// The replica's host.
    pub node: NodeName,
    /// The engine's own host: on the same one, the unix socket is taken.
    pub own_node: NodeName,
    /// The first frame's body.
    pub open: OpenRequest,
    /// When the engine's clock began.
    pub clock_start: Instant,
}

/// The handle of one connection. Dropping it closes the connection without a word.
#[derive(Debug)]
pub struct Link {
    state: Rc<State>,
    task: AbortHandle,
}

/// What the handle and the connection's task share.
struct State {
    replica: ReplicaId,
    link: LinkId,
    socket: RefCell<Option<Rc<Socket>>>,
    outgoing: RefCell<Outgoing>,
    /// Requests sent or queued, and not answered.
    unanswered: Cell<usize>,
    /// `LinkClosed` was delivered, or the handle dropped.
    closed: Cell<bool>,
    /// Wakes the task: the socket took less than there was, or the link closed.
    wake: Notify,
    deliver: Deliver,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("replica", &self.replica)
            .field("link", &self.link)
            .field("unanswered", &self.unanswered)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Begins to connect, in a task of the current `LocalSet`.
    pub fn open(spec: LinkSpec, deliver: Deliver) -> Self {
        let state = Rc::new(State {
            replica: spec.replica,
            link: spec.link,
            socket: RefCell::new(None),
            outgoing: RefCell::new(Outgoing::default()),
            unanswered: Cell::new(0),
            closed: Cell::new(false),
            wake: Notify::new(),
            deliver,
        });
        let task = tokio::task::spawn_local(connect::live(spec, Rc::clone(&state)));
        Self {
            state,
            task: task.abort_handle(),
        }
    }

    /// Puts a request behind those that wait; [`Link::flush`] sends them. Without effect on a link
    /// that is closed.
    pub fn queue(&self, frame: Frame) {
        let state = &self.state;
        if !state.closed.get() {
            state.unanswered.set(state.unanswered.get() + 1);
            state.outgoing.borrow_mut().push(frame);
        }
    }

    /// Writes what is queued, as far as the socket takes it now; the rest follows by itself.
    pub fn flush(&self) {
        let state = &self.state;
        if state.closed.get() {
            return;
        }
        // A replica closes a connection that has more in flight; the mirror knows that bound.
        if state.unanswered.get() > REQUESTS_IN_FLIGHT_MAX {
            state.close(LinkFailure::Transport(format!(
                "{} requests in flight, more than {REQUESTS_IN_FLIGHT_MAX}",
                state.unanswered.get()
            )));
            return;
        }
        let socket = state.socket.borrow().clone();
        if let Some(socket) = socket
            && !pump::write_ready(state, &socket)
        {
            state.wake.notify_one();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.closed.set(true);
        self.task.abort();
        self.state.socket.borrow_mut().take();
    }
}

impl State {
    /// Ends the link with its one `LinkClosed`.
    fn close(&self, reason: LinkFailure) {
        if self.closed.replace(true) {
            return;
        }
        self.socket.borrow_mut().take();
        self.outgoing.borrow_mut().clear();
        self.wake.notify_one();
        (self.deliver)(Event::LinkClosed {
            replica: self.replica,
            link: self.link,
            reason,
        });
    }
}
