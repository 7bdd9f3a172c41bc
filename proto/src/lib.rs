//! The contract between Ankole's processes: identifiers, epochs, geometry, the gRPC services and
//! the block protocol.
//!
//! Owns every word that crosses a process boundary and nothing that acts on it: no socket, no
//! file, no clock. Every daemon depends on this crate and on no other daemon.

pub mod address;
pub mod crc;
pub mod epoch;
pub mod geometry;
pub mod id;
pub mod rpc;
pub mod wire;

pub use address::ReplicaAddress;
pub use crc::{crc32c, crc32c_of};
pub use epoch::{Epoch, Sequence};
pub use geometry::{
    BLOCK_BYTES, BlockNumber, CHUNK_BYTES, ChunkNumber, Extent, SECTOR_BYTES, VolumeSize,
};
pub use id::{
    ClusterId, Credential, DiskId, LayerId, NodeName, ReplicaId, SnapshotGroupId, SnapshotId,
    VolumeId,
};
