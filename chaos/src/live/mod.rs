//! Faults against a running cluster: real processes are killed and stopped, and the network between
//! them delays, narrows, holds, swallows and cuts, while a verifying load goes through a real
//! initiator; everything is looked at afterwards.
//!
//! Owns which fault comes when (one seed, [`fault`]), how it is carried out ([`strike`]), the
//! proxies that every connection of the cluster goes through ([`wires`]), the disk that can be filled
//! ([`small_disk`]), the load that goes on meanwhile ([`traffic`]), two volumes with one writer
//! ([`pair`], [`groups`]), how long the machine itself stood still ([`stall`]) and what must hold at
//! the end ([`verdict`]). Promises never
//! to take more than the volume survives: of the in-sync replicas one stays, or all processes are
//! killed at once, which leaves their data in the page cache. A run that finds something keeps its
//! folder and prints its seed; the seed fixes the order of the faults, not the machine's timing.

mod fault;
mod field;
mod groups;
mod pair;
mod silent;
mod small_disk;
mod stall;
mod strike;
mod traffic;
mod verdict;
mod wires;

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::cluster::{Cluster, Scratch};
use fault::Fault;
use field::{Field, SMALL};
use pair::Pair;
use small_disk::SmallDisk;
use stall::Stalls;
use strike::Struck;
use traffic::Traffic;
use verdict::Verdict;
use wires::Wires;

/// Apart from the ports of an operator's own dev cluster, the demo's and the conformance suite's.
pub const BASE_PORT: u16 = 17_500;
/// From the base port: the first one of the proxies, between those of the daemons and those of the
/// engines.
const FORWARDED_FROM: u16 = 40;
/// Each node has one.
const AGENTS: u16 = 3;
const VOLUME: &str = "live";
const VOLUME_SIZE: &str = "256MiB";
/// For rebuilds to end after the last fault.
const HEALTHY_LIMIT: Duration = Duration::from_secs(120);
/// Undisturbed time between two faults: long enough that I/O gaps belong to one of them.
const CALM: Duration = Duration::from_secs(2);

/// Strikes for so long, then heals and checks; how many checks passed and failed.
///
/// # Errors
///
/// When the cluster cannot be brought up or driven, which is no finding about the volume.
pub fn run(duration: Duration, seed: u64, base_port: u16) -> anyhow::Result<(usize, usize)> {
    let mut folder = Scratch::new("live")?;
    let forwarded_from = base_port.saturating_add(FORWARDED_FROM);
    let mut wires = Wires::start(base_port, forwarded_from, seed)?;
    let directory = folder.path().join("cluster");
    let image = folder.path().join("small-disk");
    // Where nothing may be mounted the run does without.
    let small_disk = SmallDisk::mount(&image, &directory.join(format!("blockd-{SMALL}")))
        .inspect_err(|error| println!("no disk is filled in this run: {error:#}"))
        .ok();
    let up = Cluster::up_forwarded(&directory, base_port, forwarded_from, AGENTS);
    let outcome = up.and_then(|cluster| {
        let parts = (&mut wires, small_disk.as_ref());
        let outcome = attack(&cluster, parts, &folder, duration, seed);
        // Whatever was found, no process stays.
        let down = cluster.down();
        outcome.and_then(|verdict| down.map(|()| verdict))
    });
    if !matches!(&outcome, Ok(verdict) if verdict.failed() == 0) {
        folder.keep();
        println!(
            "seed {seed}; data and logs stay in {}",
            folder.path().display()
        );
    }
    let verdict = outcome.with_context(|| format!("seed {seed}"))?;
    Ok((verdict.passed(), verdict.failed()))
}

fn attack(
    cluster: &Cluster,
    (wires, small_disk): (&mut Wires, Option<&SmallDisk>),
    folder: &Scratch,
    duration: Duration,
    seed: u64,
) -> anyhow::Result<Verdict> {
    let [volume, first, second] = field::volumes(cluster)?;
    let mut verdict = Verdict::default();
    let stalls = Stalls::start(folder.path())?;
    let end = Instant::now() + duration;
    let url = wires.stand_before(&volume.url)?;
    let mut field = Field {
        cluster,
        wires,
        small_disk,
        traffic: Traffic::start(&url, folder.path(), seed, end)?,
        pair: Pair::start([&first, &second])?,
    };
    let held = field.pair.goes_on();
    let held = held.and_then(|()| field.pair.reservation_holds());
    verdict.note("the first of the pair is reserved", held);
    let struck = strike(&mut field, end, seed)?;
    cluster.start_missing()?;
    field.traffic.finish(&mut verdict)?;
    report(&struck, &field.traffic, &stalls, &mut verdict)?;
    let held = field.pair.reservation_holds();
    verdict.note("the reservation is held", held);
    let pair = field.pair.finish();
    verdict.note("the pair's writer sees no error", pair.map(drop));
    let healthy = field.in_sync(3).and_then(|_| field.healthy());
    verdict.note("the volumes become healthy", healthy);
    verdict.note("the replicas read the same", silent::are_alike(cluster));
    verdict.note("a silent change is found", silent::is_found(cluster));
    let volume = cluster.volume(VOLUME)?;
    verdict.contents(&volume.url, &field.traffic.shadow());
    verdict.replicas(cluster, folder.path())?;
    Ok(verdict)
}

/// First what every run shows, then what chance brings.
fn strike(field: &mut Field<'_>, end: Instant, seed: u64) -> anyhow::Result<Vec<Struck>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut first = Fault::each_run(&mut random).into_iter();
    let mut struck = Vec::new();
    std::thread::sleep(CALM);
    while Instant::now() < end {
        let volumes = field.in_sync(2)?;
        let chosen = first.next();
        let fault = chosen.unwrap_or_else(|| Fault::choose(&mut random, &volumes));
        let one = strike::carry_out(&fault, field)?;
        println!("{}", serde_json::to_string(&one)?);
        struck.push(one);
        std::thread::sleep(CALM);
        field.traffic.still_runs(end)?;
    }
    Ok(struck)
}

/// One line for each kind of fault, with the longest gap in I/O that it caused.
fn report(
    struck: &[Struck],
    traffic: &Traffic,
    stalls: &Stalls,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let gaps = traffic.gaps()?;
    for summary in strike::summaries(struck, &gaps, stalls) {
        println!("{}", serde_json::to_string(&summary)?);
        let what = format!("I/O goes on through {}", summary.fault);
        let result = summary.within_limit();
        verdict.note(&what, result.as_ref().map(drop));
    }
    Ok(())
}
