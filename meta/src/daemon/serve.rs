//! Starting, serving, stopping.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::{Directory, DirectoryError, ServeOptions};
use crate::raft::{self, FoundError, Managers, StartError, StartOptions};
use crate::state::Replicated;

/// For calls under way when the manager is told to stop; streams and long polls end with it.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Calls under way on one connection.
const STREAMS_MAX: u32 = 1024;
/// A connection whose other side is gone is given up after twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A manager that could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its address is not free.
    #[error("cannot listen on {address}: {source}. Is another process using the port?")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// What is stored cannot be read.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It is not to take part in the group.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// The server failed.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// The group failed on this manager.
    #[error("this manager cannot go on: {0}")]
    Failed(String),
}

/// Runs a manager until SIGTERM or SIGINT, or until it fails. `services` makes what it serves
/// besides the calls between managers.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve<S, F>(options: ServeOptions, services: F) -> Result<(), ServeError>
where
    S: Replicated,
    F: FnOnce(Managers<S>) -> Routes,
{
    let stop = stop_signal().map_err(ServeError::Signals)?;
    serve_until(options, services, stop).await
}

async fn serve_until<S, F>(
    options: ServeOptions,
    services: F,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    S: Replicated,
    F: FnOnce(Managers<S>) -> Routes,
{
    let listener = TcpListener::bind(&options.listen).await;
    let listener = listener.map_err(|source| ServeError::Listen {
        address: options.listen.clone(),
        source,
    })?;
    let mut directory = Directory::open(&options.directory, options.id)?;
    if directory.is_new() {
        raft::refuse_lost_member(options.id, &options.peers).await?;
    }
    directory.claim(None)?;
    let managers = raft::start::<S>(StartOptions {
        id: options.id,
        store: directory.store.clone(),
        snapshots: directory.snapshots(),
    })
    .await?;
    directory.claim(managers.cluster_id())?;
    tracing::info!(id = %options.id, listen = options.listen, "manager serves");

    let routes = managers.add_raft_service(services(managers.clone()));
    let (stop_server, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async {
                // Both mean the same: the order, and its sender's end.
                let _ = stopped.await;
            },
        );
    let mut server = tokio::spawn(server);
    let outcome = tokio::select! {
        () = stop => Ok(()),
        ended = &mut server => return ended_early(ended),
        reason = managers.failed() => Err(ServeError::Failed(reason)),
        error = take_part(&managers, &options, &mut directory) => Err(error),
    };
    tracing::info!("manager stops");
    drop(stop_server);
    if timeout(STOP_GRACE, &mut server).await.is_err() {
        server.abort();
    }
    managers.shutdown().await;
    outcome
}

fn ended_early(
    ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(ServeError::Failed(error.to_string())),
    }
}

/// Founds the cluster where that is asked for, and remembers its id. Returns only when the manager
/// cannot go on.
async fn take_part<S: Replicated>(
    managers: &Managers<S>,
    options: &ServeOptions,
    directory: &mut Directory,
) -> ServeError {
    if options.bootstrap
        && let Err(error) = raft::found(managers, &options.peers).await
    {
        return error.into();
    }
    let mut changed = managers.changed();
    loop {
        if let Some(cluster) = managers.cluster_id() {
            match directory.claim(Some(cluster)) {
                Ok(()) => return std::future::pending().await,
                Err(error) => return error.into(),
            }
        }
        if changed.changed().await.is_err() {
            return ServeError::Failed("the state has ended".into());
        }
    }
}

fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
