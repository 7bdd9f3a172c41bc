//! Who leads, as the rest of the daemon follows it.

use std::sync::Arc;

use openraft::{BasicNode, RaftMetrics};
use tokio::sync::watch;

use super::{ManagerId, Membership};

/// A manager and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: ManagerId,
    /// `HOST:PORT`.
    pub address: String,
}

/// Who leads, as far as this manager knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// This manager leads. Another may lead already when this one is cut off: confirm with
    /// [`super::Managers::read`] before acting on the state.
    pub is_leader: bool,
    /// The leader; `None` during an election.
    pub leader: Option<Member>,
    /// The term, which grows with every election.
    pub term: u64,
}

/// The group, as this manager sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This manager.
    pub id: ManagerId,
    /// Who leads.
    pub leadership: Leadership,
    /// The last log index applied here.
    pub applied: u64,
    /// The last log index held here.
    pub last_log: u64,
    /// The log index up to which the newest snapshot here goes.
    pub snapshot: u64,
    /// All members, ascending by id.
    pub members: Vec<MemberStatus>,
}

/// One member of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Counts for a majority. Others are learners.
    pub voter: bool,
    /// Log index it is known to hold; `None` unless asked of the leader.
    pub matched: Option<u64>,
}

/// openraft's view of the group.
pub(crate) type Metrics = RaftMetrics<u64, BasicNode>;

fn member(membership: &Membership, id: u64) -> Option<Member> {
    let node = membership.get_node(&id)?;
    Some(Member {
        id: ManagerId::new(id)?,
        address: node.addr.clone(),
    })
}

/// Who leads, according to these metrics.
pub(super) fn leadership(metrics: &Metrics) -> Leadership {
    let membership = metrics.membership_config.membership();
    Leadership {
        is_leader: metrics.current_leader == Some(metrics.id),
        leader: metrics.current_leader.and_then(|id| member(membership, id)),
        term: metrics.current_term,
    }
}

/// The group, according to these metrics.
pub(super) fn status(id: ManagerId, metrics: &Metrics) -> Status {
    let membership = metrics.membership_config.membership();
    let matched = |id: u64| {
        let replication = metrics.replication.as_ref()?;
        if id == metrics.id {
            return metrics.last_log_index;
        }
        Some(
            replication
                .get(&id)
                .copied()
                .flatten()
                .map_or(0, |id| id.index),
        )
    };
    let voters: Vec<u64> = membership.voter_ids().collect();
    let members = membership.nodes().filter_map(|(&id, _)| {
        Some(MemberStatus {
            member: member(membership, id)?,
            voter: voters.contains(&id),
            matched: matched(id),
        })
    });
    Status {
        id,
        leadership: leadership(metrics),
        applied: metrics.last_applied.map_or(0, |id| id.index),
        last_log: metrics.last_log_index.unwrap_or(0),
        snapshot: metrics.snapshot.map_or(0, |id| id.index),
        members: members.collect(),
    }
}

/// Follows the metrics until the group ends, and publishes who leads when that changes.
pub(super) async fn follow(
    mut metrics: watch::Receiver<Metrics>,
    published: Arc<watch::Sender<Leadership>>,
) {
    loop {
        let now = leadership(&metrics.borrow_and_update());
        published.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                tracing::info!(leader = ?now.leader, term = now.term, "leadership changed");
                *known = now;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            published.send_replace(Leadership::default());
            return;
        }
    }
}
