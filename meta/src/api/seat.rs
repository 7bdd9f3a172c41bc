//! What the services need of the Raft group: a seat in it.

use std::future::Future;

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::raft::{Leadership, Managers, ProposeError, ReadError, Route, RouteError};
use crate::state::State;

/// This manager's seat in the group.
pub trait Seat: Clone + Send + Sync + 'static {
    /// Proposes a command to the group; answered when it is applied here.
    fn propose(
        &self,
        command: LogCommand,
    ) -> impl Future<Output = Result<LogAnswer, SeatError>> + Send;

    /// Waits until this manager has applied everything that was agreed before the call. Fails
    /// unless it leads.
    fn read(&self) -> impl Future<Output = Result<(), SeatError>> + Send;

    /// Looks at the state as applied here.
    fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R;

    /// The index applied last, as it grows.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Who leads, as it changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// The group's id, once it has one.
    fn cluster_id(&self) -> Option<ClusterId>;

    /// Who carries a call with this metadata out. Waits, within limits, for a leader.
    fn turn(&self, metadata: &MetadataMap) -> impl Future<Output = Result<Turn, SeatError>> + Send;

    /// Who is in the group.
    fn group(&self) -> Group;
}

/// Who carries a call out.
#[derive(Debug, Clone)]
pub enum Turn {
    /// This manager: it leads.
    Mine,
    /// The leader, over this channel.
    Leaders(Channel),
}

/// Why the group did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// Nobody leads, or somebody else does by now. Nothing was done.
    #[error("there is no leader at the moment: {0}; try again with the same request id")]
    NoLeader(String),
    /// It is not known whether the command was carried out.
    #[error("the managers did not agree in time: {0}; try again with the same request id")]
    Unknown(String),
    /// The command is too large.
    #[error("{0}")]
    TooLarge(String),
}

/// The group as this manager sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Its voters and learners.
    pub members: Vec<GroupMember>,
    /// Who leads; 0 when nobody is known to.
    pub leader: u64,
    /// The term.
    pub term: u64,
    /// The log index applied here.
    pub applied: u64,
}

/// A manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its number.
    pub id: u64,
    /// Where it is reached.
    pub address: String,
    /// The log index that it is known to hold; 0 unless asked of the leader.
    pub matched: u64,
}

impl Seat for Managers<State> {
    async fn propose(&self, command: LogCommand) -> Result<LogAnswer, SeatError> {
        Ok(self.propose(command).await?)
    }

    async fn read(&self) -> Result<(), SeatError> {
        Ok(self.read().await?)
    }

    fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        self.with_state(look)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership()
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id()
    }

    async fn turn(&self, metadata: &MetadataMap) -> Result<Turn, SeatError> {
        match self.route(metadata).await {
            Ok(Route::Here) => Ok(Turn::Mine),
            Ok(Route::Leader(channel)) => Ok(Turn::Leaders(channel)),
            Err(error) => Err(error.into()),
        }
    }

    fn group(&self) -> Group {
        let status = self.status();
        let members = status.members.into_iter().map(|member| GroupMember {
            id: member.member.id.number(),
            address: member.member.address,
            matched: member.matched.unwrap_or(0),
        });
        Group {
            members: members.collect(),
            leader: status
                .leadership
                .leader
                .map_or(0, |leader| leader.id.number()),
            term: status.leadership.term,
            applied: status.applied,
        }
    }
}

impl From<ProposeError> for SeatError {
    fn from(error: ProposeError) -> Self {
        let text = error.to_string();
        match error {
            ProposeError::NotLeader { .. } => Self::NoLeader(text),
            ProposeError::TooLarge { .. } => Self::TooLarge(text),
            ProposeError::TimedOut | ProposeError::Unavailable => Self::Unknown(text),
        }
    }
}

impl From<ReadError> for SeatError {
    fn from(error: ReadError) -> Self {
        Self::NoLeader(error.to_string())
    }
}

impl From<RouteError> for SeatError {
    fn from(error: RouteError) -> Self {
        Self::NoLeader(error.to_string())
    }
}
