//! Why a connection may not use a replica, as the block protocol tells it.

use ankole_proto::wire::ErrorCode;
use ankole_proto::{Epoch, ReplicaId};

use crate::replica::OpenError;
use crate::replica::refusal::Refusal;

/// Why a connection may not use the replica (any more).
#[derive(Debug, thiserror::Error)]
pub enum Barred {
    /// An engine with a newer epoch has opened it (INV-1).
    #[error("fenced: an engine with epoch {current} has opened this replica")]
    Fenced {
        /// The newer epoch.
        current: Epoch,
    },
    /// The same engine has opened it over another connection, or has closed it.
    #[error("this connection does not have the replica open")]
    Replaced,
    /// It is being deleted.
    #[error("replica {0} has been deleted")]
    Retired(ReplicaId),
    /// It could not be loaded.
    #[error("the replica cannot be used: {0}")]
    Bad(String),
}

impl Refusal for Barred {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Fenced { .. } => ErrorCode::Fenced,
            Self::Replaced => ErrorCode::NotOpen,
            Self::Retired(_) => ErrorCode::NoSuchReplica,
            Self::Bad(_) => ErrorCode::Faulted,
        }
    }

    fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Fenced { current } => Some(*current),
            _ => None,
        }
    }
}

/// Why a replica was not opened or closed for a connection.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The connection may not.
    #[error(transparent)]
    Barred(#[from] Barred),
    /// The replica refuses.
    #[error(transparent)]
    Replica(#[from] OpenError),
}

impl Refusal for SlotError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Barred(barred) => barred.code(),
            Self::Replica(error) => error.code(),
        }
    }

    fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Barred(barred) => barred.fenced_by(),
            Self::Replica(error) => error.fenced_by(),
        }
    }
}
