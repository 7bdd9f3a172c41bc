//! The deterministic simulator: a whole cluster in one process, from one seed.
//!
//! Real are the mirror core, the replica code, the agents' plan, and the managers' state machine,
//! planner and orders: everything that decides about data. Simulated are the clock, the network
//! ([`network`]), the disks (`ankole_blockd::disk::sim`, which lose what was not synced), the
//! processes that crash and come back ([`host`], [`agent`], [`engine`]), and the managers' log and
//! leader ([`fleet`], `world::proposals`).
//!
//! A run puts a random load on some volumes ([`workload`]) while people move and change them
//! (`world::operator`) and faults strike ([`faults`]); then everything is healed, and all volumes
//! must become healthy within a bounded time. [`history`] and [`checker`] watch: a wrong answer, or
//! a state that an invariant forbids, ends the run as a failure. The same seed gives the same trace.

mod agent;
pub mod checker;
mod engine;
mod faults;
mod fleet;
mod history;
mod host;
pub mod mutation;
mod network;
mod schedule;
mod trace;
mod workload;
mod world;

use std::fmt;
use std::time::{Duration, Instant};

use checker::Checker;
use mutation::Mutation;
pub use trace::Trace;
use world::World;

/// A run that found a violation.
#[derive(Debug)]
pub struct Violation {
    /// Reproduces it.
    pub seed: u64,
    /// When, in simulated time since the start.
    pub at: Duration,
    /// Who noticed it.
    pub by: Checker,
    /// What was violated, and how.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64();
        write!(
            f,
            "seed {} after {at:.6} s: {:?}: {}",
            self.seed, self.by, self.what
        )
    }
}

/// What happened in runs without violation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Reads that were answered with data.
    pub reads: u64,
    /// Mutations that were acknowledged.
    pub writes: u64,
    /// Flushes that were acknowledged.
    pub flushes: u64,
    /// Snapshots that were completed.
    pub snapshots: u64,
    /// Returns to a snapshot that were completed.
    pub reverts: u64,
    /// Groups of snapshots that were completed and outlived the run.
    pub groups: u64,
    /// Volumes that were created as clones.
    pub clones: u64,
    /// Snapshots that were deleted and merged away.
    pub deletions: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Engines that were started.
    pub engines: u64,
    /// Rebuilds that were completed.
    pub rebuilds: u64,
    /// Comparisons of replicas with each other that were made.
    pub comparisons: u64,
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.snapshots += other.snapshots;
        self.reverts += other.reverts;
        self.groups += other.groups;
        self.clones += other.clones;
        self.deletions += other.deletions;
        self.failures += other.failures;
        self.faults += other.faults;
        self.engines += other.engines;
        self.rebuilds += other.rebuilds;
        self.comparisons += other.comparisons;
    }
}

/// Runs one seed.
pub fn run_seed(seed: u64, trace: &mut Trace) -> Result<Summary, Violation> {
    run_mutated(seed, None, trace)
}

/// Runs one seed with something broken on purpose.
pub fn run_mutated(
    seed: u64,
    mutation: Option<Mutation>,
    trace: &mut Trace,
) -> Result<Summary, Violation> {
    let mut world = World::new(seed, mutation, std::mem::take(trace));
    let result = world.run();
    *trace = world.into_trace();
    result
}

/// The first violation that a broken variant leads to and that a checker of its own notices,
/// within so many seeds. What others notice before does not count, nor does a seed that finds
/// something in the intact code, too.
pub fn find(mutation: Mutation, seeds: u64) -> Option<Violation> {
    (0..seeds)
        .filter_map(|seed| run_mutated(seed, Some(mutation), &mut Trace::off()).err())
        .filter(|violation| mutation.noticed_by().contains(&violation.by))
        .find(|violation| run_seed(violation.seed, &mut Trace::off()).is_ok())
}

/// Runs this many seeds from `first` on; prints each violation as it is found and the sum at the
/// end. Returns how many runs were clean and how many were not.
pub fn run_seeds(first: u64, count: u64) -> (u64, u64) {
    let start = Instant::now();
    let mut summary = Summary::default();
    let (mut clean, mut violated) = (0, 0);
    for seed in first..first.saturating_add(count) {
        match run_seed(seed, &mut Trace::off()) {
            Ok(run) => {
                summary.add(run);
                clean += 1;
            }
            Err(violation) => {
                println!("{violation}");
                violated += 1;
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("{count} seeds, {rate:.1} per second: {summary:?}");
    (clean, violated)
}

/// Runs one seed with a readable trace on standard output, twice, and says whether both runs went
/// the same way.
pub fn replay(seed: u64) -> (Result<Summary, Violation>, bool) {
    let mut shown = Trace::printed();
    let first = run_seed(seed, &mut shown);
    let mut silent = Trace::off();
    // The verdict of the second run is the first's, if the traces are equal.
    let _ = run_seed(seed, &mut silent);
    let same = shown.fingerprint() == silent.fingerprint();
    (first, same)
}

#[cfg(test)]
mod tests;
