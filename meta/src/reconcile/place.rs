//! Where new replicas go: on different nodes, in different zones where there are several, on the
//! disk that is the least promised.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ankole_proto::{DiskId, NodeName, VolumeSize};

use super::{Blockd, DiskSeen, Liveness, Now, Observed, liveness};
use crate::state::{State, Volume};

/// How much may be promised on a disk, in percent of its capacity: volumes are thin.
const OVERCOMMIT_PERCENT: u64 = 400;

/// The share of a disk that must be free for a new replica, in percent.
const FREE_PERCENT_MIN: u64 = 5;

/// What is to be placed.
#[derive(Debug, Clone)]
pub struct Want {
    /// How many replicas.
    pub count: usize,
    /// How large.
    pub size: VolumeSize,
    /// Nodes that have one already.
    pub taken: BTreeSet<NodeName>,
}

/// Why replicas cannot be placed, node by node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaceable {
    /// How many were wanted.
    pub wanted: usize,
    /// How many nodes would take one.
    pub found: usize,
    /// Why the others would not.
    pub why_not: BTreeMap<NodeName, String>,
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            found,
            why_not,
        } = self;
        write!(
            f,
            "{wanted} replicas need {wanted} nodes with room, and {found} have it"
        )?;
        for (node, why) in why_not {
            write!(f, "; {node}: {why}")?;
        }
        f.write_str("; add nodes or space, or ask for fewer replicas")
    }
}

pub(super) struct Candidate {
    node: NodeName,
    zone: String,
    disk: DiskId,
    pub(super) promised_permille: u64,
    replicas: usize,
}

/// Chooses a node and disk for each wanted replica.
///
/// # Errors
///
/// [`Unplaceable`] when fewer nodes than wanted would take one.
pub fn place(
    state: &State,
    observed: &Observed,
    now: Now,
    want: &Want,
) -> Result<Vec<(NodeName, DiskId)>, Unplaceable> {
    let mut why_not = BTreeMap::new();
    let mut candidates = Vec::new();
    for node in state
        .nodes()
        .keys()
        .chain(observed.blockds.keys())
        .collect::<BTreeSet<_>>()
    {
        match candidate(state, observed, now, want, node) {
            Ok(candidate) => candidates.push(candidate),
            Err(why) => drop(why_not.insert(node.clone(), why)),
        }
    }
    let found = candidates.len();
    if found < want.count {
        return Err(Unplaceable {
            wanted: want.count,
            found,
            why_not,
        });
    }
    let mut zones: BTreeSet<String> = want
        .taken
        .iter()
        .filter_map(|node| state.nodes().get(node))
        .map(|node| node.zone.clone())
        .collect();
    let mut chosen = Vec::new();
    while chosen.len() < want.count {
        candidates.sort_by_key(|one| {
            let crowded = !one.zone.is_empty() && zones.contains(&one.zone);
            (
                crowded,
                one.promised_permille,
                one.replicas,
                one.node.clone(),
            )
        });
        let best = candidates.remove(0);
        zones.insert(best.zone);
        chosen.push((best.node, best.disk));
    }
    Ok(chosen)
}

fn candidate(
    state: &State,
    observed: &Observed,
    now: Now,
    want: &Want,
    node: &NodeName,
) -> Result<Candidate, String> {
    if want.taken.contains(node) {
        return Err("has a replica of the volume already".to_owned());
    }
    let blockd = match observed.blockds.get(node) {
        Some(seen) if liveness(state, observed, now, node) == Liveness::Up => &seen.said,
        _ => return Err("its blockd does not report".to_owned()),
    };
    if blockd.disks.is_empty() {
        return Err("has no disk".to_owned());
    }
    let mut best: Option<Candidate> = None;
    let mut why = String::new();
    for disk in blockd.disks.keys() {
        match fits(state, blockd, want, node, *disk) {
            Err(reason) => why = reason,
            Ok(fit) => {
                let better = best
                    .as_ref()
                    .is_none_or(|one| fit.promised_permille < one.promised_permille);
                best = if better { Some(fit) } else { best };
            }
        }
    }
    best.ok_or(why)
}

pub(super) fn fits(
    state: &State,
    blockd: &Blockd,
    want: &Want,
    node: &NodeName,
    id: DiskId,
) -> Result<Candidate, String> {
    let disk = blockd.disks.get(&id).ok_or("has no disk")?;
    if !disk.fault.is_empty() {
        return Err(format!("disk {} is faulted: {}", disk.path, disk.fault));
    }
    if disk.free_bytes < disk.capacity_bytes / 100 * FREE_PERCENT_MIN {
        let free = disk.free_bytes;
        return Err(format!("disk {} is full: {free} bytes are free", disk.path));
    }
    let promises = promises(state, node, id);
    let promised = may_promise(disk, &promises, want.size.bytes())?;
    let permille = u128::from(promised) * 1000 / u128::from(disk.capacity_bytes.max(1));
    Ok(Candidate {
        node: node.clone(),
        zone: blockd.zone.clone(),
        disk: id,
        promised_permille: u64::try_from(permille).unwrap_or(u64::MAX),
        replicas: promises.len(),
    })
}

/// What is promised on a disk, one number for each replica.
fn promises(state: &State, node: &NodeName, disk: DiskId) -> Vec<u64> {
    let volumes = state.volumes().values();
    let on_disk = volumes.flat_map(|volume| {
        let replicas = volume.live();
        replicas
            .filter(|(_, one)| one.node == *node && one.disk == disk)
            .map(|_| volume.size_wanted().bytes())
    });
    on_disk.collect()
}

/// What is promised on a disk with so much more, when it may be.
fn may_promise(disk: &DiskSeen, promises: &[u64], more_bytes: u64) -> Result<u64, String> {
    let promised = promises.iter().sum::<u64>().saturating_add(more_bytes);
    let most = disk.capacity_bytes.saturating_mul(OVERCOMMIT_PERCENT) / 100;
    if promised > most {
        let path = &disk.path;
        return Err(format!(
            "disk {path} has {most} bytes to promise, not {promised}"
        ));
    }
    Ok(promised)
}

/// Why a volume cannot grow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "volume {volume:?} cannot grow to {bytes} bytes; {why}; free space, or choose a smaller size"
)]
pub struct NoRoom {
    volume: String,
    bytes: u64,
    why: String,
}

/// Whether the disks of a volume's replicas may be promised a greater size.
///
/// # Errors
///
/// [`NoRoom`] for the first disk that may not. One that does not report is not asked: it is back, or
/// replaced, before the size is needed there.
pub fn room_to_grow(
    state: &State,
    observed: &Observed,
    volume: &Volume,
    size: VolumeSize,
) -> Result<(), NoRoom> {
    let more_bytes = size.bytes().saturating_sub(volume.size_wanted().bytes());
    for (_, replica) in volume.live() {
        let blockd = observed.blockds.get(&replica.node);
        let Some(disk) = blockd.and_then(|seen| seen.said.disks.get(&replica.disk)) else {
            continue;
        };
        let promises = promises(state, &replica.node, replica.disk);
        may_promise(disk, &promises, more_bytes).map_err(|why| NoRoom {
            volume: volume.name.clone(),
            bytes: size.bytes(),
            why: format!("node {}: {why}", replica.node),
        })?;
    }
    Ok(())
}
