//! Founding a cluster, exactly once, and noticing a manager that has lost its store.

use std::collections::BTreeMap;

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::raft_client::RaftClient;
use openraft::BasicNode;
use openraft::error::{InitializeError, RaftError};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::channels::Channels;
use super::{Leadership, ManagerId, Managers, Peer, Proposal, codec, timing};
use crate::state::Replicated;

/// Attempts between two lines in the log about peers that do not answer.
const ATTEMPTS_PER_WARNING: u32 = 20;

/// A cluster that this manager cannot found or join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundError {
    /// The directory is new, but the group knows this manager: its store is lost.
    #[error(
        "manager {id} is a member of the cluster already, says manager {witness}, but its \
         directory is new: a manager that has lost its store must come back under a new id. \
         Remove manager {id} from the group, then add this one with another --id"
    )]
    LostMember {
        /// This manager.
        id: ManagerId,
        /// Who says so.
        witness: ManagerId,
    },
    /// A peer is of a cluster that this manager is not in.
    #[error(
        "manager {witness} is of a cluster already: start this one without --bootstrap and add it \
         to the group"
    )]
    AlreadyFounded {
        /// Who says so.
        witness: ManagerId,
    },
    /// This manager is stopping.
    #[error("this manager is stopping: {0}")]
    Unavailable(String),
}

async fn hello(
    channels: &Channels,
    from: ManagerId,
    peer: &Peer,
) -> Result<rpc::RaftHelloAnswer, Status> {
    let channel = channels.to(&peer.address);
    let channel = channel.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let call = rpc::RaftHello {
        route: Some(rpc::RaftRoute {
            from: from.number(),
            to: peer.id.number(),
            cluster_id: String::new(),
        }),
    };
    let mut client = RaftClient::new(channel);
    match timeout(timing::CALL, client.hello(call)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Asks the peers, before a manager with a new directory takes part in anything, whether it is a
/// member already. Peers that do not answer are passed over.
///
/// # Errors
///
/// [`FoundError::LostMember`] when one of them says so.
pub async fn refuse_lost_member(id: ManagerId, peers: &[Peer]) -> Result<(), FoundError> {
    let channels = Channels::default();
    for peer in peers.iter().filter(|peer| peer.id != id) {
        match hello(&channels, id, peer).await {
            Ok(answer) if answer.founded && answer.members.contains(&id.number()) => {
                return Err(FoundError::LostMember {
                    id,
                    witness: peer.id,
                });
            }
            Ok(_) => {}
            Err(status) => {
                tracing::debug!(peer = %peer.id, error = status.message(), "peer does not answer");
            }
        }
    }
    Ok(())
}

/// Founds the cluster with these members, unless it exists. The one with the lowest id does it,
/// once all others have answered that they are of no cluster; for the rest this returns at once.
/// Harmless to repeat.
///
/// # Errors
///
/// See [`FoundError`].
pub async fn found<S: Replicated>(
    managers: &Managers<S>,
    peers: &[Peer],
) -> Result<(), FoundError> {
    let raft = &managers.inner.raft;
    let unavailable = |error: &dyn std::fmt::Display| FoundError::Unavailable(error.to_string());
    let founder = peers.iter().map(|peer| peer.id).min();
    let founded = raft.is_initialized().await;
    if founded.map_err(|error| unavailable(&error))? || founder != Some(managers.id()) {
        return Ok(());
    }
    wait_for_peers(managers, peers).await?;
    let members: BTreeMap<u64, BasicNode> = peers
        .iter()
        .map(|peer| (peer.id.number(), BasicNode::new(peer.address.clone())))
        .collect();
    match raft.initialize(members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(unavailable(&error)),
    }
}

/// Returns when every peer has answered that it is of no cluster.
async fn wait_for_peers<S: Replicated>(
    managers: &Managers<S>,
    peers: &[Peer],
) -> Result<(), FoundError> {
    let mut missing: Vec<&Peer> = peers.iter().filter(|p| p.id != managers.id()).collect();
    // Unbounded on purpose: the operator decides how long to wait for a peer; each round is
    // bounded, and told of.
    for attempt in 0_u32.. {
        let mut silent = Vec::new();
        for peer in missing {
            match hello(&managers.inner.channels, managers.id(), peer).await {
                Ok(answer) if answer.founded => return Err(existing(managers.id(), peer, &answer)),
                Ok(_) => {}
                Err(status) => {
                    if attempt % ATTEMPTS_PER_WARNING == ATTEMPTS_PER_WARNING - 1 {
                        let (peer, error) = (&peer.address, status.message());
                        tracing::warn!(peer, error, "waiting for it to found the cluster");
                    }
                    silent.push(peer);
                }
            }
        }
        if silent.is_empty() {
            break;
        }
        missing = silent;
        sleep_until(Instant::now() + timing::FOUND_RETRY).await;
    }
    Ok(())
}

fn existing(id: ManagerId, peer: &Peer, answer: &rpc::RaftHelloAnswer) -> FoundError {
    let witness = peer.id;
    match answer.members.contains(&id.number()) {
        true => FoundError::LostMember { id, witness },
        false => FoundError::AlreadyFounded { witness },
    }
}

/// Gives the cluster its id: whoever leads while there is none proposes one. Ends when it is
/// known, or with the group.
pub(super) async fn agree_on_cluster_id<S: Replicated>(managers: Managers<S>) {
    let mut leadership = managers.leadership();
    let mut changed = managers.changed();
    while managers.cluster_id().is_none() {
        let Leadership { is_leader, .. } = *leadership.borrow_and_update();
        if is_leader {
            // A second one, should the first answer be lost, changes nothing.
            let proposed = managers
                .append(Proposal::Cluster(ClusterId::random()))
                .await;
            if let Err(error) = proposed {
                tracing::debug!(%error, "the cluster's id is not agreed on yet");
                sleep_until(Instant::now() + timing::CLUSTER_ID_RETRY).await;
            }
            continue;
        }
        let ended = tokio::select! {
            ended = leadership.changed() => ended.is_err(),
            ended = changed.changed() => ended.is_err(),
        };
        if ended {
            return;
        }
    }
    let cluster = codec::optional_cluster_id_out(managers.cluster_id());
    tracing::info!(cluster, "this manager is of the cluster");
}
