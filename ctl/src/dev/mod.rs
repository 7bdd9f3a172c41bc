//! `ankole dev`: three managers, three blockds and one or more agents as real processes on this machine,
//! with their data under one directory and their ports from one base.
//!
//! Everything that is needed to find the cluster again stands in `dev.json` in that directory;
//! what runs is read off the process table, so that neither a crash of this command nor a process
//! that died can mislead it.

mod down;
mod layout;
mod process;
mod status;
mod up;

use std::process::ExitCode;

pub(crate) use layout::manager_addresses;

use crate::cli::{DevCommand, Output};
use layout::{Layout, Shape};

pub(crate) async fn run(command: DevCommand, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        DevCommand::Up {
            place,
            forwarded_from,
            agents,
        } => {
            let shape = Shape {
                forwarded_from,
                agents,
            };
            let layout = Layout::create(&place, shape)?;
            up::up(&layout).await?;
            status::status(&layout, output).await
        }
        DevCommand::Down { place, destroy } => {
            down::down(&Layout::open(&place)?, destroy).await?;
            Ok(ExitCode::SUCCESS)
        }
        DevCommand::Status(place) => status::status(&Layout::open(&place)?, output).await,
    }
}
