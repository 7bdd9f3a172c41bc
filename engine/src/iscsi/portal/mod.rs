//! Sockets: accepts connections and drives one session on each, all on the caller's thread.
//!
//! The only part of `iscsi` that names tokio. One task per connection reads what has come, hands
//! the PDUs to the session, carries out its actions and sends what is ready in one vectored write.
//! Commands go to the logical unit, its operations to the [`Volume`], outcomes come back through a
//! queue of the connection: no thread is ever changed. Must be used inside a
//! [`tokio::task::LocalSet`].

mod connection;
mod execution;
mod registry;
mod sanitize;
mod volume;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::warn;

use super::limit;
use super::login::{Chap, Target};
use crate::scsi::LogicalUnit;
use crate::volume::{Moment, Operation};
use ankole_proto::VolumeSize;
use registry::{Control, Registry};
pub use volume::{Completion, ReservationKeeper, Volume};

/// After a failed accept (no descriptors left, say) this long is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told when the number of logged-in initiators changes.
type InitiatorsChanged = Box<dyn Fn(u32)>;

/// A target on the network. Clones are the same portal.
#[derive(Clone)]
pub struct Portal(Rc<Shared>);

/// What the connections share.
struct Shared {
    target: RefCell<Rc<Target>>,
    unit: Rc<RefCell<LogicalUnit>>,
    volume: Rc<dyn Volume>,
    keeper: Rc<dyn ReservationKeeper>,
    /// Whether somebody drives the sanitize operation.
    sanitizing: Cell<bool>,
    registry: RefCell<Registry>,
    initiators_changed: RefCell<Option<InitiatorsChanged>>,
    stopping: Notify,
    /// A connection has ended.
    left: Notify,
    started: Instant,
}

impl Portal {
    /// A target for this unit, whose operations this volume carries out and whose state this keeper
    /// keeps.
    pub fn new(
        target: Target,
        unit: Rc<RefCell<LogicalUnit>>,
        volume: Rc<dyn Volume>,
        keeper: Rc<dyn ReservationKeeper>,
    ) -> Self {
        Self(Rc::new(Shared {
            target: RefCell::new(Rc::new(target)),
            unit,
            volume,
            keeper,
            sanitizing: Cell::new(false),
            registry: RefCell::default(),
            initiators_changed: RefCell::default(),
            stopping: Notify::new(),
            left: Notify::new(),
            started: Instant::now(),
        }))
    }

    /// Calls back with the number of logged-in initiators whenever it changes. Called while the
    /// portal is at work: it must not call the portal.
    pub fn on_initiators(&self, changed: impl Fn(u32) + 'static) {
        *self.0.initiators_changed.borrow_mut() = Some(Box::new(changed));
    }

    /// Who may log in from here on; everyone when `None`. Logins in progress end and begin anew,
    /// sessions stay.
    pub fn set_chap(&self, chap: Option<Chap>) {
        let mut target = self.0.target.borrow_mut();
        *target = Rc::new(Target {
            chap,
            ..Target::clone(&target)
        });
        self.0.registry.borrow().end_logins();
    }

    /// The volume has this size from here on: call it once the volume takes operations up to there.
    /// Every session is told, goes on with what it has in flight, and may use the new blocks at once.
    pub fn resize(&self, size: VolumeSize) {
        self.0.unit.borrow_mut().set_size(size);
        self.0.announce();
    }

    /// Whether the volume has a write cache from here on; what is in it is flushed when it has not.
    pub fn set_write_cache(&self, write_cache: bool) {
        self.0.unit.borrow_mut().set_write_cache(write_cache);
        self.0.announce();
        if !write_cache {
            self.0
                .volume
                .submit(Operation::Flush, Completion::unheard());
            self.0.volume.submitted();
        }
    }

    /// Initiators with a normal session whose commands may still be executed.
    pub fn initiators(&self) -> u32 {
        self.0.registry.borrow().initiators()
    }

    /// Accepts connections until [`Portal::stop`]. May be called for several listeners.
    pub async fn serve(&self, listener: TcpListener) {
        // One that the engine before did not end.
        self.0.sanitize();
        while !self.0.registry.borrow().is_stopping() {
            let accepted = tokio::select! {
                () = self.0.stopping.notified() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.admit(stream),
                Err(error) => {
                    warn!(%error, "cannot accept a connection; check the limit of open files");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Another listener's loop may wait for the same notice.
        self.0.stopping.notify_one();
    }

    /// Ends in order: no new connections or logins, the initiators are asked to log out and have
    /// `wait` to do so; then the connections are closed and what executes is drained, for at most
    /// `wait` again.
    pub async fn stop(&self, wait: Duration) {
        let within_s = u16::try_from(wait.as_secs()).unwrap_or(u16::MAX);
        self.0.registry.borrow_mut().stop(within_s);
        self.0.stopping.notify_one();
        if timeout(wait, self.emptied()).await.is_err() {
            self.0.registry.borrow().end_all();
            if timeout(wait, self.emptied()).await.is_err() {
                warn!("connections are left with commands that have not ended");
            }
        }
    }

    async fn emptied(&self) {
        while !self.0.registry.borrow().is_empty() {
            self.0.left.notified().await;
        }
    }

    fn admit(&self, stream: TcpStream) {
        if self.0.registry.borrow().is_crowded() {
            return;
        }
        if let Err(error) = prepare(&stream) {
            warn!(%error, "cannot set up a connection");
            return;
        }
        spawn_local(connection::run(self.0.clone(), stream));
    }
}

/// Answers are small and waited for: they go out at once.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

impl Shared {
    /// As it is now.
    fn target(&self) -> Rc<Target> {
        self.target.borrow().clone()
    }

    /// Has every session look whether the unit has something to tell it, if anything is new.
    fn announce(&self) {
        if self.unit.borrow_mut().take_news() {
            self.registry.borrow().tell_sessions(Control::Announce);
        }
    }

    /// Drives the sanitize operation, if there is one and nobody does.
    fn sanitize(self: &Rc<Self>) {
        if self.unit.borrow().is_sanitizing() && !self.sanitizing.replace(true) {
            spawn_local(sanitize::run(self.clone()));
        }
    }

    fn now(&self) -> Moment {
        Moment::after_start(self.started.elapsed())
    }

    fn tell_initiators(&self) {
        let initiators = self.registry.borrow().initiators();
        if let Some(changed) = self.initiators_changed.borrow().as_ref() {
            changed(initiators);
        }
    }
}

/// The deadline of what a closing connection has left to send.
fn close_deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + limit::CLOSE_WAIT
}
