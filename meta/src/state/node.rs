//! A node on record: what a new leader must know of it before it has reported again.

use std::collections::BTreeMap;

use ankole_proto::{DiskId, NodeName};

/// A host that a daemon has reported from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOnRecord {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain; empty when it has none.
    pub zone: String,
    /// Whether a blockd has ever reported from it.
    pub has_blockd: bool,
    /// Whether an agent has ever reported from it.
    pub has_agent: bool,
    /// Where its blockd serves the block protocol; empty when it has none.
    pub block_address: String,
    /// Its unix socket for the block protocol; empty when it has none.
    pub block_socket: String,
    /// What rebuilds may write there, all together; 0: no limit.
    pub rebuild_bytes_per_second: u64,
    /// The log index of the last change that engines are told of.
    pub revision: u64,
    /// Its disks.
    pub disks: BTreeMap<DiskId, DiskOnRecord>,
    /// Whether it is on record as down.
    pub down: bool,
    /// Why; empty while it is up.
    pub message: String,
}

/// A directory that a blockd stores replicas in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOnRecord {
    /// Where.
    pub path: String,
    /// Its size.
    pub capacity_bytes: u64,
}
