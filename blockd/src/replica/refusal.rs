//! Why a replica did not do what it was asked, one enum per family of operations, and the one
//! mapping of each to the block protocol's codes.

use std::io;

use ankole_proto::wire::ErrorCode;
use ankole_proto::{BlockNumber, ChunkNumber, Epoch, LayerId};

use crate::layer::RecordError;

/// The caller or the replica is not in a state to do anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The replica obeys a newer epoch (INV-1).
    #[error("fenced: the replica obeys epoch {current}")]
    Fenced {
        /// The epoch it obeys.
        current: Epoch,
    },
    /// No engine has opened the replica with this epoch, or it has closed it.
    #[error("the replica is not open under this epoch")]
    NotOpen,
    /// The replica failed before and serves nothing any more (INV-10).
    #[error("the replica is faulted: {reason}")]
    Faulted {
        /// What happened.
        reason: String,
    },
}

/// The disk did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Medium {
    /// No space left; nothing was changed.
    #[error("no space left on the disk")]
    NoSpace,
    /// The disk failed, and with it the replica.
    #[error("{act} failed; the replica is faulted")]
    Io {
        /// What was tried.
        act: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A map record cannot be used, and with it the replica is faulted.
    #[error("the map of layer {layer} at chunk {}: {error}; the replica is faulted", chunk.raw())]
    Map {
        /// Whose map.
        layer: LayerId,
        /// Of which chunk.
        chunk: ChunkNumber,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// A block of a layer does not match its checksum (INV-13). Nothing of it was returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block {} of layer {layer} does not match its checksum", block.raw())]
pub struct ChecksumMismatch {
    /// Which layer holds the block.
    pub layer: LayerId,
    /// Which block.
    pub block: BlockNumber,
}

/// Why blocks were not read or written: what the families below share.
#[derive(Debug)]
pub(crate) enum BlockError {
    Medium(Medium),
    Checksum(ChecksumMismatch),
}

impl From<Medium> for BlockError {
    fn from(medium: Medium) -> Self {
        Self::Medium(medium)
    }
}

impl From<ChecksumMismatch> for BlockError {
    fn from(mismatch: ChecksumMismatch) -> Self {
        Self::Checksum(mismatch)
    }
}

macro_rules! holds_block_errors {
    ($($family:ident),*) => {$(
        impl From<BlockError> for $family {
            fn from(error: BlockError) -> Self {
                match error {
                    BlockError::Medium(medium) => Self::Medium(medium),
                    BlockError::Checksum(mismatch) => Self::Checksum(mismatch),
                }
            }
        }
    )*};
}

holds_block_errors!(DataError, LayerError, TreeError, WorkError);

/// Why a replica was not opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Fenced, faulted, or (of a close) not open.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
    /// The request names another replica than this.
    #[error("this is another replica")]
    WrongReplica,
    /// The request names another volume.
    #[error("the replica is of another volume")]
    WrongVolume,
    /// The secret is not the replica's.
    #[error("wrong credential")]
    BadCredential,
}

/// Why a read, write, unmap or flush was not done.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Fenced, faulted or not open.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
    /// A block is damaged.
    #[error(transparent)]
    Checksum(#[from] ChecksumMismatch),
    /// The extent lies outside the volume or is longer than an operation may be.
    #[error("the extent lies outside the volume or is too long")]
    OutOfRange,
    /// The data is not as long as the extent.
    #[error("the data is not as long as the extent")]
    WrongLength,
    /// The replica is being rebuilt and serves no read (INV-9).
    #[error("the replica is being rebuilt")]
    Rebuilding,
    /// The engine has more mutations above its watermark than a replica remembers (INV-12).
    #[error("too many mutations above the watermark")]
    Overloaded,
}

/// Why the tree of layers was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Fenced, faulted or not open.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
    /// A block that would have to be copied is damaged.
    #[error(transparent)]
    Checksum(#[from] ChecksumMismatch),
    /// The tree is not what the request expects.
    #[error("the layer tree differs: {0}")]
    Conflict(&'static str),
    /// No such layer.
    #[error("no layer {0}")]
    NoSuchLayer(LayerId),
    /// 254 sealed layers are there (INV-7).
    #[error("the replica has 254 sealed layers; delete a snapshot first")]
    TooManyLayers,
}

/// Why blocks of one layer were not compared, read or set.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Fenced, faulted or not open.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
    /// A block is damaged.
    #[error(transparent)]
    Checksum(#[from] ChecksumMismatch),
    /// No such layer.
    #[error("no layer {0}")]
    NoSuchLayer(LayerId),
    /// The extent lies outside the volume.
    #[error("the extent lies outside the volume")]
    OutOfRange,
    /// The extent is not whole blocks of one chunk, or the body does not fit it.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Layers are read from a complete replica only (INV-9).
    #[error("the replica is being rebuilt")]
    Rebuilding,
    /// A repair whose frame tells a block otherwise than the map.
    #[error(
        "block {} of layer {layer} is {here} here and not in the frame: the replicas differ; compare \
         them again, or rebuild this one",
        block.raw()
    )]
    Differs {
        /// Which layer.
        layer: LayerId,
        /// Which block.
        block: BlockNumber,
        /// What it is here.
        here: &'static str,
    },
    /// A repair that changes sums of files that another replica shares.
    #[error("layer {0} is shared with a clone and is being copied for the repair: repair it again")]
    Shared(LayerId),
    /// Layers are written on a rebuilding replica only (INV-6).
    #[error("the replica is not being rebuilt")]
    NotRebuilding,
}

/// Why background work (merging, settling) made no progress. Try again later.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The replica is faulted.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
    /// A block to be moved is damaged: it stays where it is until it is repaired.
    #[error(transparent)]
    Checksum(#[from] ChecksumMismatch),
}

/// What a refused request is answered with.
pub trait Refusal: std::error::Error {
    /// The block protocol's code.
    fn code(&self) -> ErrorCode;
    /// The epoch that fenced the caller, for the reply's `sequence` field.
    fn fenced_by(&self) -> Option<Epoch> {
        None
    }
    /// The damaged block, for the reply's `offset` field.
    fn damaged(&self) -> Option<ChecksumMismatch> {
        None
    }
}

impl Unusable {
    const fn code(&self) -> ErrorCode {
        match self {
            Self::Fenced { .. } => ErrorCode::Fenced,
            Self::NotOpen => ErrorCode::NotOpen,
            Self::Faulted { .. } => ErrorCode::Faulted,
        }
    }

    const fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Fenced { current } => Some(*current),
            _ => None,
        }
    }
}

impl Medium {
    const fn code(&self) -> ErrorCode {
        match self {
            Self::NoSpace => ErrorCode::NoSpace,
            Self::Io { .. } | Self::Map { .. } => ErrorCode::Io,
        }
    }
}

impl Refusal for OpenError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Unusable(unusable) => unusable.code(),
            Self::Medium(medium) => medium.code(),
            Self::WrongReplica => ErrorCode::NoSuchReplica,
            Self::WrongVolume => ErrorCode::WrongVolume,
            Self::BadCredential => ErrorCode::BadCredential,
        }
    }

    fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Unusable(unusable) => unusable.fenced_by(),
            _ => None,
        }
    }
}

impl Refusal for DataError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Unusable(unusable) => unusable.code(),
            Self::Medium(medium) => medium.code(),
            Self::Checksum(_) => ErrorCode::Checksum,
            Self::OutOfRange => ErrorCode::OutOfRange,
            Self::WrongLength => ErrorCode::Malformed,
            Self::Rebuilding => ErrorCode::Rebuilding,
            Self::Overloaded => ErrorCode::Overloaded,
        }
    }

    fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Unusable(unusable) => unusable.fenced_by(),
            _ => None,
        }
    }

    fn damaged(&self) -> Option<ChecksumMismatch> {
        match self {
            Self::Checksum(mismatch) => Some(*mismatch),
            _ => None,
        }
    }
}

impl Refusal for TreeError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Unusable(unusable) => unusable.code(),
            Self::Medium(medium) => medium.code(),
            Self::Checksum(_) => ErrorCode::Checksum,
            Self::Conflict(_) => ErrorCode::TreeConflict,
            Self::NoSuchLayer(_) => ErrorCode::NoSuchLayer,
            Self::TooManyLayers => ErrorCode::TooManyLayers,
        }
    }

    fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Unusable(unusable) => unusable.fenced_by(),
            _ => None,
        }
    }

    fn damaged(&self) -> Option<ChecksumMismatch> {
        match self {
            Self::Checksum(mismatch) => Some(*mismatch),
            _ => None,
        }
    }
}

impl Refusal for LayerError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Unusable(unusable) => unusable.code(),
            Self::Medium(medium) => medium.code(),
            Self::Checksum(_) => ErrorCode::Checksum,
            Self::NoSuchLayer(_) => ErrorCode::NoSuchLayer,
            Self::OutOfRange => ErrorCode::OutOfRange,
            Self::Malformed(_) => ErrorCode::Malformed,
            Self::Rebuilding => ErrorCode::Rebuilding,
            Self::NotRebuilding | Self::Differs { .. } | Self::Shared(_) => ErrorCode::TreeConflict,
        }
    }

    fn fenced_by(&self) -> Option<Epoch> {
        match self {
            Self::Unusable(unusable) => unusable.fenced_by(),
            _ => None,
        }
    }

    fn damaged(&self) -> Option<ChecksumMismatch> {
        match self {
            Self::Checksum(mismatch) => Some(*mismatch),
            _ => None,
        }
    }
}
