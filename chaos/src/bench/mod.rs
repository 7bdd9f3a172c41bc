//! The benchmark: a replicated volume beside stock `tgt` on a plain file, in the same run on the
//! same disk, as ratios.
//!
//! Absolute figures of a small virtual machine mean little; the ratio to a peer that was measured
//! in the seconds before and after means something. Cases alternate between the two units.

mod cpu;
mod peer;
mod table;

use std::time::Duration;

use serde::Serialize;

use crate::cluster::{Cluster, Scratch};
use crate::load::{self, Pattern, Report, Workload};
use cpu::cpu_seconds;
use peer::Peer;

/// Apart from the ports of an operator's own dev cluster.
const BASE_PORT: u16 = 17_600;
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
pub struct Side {
    /// What the load saw.
    pub report: Report,
    /// CPU time of the unit's processes for each operation, in microseconds.
    pub cpu_us_per_operation: f64,
}

/// A case measured on both units.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What was done.
    pub case: &'static str,
    /// The replicated volume.
    pub volume: Side,
    /// tgt on a plain file.
    pub tgt: Side,
}

/// Runs every case for so long on both units; prints a table, or JSON.
pub fn run(seconds: u64, json: bool) -> anyhow::Result<()> {
    let folder = Scratch::new("bench")?;
    let cluster = Cluster::up(&folder.path().join("cluster"), BASE_PORT)?;
    let measured = measure(&cluster, &folder, Duration::from_secs(seconds));
    cluster.destroy()?;
    let measured = measured?;
    if json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        table::print(&measured);
    }
    Ok(())
}

fn measure(
    cluster: &Cluster,
    folder: &Scratch,
    duration: Duration,
) -> anyhow::Result<Vec<Comparison>> {
    let volume = cluster.serve(VOLUME, "1GiB")?;
    let peer = Peer::start(&folder.path().join("tgt.raw"), UNIT_BYTES)?;
    for url in [&volume.url, peer.url()] {
        fill(url)?;
    }
    let mut comparisons = Vec::new();
    for case in &CASES {
        eprintln!("{}", case.name);
        let pids = || -> anyhow::Result<Vec<i32>> {
            Ok(cluster
                .status()?
                .processes
                .iter()
                .filter_map(|process| process.pid)
                .collect())
        };
        let ours = side(&volume.url, case, duration, &pids()?)?;
        let theirs = side(peer.url(), case, duration, &[peer.pid()])?;
        comparisons.push(Comparison {
            case: case.name,
            volume: ours,
            tgt: theirs,
        });
    }
    Ok(comparisons)
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

fn side(url: &str, case: &Case, duration: Duration, pids: &[i32]) -> anyhow::Result<Side> {
    let workload = Workload {
        block_bytes: case.block_bytes,
        depth: case.depth,
        flush_every: case.flush_every,
        fua: case.fua,
        duration: Some(duration),
        ..Workload::new(url, case.pattern)
    };
    let before = cpu_seconds(pids)?;
    let report = load::run(&workload)?;
    let used = cpu_seconds(pids)? - before;
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
