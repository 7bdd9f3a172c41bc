//! Changing who is in the group, while it works.

use std::collections::BTreeSet;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::timeout;

use super::handle::leader_of;
use super::{ManagerId, Managers, Member, Peer, timing};
use crate::state::Replicated;

/// A change of membership that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This manager does not lead.
    #[error("this manager does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// Another change is under way.
    #[error("another change of membership is under way: {0}")]
    InProgress(String),
    /// It would leave no voter, or names a manager that is no member.
    #[error("the change is not possible: {0}")]
    NotPossible(String),
    /// The member's address differs from the one on record.
    #[error("manager {id} is a member already, at {address}")]
    OtherAddress {
        /// The member.
        id: ManagerId,
        /// Its address on record.
        address: String,
    },
    /// The outcome is unknown; look at the members and repeat the call.
    #[error("the change was not made in time; it may still be")]
    TimedOut,
    /// This manager is stopping.
    #[error("this manager is stopping")]
    Unavailable,
}

type WriteError = RaftError<u64, ClientWriteError<u64, BasicNode>>;

fn refusal(error: WriteError) -> MembershipError {
    use openraft::error::ChangeMembershipError as Change;
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader {
                leader: leader_of(forward),
            }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(change)) => match change {
            Change::InProgress(other) => MembershipError::InProgress(other.to_string()),
            other => MembershipError::NotPossible(other.to_string()),
        },
        RaftError::Fatal(_) => MembershipError::Unavailable,
    }
}

impl<S: Replicated> Managers<S> {
    /// Adds a manager that receives the log but does not vote, and waits until it has caught up.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn add_learner(&self, peer: Peer) -> Result<(), MembershipError> {
        let known = self.status().members;
        if let Some(known) = known.into_iter().find(|known| known.member.id == peer.id)
            && known.member.address != peer.address
        {
            return Err(MembershipError::OtherAddress {
                id: peer.id,
                address: known.member.address,
            });
        }
        let node = BasicNode::new(peer.address);
        let added = self.inner.raft.add_learner(peer.id.number(), node, true);
        match timeout(timing::MEMBERSHIP, added).await {
            Ok(done) => done.map(|_| ()).map_err(refusal),
            Err(_) => Err(MembershipError::TimedOut),
        }
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn promote(&self, id: ManagerId) -> Result<(), MembershipError> {
        let voters = BTreeSet::from([id.number()]);
        self.change(ChangeMembers::AddVoterIds(voters)).await
    }

    /// Removes a manager, voter or learner, from the group. One that is no member is removed
    /// already.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn remove(&self, id: ManagerId) -> Result<(), MembershipError> {
        let known = self.status().members;
        let Some(known) = known.into_iter().find(|known| known.member.id == id) else {
            return Ok(());
        };
        let ids = BTreeSet::from([id.number()]);
        let change = match known.voter {
            true => ChangeMembers::RemoveVoters(ids),
            false => ChangeMembers::RemoveNodes(ids),
        };
        self.change(change).await?;
        let kept = self.status().members.into_iter();
        let addresses: Vec<String> = kept.map(|kept| kept.member.address).collect();
        self.inner.channels.keep_only(&addresses);
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), MembershipError> {
        let changed = self.inner.raft.change_membership(change, false);
        match timeout(timing::MEMBERSHIP, changed).await {
            Ok(done) => done.map(|_| ()).map_err(refusal),
            Err(_) => Err(MembershipError::TimedOut),
        }
    }
}
