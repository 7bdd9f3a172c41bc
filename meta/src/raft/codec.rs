//! openraft's types as the protobuf messages of `raft.proto`, and back. What is read may be
//! damaged or of a newer version: every missing or unknown part is a [`CodecError`].

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1 as rpc;
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use prost::Message;

use super::{Entry, LogId, Membership, Proposal, StoredMembership, TypeConfig, Vote};

/// A message that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the {0} lacks its {1}")]
    Missing(&'static str, &'static str),
    #[error("the {0} cannot be read: {1}")]
    Unreadable(&'static str, String),
}

fn need<T>(value: Option<T>, of: &'static str, part: &'static str) -> Result<T, CodecError> {
    value.ok_or(CodecError::Missing(of, part))
}

/// Decodes a stored message.
pub(crate) fn decode<M: Message + Default>(
    what: &'static str,
    bytes: &[u8],
) -> Result<M, CodecError> {
    M::decode(bytes).map_err(|error| CodecError::Unreadable(what, error.to_string()))
}

pub(crate) fn log_id_out(id: &LogId) -> rpc::RaftLogId {
    rpc::RaftLogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn log_id_in(id: rpc::RaftLogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
}

pub(crate) fn vote_out(vote: &Vote) -> rpc::RaftBallot {
    rpc::RaftBallot {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_in(ballot: rpc::RaftBallot) -> Vote {
    if ballot.committed {
        Vote::new_committed(ballot.term, ballot.node)
    } else {
        Vote::new(ballot.term, ballot.node)
    }
}

/// The vote that a message must carry.
pub(crate) fn vote_of(
    ballot: Option<rpc::RaftBallot>,
    of: &'static str,
) -> Result<Vote, CodecError> {
    need(ballot, of, "vote").map(vote_in)
}

pub(crate) fn membership_out(membership: &Membership) -> rpc::RaftMembership {
    let configs = membership.get_joint_config().iter();
    rpc::RaftMembership {
        configs: configs
            .map(|voters| rpc::RaftVoters {
                ids: voters.iter().copied().collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(&id, node)| rpc::RaftMember {
                id,
                address: node.addr.clone(),
            })
            .collect(),
    }
}

pub(crate) fn membership_in(membership: rpc::RaftMembership) -> Membership {
    let configs = membership.configs.into_iter();
    let voters: Vec<BTreeSet<u64>> = configs
        .map(|config| config.ids.into_iter().collect())
        .collect();
    let members: BTreeMap<u64, BasicNode> = membership
        .members
        .into_iter()
        .map(|member| (member.id, BasicNode::new(member.address)))
        .collect();
    Membership::new(voters, members)
}

pub(crate) fn stored_membership_out(stored: &StoredMembership) -> rpc::RaftStoredMembership {
    rpc::RaftStoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_out),
        membership: Some(membership_out(stored.membership())),
    }
}

pub(crate) fn stored_membership_in(
    stored: rpc::RaftStoredMembership,
) -> Result<StoredMembership, CodecError> {
    let membership = need(stored.membership, "stored membership", "membership")?;
    Ok(StoredMembership::new(
        stored.log_id.map(log_id_in),
        membership_in(membership),
    ))
}

pub(crate) fn entry_out(entry: &Entry) -> rpc::RaftEntry {
    use rpc::raft_entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(rpc::RaftBlank {}),
        EntryPayload::Normal(Proposal::Command(bytes)) => Payload::Command(bytes.clone()),
        EntryPayload::Normal(Proposal::Cluster(id)) => Payload::ClusterId(id.to_string()),
        EntryPayload::Membership(membership) => Payload::Membership(membership_out(membership)),
    };
    rpc::RaftEntry {
        log_id: Some(log_id_out(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(crate) fn entry_in(entry: rpc::RaftEntry) -> Result<Entry, CodecError> {
    use rpc::raft_entry::Payload;
    let log_id = log_id_in(need(entry.log_id, "log entry", "log id")?);
    let payload: EntryPayload<TypeConfig> = match need(entry.payload, "log entry", "payload")? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(Proposal::Command(bytes)),
        Payload::Membership(membership) => EntryPayload::Membership(membership_in(membership)),
        Payload::ClusterId(text) => EntryPayload::Normal(Proposal::Cluster(cluster_id_in(&text)?)),
    };
    Ok(Entry { log_id, payload })
}

/// A cluster id that must be there.
pub(crate) fn cluster_id_in(text: &str) -> Result<ClusterId, CodecError> {
    text.parse()
        .map_err(|error| CodecError::Unreadable("cluster id", format!("{error}")))
}

/// A cluster id, or empty for none.
pub(crate) fn optional_cluster_id_in(text: &str) -> Result<Option<ClusterId>, CodecError> {
    if text.is_empty() {
        return Ok(None);
    }
    cluster_id_in(text).map(Some)
}

/// The other way round.
pub(crate) fn optional_cluster_id_out(id: Option<ClusterId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
