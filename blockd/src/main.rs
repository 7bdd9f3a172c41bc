//! `ankole-blockd`: the replica store of one node, and its offline tools.

mod tools;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ankole_blockd::daemon::{Config, Daemon, ScrubPace};
use ankole_blockd::disk::raise_open_files_limit;
use ankole_proto::NodeName;
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// An orderly end takes this long at most. What was acknowledged is in the system's hands, so a
/// daemon that ends less orderly loses nothing but time.
const STOP_DEADLINE: Duration = Duration::from_secs(9);

/// Stores replicas of volumes on local disks and serves them to engines.
#[derive(Debug, Parser)]
#[command(name = "ankole-blockd", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the replicas on this node's disks until it is told to stop.
    Serve(Serve),
    /// Prints what the replicas of a store say of themselves, without a daemon.
    Inspect(tools::InspectArgs),
    /// Compares every block of a store with its checksum, without a daemon. Fails when anything is
    /// wrong.
    Verify(tools::VerifyArgs),
    /// Writes a volume's contents to a raw, sparse file, without a daemon.
    Export(tools::ExportArgs),
}

#[derive(Debug, Args)]
struct Serve {
    /// This host's name among the nodes.
    #[arg(long)]
    node: NodeName,
    /// The failure domain it stands in.
    #[arg(long, default_value = "")]
    zone: String,
    /// A directory to store replicas in, on a disk of its own; repeat for more.
    #[arg(long = "disk", required = true, value_name = "PATH")]
    disks: Vec<PathBuf>,
    /// Where to serve the block protocol; port 0 takes any free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// A unix socket to serve it on too, for engines on this host.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Where engines on other hosts reach it, when that is not --listen.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// A manager's address; repeat for each of them.
    #[arg(long = "manager", required = true, value_name = "HOST:PORT")]
    managers: Vec<String>,
    /// Bytes that all scrubs together read each second.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20,
        value_parser = clap::value_parser!(u64).range(4096..))]
    scrub_rate: u64,
    /// Seconds from one scrub of a replica to the next; 0: only those that are asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 7 * 24 * 3600)]
    scrub_period: u64,
    /// Bytes per second that rebuilds may write to this node, all together; 0: no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = rebuild_rate)]
    rebuild_rate: u64,
}

/// The slowest that may be asked for: one MiB per second for each of two rebuilds.
const REBUILD_RATE_MIN: u64 = 2 << 20;

fn rebuild_rate(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) if bytes == 0 || bytes >= REBUILD_RATE_MIN => Ok(bytes),
        _ => Err(format!(
            "give {REBUILD_RATE_MIN} (2 MiB) or more bytes a second, or 0 for no limit"
        )),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let result = match cli.command {
        Command::Serve(serve) => run(serve),
        Command::Inspect(args) => tools::inspect(&args),
        Command::Verify(args) => tools::verify(&args),
        Command::Export(args) => tools::export(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(serve: Serve) -> anyhow::Result<ExitCode> {
    match raise_open_files_limit() {
        Ok(limit) => tracing::debug!(?limit, "open files allowed"),
        Err(error) => tracing::warn!("cannot raise the limit of open files: {error}"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime that waits for signals")?;
    // Before anything is started, so that no signal finds it half done.
    let (mut terminate, mut interrupt) = runtime.block_on(async {
        anyhow::Ok((
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ))
    })?;
    let daemon = Daemon::start(&Config {
        node: serve.node.clone(),
        zone: serve.zone,
        disks: serve.disks,
        listen: serve.listen,
        unix: serve.unix.clone(),
        advertise: serve.advertise,
        managers: serve.managers,
        scrub: ScrubPace {
            bytes_per_second: serve.scrub_rate,
            period: Duration::from_secs(serve.scrub_period),
        },
        rebuild_rate: serve.rebuild_rate,
    })?;
    announce(&serve.node, &daemon, serve.unix.as_deref())?;
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    tracing::info!("stopping");
    stop(daemon)
}

/// One line on standard output, for whoever started this: it listens, and where.
fn announce(
    node: &NodeName,
    daemon: &Daemon,
    unix: Option<&std::path::Path>,
) -> anyhow::Result<()> {
    let address = daemon.address();
    let unix = unix.map_or_else(String::new, |path| format!(" unix={}", path.display()));
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready node={node} listen={address}{unix}")?;
    out.flush()?;
    tracing::info!(%node, %address, "ready");
    Ok(())
}

/// Ends in order, or after [`STOP_DEADLINE`].
fn stop(daemon: Daemon) -> anyhow::Result<ExitCode> {
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            daemon.stop();
            // The other end waits until the deadline at most; nobody else listens.
            let _late = done.send(());
        })?;
    if wait.recv_timeout(STOP_DEADLINE).is_ok() {
        tracing::info!("stopped");
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!(
        "did not end within {STOP_DEADLINE:?}: a disk does not answer; nothing that was \
         acknowledged is lost"
    );
    Ok(ExitCode::FAILURE)
}
