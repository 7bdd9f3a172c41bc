//! What the daemons reported last. Kept in the leader's memory only, and forgotten by a new leader.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::{DAMAGES_MAX, Damage};
use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{DiskId, Epoch, LayerId, NodeName, ReplicaId, VolumeId};

/// The most nodes that reports are kept of (INV-12).
pub const NODES_MAX: usize = 1024;

/// How many damaged blocks of a replica are read from a report, which lists no more.
const REPORTED_DAMAGES_MAX: usize = 64;

/// How much is kept of what a replica says of work that stands still: two sentences for each kind.
const STANDSTILL_CHARS_MAX: usize = 1024;

/// A moment on this manager's monotonic clock, in milliseconds since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The milliseconds since an earlier moment.
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The present moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For durations.
    pub tick: Tick,
    /// For people and for what is recorded: milliseconds since 1970.
    pub wall_ms: u64,
}

/// A report that cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the report cannot be read: {0}; correct the daemon's configuration")]
pub struct ReportError(pub String);

/// The last report of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// When it came.
    pub at: Now,
    /// The orders that it answers.
    pub orders: u64,
    /// Whether newer orders went out since: what it lacks may be under way.
    pub superseded: bool,
    /// What it says.
    pub said: T,
}

impl<T> Seen<T> {
    /// Whether the report answers exactly these orders, so that an absence in it counts.
    pub const fn answers(&self, orders: u64) -> bool {
        !self.superseded && self.orders == orders
    }
}

/// What a blockd reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blockd {
    /// Its failure domain.
    pub zone: String,
    /// Where it serves the block protocol.
    pub block_address: String,
    /// The same on a unix socket; may be empty.
    pub block_socket: String,
    /// What rebuilds may write there, all together; 0: no limit.
    pub rebuild_bytes_per_second: u64,
    /// Its disks.
    pub disks: BTreeMap<DiskId, DiskSeen>,
}

/// What a blockd reports of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskSeen {
    /// Where it is.
    pub path: String,
    /// Its size.
    pub capacity_bytes: u64,
    /// What is free on it.
    pub free_bytes: u64,
    /// Why it does not work; empty when it does.
    pub fault: String,
    /// What an operator should know of it although it works; empty when there is nothing.
    pub warning: String,
    /// What is stored on it.
    pub replicas: BTreeMap<ReplicaId, Stored>,
}

/// What a blockd reports of a stored replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is.
    pub state: StoredState,
    /// Why it is faulted.
    pub message: String,
    /// The space it takes.
    pub used_bytes: u64,
    /// Every layer of its tree.
    pub layers: BTreeSet<LayerId>,
    /// What each layer takes; of many replicas as told some reports ago.
    pub usage: Vec<rpc::LayerUsage>,
    /// The scrub under way, or the last one.
    pub scrub: rpc::ScrubProgress,
    /// The last scrub of the orders that was begun.
    pub scrub_request: u64,
    /// Damaged blocks that are not repaired yet.
    pub damaged_blocks: u64,
    /// Of these the first.
    pub damages: Vec<Damage>,
    /// The first [`DAMAGES_MAX`] as they were told, for people.
    pub told_damages: Vec<rpc::Damage>,
    /// Blocks that it summed anew after an unclean stop.
    pub resummed_blocks: u64,
    /// What of its background work cannot go on, and why; may be empty.
    pub standstill: String,
}

/// The state of a stored replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredState {
    /// Usable.
    Ready,
    /// Being made equal to others.
    Rebuilding,
    /// Not usable any more.
    Faulted,
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// Where initiators reach engines.
    pub engine_host: String,
    /// The first port for engines.
    pub port_first: u16,
    /// The last.
    pub port_last: u16,
    /// The engines that it runs, and why one does not serve.
    pub engines: BTreeMap<VolumeId, String>,
}

/// What an engine reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSeen {
    /// Where it runs.
    pub node: NodeName,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Whether its target accepts logins.
    pub serving: bool,
    /// Sessions logged in.
    pub initiators: u32,
    /// Rebuilds under way.
    pub rebuilds: BTreeMap<ReplicaId, rpc::RebuildProgress>,
    /// Why it does not serve, or holds I/O.
    pub message: String,
    /// Bad blocks rewritten since it began, by replica.
    pub repairs: BTreeMap<ReplicaId, u64>,
    /// The group's seal for which everything is drained and held; 0: none.
    pub held_task: u64,
    /// The comparison of the replicas that it makes, or has made last.
    pub comparison: Option<rpc::ComparisonReport>,
}

/// How a replica shows on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight<'a> {
    /// It is stored.
    Stored(&'a Stored),
    /// Its disk works and does not hold it.
    Missing,
    /// Its blockd reports, but its disk is faulted or gone.
    DiskFault,
    /// Its blockd has not reported to this leader.
    Unseen,
}

/// Every daemon's last report to this leader.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Since when this manager leads.
    pub since: Tick,
    /// By node.
    pub blockds: BTreeMap<NodeName, Seen<Blockd>>,
    /// By node.
    pub agents: BTreeMap<NodeName, Seen<Agent>>,
    /// By volume.
    pub engines: BTreeMap<VolumeId, Seen<EngineSeen>>,
}

impl Observed {
    /// Nothing yet, for a manager that leads from now on.
    pub fn new(since: Tick) -> Self {
        Self {
            since,
            ..Self::default()
        }
    }

    /// Takes a blockd's report and tells whose it is.
    ///
    /// # Errors
    ///
    /// [`ReportError`] when it cannot be believed.
    pub fn blockd(
        &mut self,
        now: Now,
        report: &rpc::BlockdReport,
    ) -> Result<NodeName, ReportError> {
        let node: NodeName = parse(&report.node)?;
        let mut disks: BTreeMap<DiskId, DiskSeen> =
            report.disks.iter().map(disk).collect::<Result<_, _>>()?;
        if let Some(before) = self.blockds.get(&node) {
            keep_usage(&mut disks, &before.said.disks);
        }
        let said = Blockd {
            zone: report.zone.clone(),
            block_address: report.block_address.clone(),
            block_socket: report.block_socket.clone(),
            rebuild_bytes_per_second: report.rebuild_bytes_per_second,
            disks,
        };
        insert(
            &mut self.blockds,
            &node,
            seen(now, report.seen_revision, said),
        )?;
        Ok(node)
    }

    /// Takes an agent's report and tells whose it is.
    ///
    /// # Errors
    ///
    /// [`ReportError`] when it cannot be believed.
    pub fn agent(&mut self, now: Now, report: &rpc::AgentReport) -> Result<NodeName, ReportError> {
        let node: NodeName = parse(&report.node)?;
        let engines = report
            .engines
            .iter()
            .map(|engine| Ok((parse(&engine.volume_id)?, engine.message.clone())))
            .collect::<Result<_, _>>()?;
        let said = Agent {
            engine_host: report.engine_host.clone(),
            port_first: port(report.port_first)?,
            port_last: port(report.port_last)?,
            engines,
        };
        insert(
            &mut self.agents,
            &node,
            seen(now, report.seen_revision, said),
        )?;
        Ok(node)
    }

    /// Takes an engine's report; the caller has checked that the volume exists.
    ///
    /// # Errors
    ///
    /// [`ReportError`] when it cannot be believed.
    pub fn engine(
        &mut self,
        now: Now,
        report: &rpc::EngineReport,
    ) -> Result<VolumeId, ReportError> {
        let volume: VolumeId = parse(&report.volume_id)?;
        let rebuilds = report
            .rebuilds
            .iter()
            .map(|one| Ok((parse(&one.replica_id)?, one.progress.unwrap_or_default())))
            .collect::<Result<_, _>>()?;
        let repairs = report
            .repairs
            .iter()
            .map(|one| Ok((parse(&one.replica_id)?, one.blocks)))
            .collect::<Result<_, _>>()?;
        let said = EngineSeen {
            node: parse(&report.node)?,
            epoch: Epoch::from_raw(report.epoch),
            serving: report.serving,
            initiators: report.initiators,
            rebuilds,
            message: report.message.clone(),
            repairs,
            held_task: report.held_task,
            comparison: report.comparison.clone(),
        };
        let older = self
            .engines
            .get(&volume)
            .is_some_and(|seen| seen.said.epoch > said.epoch);
        if !older {
            self.engines
                .insert(volume, seen(now, report.seen_revision, said));
        }
        Ok(volume)
    }

    /// How a replica shows on its disk.
    pub fn sight(&self, node: &NodeName, disk: DiskId, replica: ReplicaId) -> Sight<'_> {
        let Some(blockd) = self.blockds.get(node) else {
            return Sight::Unseen;
        };
        match blockd
            .said
            .disks
            .get(&disk)
            .filter(|disk| disk.fault.is_empty())
        {
            None => Sight::DiskFault,
            Some(disk) => disk
                .replicas
                .get(&replica)
                .map_or(Sight::Missing, Sight::Stored),
        }
    }
}

/// A blockd with many replicas tells what their layers take by turns.
fn keep_usage(disks: &mut BTreeMap<DiskId, DiskSeen>, before: &BTreeMap<DiskId, DiskSeen>) {
    for (id, disk) in disks {
        let known = before.get(id).map(|disk| &disk.replicas);
        for (replica, stored) in &mut disk.replicas {
            if stored.usage.is_empty()
                && let Some(known) = known.and_then(|known| known.get(replica))
            {
                stored.usage.clone_from(&known.usage);
            }
        }
    }
}

fn seen<T>(at: Now, orders: u64, said: T) -> Seen<T> {
    Seen {
        at,
        orders,
        superseded: false,
        said,
    }
}

fn insert<T>(
    map: &mut BTreeMap<NodeName, Seen<T>>,
    node: &NodeName,
    seen: Seen<T>,
) -> Result<(), ReportError> {
    if map.len() >= NODES_MAX && !map.contains_key(node) {
        return Err(ReportError(format!("{NODES_MAX} nodes report already")));
    }
    map.insert(node.clone(), seen);
    Ok(())
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ReportError> {
    text.parse()
        .map_err(|error: T::Err| ReportError(error.to_string()))
}

fn port(raw: u32) -> Result<u16, ReportError> {
    u16::try_from(raw).map_err(|_| ReportError(format!("{raw} is no port")))
}

fn disk(report: &rpc::DiskReport) -> Result<(DiskId, DiskSeen), ReportError> {
    let replicas = report
        .replicas
        .iter()
        .map(stored)
        .collect::<Result<_, _>>()?;
    let disk = DiskSeen {
        path: report.path.clone(),
        capacity_bytes: report.capacity_bytes,
        free_bytes: report.free_bytes,
        fault: report.fault.clone(),
        warning: report.warning.clone(),
        replicas,
    };
    Ok((parse(&report.id)?, disk))
}

fn damage(report: &rpc::Damage) -> Result<Damage, ReportError> {
    Ok(Damage {
        layer: parse(&report.layer)?,
        offset: report.offset,
    })
}

fn stored(report: &rpc::ReplicaReport) -> Result<(ReplicaId, Stored), ReportError> {
    let state = match report.state() {
        rpc::StoredState::Ready => StoredState::Ready,
        rpc::StoredState::Rebuilding => StoredState::Rebuilding,
        // What this manager cannot understand it must not use.
        rpc::StoredState::Faulted | rpc::StoredState::Unspecified => StoredState::Faulted,
    };
    let stored = Stored {
        state,
        message: report.message.clone(),
        used_bytes: report.used_bytes,
        layers: report
            .layers
            .iter()
            .map(|layer| parse(layer))
            .collect::<Result<_, _>>()?,
        usage: report.usage.clone(),
        scrub: report.scrub.unwrap_or_default(),
        scrub_request: report.scrub_request,
        damaged_blocks: report.damaged_blocks,
        damages: report
            .damages
            .iter()
            .take(REPORTED_DAMAGES_MAX)
            .map(damage)
            .collect::<Result<_, _>>()?,
        told_damages: report.damages.iter().take(DAMAGES_MAX).cloned().collect(),
        resummed_blocks: report.resummed_blocks,
        standstill: report
            .standstill
            .chars()
            .take(STANDSTILL_CHARS_MAX)
            .collect(),
    };
    Ok((parse(&report.id)?, stored))
}
