//! A rebuild beside a plain copy of as many bytes on the same disk, and what it costs others.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::progress::Progress;
use super::{Output, print_json};
use crate::cluster::{Cluster, Scratch};
use crate::load::{self, Pattern, Report, Workload};

const VOLUME: &str = "bench";
const NODE: &str = "n3";
/// Of each phase.
const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
/// Of the load that notices the rebuild: far from what the volume can do, so that what it waits
/// for is not itself.
const RATE: u64 = 500;
const ALONE: Duration = Duration::from_secs(8);
const PIECE_BYTES: usize = 1 << 20;

/// How the load beside fared.
#[derive(Debug, Serialize)]
struct Latency {
    read_p50_us: u64,
    read_p99_us: u64,
    write_p50_us: u64,
    write_p99_us: u64,
}

impl From<&Report> for Latency {
    fn from(report: &Report) -> Self {
        Self {
            read_p50_us: report.reads.p50_us,
            read_p99_us: report.reads.p99_us,
            write_p50_us: report.writes.p50_us,
            write_p99_us: report.writes.p99_us,
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    mib: u64,
    /// Of a plain copy with a sync at its end: before and after the rebuild.
    copy_mib_per_second: [f64; 2],
    /// Of a rebuild in which every block differs, nothing beside it: from the blockd's start until
    /// the replica counts as in sync.
    rebuild_mib_per_second: f64,
    /// By the mean of the two copies.
    ratio: f64,
    /// Of a rebuild beside the load.
    rebuild_beside_load_mib_per_second: f64,
    /// The load: 70 reads to 30 writes of 4 KiB, so many a second.
    load_per_second: u64,
    /// It alone.
    alone: Latency,
    /// It beside the rebuild.
    beside: Latency,
}

/// Measures a rebuild of so many MiB.
pub(super) fn run(mib: u64, base_port: u16, output: Output) -> anyhow::Result<()> {
    let progress = Progress::start();
    progress.say("starting a cluster");
    let folder = Scratch::new("bench-rebuild")?;
    let cluster = Cluster::up(&folder.path().join("cluster"), base_port)?;
    let measured = measure(&cluster, folder.path(), mib, &progress)?;
    cluster.destroy()?;
    match output {
        Output::Json => print_json(&measured),
        Output::Table => {
            print(&measured);
            Ok(())
        }
    }
}

fn print(measured: &Measured) {
    let [before, after] = measured.copy_mib_per_second;
    println!("plain copy              {before:.0} and {after:.0} MiB/s");
    println!(
        "rebuild of {} MiB     {:.0} MiB/s, ratio {:.2}",
        measured.mib, measured.rebuild_mib_per_second, measured.ratio
    );
    println!(
        "rebuild beside a load   {:.0} MiB/s",
        measured.rebuild_beside_load_mib_per_second
    );
    for (name, latency) in [("alone", &measured.alone), ("beside", &measured.beside)] {
        println!(
            "load {name:6} p50/p99 us  reads {}/{}, writes {}/{}",
            latency.read_p50_us, latency.read_p99_us, latency.write_p50_us, latency.write_p99_us
        );
    }
}

fn measure(
    cluster: &Cluster,
    folder: &Path,
    mib: u64,
    progress: &Progress,
) -> anyhow::Result<Measured> {
    let url = cluster.serve(VOLUME, &format!("{mib}MiB"))?.url;
    progress.say(&format!("writing the whole volume, {mib} MiB"));
    overwrite(&url, mib, 1)?;
    progress.say("a load alone");
    let alone = Latency::from(&load::run(&beside(&url, Some(ALONE), None))?);
    progress.say("a plain copy");
    let before = copy(folder, mib)?;
    progress.say("writing the whole volume while a replica is away");
    fall_behind(cluster, &url, mib, 2)?;
    progress.say("its rebuild, alone");
    let rebuild = rebuild(cluster, mib)?;
    progress.say("a plain copy");
    let after = copy(folder, mib)?;
    progress.say("writing the whole volume while a replica is away");
    fall_behind(cluster, &url, mib, 3)?;
    progress.say("its rebuild, beside the load");
    let stop = Arc::new(AtomicBool::new(false));
    let workload = beside(&url, Some(LIMIT), Some(Arc::clone(&stop)));
    let load = std::thread::spawn(move || load::run(&workload));
    let rebuilt = self::rebuild(cluster, mib);
    stop.store(true, Ordering::Relaxed);
    let report = load.join().ok().context("the load panicked")??;
    Ok(Measured {
        mib,
        copy_mib_per_second: [before, after],
        rebuild_mib_per_second: rebuild,
        ratio: 2.0 * rebuild / (before + after),
        rebuild_beside_load_mib_per_second: rebuilt?,
        load_per_second: RATE,
        alone,
        beside: Latency::from(&report),
    })
}

fn beside(url: &str, duration: Option<Duration>, stop: Option<Arc<AtomicBool>>) -> Workload {
    Workload {
        duration,
        stop,
        rate: Some(RATE),
        ..Workload::new(url, Pattern::Randrw)
    }
}

/// Writes the whole volume, with other bytes for another seed.
fn overwrite(url: &str, mib: u64, seed: u64) -> anyhow::Result<()> {
    let workload = Workload {
        block_bytes: PIECE_BYTES as u64,
        depth: 4,
        duration: Some(LIMIT),
        operations: Some(mib),
        flush_every: 64,
        verify: true,
        seed,
        ..Workload::new(url, Pattern::Write)
    };
    let report = load::run(&workload)?;
    anyhow::ensure!(report.errors == 0, "{} writes failed", report.errors);
    let done = report.writes.operations;
    anyhow::ensure!(done == mib, "only {done} of {mib} writes within {LIMIT:?}");
    Ok(())
}

/// One replica misses that the whole volume is written.
fn fall_behind(cluster: &Cluster, url: &str, mib: u64, seed: u64) -> anyhow::Result<()> {
    cluster.kill(&format!("blockd-{NODE}"))?;
    overwrite(url, mib, seed)
}

/// Starts the blockd and waits until its replica is in sync; MiB per second.
fn rebuild(cluster: &Cluster, mib: u64) -> anyhow::Result<f64> {
    cluster.start_missing()?;
    // From when it is seen rebuilding: the daemon's start is not a matter of bytes.
    let deadline = Instant::now() + LIMIT;
    let mut begun = None;
    loop {
        let volume = cluster.volume(VOLUME)?;
        let now = Instant::now();
        if begun.is_none() && volume.count("rebuilding") > 0 {
            begun = Some(now);
        }
        if volume.count("in-sync") == 3 {
            let begun =
                begun.context("the rebuild was over before it was seen: take more --mib")?;
            return Ok(rate(mib, now - begun));
        }
        anyhow::ensure!(now < deadline, "no rebuild within {LIMIT:?}: {volume:?}");
        std::thread::sleep(POLL);
    }
}

/// Copies a file of so many MiB on the same disk and syncs it; MiB per second.
fn copy(folder: &Path, mib: u64) -> anyhow::Result<f64> {
    let (source, target) = (folder.join("source.raw"), folder.join("target.raw"));
    let mut piece = vec![0_u8; PIECE_BYTES];
    let mut file = File::create(&source)?;
    for number in 0..mib {
        rand::Rng::fill(&mut rand::rng(), &mut piece[..4096]);
        piece[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let start = Instant::now();
    let mut from = File::open(&source)?;
    let mut to = File::create(&target)?;
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            break;
        }
        to.write_all(piece.get(..count).unwrap_or_default())?;
    }
    to.sync_all()?;
    let rate = rate(mib, start.elapsed());
    std::fs::remove_file(&source)?;
    std::fs::remove_file(&target)?;
    Ok(rate)
}

fn rate(mib: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let mib = mib as f64;
    mib / time.as_secs_f64().max(f64::MIN_POSITIVE)
}
