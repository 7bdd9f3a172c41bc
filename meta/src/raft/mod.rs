//! The Raft group: what keeps the state alike on every manager.
//!
//! Owns the log, the vote, the state machine's storage, the snapshots and the calls between
//! managers; [`Managers`] is what the rest of the daemon sees of it. Promises that a proposal that
//! was answered is on a majority's media, that every manager applies the same entries in the same
//! order (INV-11), and that every call and wait ends (INV-12). The state itself is someone else's:
//! anything [`crate::state::Replicated`]. openraft is named here only.

mod bootstrap;
mod channels;
mod codec;
mod forward;
mod handle;
mod leadership;
mod log;
mod machine;
mod membership;
mod network;
mod offline;
mod peer;
mod service;
mod snapshot;
mod start;
mod timing;

use std::fmt;

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::LogAnswer;

pub use bootstrap::{FoundError, found, refuse_lost_member};
pub use forward::{HOPS_HEADER, HOPS_MAX, Route, RouteError, mark_forwarded};
pub use handle::{Managers, ProposeError, ReadError};
pub use leadership::{Leadership, Member, MemberStatus, Status};
pub use membership::MembershipError;
pub use offline::{InspectError, Inspection, inspect};
pub use peer::{ManagerId, Peer, PeerError, parse_address};
pub use start::{StartError, StartOptions, start};

/// The greatest command in bytes, encoded. Below what the store takes, with room for the entry
/// around it.
pub const COMMAND_BYTES_MAX: usize = 56 * 1024;

/// What a leader appends to the log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Proposal {
    /// An encoded `LogCommand`. Kept as bytes, so that what an older manager cannot read yet is
    /// stored whole.
    Command(Vec<u8>),
    /// The cluster's id; only the first in the log counts.
    Cluster(ClusterId),
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(bytes) => write!(f, "command of {} bytes", bytes.len()),
            Self::Cluster(id) => write!(f, "cluster {id}"),
        }
    }
}

openraft::declare_raft_types!(
    /// openraft's types for this group.
    pub(crate) TypeConfig:
        D = Proposal,
        R = LogAnswer,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = snapshot::SnapshotFile,
);

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type Entry = openraft::Entry<TypeConfig>;
type Membership = openraft::Membership<u64, openraft::BasicNode>;
type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
type StorageError = openraft::StorageError<u64>;
type StorageIoError = openraft::StorageIOError<u64>;

#[cfg(test)]
mod tests;
