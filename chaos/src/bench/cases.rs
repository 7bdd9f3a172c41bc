//! Kinds of load on a volume, on tgt, and where asked on a volume of another build.

use std::time::Duration;

use serde::Serialize;

use super::cpu::cpu_seconds;
use super::peer::Peer;
use super::{CasesArgs, OTHER_CLUSTER, Output, median, print_json, table};
use crate::cluster::{Cluster, Scratch};
use crate::load::{self, Pattern, Report, Workload};

const UNIT_BYTES: u64 = 1 << 30;
const VOLUME: &str = "bench";

/// One kind of load.
struct Case {
    name: &'static str,
    pattern: Pattern,
    block_bytes: u64,
    depth: usize,
    flush_every: u64,
    fua: bool,
}

const fn case(name: &'static str, pattern: Pattern, block_bytes: u64, depth: usize) -> Case {
    Case {
        name,
        pattern,
        block_bytes,
        depth,
        flush_every: 0,
        fua: false,
    }
}

const CASES: [Case; 9] = [
    case("read 4k, depth 1", Pattern::Randread, 4096, 1),
    case("read 4k, depth 16", Pattern::Randread, 4096, 16),
    case("write 4k, depth 1", Pattern::Randwrite, 4096, 1),
    case("write 4k, depth 16", Pattern::Randwrite, 4096, 16),
    case("70/30 4k, depth 32", Pattern::Randrw, 4096, 32),
    Case {
        flush_every: 1,
        ..case("write 4k, flush each", Pattern::Randwrite, 4096, 1)
    },
    Case {
        flush_every: 32,
        ..case("write 4k, flush per 32", Pattern::Randwrite, 4096, 16)
    },
    case("sequential read 1M, depth 4", Pattern::Read, 1 << 20, 4),
    case("sequential write 1M, depth 4", Pattern::Write, 1 << 20, 4),
];

/// One side of a comparison.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    /// What the load saw.
    pub(super) report: Report,
    /// CPU time of the unit's processes for each operation, in microseconds.
    pub(super) cpu_us_per_operation: f64,
}

/// What all sides did in one turn.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    /// The replicated volume.
    pub(super) volume: Side,
    /// The same of another build.
    pub(super) other: Option<Side>,
    /// tgt on a plain file.
    pub(super) tgt: Side,
}

/// A case measured on all units.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// What was done.
    pub(super) case: &'static str,
    /// Operations per second, volume by tgt: the median of the rounds.
    pub(super) ratio: f64,
    /// The other build by tgt.
    pub(super) other_ratio: Option<f64>,
    /// Each in turn.
    pub(super) rounds: Vec<Round>,
}

impl Comparison {
    fn new(case: &'static str, rounds: Vec<Round>) -> Self {
        let by_tgt = |side: &Side, round: &Round| {
            side.report.per_second() / round.tgt.report.per_second().max(f64::MIN_POSITIVE)
        };
        let ratios = rounds.iter().map(|round| by_tgt(&round.volume, round));
        let others = rounds
            .iter()
            .filter_map(|round| Some(by_tgt(round.other.as_ref()?, round)));
        Self {
            case,
            ratio: median(ratios.collect()).unwrap_or_default(),
            other_ratio: median(others.collect()),
            rounds,
        }
    }
}

/// A unit under load, and whose CPU time it costs.
struct Unit {
    url: String,
    pids: Vec<i32>,
}

/// Runs every case on all units; prints a table, or JSON.
pub(super) fn run(args: &CasesArgs, base_port: u16, output: Output) -> anyhow::Result<()> {
    let other_port = base_port.saturating_add(OTHER_CLUSTER);
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| {
            args.cases.is_empty() || args.cases.iter().any(|one| case.name.contains(one))
        })
        .collect();
    anyhow::ensure!(!cases.is_empty(), "no case has such a name");
    let folder = Scratch::new("bench")?;
    let cluster = Cluster::up(&folder.path().join("cluster"), base_port)?;
    let other = args
        .other
        .as_ref()
        .map(|binaries| Cluster::up_of(binaries, &folder.path().join("other"), other_port))
        .transpose();
    let measured = match &other {
        Ok(other) => measure(&cluster, other.as_ref(), &folder, &cases, args),
        Err(error) => Err(anyhow::anyhow!("the other build: {error:#}")),
    };
    cluster.destroy()?;
    if let Ok(Some(other)) = &other {
        other.destroy()?;
    }
    let measured = measured?;
    match output {
        Output::Json => print_json(&measured),
        Output::Table => {
            table::print(&measured);
            Ok(())
        }
    }
}

fn measure(
    cluster: &Cluster,
    other: Option<&Cluster>,
    folder: &Scratch,
    cases: &[&Case],
    args: &CasesArgs,
) -> anyhow::Result<Vec<Comparison>> {
    let peer = Peer::start(&folder.path().join("tgt.raw"), UNIT_BYTES)?;
    let tgt = Unit {
        url: peer.url().clone(),
        pids: vec![peer.pid()],
    };
    let volume = unit(cluster)?;
    let other = other.map(unit).transpose()?;
    for unit in [Some(&volume), other.as_ref(), Some(&tgt)]
        .into_iter()
        .flatten()
    {
        fill(&unit.url)?;
    }
    let duration = Duration::from_secs(args.seconds);
    let mut comparisons = Vec::new();
    for case in cases {
        eprintln!("{}", case.name);
        let rounds = (0..args.rounds.max(1)).map(|_| {
            Ok(Round {
                volume: side(&volume, case, duration)?,
                other: other
                    .as_ref()
                    .map(|unit| side(unit, case, duration))
                    .transpose()?,
                tgt: side(&tgt, case, duration)?,
            })
        });
        let rounds = rounds.collect::<anyhow::Result<_>>()?;
        comparisons.push(Comparison::new(case.name, rounds));
    }
    Ok(comparisons)
}

fn unit(cluster: &Cluster) -> anyhow::Result<Unit> {
    let volume = cluster.serve(VOLUME, "1GiB")?;
    let processes = cluster.status()?.processes;
    Ok(Unit {
        url: volume.url,
        pids: processes.iter().filter_map(|process| process.pid).collect(),
    })
}

/// Writes the whole unit once, so that both sides have every block allocated.
fn fill(url: &str) -> anyhow::Result<()> {
    let workload = Workload {
        block_bytes: 1 << 20,
        depth: 4,
        duration: None,
        operations: Some(UNIT_BYTES >> 20),
        flush_every: 64,
        ..Workload::new(url, Pattern::Write)
    };
    load::run(&workload).map(drop)
}

fn side(unit: &Unit, case: &Case, duration: Duration) -> anyhow::Result<Side> {
    let workload = Workload {
        block_bytes: case.block_bytes,
        depth: case.depth,
        flush_every: case.flush_every,
        fua: case.fua,
        duration: Some(duration),
        ..Workload::new(&unit.url, case.pattern)
    };
    let before = cpu_seconds(&unit.pids)?;
    let report = load::run(&workload)?;
    let used = cpu_seconds(&unit.pids)? - before;
    anyhow::ensure!(
        report.errors == 0,
        "{}: {} operations failed",
        case.name,
        report.errors
    );
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let operations = (report.reads.operations + report.writes.operations).max(1) as f64;
    Ok(Side {
        report,
        cpu_us_per_operation: used * 1e6 / operations,
    })
}
