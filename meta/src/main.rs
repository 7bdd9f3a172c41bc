//! `ankole-meta`: one of the managers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ankole_meta::api::{self, Reports};
use ankole_meta::daemon::{self, ServeArguments, ServeOptions};
use ankole_meta::raft::Managers;
use ankole_meta::reconcile::drive;
use ankole_meta::state::State;
use clap::{Parser, Subcommand};
use tonic::service::Routes;
use tracing_subscriber::EnvFilter;

/// For what the runtime still does after the manager has stopped.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    name = "ankole-meta",
    version,
    about = "A manager of an Ankole cluster"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a manager
    Serve(ServeArguments),
    /// Describe the store of a manager that does not run
    Inspect {
        /// Its directory
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The messages name their causes; a backtrace would only hide what to do.
            eprintln!("ankole-meta: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info,openraft=warn")))
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().command {
        Command::Serve(arguments) => serve(arguments.try_into()?),
        Command::Inspect { directory } => {
            print!("{}", daemon::report(&directory)?);
            Ok(())
        }
    }
}

fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(daemon::serve(options, services));
    runtime.shutdown_timeout(RUNTIME_STOP);
    Ok(outcome?)
}

/// What operators and daemons ask of a manager, and the loop that acts on it while it leads.
fn services(managers: Managers<State>) -> Routes {
    let reports = Arc::new(Reports::default());
    tokio::spawn(drive::run(managers.clone(), Arc::clone(&reports)));
    api::routes(managers, reports)
}
