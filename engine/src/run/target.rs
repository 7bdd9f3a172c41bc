//! The target of the volume: bound when the mirror serves, stopped in order.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ankole_proto::{VolumeId, VolumeSize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::inbox::Inbox;
use super::submissions::Submissions;
use crate::iscsi::login::{IscsiName, IscsiNameError, Target};
use crate::iscsi::portal::Portal;
use crate::managers::Settings;
use crate::mirror::event::{Event, Orders};
use crate::scsi::{Identity, LogicalUnit};

/// How long the port may be taken by somebody else: a predecessor that is on its way out.
const BIND_WAIT: Duration = Duration::from_secs(10);
/// Between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// How long initiators may take to log out when they are asked to, and again what they left in
/// flight to drain. With the mirror's own limit below [`super::service::STOP_LIMIT`].
const LOGOUT_WAIT: Duration = Duration::from_secs(2);
/// What INQUIRY tells as the product revision.
const REVISION: [u8; 4] = *b"0001";

/// Why the target cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a name that initiators could use.
    #[error("the managers named the target {iqn:?}: {source}")]
    Name {
        /// The name.
        iqn: String,
        /// What is wrong with it.
        source: IscsiNameError,
    },
    /// Nobody can listen there.
    #[error("cannot listen on {listen}: {source}; is another process on that port?")]
    Bind {
        /// Where.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The portal ended by itself.
    #[error("the portal at {listen} ended: {reason}")]
    Ended {
        /// Where.
        listen: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// What a target is made of.
pub(super) struct TargetSpec<'a> {
    pub(super) volume: VolumeId,
    pub(super) name: &'a str,
    pub(super) iqn: &'a str,
    pub(super) listen: SocketAddr,
    pub(super) advertise: SocketAddr,
    pub(super) orders: &'a Orders,
    pub(super) settings: Settings,
    /// As last kept; empty: none.
    pub(super) reservations: &'a [u8],
}

/// The target, listening or not yet.
pub(super) struct TargetServer {
    portal: Portal,
    settings: Settings,
    listen: SocketAddr,
    inbox: Rc<Inbox>,
    serving: Option<JoinHandle<TargetError>>,
    listening: Rc<Cell<bool>>,
    initiators: Rc<Cell<u32>>,
}

impl TargetServer {
    /// A target that nobody can reach yet, with the reservations that the managers keep.
    pub(super) fn new(
        spec: TargetSpec<'_>,
        submissions: Rc<Submissions>,
        inbox: Rc<Inbox>,
    ) -> Result<Self, TargetError> {
        let name = IscsiName::parse(spec.iqn).map_err(|source| TargetError::Name {
            iqn: spec.iqn.to_owned(),
            source,
        })?;
        let target = Target {
            name,
            alias: spec.name.to_owned(),
            address: spec.advertise.to_string(),
            chap: spec.settings.chap.clone(),
        };
        let identity = Identity::new(spec.volume, spec.iqn, REVISION);
        let mut unit = LogicalUnit::new(identity, spec.orders.size, spec.settings.write_cache);
        restore(&mut unit, spec.reservations);
        let unit = Rc::new(RefCell::new(unit));
        let portal = Portal::new(target, unit, submissions.clone(), submissions);
        let initiators = Rc::new(Cell::new(0));
        let (count, events) = (Rc::clone(&initiators), Rc::clone(&inbox));
        portal.on_initiators(move |logged_in| {
            count.set(logged_in);
            events.push(Event::Initiators(logged_in));
        });
        Ok(Self {
            portal,
            settings: spec.settings,
            listen: spec.listen,
            inbox,
            serving: None,
            listening: Rc::new(Cell::new(false)),
            initiators,
        })
    }

    /// Takes over changed settings: sessions go on, logins from here on are judged by them.
    pub(super) fn change(&mut self, settings: Settings) {
        if settings.chap != self.settings.chap {
            tracing::info!(chap = settings.chap.is_some(), "who may log in has changed");
            self.portal.set_chap(settings.chap.clone());
        }
        if settings.write_cache != self.settings.write_cache {
            tracing::info!(
                write_cache = settings.write_cache,
                "the write cache has changed"
            );
            self.portal.set_write_cache(settings.write_cache);
        }
        self.settings = settings;
    }

    /// The volume takes operations up to this size.
    pub(super) fn resize(&self, size: VolumeSize) {
        self.portal.resize(size);
    }

    /// Lets initiators in; without effect the second time.
    pub(super) fn start(&mut self) {
        if self.serving.is_some() {
            return;
        }
        let (portal, listen) = (self.portal.clone(), self.listen);
        let (listening, inbox) = (Rc::clone(&self.listening), Rc::clone(&self.inbox));
        self.serving = Some(tokio::task::spawn_local(async move {
            let listener = match bind(listen).await {
                Ok(listener) => listener,
                Err(source) => return TargetError::Bind { listen, source },
            };
            tracing::info!(%listen, "the target listens");
            listening.set(true);
            inbox.push(Event::Tick);
            portal.serve(listener).await;
            TargetError::Ended {
                listen,
                reason: "it was stopped".to_owned(),
            }
        }));
    }

    /// Whether initiators can log in.
    pub(super) fn is_listening(&self) -> bool {
        self.listening.get()
    }

    /// How many are logged in.
    pub(super) fn initiators(&self) -> u32 {
        self.initiators.get()
    }

    /// Waits until the target has ended.
    pub(super) async fn ended(&mut self) -> TargetError {
        match &mut self.serving {
            None => std::future::pending().await,
            Some(serving) => serving.await.unwrap_or_else(|error| TargetError::Ended {
                listen: self.listen,
                reason: error.to_string(),
            }),
        }
    }

    /// Asks the initiators to log out, then ends the sessions, then stops the mirror.
    pub(super) fn stop(&self) {
        if !self.listening.get() {
            if let Some(serving) = &self.serving {
                serving.abort();
            }
            self.inbox.push(Event::Stop);
            return;
        }
        let (portal, inbox) = (self.portal.clone(), Rc::clone(&self.inbox));
        tokio::task::spawn_local(async move {
            portal.stop(LOGOUT_WAIT).await;
            inbox.push(Event::Stop);
        });
    }
}

fn restore(unit: &mut LogicalUnit, kept: &[u8]) {
    if kept.is_empty() {
        return;
    }
    if let Err(error) = unit.restore(kept) {
        tracing::warn!(
            %error,
            "the reservations that were kept cannot be used: there are none now"
        );
    }
}

async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_WAIT;
    loop {
        match bind_now(listen) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(BIND_PAUSE).await;
            }
            result => return result,
        }
    }
}

fn bind_now(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = match listen {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The connections of the engine before still wait in the kernel for their end.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}
