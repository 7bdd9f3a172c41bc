//! `ankole-chaos`: the command line of everything that attacks Ankole.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ankole_chaos::load::{self, Durable, Pattern, Workload};
use ankole_chaos::{bench, conformance, demo, fuzz, interrupt, live, sim};
use clap::{Args, Parser, Subcommand};

/// Attacks and measures Ankole.
#[derive(Debug, Parser)]
#[command(name = "ankole-chaos", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a load on an iSCSI unit and print latencies as JSON.
    Load(LoadArgs),
    /// Read back everything that a load with --shadow has written, after any crash.
    Check {
        /// iscsi://HOST:PORT/IQN/LUN.
        #[arg(long)]
        url: String,
        /// The load's shadow file.
        #[arg(long)]
        shadow: PathBuf,
        /// What must still be there.
        #[arg(long, value_enum, default_value_t = Durable::Acknowledged)]
        durable: Durable,
    },
    /// Run families of libiscsi's conformance suite against a unit that may be overwritten.
    Conformance {
        /// iscsi://HOST:PORT/IQN/LUN; default: a volume of a cluster of its own.
        #[arg(long)]
        url: Option<String>,
        /// A family such as Read10; may be repeated. Default: the basic ones.
        #[arg(long = "family")]
        families: Vec<String>,
        /// Every family that the suite knows.
        #[arg(long, conflicts_with = "families")]
        all: bool,
    },
    /// Run the real decision code in the deterministic simulator.
    Sim {
        /// How many seeds.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Replay one seed, with a readable trace.
        #[arg(long, conflicts_with_all = ["seeds", "first"])]
        seed: Option<u64>,
    },
    /// Run the fuzz targets of the engine and of what blockd reads from disks.
    Fuzz {
        /// For how long each target.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Where chance begins. Default: another one each time; it is printed.
        #[arg(long)]
        seed: Option<u64>,
        /// A target; may be repeated. Default: all.
        #[arg(long = "target")]
        targets: Vec<String>,
        /// One input, as printed when it failed.
        #[arg(long, requires_all = ["seed", "targets"])]
        input: Option<u64>,
    },
    /// Kill and stop the processes of a cluster of its own under a verifying load, then check.
    Live {
        /// For how long faults strike.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Which faults, in which order. Default: another one each time; it is printed.
        #[arg(long)]
        seed: Option<u64>,
        /// The first of 220 ports that the cluster takes.
        #[arg(long, default_value_t = live::BASE_PORT)]
        base_port: u16,
    },
    /// Measure a volume beside stock tgt on a plain file, in the same run.
    Bench(bench::BenchArgs),
    /// Show that a replicated volume survives what it promises to survive.
    Demo {
        /// Where the cluster's data goes. Default: a new folder, removed afterwards.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// iscsi://HOST:PORT/IQN/LUN.
    #[arg(long)]
    url: String,
    /// Which operations.
    #[arg(long, value_enum, default_value_t = Pattern::Randread)]
    rw: Pattern,
    /// Reads in a hundred operations of randrw.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    mix: u8,
    /// Bytes of an operation.
    #[arg(long, default_value_t = 4096)]
    block: u64,
    /// Operations in flight per session.
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Sessions.
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// How long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// End after so many operations.
    #[arg(long)]
    operations: Option<u64>,
    /// Where the region begins.
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// Bytes of the region; default: to the unit's end.
    #[arg(long)]
    size: Option<u64>,
    /// A flush after so many writes.
    #[arg(long, default_value_t = 0)]
    flush_every: u64,
    /// Force unit access on every write.
    #[arg(long)]
    fua: bool,
    /// Write self-describing sectors and verify what is read.
    #[arg(long)]
    verify: bool,
    /// Remember what was written here, for `check`.
    #[arg(long, requires = "verify")]
    shadow: Option<PathBuf>,
    /// Write times of 100 ms and more without an answer here, as JSON lines.
    #[arg(long)]
    gaps: Option<PathBuf>,
    /// What a read must at least return.
    #[arg(long, value_enum, default_value_t = Durable::Acknowledged)]
    durable: Durable,
    /// Operations per second, open loop.
    #[arg(long)]
    rate: Option<u64>,
    /// Of places and contents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CRC32C on PDU headers.
    #[arg(long)]
    digest: bool,
    /// Give up when the connection breaks.
    #[arg(long)]
    no_reconnect: bool,
    /// Seconds after which an unanswered command has failed.
    #[arg(long)]
    timeout: Option<u64>,
}

impl From<LoadArgs> for Workload {
    fn from(args: LoadArgs) -> Self {
        Self {
            mix: args.mix,
            block_bytes: args.block,
            depth: args.depth,
            sessions: args.sessions,
            duration: Some(Duration::from_secs(args.seconds)),
            operations: args.operations,
            offset: args.offset,
            size: args.size,
            flush_every: args.flush_every,
            fua: args.fua,
            verify: args.verify,
            shadow: args.shadow,
            gaps: args.gaps,
            durable: args.durable,
            rate: args.rate,
            seed: args.seed,
            header_digest: args.digest,
            reconnect: !args.no_reconnect,
            timeout: args.timeout.map(Duration::from_secs),
            ..Self::new(&args.url, args.rw)
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = interrupt::watch().and_then(|()| run(command));
    interrupt::settle();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ankole-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as it must be.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Load(args) => {
            let report = load::run(&args.into())?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(report.errors == 0 && report.mismatches == 0)
        }
        Command::Check {
            url,
            shadow,
            durable,
        } => {
            let findings = load::check(&url, &shadow, durable)?;
            println!("{}", serde_json::to_string_pretty(&findings)?);
            Ok(findings.mismatches == 0)
        }
        Command::Conformance { url, families, all } => {
            let families = if all {
                conformance::families()?
            } else {
                families
            };
            let totals = conformance::run(url.as_deref(), &families)?;
            println!("{totals}");
            Ok(totals.failed == 0)
        }
        Command::Fuzz {
            seconds,
            seed,
            targets,
            input,
        } => {
            let seed = seed.unwrap_or_else(rand::random);
            println!("seed {seed}");
            let (passed, failed) = fuzz::run(&fuzz::Plan {
                time: Duration::from_secs(seconds),
                seed,
                targets: &targets,
                input,
            })?;
            println!("{passed} passed, {failed} failed");
            Ok(failed == 0)
        }
        Command::Sim {
            seed: Some(seed), ..
        } => replay(seed),
        Command::Sim {
            seeds,
            first,
            seed: None,
        } => {
            let (passed, failed) = sim::run_seeds(first, seeds);
            println!("{passed} passed, {failed} failed");
            Ok(failed == 0)
        }
        Command::Live {
            seconds,
            seed,
            base_port,
        } => {
            let seed = seed.unwrap_or_else(rand::random);
            println!("seed {seed}");
            let (passed, failed) = live::run(Duration::from_secs(seconds), seed, base_port)?;
            println!("{passed} passed, {failed} failed");
            Ok(failed == 0)
        }
        Command::Bench(args) => bench::run(&args).map(|()| true),
        Command::Demo { directory } => demo::run(directory.as_deref()).map(|()| true),
    }
}

fn replay(seed: u64) -> anyhow::Result<bool> {
    let (result, same) = sim::replay(seed);
    anyhow::ensure!(
        same,
        "seed {seed} did not go the same way twice: the simulator is at fault"
    );
    match result {
        Ok(summary) => println!("seed {seed}: no violation, {summary:?}"),
        Err(violation) => {
            println!("{violation}");
            return Ok(false);
        }
    }
    Ok(true)
}
