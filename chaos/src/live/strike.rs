//! Carrying faults out, bringing things back, and what each kind of fault cost.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use rustix::process::Signal;
use serde::Serialize;

use super::fault::Fault;
use super::traffic::Traffic;
use super::wires::{Disturbance, Wires};
use crate::cluster::Cluster;
use crate::load::Gap;

/// How long something that was killed stays away.
const AWAY: Duration = Duration::from_secs(2);
const SNAPSHOTS_MAX: usize = 4;

/// A fault that was carried out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Struck {
    fault: String,
    what: String,
    at_ms: u64,
    goal_ms: u64,
    limit_ms: u64,
}

/// What all faults of a kind cost.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    /// The kind.
    pub(super) fault: String,
    count: usize,
    longest_gap_ms: u64,
    goal_ms: u64,
    /// Gaps that no machine explains, in words.
    over_limit: Vec<String>,
}

impl Summary {
    /// An error when a gap was beyond its limit.
    pub(super) fn within_limit(&self) -> anyhow::Result<()> {
        ensure!(self.over_limit.is_empty(), "{}", self.over_limit.join("; "));
        Ok(())
    }
}

/// Strikes, waits and heals.
pub(super) fn carry_out(
    fault: Fault,
    cluster: &Cluster,
    volume: &str,
    traffic: &mut Traffic,
    wires: &Wires,
) -> anyhow::Result<Struck> {
    let engine = format!("engine-{}", cluster.volume(volume)?.id);
    let struck = Struck {
        fault: fault.kind(),
        what: format!("{fault:?}"),
        at_ms: now_ms(),
        goal_ms: ms(fault.goal()),
        limit_ms: ms(fault.limit()),
    };
    match &fault {
        Fault::KillBlockd(nodes) => {
            for node in nodes {
                cluster.kill(&format!("blockd-{node}"))?;
            }
        }
        Fault::StopBlockd(node, pause) => stop(cluster, &format!("blockd-{node}"), *pause)?,
        Fault::KillEngine => cluster.kill(&engine)?,
        Fault::StopEngine(pause) => stop(cluster, &engine, *pause)?,
        Fault::KillManager(number) => cluster.kill(&format!("meta-{number}"))?,
        Fault::KillLeader => cluster.kill(&cluster.leader()?)?,
        Fault::KillLeaderAndBlockd(node) => {
            cluster.kill(&cluster.leader()?)?;
            cluster.kill(&format!("blockd-{node}"))?;
        }
        Fault::KillManagers => {
            for number in 1..=3 {
                cluster.kill(&format!("meta-{number}"))?;
            }
        }
        Fault::KillAgent => cluster.kill("agent-n1")?,
        Fault::KillLoad => traffic.kill()?,
        Fault::KillEverything => cluster.kill_all()?,
        Fault::SnapshotAndKillEngine => snapshot_and_kill(cluster, volume, &engine)?,
        Fault::Snapshot => snapshot(cluster, volume)?,
        Fault::Network(disturbance) => disturb(wires, disturbance, || Ok(()))?,
        Fault::NetworkAndKillEngine(disturbance) => {
            disturb(wires, disturbance, || cluster.kill(&engine))?;
        }
        Fault::NetworkAndKillBlockd(disturbance, node) => {
            disturb(wires, disturbance, || {
                cluster.kill(&format!("blockd-{node}"))
            })?;
        }
    }
    std::thread::sleep(AWAY);
    cluster.start_missing()?;
    Ok(struck)
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
fn snapshot_and_kill(cluster: &Cluster, volume: &str, engine: &str) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| snapshot(cluster, volume));
        let killed = cluster.kill(engine);
        let taken = taken
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread ended")));
        killed.and(taken)
    })
}

fn snapshot(cluster: &Cluster, volume: &str) -> anyhow::Result<()> {
    let names = cluster.snapshots(volume)?;
    if let [oldest, ..] = names.as_slice()
        && names.len() >= SNAPSHOTS_MAX
    {
        cluster.ankole(&["snapshot", "delete", volume, &oldest.name])?;
    }
    let name = format!("s{}", now_ms());
    cluster.snapshot(volume, &name).map(drop)
}

/// One summary for each kind; a gap is the doing of the last fault that struck before it ended.
pub(super) fn summaries(struck: &[Struck], gaps: &[Gap]) -> Vec<Summary> {
    let mut all: BTreeMap<&str, Summary> = BTreeMap::new();
    for one in struck {
        let summary = all.entry(&one.fault).or_insert_with(|| Summary {
            fault: one.fault.clone(),
            count: 0,
            longest_gap_ms: 0,
            goal_ms: 0,
            over_limit: Vec::new(),
        });
        summary.count += 1;
        summary.goal_ms = summary.goal_ms.max(one.goal_ms);
    }
    for gap in gaps {
        let end_ms = gap.at_ms + gap.length_ms;
        let Some(cause) = struck.iter().rev().find(|one| one.at_ms <= end_ms) else {
            continue;
        };
        if let Some(summary) = all.get_mut(cause.fault.as_str()) {
            summary.longest_gap_ms = summary.longest_gap_ms.max(gap.length_ms);
            if gap.length_ms > cause.limit_ms {
                let text = format!("{} ms of {}", gap.length_ms, cause.what);
                summary.over_limit.push(text);
            }
        }
    }
    all.into_values().collect()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
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
            goal_ms: 100,
            limit_ms: 1000,
        }
    }

    #[test]
    fn a_gap_counts_for_the_last_fault_before_its_end() {
        let struck = [struck("a", 1000), struck("b", 5000), struck("a", 9000)];
        let gap = |at_ms, length_ms| Gap { at_ms, length_ms };
        let gaps = [gap(0, 500), gap(990, 700), gap(4990, 2000), gap(9100, 300)];
        let summaries = summaries(&struck, &gaps);
        let told: Vec<_> = summaries
            .iter()
            .map(|one| (one.fault.as_str(), one.count, one.longest_gap_ms))
            .collect();
        assert_eq!(told, [("a", 2, 700), ("b", 1, 2000)]);
        assert!(summaries[0].within_limit().is_ok());
        assert!(summaries[1].within_limit().is_err());
    }
}
