//! Stopping a dev cluster, in the order in which nobody misses anybody: the agent (which would
//! restart engines), the engines (which close their replicas and tell the managers), the blockds,
//! the managers.

use anyhow::{Context, bail};

use super::layout::Layout;
use super::process::{self, Running};

const STAGES: [&str; 4] = ["agent", "engines", "blockds", "managers"];

/// At which of the stages a process is stopped.
fn stage(process: &Running) -> &'static str {
    let binary = process.arguments.first().map_or("", String::as_str);
    if process.is_engine() {
        "engines"
    } else if binary.ends_with("ankole-blockd") {
        "blockds"
    } else if binary.ends_with("ankole-meta") {
        "managers"
    } else {
        "agent"
    }
}

pub(super) async fn down(layout: &Layout, destroy: bool) -> anyhow::Result<()> {
    for name in STAGES {
        let mut processes = process::running(layout)?;
        processes.retain(|process| stage(process) == name);
        if !processes.is_empty() {
            eprintln!("stopping {name}");
            process::stop(layout, &processes).await?;
        }
    }
    if destroy {
        destroy_data(layout)
    } else {
        Ok(())
    }
}

/// Removes exactly what `up` made, so that a mistyped --directory costs nothing.
fn destroy_data(layout: &Layout) -> anyhow::Result<()> {
    for daemon in layout.daemons() {
        let data = layout.data(&daemon.name);
        match std::fs::remove_dir_all(&data) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).context(format!("cannot remove {}", data.display()));
            }
        }
    }
    std::fs::remove_file(layout.directory.join("dev.json"))
        .with_context(|| format!("cannot remove dev.json in {}", layout.directory.display()))?;
    match std::fs::remove_dir(&layout.directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            eprintln!("{} holds other files and stays", layout.directory.display());
            Ok(())
        }
        Err(error) => bail!("cannot remove {}: {error}", layout.directory.display()),
    }
}
