//! `ankole dev` on one folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::command::capture;
use super::view::Status;

/// Who drives the processes of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    /// It starts the daemons that lie beside it.
    pub(super) ankole: PathBuf,
    pub(super) directory: PathBuf,
}

impl Driver {
    pub(super) fn new(ankole: PathBuf, directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { ankole, directory }
    }

    /// Runs `ankole dev` and returns what it prints.
    pub(super) fn dev(&self, verb: &[&str], rest: &[&str]) -> anyhow::Result<String> {
        let directory = self.directory.display().to_string();
        let mut arguments = vec!["--output", "json", "dev"];
        arguments.extend(verb);
        arguments.extend(["--directory", &directory]);
        arguments.extend(rest);
        capture(&self.ankole, &arguments)
    }

    /// What runs. `ankole dev status` fails when something does not; that is no error here.
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        let output = Command::new(&self.ankole)
            .args(["--output", "json", "dev", "status", "--directory"])
            .arg(&self.directory)
            .output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("ankole dev status: {said}")
        })
    }

    /// Kills every process of the cluster, engines included, at once.
    pub(super) fn kill_all(&self) -> anyhow::Result<()> {
        let processes = self.status()?.processes;
        let pids: Vec<Pid> = processes
            .iter()
            .filter_map(|process| process.pid.and_then(Pid::from_raw))
            .collect();
        for pid in pids {
            // One may have ended since it was listed.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }

    /// Ends every process, those that are stopped as well.
    pub(super) fn end(&self) {
        let killed = self.kill_all();
        let down = self.dev(&["down"], &[]);
        if let Err(error) = killed.map(drop).and(down.map(drop)) {
            eprintln!(
                "processes of the cluster in {} may be left: {error:#}",
                self.directory.display()
            );
        }
    }
}
