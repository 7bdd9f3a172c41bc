//! How long I/O stands still when a part of the cluster dies.

use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use serde::Serialize;

use super::progress::Progress;
use super::{Output, print_json};
use crate::cluster::{Cluster, Scratch, Volume};
use crate::load::{self, Pattern, Report, Workload};

const VOLUME: &str = "bench";
const VOLUME_SIZE: &str = "256MiB";
/// Load before something dies, so that caches and connections are warm.
const WARM: Duration = Duration::from_secs(2);
const HEALTHY_LIMIT: Duration = Duration::from_secs(120);

/// What dies, how long I/O may stand still, and how long the load goes on.
struct Death {
    name: &'static str,
    goal_ms: u64,
    load: Duration,
    strike: fn(&Cluster, &Volume) -> anyhow::Result<()>,
}

const DEATHS: [Death; 6] = [
    Death {
        name: "nothing dies",
        goal_ms: 100,
        load: Duration::from_secs(6),
        strike: |_, _| Ok(()),
    },
    Death {
        name: "blockd killed with SIGKILL",
        goal_ms: 500,
        load: Duration::from_secs(6),
        strike: |cluster, _| cluster.kill("blockd-n2"),
    },
    Death {
        name: "blockd stopped with SIGSTOP for 10 s",
        goal_ms: 6000,
        load: Duration::from_secs(16),
        strike: |cluster, _| {
            cluster.signal("blockd-n2", Signal::STOP)?;
            std::thread::sleep(Duration::from_secs(10));
            cluster.signal("blockd-n2", Signal::CONT)
        },
    },
    Death {
        name: "engine killed with SIGKILL",
        goal_ms: 2000,
        load: Duration::from_secs(8),
        strike: |cluster, volume| cluster.kill(&format!("engine-{}", volume.id)),
    },
    Death {
        name: "leading manager killed with SIGKILL",
        goal_ms: 100,
        load: Duration::from_secs(6),
        strike: |cluster, _| cluster.kill(&cluster.leader()?),
    },
    Death {
        name: "all managers killed with SIGKILL",
        goal_ms: 100,
        load: Duration::from_secs(6),
        strike: |cluster, _| (1..=3).try_for_each(|id| cluster.kill(&format!("meta-{id}"))),
    },
];

/// What one kind of death cost.
#[derive(Debug, Serialize)]
struct Gaps {
    what: &'static str,
    goal_ms: u64,
    /// The longest time without an answer, one for each round.
    gaps_ms: Vec<u64>,
}

/// Lets each part whose death has one of these names, or all, die so often under load.
pub(super) fn run(
    rounds: usize,
    names: &[String],
    base_port: u16,
    output: Output,
) -> anyhow::Result<()> {
    let wanted = |death: &&Death| {
        names.is_empty() || names.iter().any(|name| death.name.contains(name.as_str()))
    };
    let deaths: Vec<&Death> = DEATHS.iter().filter(wanted).collect();
    anyhow::ensure!(!deaths.is_empty(), "no death has such a name");
    let progress = Progress::start();
    progress.say("starting a cluster");
    let folder = Scratch::new("bench-gaps")?;
    let cluster = Cluster::up(&folder.path().join("cluster"), base_port)?;
    let measured = measure(&cluster, &deaths, rounds, &progress)?;
    cluster.destroy()?;
    match output {
        Output::Json => print_json(&measured)?,
        Output::Table => {
            println!("{:40} {:>8}  gaps ms", "what", "goal ms");
            for one in &measured {
                println!("{:40} {:>8}  {:?}", one.what, one.goal_ms, one.gaps_ms);
            }
        }
    }
    Ok(())
}

fn measure(
    cluster: &Cluster,
    deaths: &[&Death],
    rounds: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<Gaps>> {
    cluster.serve(VOLUME, VOLUME_SIZE)?;
    let mut measured = Vec::new();
    for death in deaths {
        let mut gaps_ms = Vec::new();
        for round in 1..=rounds {
            let gap_ms = gap(cluster, death)?;
            let name = death.name;
            progress.say(&format!("{name}, round {round} of {rounds}: {gap_ms} ms"));
            gaps_ms.push(gap_ms);
        }
        measured.push(Gaps {
            what: death.name,
            goal_ms: death.goal_ms,
            gaps_ms,
        });
    }
    Ok(measured)
}

fn gap(cluster: &Cluster, death: &Death) -> anyhow::Result<u64> {
    // New managers learn from the agent where its target is.
    let volume = cluster.wait_volume(VOLUME, HEALTHY_LIMIT, "healthy and served", |volume| {
        volume.health == "healthy" && !volume.url.is_empty()
    })?;
    let workload = Workload {
        depth: 8,
        mix: 50,
        duration: Some(WARM + death.load),
        ..Workload::new(&volume.url, Pattern::Randrw)
    };
    let load = std::thread::spawn(move || load::run(&workload));
    std::thread::sleep(WARM);
    let struck = (death.strike)(cluster, &volume);
    let report: Report = load.join().ok().context("the load panicked")??;
    struck?;
    cluster.start_missing()?;
    anyhow::ensure!(report.errors == 0, "{} operations failed", report.errors);
    Ok(report.longest_gap_ms)
}
