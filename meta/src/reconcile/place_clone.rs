//! Where the replicas of a clone go: beside those that they share layers with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ankole_proto::{DiskId, NodeName, ReplicaId, VolumeSize};

use super::place::fits;
use super::{Liveness, Now, Observed, Sight, StoredState, Want, liveness};
use crate::state::{Replica, ReplicaMode, State, Volume};

/// A replica that a clone can share layers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneSource {
    /// Which.
    pub replica: ReplicaId,
    /// Its host.
    pub node: NodeName,
    /// Its disk there.
    pub disk: DiskId,
}

/// Why no replica of a volume can be cloned, node by node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSource {
    volume: String,
    why_not: BTreeMap<NodeName, String>,
}

impl fmt::Display for NoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no replica of volume {:?} can be cloned now",
            self.volume
        )?;
        for (node, why) in &self.why_not {
            write!(f, "; {node}: {why}")?;
        }
        f.write_str("; try again when one is in sync on a node that is up and has room")
    }
}

/// The in-sync replicas that a clone of this size can share layers with, at most `count`, those on
/// the least promised disks first.
///
/// # Errors
///
/// [`NoSource`] when there is none.
pub fn place_clone(
    state: &State,
    observed: &Observed,
    now: Now,
    source: &Volume,
    size: VolumeSize,
    count: usize,
) -> Result<Vec<CloneSource>, NoSource> {
    let mut why_not = BTreeMap::new();
    let mut found = Vec::new();
    for (id, replica) in &source.replicas {
        match candidate(state, observed, now, size, *id, replica) {
            Ok(promised_permille) => found.push((promised_permille, *id)),
            Err(why) => drop(why_not.insert(replica.node.clone(), why)),
        }
    }
    if found.is_empty() {
        let volume = source.name.clone();
        return Err(NoSource { volume, why_not });
    }
    found.sort_unstable();
    let chosen = found.into_iter().take(count).filter_map(|(_, id)| {
        let replica = source.replicas.get(&id)?;
        Some(CloneSource {
            replica: id,
            node: replica.node.clone(),
            disk: replica.disk,
        })
    });
    Ok(chosen.collect())
}

fn candidate(
    state: &State,
    observed: &Observed,
    now: Now,
    size: VolumeSize,
    id: ReplicaId,
    replica: &Replica,
) -> Result<u64, String> {
    if replica.mode != ReplicaMode::InSync {
        return Err(format!("its replica is {}", replica.mode));
    }
    let blockd = match observed.blockds.get(&replica.node) {
        Some(seen) if liveness(state, observed, now, &replica.node) == Liveness::Up => &seen.said,
        _ => return Err("its blockd does not report".to_owned()),
    };
    match observed.sight(&replica.node, replica.disk, id) {
        Sight::Stored(stored) if stored.state == StoredState::Ready => {}
        Sight::Stored(stored) => return Err(format!("its replica: {}", stored.message)),
        _ => return Err("its replica cannot be seen on its disk".to_owned()),
    }
    let want = Want {
        count: 1,
        size,
        taken: BTreeSet::new(),
    };
    let fit = fits(state, blockd, &want, &replica.node, replica.disk)?;
    Ok(fit.promised_permille)
}
