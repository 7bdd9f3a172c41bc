//! Listening, the bound on connections, and the orderly end of all of them.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ankole_proto::wire::{ErrorCode, Header, LEASE_MS, Opcode};
use parking_lot::{Condvar, Mutex};

use super::connection;
use super::disk_threads::DiskThreads;
use super::link::{Answer, Denial, Link};
use super::socket::Socket;
use crate::store::{ConnectionId, Store};

/// Threads that sync. More would only queue in the disk.
const DISK_THREADS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// Copies of shared layers that are made at once.
const COPY_THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// The pause after a connection could not be accepted, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end of the connections is waited for.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// What a server bounds (INV-12).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once: each has a thread and up to 4 MiB of buffer.
    pub connections_max: usize,
    /// The first frame has to come within this time.
    pub open_deadline: Duration,
    /// A connection without a frame for this long is closed: its engine sends a Ping several times
    /// per lease, so it is gone.
    pub idle_deadline: Duration,
    /// A peer that reads nothing for this long is gone.
    pub send_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            open_deadline: Duration::from_secs(5),
            idle_deadline: Duration::from_millis(5 * LEASE_MS as u64),
            send_deadline: Duration::from_secs(10),
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) disk_threads: DiskThreads,
    pub(super) limits: Limits,
    stopping: AtomicBool,
    last_id: AtomicU64,
    links: Mutex<BTreeMap<ConnectionId, Arc<Link>>>,
    ended: Condvar,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// The block protocol's server: threads that accept, one thread per connection, a few disk threads.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(Arc<Listener>, JoinHandle<()>)>,
    tcp_address: SocketAddr,
    unix_path: Option<PathBuf>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address or path cannot be listened on.
    #[error("cannot listen on {at}: {source}")]
    Bind {
        /// Which one.
        at: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl Server {
    /// Listens on a TCP address and, where given, on a unix socket, and serves the store there.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub fn start(
        store: Arc<Store>,
        tcp: SocketAddr,
        unix: Option<&Path>,
        limits: Limits,
    ) -> Result<Self, ListenError> {
        let bind_error = |at: String| move |source| ListenError::Bind { at, source };
        let tcp_listener = TcpListener::bind(tcp).map_err(bind_error(tcp.to_string()))?;
        let tcp_address = tcp_listener
            .local_addr()
            .map_err(bind_error(tcp.to_string()))?;
        let mut listeners = vec![Listener::Tcp(tcp_listener)];
        if let Some(path) = unix {
            let listener = listen_unix(path).map_err(bind_error(path.display().to_string()))?;
            listeners.push(Listener::Unix(listener));
        }
        let shared = Arc::new(Shared {
            store,
            disk_threads: DiskThreads::start(DISK_THREADS, COPY_THREADS)?,
            limits,
            stopping: AtomicBool::new(false),
            last_id: AtomicU64::new(ConnectionId::NONE.0),
            links: Mutex::new(BTreeMap::new()),
            ended: Condvar::new(),
        });
        let listeners = listeners
            .into_iter()
            .map(|listener| {
                let listener = Arc::new(listener);
                let (shared, own) = (Arc::clone(&shared), Arc::clone(&listener));
                let thread = std::thread::Builder::new()
                    .name("accept".to_owned())
                    .spawn(move || accept_all(&shared, &own))?;
                Ok((listener, thread))
            })
            .collect::<Result<_, io::Error>>()?;
        Ok(Self {
            shared,
            listeners,
            tcp_address,
            unix_path: unix.map(Path::to_path_buf),
        })
    }

    /// Where it listens, with the port that was given when 0 was asked for.
    pub const fn tcp_address(&self) -> SocketAddr {
        self.tcp_address
    }

    /// Accepts nothing more, lets what is executing finish and be answered, and ends all
    /// connections.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for (listener, thread) in self.listeners {
            // On Linux this wakes a thread that waits in accept.
            if rustix::net::shutdown(listener.as_fd(), rustix::net::Shutdown::Both).is_ok()
                && thread.join().is_err()
            {
                tracing::error!("a thread that accepts connections has panicked");
            }
        }
        if let Some(path) = &self.unix_path {
            // The next start removes what is left.
            let _left_behind = std::fs::remove_file(path);
        }
        let until = Instant::now() + STOP_WAIT;
        let mut links = self.shared.links.lock();
        for link in links.values() {
            link.socket().shut_receive();
        }
        while !links.is_empty() {
            if self.shared.ended.wait_until(&mut links, until).timed_out() {
                tracing::warn!(left = links.len(), "connections did not end in time");
                for link in links.values() {
                    link.socket().shut();
                }
                return;
            }
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.links.lock().len()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Ok(Socket::Tcp(listener.accept()?.0)),
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }
}

/// Listens on a path; a socket that a dead daemon left there is removed first.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens there",
                ));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path is taken by something that is no socket",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    UnixListener::bind(path)
}

fn accept_all(shared: &Arc<Shared>, listener: &Listener) {
    loop {
        let accepted = listener.accept();
        if shared.is_stopping() {
            return;
        }
        match accepted {
            Ok(socket) => admit(shared, socket),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                let mut links = shared.links.lock();
                // An ended connection may have given back what was short.
                shared.ended.wait_for(&mut links, ACCEPT_PAUSE);
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, socket: Socket) {
    let id = ConnectionId(shared.last_id.fetch_add(1, Ordering::Relaxed) + 1);
    let link = Arc::new(Link::new(id, socket));
    let limits = &shared.limits;
    if let Err(error) = link
        .socket()
        .prepare(connection::TICK, limits.send_deadline)
    {
        tracing::debug!(%error, "a connection was gone before it began");
        return;
    }
    let mut links = shared.links.lock();
    if links.len() >= limits.connections_max {
        drop(links);
        refuse(&link, limits.connections_max);
        return;
    }
    links.insert(id, Arc::clone(&link));
    drop(links);
    let own = Arc::clone(shared);
    let spawned = std::thread::Builder::new()
        .name(format!("link-{}", id.0))
        .spawn(move || {
            let _leaves = Leaves {
                shared: Arc::clone(&own),
                id,
            };
            connection::serve(&own, &link);
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start a thread for a connection");
        leave(shared, id);
    }
}

fn refuse(link: &Arc<Link>, connections_max: usize) {
    let denial = Denial::new(
        ErrorCode::Overloaded,
        format!("this daemon has its {connections_max} connections"),
    );
    tracing::warn!(peer = link.socket().peer(), "refused: {}", denial.message);
    // As the answer to the Open that is on its way. A fresh socket has room for it.
    let open = Header::request(Opcode::Open, 0);
    link.defer(open).answer(Answer::Refused(denial));
}

/// Takes the connection off the list, however its thread ends.
struct Leaves {
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        leave(&self.shared, self.id);
    }
}

fn leave(shared: &Shared, id: ConnectionId) {
    let gone = shared.links.lock().remove(&id);
    if let Some(link) = gone {
        link.socket().shut();
    }
    shared.ended.notify_all();
}
