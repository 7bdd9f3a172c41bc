//! What a mirror tells of itself, for reports and people.

use std::time::Duration;

use ankole_proto::{NodeName, ReplicaId};

use super::event::TaskId;
use super::replica::{Doubt, Replica, State};
use super::{Mirror, Phase};

/// A mirror at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The volume is served.
    pub serving: bool,
    /// Why nothing is served, or I/O is held; `None` when it flows.
    pub held_because: Option<String>,
    /// Each replica of the orders, by id.
    pub replicas: Vec<ReplicaStatus>,
    /// Operations in hand.
    pub operations_in_flight: usize,
    /// Bytes of their data.
    pub bytes_in_flight: u64,
    /// A group's seal for which everything is drained, flushed and held.
    pub held_task: Option<TaskId>,
    /// Since this engine began, it had to go on with a replica whose host had lost its power, and
    /// no other was left: writes that were acknowledged, and not flushed, may be gone.
    pub unflushed_lost: bool,
    /// The comparison of its replicas that is under way, or the last one.
    pub comparison: Option<ComparisonStatus>,
}

/// How far a comparison of the replicas with each other is, and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparisonStatus {
    /// The number that the managers gave it.
    pub request: u64,
    /// All was looked at.
    pub is_finished: bool,
    /// Bytes looked at, of all layers.
    pub done_bytes: u64,
    /// Bytes of all layers.
    pub total_bytes: u64,
    /// Over the time since it began.
    pub bytes_per_second: u64,
    /// Chunks that did not read the same at all replicas.
    pub differing_chunks: u64,
    /// Of these, the ones of which no contents had a majority: nothing was done about them.
    pub undecided_chunks: u64,
    /// Chunks that could not be compared.
    pub skipped_chunks: u64,
    /// When nothing differed: the replicas that were compared in every chunk and have not left since.
    pub alike: Vec<ReplicaId>,
}

/// One replica at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Which.
    pub replica: ReplicaId,
    /// Its host.
    pub node: NodeName,
    /// On record as in sync.
    pub in_sync: bool,
    /// It can be used now.
    pub usable: bool,
    /// Why it cannot be used; empty when it can.
    pub message: String,
    /// Requests without answer.
    pub requests_in_flight: usize,
    /// How far its rebuild is.
    pub rebuild: Option<RebuildProgress>,
    /// Bad blocks of it that this engine rewrote from another replica.
    pub repaired_blocks: u64,
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    /// Bytes compared, and copied where they differed.
    pub done_bytes: u64,
    /// Bytes of all layers.
    pub total_bytes: u64,
    /// Over the time since the rebuild began.
    pub bytes_per_second: u64,
    /// Until it is done, at this rate; `None` while nothing has been done.
    pub remaining: Option<Duration>,
}

/// The rate of what was done in a time.
pub(super) fn bytes_per_second(done_bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(done_bytes) * 1000 / time.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

impl Mirror {
    /// What is to be told of the mirror now.
    pub fn status(&self) -> Status {
        Status {
            serving: matches!(self.phase, Phase::Serving),
            held_because: self.held_because(),
            replicas: self.replicas.values().map(|r| self.status_of(r)).collect(),
            operations_in_flight: self.jobs.count() + self.early.len() + self.held.len(),
            bytes_in_flight: self.jobs.bytes(),
            held_task: self.held_task(),
            unflushed_lost: self.unflushed_lost,
            comparison: self.comparison_status(),
        }
    }

    fn status_of(&self, replica: &Replica) -> ReplicaStatus {
        let message = message(replica);
        ReplicaStatus {
            replica: replica.id(),
            node: replica.member.node.clone(),
            in_sync: replica.is_in_sync(),
            usable: message.is_empty(),
            message,
            requests_in_flight: replica.session().map_or(0, |session| session.owed()),
            rebuild: replica
                .rebuild()
                .map(|rebuild| rebuild.progress(self.orders.size, self.now)),
            repaired_blocks: replica.repaired_blocks,
        }
    }

    fn held_because(&self) -> Option<String> {
        match self.phase {
            Phase::Stopped => return Some("the engine has stopped".to_owned()),
            Phase::Stopping(_) => return Some("the engine is stopping".to_owned()),
            Phase::Starting(_) | Phase::Serving => {}
        }
        let counting = self.replicas.values().filter(|replica| replica.counts());
        let waiting: Vec<String> = counting
            .filter(|replica| !self.is_answering(replica, self.now))
            .map(|replica| match message(replica) {
                text if text.is_empty() => format!("{} is silent", replica.member.node),
                text => format!("{}: {text}", replica.member.node),
            })
            .collect();
        let starting = matches!(self.phase, Phase::Starting(_));
        match (waiting.is_empty(), starting) {
            (false, _) => Some(format!("waits for replicas ({})", waiting.join("; "))),
            (true, true) if self.replicas.is_empty() => Some("it has no replica".to_owned()),
            (true, true) => Some("recovers, or waits out the previous engine's lease".to_owned()),
            (true, false) if self.held_task().is_some() => {
                Some("waits for the other volumes of a group snapshot".to_owned())
            }
            (true, false) if self.task_gates() => Some("takes a snapshot".to_owned()),
            (true, false) => None,
        }
    }
}

/// Why a replica cannot be used; empty when it can.
fn message(replica: &Replica) -> String {
    match replica.state() {
        State::Live(_) => String::new(),
        State::Down(down) => match &replica.member.address {
            Some(_) => down.reason.clone(),
            None => "its blockd has not reported an address".to_owned(),
        },
        State::Connecting { before, .. } => format!("connecting; before: {}", before.reason),
        State::Doubtful(doubtful) => match &doubtful.doubt {
            Doubt::Unfit(reason) => reason.clone(),
            doubt => format!("{doubt}; a better replica is waited for"),
        },
        State::Rebuilding(_, rebuild) => rebuild.message(),
        State::Leaving { reason } => format!("its loss is being recorded: {reason}"),
    }
}
