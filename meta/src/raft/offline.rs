//! Reading a stopped manager's store.

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::RaftMember;

use super::log::{self, LogError};
use super::machine::{self, MachineError};
use crate::store::KvStore;

/// What a store says of its manager.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The greatest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term.
    pub voted_for: Option<u64>,
    /// The last entry of its log.
    pub last_log: Option<u64>,
    /// The last entry that was purged after a snapshot.
    pub purged: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry in its state.
    pub applied: Option<u64>,
    /// Records of its state.
    pub records: usize,
    /// The cluster it is of.
    pub cluster_id: Option<ClusterId>,
    /// The group's members.
    pub members: Vec<RaftMember>,
}

/// A store that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// In its log or vote.
    #[error("the log cannot be read: {0}")]
    Log(String),
    /// In its state.
    #[error("the state cannot be read: {0}")]
    State(String),
}

impl From<LogError> for InspectError {
    fn from(error: LogError) -> Self {
        Self::Log(error.to_string())
    }
}

impl From<MachineError> for InspectError {
    fn from(error: MachineError) -> Self {
        Self::State(error.to_string())
    }
}

/// Reads a store that no manager has open.
///
/// # Errors
///
/// When something in it cannot be read.
pub fn inspect(store: &dyn KvStore) -> Result<Inspection, InspectError> {
    let vote = log::stored_vote(store)?;
    let ends = log::stored_ends(store)?;
    let committed = log::stored_committed(store)?;
    let state = machine::stored(store)?.contents;
    Ok(Inspection {
        term: vote.map_or(0, |vote| vote.leader_id.term),
        voted_for: vote.map(|vote| vote.leader_id.node_id),
        last_log: ends.last_log_id.map(|id| id.index),
        purged: ends.last_purged_log_id.map(|id| id.index),
        committed: committed.map(|id| id.index),
        applied: state.applied.map(|id| id.index),
        records: state.records.len(),
        cluster_id: state.cluster_id,
        members: machine::members(&state.membership),
    })
}
