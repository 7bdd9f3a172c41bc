//! What runs, and whether the cluster works.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::layout::Layout;
use super::process;
use crate::cli::Output;
use crate::managers::Managers;
use crate::output::{self, Row};
use crate::verbs;
use crate::view::{ClusterView, NodeView};

#[derive(Debug, Serialize)]
struct ProcessView {
    name: String,
    state: &'static str,
    pid: Option<i32>,
    address: String,
    directory: String,
}

impl Row for ProcessView {
    const COLUMNS: &'static [&'static str] = &["PROCESS", "STATE", "PID", "ADDRESS", "DIRECTORY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.to_owned(),
            self.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            if self.address.is_empty() {
                "-".to_owned()
            } else {
                self.address.clone()
            },
            self.directory.clone(),
        ]
    }
}

#[derive(Debug, Serialize)]
struct StatusView {
    directory: String,
    managers: Vec<String>,
    processes: Vec<ProcessView>,
    cluster: Option<ClusterView>,
    nodes: Vec<NodeView>,
}

/// Prints the state of the cluster; the exit code says whether all of it runs.
pub(super) async fn status(layout: &Layout, output: Output) -> anyhow::Result<ExitCode> {
    let processes = processes(layout)?;
    let all_run = processes.iter().all(|process| process.pid.is_some());
    let any_manager = processes
        .iter()
        .any(|process| process.name.starts_with("meta-") && process.pid.is_some());
    let mut managers = Managers::at(layout.managers(), Duration::from_secs(5));
    let (cluster, nodes) = if any_manager {
        let cluster = verbs::cluster_view(&mut managers).await.ok();
        (
            cluster,
            verbs::nodes(&mut managers).await.unwrap_or_default(),
        )
    } else {
        (None, Vec::new())
    };
    let status = StatusView {
        directory: layout.directory.display().to_string(),
        managers: layout.managers(),
        processes,
        cluster,
        nodes,
    };
    print(&status, output)?;
    Ok(if all_run && status.cluster.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(status: &StatusView, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return output::json(status);
    }
    output::line(output::table(&status.processes))?;
    output::line("")?;
    match &status.cluster {
        Some(cluster) => {
            output::line(cluster.heading())?;
            output::line(output::table(&status.nodes))?;
        }
        None => output::line("no leading manager answers")?,
    }
    Ok(())
}

fn processes(layout: &Layout) -> anyhow::Result<Vec<ProcessView>> {
    let running = process::running(layout)?;
    let daemons = layout.daemons();
    let mut views: Vec<ProcessView> = daemons
        .iter()
        .map(|daemon| {
            let pid = running.iter().find(|now| now.is(daemon)).map(|now| now.pid);
            ProcessView {
                name: daemon.name.clone(),
                state: if pid.is_some() { "running" } else { "stopped" },
                pid,
                address: daemon.address.clone(),
                directory: layout.data(&daemon.name).display().to_string(),
            }
        })
        .collect();
    views.extend(
        running
            .iter()
            .filter(|now| now.is_engine())
            .map(|engine| ProcessView {
                name: format!("engine-{}", engine.flag("--volume").unwrap_or("?")),
                state: "running",
                pid: Some(engine.pid),
                address: engine.flag("--listen").unwrap_or_default().to_owned(),
                directory: engine.flag("--directory").unwrap_or_default().to_owned(),
            }),
    );
    Ok(views)
}
