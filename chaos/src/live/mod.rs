//! Faults against a running cluster: real processes are killed and stopped, and the network between
//! them delays, narrows, holds, swallows and cuts, while a verifying load goes through a real
//! initiator; everything is looked at afterwards.
//!
//! Owns which fault comes when (one seed, [`fault`]), how it is carried out ([`strike`]), the
//! proxies that every connection of the cluster goes through ([`wires`]), the load
//! that goes on meanwhile ([`traffic`]) and what must hold at the end ([`verdict`]). Promises never
//! to take more than the volume survives: of the in-sync replicas one stays, or all processes are
//! killed at once, which leaves their data in the page cache. A run that finds something keeps its
//! folder and prints its seed; the seed fixes the order of the faults, not the machine's timing.

mod fault;
mod strike;
mod traffic;
mod verdict;
mod wires;

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::cluster::{Cluster, Scratch, Volume};
use fault::Fault;
use strike::Struck;
use traffic::Traffic;
use verdict::Verdict;
use wires::Wires;

/// Apart from the ports of an operator's own dev cluster, the demo's and the conformance suite's.
const BASE_PORT: u16 = 17_500;
/// The first port of the proxies, between those of the daemons and those of the engines.
const FORWARDED_FROM: u16 = BASE_PORT + 40;
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
pub fn run(duration: Duration, seed: u64) -> anyhow::Result<(usize, usize)> {
    let mut folder = Scratch::new("live")?;
    let mut wires = Wires::start(BASE_PORT, FORWARDED_FROM, seed)?;
    let directory = folder.path().join("cluster");
    let up = Cluster::up_forwarded(&directory, BASE_PORT, FORWARDED_FROM);
    let outcome = up.and_then(|cluster| {
        let outcome = attack(&cluster, &mut wires, &folder, duration, seed);
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
    wires: &mut Wires,
    folder: &Scratch,
    duration: Duration,
    seed: u64,
) -> anyhow::Result<Verdict> {
    let volume = cluster.serve(VOLUME, VOLUME_SIZE)?;
    let mut verdict = Verdict::default();
    let end = Instant::now() + duration;
    let url = wires.stand_before(&volume.url)?;
    let mut traffic = Traffic::start(&url, folder.path(), seed, end)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut struck = Vec::new();
    std::thread::sleep(CALM);
    while Instant::now() < end {
        struck.push(strike_once(cluster, wires, &mut traffic, &mut random)?);
        std::thread::sleep(CALM);
        traffic.still_runs(end)?;
    }
    cluster.start_missing()?;
    traffic.finish(&mut verdict)?;
    report(&struck, &traffic, &mut verdict)?;
    let healthy = cluster.wait_volume(VOLUME, HEALTHY_LIMIT, "healthy", |volume| {
        volume.health == "healthy" && volume.count("in-sync") == 3
    });
    verdict.note("the volume becomes healthy", healthy.as_ref().map(drop));
    verdict.contents(&volume.url, &traffic.shadow());
    let last: Volume = healthy.or_else(|_| cluster.volume(VOLUME))?;
    verdict.replicas(cluster, folder.path(), &last)?;
    Ok(verdict)
}

fn strike_once(
    cluster: &Cluster,
    wires: &Wires,
    traffic: &mut Traffic,
    random: &mut StdRng,
) -> anyhow::Result<Struck> {
    let volume = cluster.wait_volume(VOLUME, HEALTHY_LIMIT, "in sync twice", |volume| {
        volume.count("in-sync") >= 2
    })?;
    let fault = Fault::choose(random, &volume);
    let struck = strike::carry_out(fault, cluster, VOLUME, traffic, wires)?;
    println!("{}", serde_json::to_string(&struck)?);
    Ok(struck)
}

/// One line for each kind of fault, with the longest gap in I/O that it caused.
fn report(struck: &[Struck], traffic: &Traffic, verdict: &mut Verdict) -> anyhow::Result<()> {
    let gaps = traffic.gaps()?;
    for summary in strike::summaries(struck, &gaps) {
        println!("{}", serde_json::to_string(&summary)?);
        let what = format!("I/O goes on through {}", summary.fault);
        let result = summary.within_limit();
        verdict.note(&what, result.as_ref().map(drop));
    }
    Ok(())
}
