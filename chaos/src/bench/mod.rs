//! Benchmarks: a replicated volume beside stock `tgt` on a plain file ([`cases`]), a rebuild beside a
//! plain copy ([`rebuild`]), and how long I/O stands still when something dies ([`gaps`]).
//!
//! Absolute figures of a small virtual machine mean little; the ratio to a peer that was measured
//! in the seconds before and after means something. So the sides take turns, in rounds, on the
//! same disk, and what is told is the median of the rounds' ratios.

mod cases;
mod cpu;
mod gaps;
mod peer;
mod progress;
mod rebuild;
mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// Apart from the ports of an operator's own dev cluster.
const BASE_PORT: u16 = 17_700;
/// From the base port: that of the other build's cluster.
const OTHER_CLUSTER: u16 = 220;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `ankole-chaos bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    cases: CasesArgs,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    /// The first of 420 ports that the clusters take.
    #[arg(long, default_value_t = BASE_PORT, global = true)]
    base_port: u16,
}

/// The default benchmark: kinds of load.
#[derive(Debug, Args)]
struct CasesArgs {
    /// For each case, side and round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often the sides take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only cases whose name holds this; may be repeated.
    #[arg(long = "case", value_name = "TEXT")]
    cases: Vec<String>,
    /// A folder with the binaries of another build, to be measured as a third side.
    #[arg(long, value_name = "FOLDER")]
    other: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Rebuild a replica, beside a plain copy of as many bytes, and what it costs a reader and
    /// writer meanwhile.
    Rebuild {
        /// Of the volume, all of it written.
        #[arg(long, default_value_t = 512)]
        mib: u64,
    },
    /// How long I/O stands still when a part of the cluster dies.
    Gaps {
        /// How often each part dies. A round takes about a minute.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Only deaths whose name holds this; may be repeated.
        #[arg(long = "death", value_name = "TEXT")]
        deaths: Vec<String>,
    },
}

/// Runs a benchmark and prints what it found.
///
/// # Errors
///
/// When the cluster or tgt cannot be started, or an operation fails.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let port = args.base_port;
    match &args.command {
        None => cases::run(&args.cases, port, args.output),
        Some(BenchCommand::Rebuild { mib }) => rebuild::run(*mib, port, args.output),
        Some(BenchCommand::Gaps { rounds, deaths }) => {
            gaps::run(*rounds, deaths, port, args.output)
        }
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// The middle one; of an even number the lower of the two. `None` of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_value_of_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0]), Some(1.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
    }
}
