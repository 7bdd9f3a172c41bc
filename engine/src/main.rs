//! `ankole-engine`: `run` serves one volume, `agent` supervises the engines of a node.

use std::io::IsTerminal;
use std::process::ExitCode;

use ankole_engine::agent::{self, AgentArgs};
use ankole_engine::run::directory::EngineDirectory;
use ankole_engine::run::log::BoundedLog;
use ankole_engine::run::{self, RunArgs};
use anyhow::Context;
use clap::Parser;
use tokio::task::LocalSet;
use tracing_subscriber::EnvFilter;

/// The engine of Ankole: an iSCSI target that mirrors every write to a volume's replicas.
#[derive(Debug, Parser)]
#[command(name = "ankole-engine", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve one volume
    Run(RunArgs),
    /// Supervise the engines of this node
    Agent(AgentArgs),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(args) => serve_volume(args),
        Command::Agent(args) => supervise(args),
    };
    match result {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("ankole-engine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve_volume(args: RunArgs) -> anyhow::Result<i32> {
    if std::io::stderr().is_terminal() {
        log_to_stderr();
    } else {
        let directory = EngineDirectory::new(&args.directory);
        directory.create()?;
        let path = directory.log_path();
        let log = BoundedLog::open(&path)
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter())
            .with_ansi(false)
            .with_writer(move || log.clone())
            .init();
    }
    let span = tracing::info_span!("engine", volume = %args.volume, epoch = %args.epoch);
    let _entered = span.enter();
    Ok(block_on(run::run(args))??)
}

fn supervise(args: AgentArgs) -> anyhow::Result<i32> {
    log_to_stderr();
    block_on(agent::run(args))??;
    Ok(run::exit::CLOSED)
}

/// Everything runs on this thread. The future is a task like those that it starts: what woke it
/// would otherwise be looked at only after the sockets, a system call later.
fn block_on<T: 'static>(future: impl Future<Output = T> + 'static) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let tasks = LocalSet::new();
    let main = tasks.spawn_local(future);
    match tasks.block_on(&runtime, main) {
        Ok(output) => Ok(output),
        // Nobody aborts it.
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))
}
