//! What `ankole --output json` prints, as far as it is looked at here.

use serde::Deserialize;

/// `ankole volume get`.
#[derive(Debug, Clone, Deserialize)]
pub struct Volume {
    /// The volume's id.
    pub id: String,
    /// `attached`, `detached`…
    pub state: String,
    /// `healthy`, `degraded`, `faulted`.
    pub health: String,
    /// The node that serves it.
    pub node: String,
    /// For an initiator.
    pub url: String,
    /// Of its last engine.
    pub epoch: u64,
    /// Why it is not as wanted.
    pub message: String,
    /// Where its data is.
    pub replicas: Vec<Replica>,
    /// The comparison of its replicas under way, or the last one.
    pub comparison: Option<Comparison>,
}

/// A comparison of a volume's replicas with each other.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Comparison {
    /// That did not read the same everywhere.
    pub differing_chunks: u64,
    /// Of these without a majority.
    pub undecided_chunks: u64,
    /// That could not be compared.
    pub skipped_chunks: u64,
    /// 0: it is under way.
    pub finished_at_ms: u64,
}

impl Volume {
    /// How many replicas are in this mode.
    pub fn count(&self, mode: &str) -> usize {
        self.replicas
            .iter()
            .filter(|replica| replica.mode == mode)
            .count()
    }
}

/// A replica of a volume.
#[derive(Debug, Clone, Deserialize)]
pub struct Replica {
    /// The replica's id.
    pub id: String,
    /// Its node.
    pub node: String,
    /// `in-sync`, `rebuilding`…
    pub mode: String,
}

/// `ankole snapshot create`.
#[derive(Debug, Clone, Deserialize)]
pub struct Snapshot {
    /// Within its volume.
    pub name: String,
    /// `ready`.
    pub state: String,
    /// The sealed layer.
    pub layer: String,
}

/// `ankole dev status`.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Every process.
    pub processes: Vec<Process>,
    /// Unset when no manager leads.
    pub cluster: Option<Leadership>,
}

/// A process of the cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Process {
    /// `meta-1`, `blockd-n2`, `engine-…`.
    pub name: String,
    /// Unset when it does not run.
    pub pid: Option<i32>,
}

/// Who leads.
#[derive(Debug, Clone, Deserialize)]
pub struct Leadership {
    /// 0: nobody known.
    pub leader: u64,
}
