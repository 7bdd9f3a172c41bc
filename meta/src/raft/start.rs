//! Putting the parts together.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use openraft::Raft;
use tokio::sync::watch;

use super::channels::Channels;
use super::handle::{Inner, Managers};
use super::leadership::{self, Leadership};
use super::log::LogStorage;
use super::machine::StateMachine;
use super::network::Network;
use super::snapshot::SnapshotDirectory;
use super::{ManagerId, bootstrap, timing};
use crate::state::Replicated;
use crate::store::{KvStore, Writer};

/// What a manager starts with.
pub struct StartOptions {
    /// Its id: always the same for one store.
    pub id: ManagerId,
    /// Log, vote and state.
    pub store: Arc<dyn KvStore>,
    /// The directory of its snapshots.
    pub snapshots: PathBuf,
}

/// A manager that cannot start from what is stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot start from the stored {part}: {source}")]
pub struct StartError {
    part: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    pub(super) fn in_part<E>(part: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |error| Self {
            part,
            source: error.into(),
        }
    }
}

/// Starts this manager's part in the group: it takes part as soon as its Raft service is served.
///
/// # Errors
///
/// When what is stored cannot be read, with what to look at.
pub async fn start<S: Replicated>(options: StartOptions) -> Result<Managers<S>, StartError> {
    let StartOptions {
        id,
        store,
        snapshots,
    } = options;
    let (snapshots, newest) =
        SnapshotDirectory::open(&snapshots).map_err(StartError::in_part("snapshot"))?;
    let cluster = Arc::new(OnceLock::new());
    let writer = Writer::start(store.clone()).map_err(StartError::in_part("log"))?;
    let log = LogStorage::open(store.clone(), writer.clone());
    let log = log.map_err(StartError::in_part("log"))?;
    let machine = StateMachine::<S>::open(store, writer, snapshots, newest, cluster.clone());
    let machine = machine.map_err(StartError::in_part("state"))?;
    let shared = machine.shared();
    let channels = Channels::default();
    let network = Network {
        id: id.number(),
        cluster,
        channels: channels.clone(),
    };
    let config = Arc::new(timing::config().map_err(StartError::in_part("timing"))?);
    let raft = Raft::new(id.number(), config, network, log, machine).await;
    let raft = raft.map_err(StartError::in_part("log"))?;
    let leadership = Arc::new(watch::Sender::new(Leadership::default()));
    tokio::spawn(leadership::follow(raft.metrics(), leadership.clone()));
    let managers = Managers {
        inner: Arc::new(Inner {
            id,
            raft,
            shared,
            channels,
            leadership,
        }),
    };
    tokio::spawn(bootstrap::agree_on_cluster_id(managers.clone()));
    Ok(managers)
}
