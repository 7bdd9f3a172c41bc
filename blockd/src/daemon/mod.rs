//! The daemon around the store: the conversation with the managers, background work, and the
//! orderly end.
//!
//! Owns the threads that are no connection's. Promises that nothing the managers say is carried
//! out for a cluster that the disks do not belong to, that orders lost, late or doubled do no
//! harm, and that a replica whose engine is still there when the daemon stops is not taken for one
//! that was closed. Must not decide anything: what is to exist, the managers say.

mod apply;
mod heartbeat;
mod identity;
mod managers;
pub mod orders;
mod scrub;
mod stop;
mod upkeep;
mod usage_turns;
mod writeback;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use ankole_proto::NodeName;

use crate::session::{Limits, ListenError, Server};
use crate::store::{OpenStoreError, Store, boot_id};
use heartbeat::Heartbeat;
use identity::Identity;
pub use managers::AddressError;
pub use scrub::ScrubPace;
pub use stop::Stop;

/// What an operator says of a daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// The host's name among the nodes.
    pub node: NodeName,
    /// The failure domain it stands in; may be empty.
    pub zone: String,
    /// The directories to store replicas in.
    pub disks: Vec<PathBuf>,
    /// Where to serve the block protocol.
    pub listen: SocketAddr,
    /// Where to serve it for engines on this host.
    pub unix: Option<PathBuf>,
    /// Where engines reach it; `None`: where it listens.
    pub advertise: Option<String>,
    /// The managers' addresses, host:port.
    pub managers: Vec<String>,
    /// How all blocks are compared with their checksums in the background.
    pub scrub: ScrubPace,
    /// Bytes per second that rebuilds may write here, all together; 0: no limit. Told to the
    /// managers, who have engines keep to it.
    pub rebuild_rate: u64,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The block protocol cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gives no thread or runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A manager's address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Engines elsewhere could not reach it.
    #[error("--listen {0} is no address that engines can reach: give --advertise HOST:PORT too")]
    Unreachable(SocketAddr),
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    store: Arc<Store>,
    server: Server,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Opens the store, serves it, and begins to report.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(config: &Config) -> Result<Self, StartError> {
        if config.listen.ip().is_unspecified() && config.advertise.is_none() {
            return Err(StartError::Unreachable(config.listen));
        }
        for address in &config.managers {
            managers::check(address)?;
        }
        let store = Arc::new(Store::open(&config.disks)?);
        let server = Server::start(
            Arc::clone(&store),
            config.listen,
            config.unix.as_deref(),
            Limits::default(),
        )?;
        let stop = Arc::new(Stop::default());
        let pace = config.scrub;
        let threads = vec![
            start_heartbeat(config, &store, &stop, server.tcp_address())?,
            start("upkeep", &store, &stop, |store, stop| {
                upkeep::run(store, stop)
            })?,
            start("writeback", &store, &stop, |store, stop| {
                writeback::run(store, stop)
            })?,
            start("trash", &store, &stop, |store, stop| {
                upkeep::empty_trash(store, stop)
            })?,
            start("scrub", &store, &stop, move |store, stop| {
                scrub::run(store, stop, pace)
            })?,
        ];
        Ok(Self {
            store,
            server,
            stop,
            threads,
        })
    }

    /// Where the block protocol is served.
    pub const fn address(&self) -> SocketAddr {
        self.server.tcp_address()
    }

    /// Stops in order: accepts nothing more, finishes what is executing, syncs, lets go of the
    /// disks.
    pub fn stop(self) {
        self.stop.ask();
        self.server.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a background thread has panicked");
            }
        }
        self.store.close();
    }
}

fn start_heartbeat(
    config: &Config,
    store: &Arc<Store>,
    stop: &Arc<Stop>,
    listening: SocketAddr,
) -> std::io::Result<JoinHandle<()>> {
    let identity = Identity {
        node: config.node.clone(),
        zone: config.zone.clone(),
        boot_id: boot_id(),
        instance: format!("{:032x}", rand::random::<u128>()),
        block_address: config
            .advertise
            .clone()
            .unwrap_or_else(|| listening.to_string()),
        block_socket: config
            .unix
            .as_ref()
            .map_or_else(String::new, |path| path.display().to_string()),
        rebuild_rate: config.rebuild_rate,
    };
    let heartbeat = Heartbeat::new(Arc::clone(store), identity, Arc::clone(stop));
    let addresses = config.managers.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("heartbeat".to_owned())
        .spawn(move || {
            if let Err(error) = heartbeat.run(&runtime, &addresses) {
                tracing::error!("no heartbeats: {error}");
            }
        })
}

/// Starts a thread that works on the store until the daemon stops.
fn start(
    name: &str,
    store: &Arc<Store>,
    stop: &Arc<Stop>,
    work: impl FnOnce(&Arc<Store>, &Stop) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let (store, stop) = (Arc::clone(store), Arc::clone(stop));
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&store, &stop))
}
