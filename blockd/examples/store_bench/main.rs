//! Measures the replica store beside plain files on the same disk, in the same run.
//!
//! Both sides take turns in short rounds, and what is told is the median of the rounds' ratios: on
//! a small shared machine absolute figures mean little. `docs/performance.md` has the results.
//!
//! ```text
//! cargo run --release -p ankole-blockd --example store_bench -- [--json] [--only read,write]
//! ```

mod chain;
mod delete;
mod figures;
mod open;
mod plain;
mod random_io;
mod row;
mod seal;
mod store;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use row::Row;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Random reads from the page cache.
    Cached,
    /// Random reads, cached and not.
    Read,
    /// Random writes: first ones and overwrites.
    Write,
    /// Random overwrites with flushes.
    Flush,
    /// Snapshots.
    Seal,
    /// Loading a replica.
    Open,
    /// Merging a layer away beside I/O.
    Delete,
}

/// Measures the replica store beside plain files.
#[derive(Debug, Parser)]
struct Cli {
    /// Where the files go; a new folder in it, removed afterwards.
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
    /// Rounds of each case and side.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Sealed layers to read and write through; may be repeated. 0 only for reads and flushes.
    #[arg(long = "layers", default_values_t = [1, 50, 254])]
    layers: Vec<u64>,
    /// Size of the volume of the random cases and of the layer that is deleted, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// How many blocks of a hundred lie spread over all the layers of the random cases and the head;
    /// the others lie in the oldest layer.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=100))]
    scattered: u64,
    /// Only these; default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Everything measured, for programs.
    #[arg(long)]
    json: bool,
}

impl Cli {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // As the daemon does.
    ankole_blockd::disk::raise_open_files_limit()?;
    let folder = tempfile::Builder::new()
        .prefix("ankole-store-bench-")
        .tempdir_in(&cli.directory)?;
    let rows = measure(&cli, folder.path());
    folder.close()?;
    let rows = rows?;
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        row::print_table(&rows);
    }
    Ok(())
}

fn measure(cli: &Cli, folder: &std::path::Path) -> anyhow::Result<Vec<Row>> {
    let bytes = cli.mib << 20;
    let mut rows = Vec::new();
    if [Part::Cached, Part::Read, Part::Write, Part::Flush]
        .into_iter()
        .any(|part| cli.wants(part))
    {
        for &sealed in &cli.layers {
            let chain = chain::Chain {
                bytes,
                sealed,
                scattered: cli.scattered,
            };
            let mut bench = random_io::Bench::new(folder, chain, cli.rounds)?;
            if cli.wants(Part::Cached) || cli.wants(Part::Read) {
                rows.push(bench.cached_reads()?);
                rows.extend(bench.spread_reads()?);
            }
            if cli.wants(Part::Read) {
                rows.extend(bench.reads()?);
            }
            if cli.wants(Part::Write) {
                rows.extend(bench.writes()?);
            }
            if cli.wants(Part::Flush) {
                rows.extend(bench.flushes()?);
            }
            bench.remove()?;
        }
    }
    if cli.wants(Part::Seal) {
        rows.extend(seal::run(folder)?);
    }
    if cli.wants(Part::Open) {
        rows.extend(open::run(folder)?);
    }
    if cli.wants(Part::Delete) {
        rows.extend(delete::run(folder, bytes)?);
    }
    Ok(rows)
}
