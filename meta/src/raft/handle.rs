//! The handle on the group.

use std::sync::Arc;

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::raft_server::RaftServer;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use openraft::error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, RaftError};
use openraft::{BasicNode, Raft};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::service::Routes;

use super::channels::Channels;
use super::leadership::{self, Leadership, Member, Status};
use super::machine::Shared;
use super::service::RaftService;
use super::{COMMAND_BYTES_MAX, ManagerId, Proposal, TypeConfig, timing};
use crate::state::Replicated;

/// A proposal without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Refused, without any effect: this manager does not lead.
    #[error("this manager does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// Refused, without any effect.
    #[error("the command has {bytes} bytes, more than {COMMAND_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The outcome is unknown: it may have been carried out, or still be.
    #[error("no majority of managers answered in time; the command may still be carried out")]
    TimedOut,
    /// This manager is stopping. The outcome is unknown.
    #[error("this manager is stopping")]
    Unavailable,
}

/// A read that could not be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This manager does not lead.
    #[error("this manager does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// No majority confirmed in time that this manager still leads.
    #[error("no majority of managers answered in time")]
    TimedOut,
    /// This manager is stopping.
    #[error("this manager is stopping")]
    Unavailable,
}

/// The group of managers, seen from one of them. Cheap to clone.
pub struct Managers<S> {
    pub(super) inner: Arc<Inner<S>>,
}

impl<S> Clone for Managers<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

pub(super) struct Inner<S> {
    pub(super) id: ManagerId,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) channels: Channels,
    pub(super) leadership: Arc<watch::Sender<Leadership>>,
}

pub(super) fn leader_of(forward: ForwardToLeader<u64, BasicNode>) -> Option<Member> {
    Some(Member {
        id: ManagerId::new(forward.leader_id?)?,
        address: forward.leader_node?.addr,
    })
}

impl<S: Replicated> Managers<S> {
    /// This manager's id.
    pub fn id(&self) -> ManagerId {
        self.inner.id
    }

    /// The cluster's id: random, agreed on soon after the first election, and the same for ever.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.inner.shared.cluster.get().copied()
    }

    /// Appends a command to the log and returns its answer once a majority has it on their media
    /// and it has been applied here.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`], which tells whether the command can have had an effect.
    pub async fn propose(&self, command: LogCommand) -> Result<LogAnswer, ProposeError> {
        let bytes = command.encode_to_vec();
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: bytes.len() });
        }
        self.append(Proposal::Command(bytes)).await
    }

    pub(super) async fn append(&self, proposal: Proposal) -> Result<LogAnswer, ProposeError> {
        let write = self.inner.raft.client_write(proposal);
        match timeout(timing::PROPOSE, write).await {
            Err(_) => Err(ProposeError::TimedOut),
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader {
                    leader: leader_of(forward),
                })
            }
            Ok(Err(_)) => Err(ProposeError::Unavailable),
        }
    }

    /// Returns when everything that was answered before the call is applied here, so that a read
    /// of the state afterwards is linearizable. On the leader only.
    ///
    /// # Errors
    ///
    /// When this manager does not lead, or cannot confirm it in time.
    pub async fn read(&self) -> Result<(), ReadError> {
        let deadline = Instant::now() + timing::READ;
        loop {
            let confirmed = timeout_at(deadline, self.inner.raft.ensure_linearizable()).await;
            match confirmed {
                Err(_) => return Err(ReadError::TimedOut),
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                    return Err(ReadError::NotLeader {
                        leader: leader_of(forward),
                    });
                }
                Ok(Err(RaftError::Fatal(_))) => return Err(ReadError::Unavailable),
                // openraft waits for the others for one heartbeat only: too short when they are
                // busy.
                Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                    sleep_until(Instant::now() + timing::READ_RETRY).await;
                }
            }
        }
    }

    /// Reads the state as it is here, however old. Applying waits meanwhile: be quick, and do not
    /// call it again inside.
    pub fn with_state<T>(&self, read: impl FnOnce(&S) -> T) -> T {
        self.inner.shared.with(read)
    }

    /// Follows the applied log index: changes after every change of the state.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.shared.changed()
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The group as this manager sees it.
    pub fn status(&self) -> Status {
        leadership::status(self.inner.id, &self.inner.raft.metrics().borrow())
    }

    /// Adds the calls between managers to what a server serves.
    #[must_use]
    pub fn add_raft_service(&self, routes: Routes) -> Routes {
        routes.add_service(
            RaftServer::new(RaftService {
                id: self.inner.id.number(),
                raft: self.inner.raft.clone(),
                cluster: self.inner.shared.cluster.clone(),
            })
            .max_decoding_message_size(timing::MESSAGE_BYTES_MAX),
        )
    }

    /// Returns when the group has failed on this manager, with the reason: the process has to end.
    pub async fn failed(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "the group's task has ended".into();
            }
        }
    }

    /// Ends this manager's part in the group, within a bounded time.
    pub async fn shutdown(&self) {
        if timeout(timing::SHUTDOWN, self.inner.raft.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("the group's tasks did not end in time");
        }
    }
}
