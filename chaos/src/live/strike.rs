//! Carrying faults out, bringing things back, and what each kind of fault cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use rustix::process::Signal;
use serde::Serialize;

use super::fault::{Fault, NODES};
use super::field::Field;
use super::pair::PAIR;
use super::stall::Stalls;
use super::wires::{Disturbance, Wires};
use super::{VOLUME, groups};
use crate::cluster::Cluster;
use crate::load::{self, Gap, Pattern, Workload};

/// How long something that was killed stays away.
const AWAY: Duration = Duration::from_secs(2);
const SNAPSHOTS_MAX: usize = 4;
/// For an engine that was fenced to end by itself.
const FENCED_LIMIT: Duration = Duration::from_secs(10);
/// How far beyond its goal a gap fails the run: it shows that I/O goes on, on whatever machine it runs
/// and whatever else that does. Goals are judged by the figures of a quiet one.
const SLACK_MS: u64 = 4_000;
/// The steps of a recovery wait as the meter does, but several run at once.
const STALLS_COUNT: u64 = 2;

/// A fault that was carried out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Struck {
    fault: String,
    what: String,
    at_ms: u64,
    goal_ms: u64,
    /// What the initiator may add to that by itself.
    initiator_ms: u64,
    /// How long what was asked for took, where that counts.
    took_ms: Option<u64>,
    /// What was not as it must be.
    wrong: Vec<String>,
}

impl Struck {
    /// Notes what went wrong in a part of the fault.
    fn note(&mut self, part: &str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.wrong.push(format!("{part}: {error:#}"));
        }
    }
}

/// What all faults of a kind cost.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    /// The kind.
    pub(super) fault: String,
    count: usize,
    longest_gap_ms: u64,
    goal_ms: u64,
    /// The longest that the machine kept a simple program waiting during a gap beyond its goal.
    stalled_ms: u64,
    /// What was not as it must be, and gaps that the machine does not explain, in words.
    wrong: Vec<String>,
}

impl Summary {
    fn new(fault: &str) -> Self {
        Self {
            fault: fault.to_owned(),
            count: 0,
            longest_gap_ms: 0,
            goal_ms: 0,
            stalled_ms: 0,
            wrong: Vec::new(),
        }
    }

    fn add(&mut self, cause: &Struck, from_ms: u64, length_ms: u64, stalls: &Stalls) {
        self.longest_gap_ms = self.longest_gap_ms.max(length_ms);
        if length_ms <= cause.goal_ms {
            return;
        }
        let stalled_ms = stalls.late_ms(from_ms, from_ms + length_ms);
        self.stalled_ms = self.stalled_ms.max(stalled_ms);
        let promised_ms = cause.goal_ms + cause.initiator_ms;
        if length_ms > promised_ms + SLACK_MS + STALLS_COUNT * stalled_ms {
            self.wrong.push(format!(
                "{length_ms} ms of {}, stalled for {stalled_ms} ms",
                cause.what
            ));
        }
    }

    /// An error when something was wrong.
    pub(super) fn within_limit(&self) -> anyhow::Result<()> {
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("; "));
        Ok(())
    }
}

/// Strikes, waits and heals.
pub(super) fn carry_out(fault: &Fault, field: &mut Field<'_>) -> anyhow::Result<Struck> {
    let mut struck = Struck {
        fault: fault.kind(),
        what: format!("{fault:?}"),
        at_ms: now_ms(),
        goal_ms: ms(fault.goal()),
        initiator_ms: ms(fault.initiator_pause()),
        took_ms: None,
        wrong: Vec::new(),
    };
    match fault {
        Fault::Network(_) | Fault::NetworkAndKillEngine(_) | Fault::NetworkAndKillBlockd(..) => {
            network(fault, field)?;
        }
        Fault::GroupAndKillEngines(after) => {
            let result = groups::take_and_kill(field, *after);
            struck.note("a group of snapshots", result);
            reservation(field, &mut struck);
        }
        Fault::MoveByForce { dead_agent } => {
            let begun = Instant::now();
            move_volume(field, VOLUME, *dead_agent)?;
            struck.took_ms = Some(ms(begun.elapsed()));
            struck.note("the old engine", field.one_engine(VOLUME, FENCED_LIMIT));
        }
        Fault::MoveReserved { dead_agent } => {
            move_volume(field, PAIR[0], *dead_agent)?;
            struck.note("the old engine", field.one_engine(PAIR[0], FENCED_LIMIT));
            reservation(field, &mut struck);
        }
        Fault::FillDisk(pause) => fill(field, *pause)?,
        Fault::KillEverything => {
            field.cluster.kill_all()?;
        }
        Fault::KillLoad => field.traffic.kill()?,
        Fault::Snapshot => snapshot(field.cluster)?,
        Fault::SnapshotAndKillEngine => snapshot_and_kill(field)?,
        _ => processes(fault, field)?,
    }
    std::thread::sleep(AWAY);
    field.cluster.start_missing()?;
    struck.note("the pair", field.pair.goes_on());
    Ok(struck)
}

/// Kills and stops of single processes.
fn processes(fault: &Fault, field: &Field<'_>) -> anyhow::Result<()> {
    let cluster = field.cluster;
    let engine = || field.engine(VOLUME);
    match fault {
        Fault::KillBlockd(nodes) => nodes
            .iter()
            .try_for_each(|node| cluster.kill(&format!("blockd-{node}"))),
        Fault::StopBlockd(node, pause) => stop(cluster, &format!("blockd-{node}"), *pause),
        Fault::KillEngine => cluster.kill(&engine()?),
        Fault::StopEngine(pause) => stop(cluster, &engine()?, *pause),
        Fault::KillManager(number) => cluster.kill(&format!("meta-{number}")),
        Fault::KillLeader => cluster.kill(&cluster.leader()?),
        Fault::KillLeaderAndBlockd(node) => {
            cluster.kill(&cluster.leader()?)?;
            cluster.kill(&format!("blockd-{node}"))
        }
        Fault::KillManagers => {
            (1..=3).try_for_each(|number| cluster.kill(&format!("meta-{number}")))
        }
        Fault::KillAgent => {
            let node = cluster.volume(VOLUME)?.node;
            cluster.kill(&format!("agent-{node}"))
        }
        other => unreachable!("{other:?} is no matter of processes alone"),
    }
}

fn network(fault: &Fault, field: &Field<'_>) -> anyhow::Result<()> {
    let cluster = field.cluster;
    match fault {
        Fault::NetworkAndKillEngine(disturbance) => {
            let engine = field.engine(VOLUME)?;
            disturb(field.wires, disturbance, || cluster.kill(&engine))
        }
        Fault::NetworkAndKillBlockd(disturbance, node) => disturb(field.wires, disturbance, || {
            cluster.kill(&format!("blockd-{node}"))
        }),
        Fault::Network(disturbance) => disturb(field.wires, disturbance, || Ok(())),
        other => unreachable!("{other:?} is no matter of the network"),
    }
}

/// Takes a volume by force to the next node, with its user following, until it is answered there.
fn move_volume(field: &mut Field<'_>, name: &str, dead_agent: bool) -> anyhow::Result<()> {
    let from = field.cluster.volume(name)?.node;
    let at = NODES.iter().position(|node| *node == from).unwrap_or(0);
    let to = NODES[(at + 1) % NODES.len()];
    if dead_agent {
        field.cluster.kill(&format!("agent-{from}"))?;
    }
    field.cluster.move_by_force(name, to)?;
    let volume = field
        .cluster
        .wait_volume(name, FENCED_LIMIT * 3, "attached there", |volume| {
            volume.state == "attached" && volume.node == to
        })?;
    if name == VOLUME {
        // Until here the load has been at the old engine.
        let url = field.wires.stand_before(&volume.url)?;
        field.traffic.move_to(url)?;
        load::run(&Workload {
            operations: Some(1),
            ..Workload::new(&volume.url, Pattern::Read)
        })?;
    } else {
        field.pair.move_to(&volume.url);
    }
    Ok(())
}

fn reservation(field: &Field<'_>, struck: &mut Struck) {
    let result = field.pair.goes_on();
    let result = result.and_then(|()| field.pair.reservation_holds());
    struck.note("the reservation", result);
}

/// After a snapshot every write needs new room, and there is none.
fn fill(field: &Field<'_>, pause: Duration) -> anyhow::Result<()> {
    snapshot(field.cluster)?;
    let Some(small_disk) = field.small_disk else {
        return Ok(());
    };
    small_disk.fill()?;
    std::thread::sleep(pause);
    small_disk.free()
}

/// Something more happens half-way through.
fn disturb(
    wires: &Wires,
    disturbance: &Disturbance,
    more: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    wires.disturb(disturbance);
    std::thread::sleep(disturbance.pause / 2);
    let done = more();
    std::thread::sleep(disturbance.pause / 2);
    wires.heal(disturbance);
    done
}

fn stop(cluster: &Cluster, name: &str, pause: Duration) -> anyhow::Result<()> {
    cluster.signal(name, Signal::STOP)?;
    std::thread::sleep(pause);
    cluster.signal(name, Signal::CONT)
}

/// The call may be refused or give up, but it must not leave the volume in between.
fn snapshot_and_kill(field: &Field<'_>) -> anyhow::Result<()> {
    let (cluster, engine) = (field.cluster, field.engine(VOLUME)?);
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| snapshot(cluster));
        let killed = cluster.kill(&engine);
        let taken = taken
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread ended")));
        killed.and(taken)
    })
}

fn snapshot(cluster: &Cluster) -> anyhow::Result<()> {
    let names = cluster.snapshots(VOLUME)?;
    if let [oldest, ..] = names.as_slice()
        && names.len() >= SNAPSHOTS_MAX
    {
        cluster.ankole(&["snapshot", "delete", VOLUME, &oldest.name])?;
    }
    let name = format!("s{}", now_ms());
    cluster.snapshot(VOLUME, &name).map(drop)
}

/// One summary for each kind; a gap is the doing of the last fault that struck before it ended.
pub(super) fn summaries(struck: &[Struck], gaps: &[Gap], stalls: &Stalls) -> Vec<Summary> {
    let mut all: BTreeMap<&str, Summary> = BTreeMap::new();
    for one in struck {
        let summary = all
            .entry(&one.fault)
            .or_insert_with(|| Summary::new(&one.fault));
        summary.count += 1;
        summary.goal_ms = summary.goal_ms.max(one.goal_ms);
        summary.wrong.extend_from_slice(&one.wrong);
        if let Some(took_ms) = one.took_ms {
            summary.add(one, one.at_ms, took_ms, stalls);
        }
    }
    for gap in gaps {
        let end_ms = gap.at_ms + gap.length_ms;
        let Some(cause) = struck.iter().rev().find(|one| one.at_ms <= end_ms) else {
            continue;
        };
        if let Some(summary) = all.get_mut(cause.fault.as_str()) {
            summary.add(cause, gap.at_ms, gap.length_ms, stalls);
        }
    }
    all.into_values().collect()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn now_ms() -> u64 {
    ms(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(fault: &str, at_ms: u64) -> Struck {
        Struck {
            fault: fault.to_owned(),
            what: fault.to_owned(),
            at_ms,
            goal_ms: 500,
            initiator_ms: 0,
            took_ms: None,
            wrong: Vec::new(),
        }
    }

    #[test]
    fn a_gap_counts_for_the_last_fault_before_its_end() {
        let struck = [struck("a", 1000), struck("b", 5000), struck("a", 19_000)];
        let gap = |at_ms, length_ms| Gap { at_ms, length_ms };
        let gaps = [
            gap(0, 500),
            gap(990, 700),
            gap(4990, 9000),
            gap(19_100, 300),
        ];
        let folder = tempfile::tempdir().unwrap();
        let stalls = Stalls::start(folder.path()).unwrap();
        let summaries = summaries(&struck, &gaps, &stalls);
        let told: Vec<_> = summaries
            .iter()
            .map(|one| (one.fault.as_str(), one.count, one.longest_gap_ms))
            .collect();
        assert_eq!(told, [("a", 2, 700), ("b", 1, 9000)]);
        assert!(summaries[0].within_limit().is_ok());
        assert!(summaries[1].within_limit().is_err());
    }
}
