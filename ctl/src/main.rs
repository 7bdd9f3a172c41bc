//! `ankole`: the operator's command. A client of the admin API like any other, and with
//! `ankole dev` a way to run a whole cluster on one machine.
//!
//! Owns how things are asked for and shown; decides nothing about volumes.

mod cli;
mod dev;
mod managers;
mod output;
mod size;
mod verbs;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start")),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(error) if output::is_unread(&error) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("ankole: {error:#}");
    ExitCode::FAILURE
}

async fn run(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        cli::Command::Dev(command) => return dev::run(command, cli.output).await,
        cli::Command::Volume(command) => verbs::volume(command, &cli.managers, cli.output).await?,
        cli::Command::Snapshot(command) => {
            verbs::snapshot(command, &cli.managers, cli.output).await?;
        }
        cli::Command::Node(command) => verbs::node(command, &cli.managers, cli.output).await?,
        cli::Command::Event(command) => verbs::event(command, &cli.managers, cli.output).await?,
        cli::Command::Cluster(command) => {
            verbs::cluster(command, &cli.managers, cli.output).await?
        }
    }
    Ok(ExitCode::SUCCESS)
}
