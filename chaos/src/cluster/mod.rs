//! A dev cluster of real processes, driven through the `ankole` command as an operator would.

mod command;
mod driver;
mod scratch;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::{self, Undo};
use driver::Driver;

pub use command::{capture, run};
pub use scratch::Scratch;
pub use view::{Comparison, Process, Replica, Snapshot, Status, Volume};

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(100);

/// A cluster in a folder of its own. Its processes end when this is dropped or the program is told
/// to end.
pub struct Cluster {
    driver: Driver,
    base_port: u16,
    forwarded_from: Option<u16>,
    agents: u16,
    managers: Vec<String>,
    /// Set while processes may run.
    undo: Mutex<Option<Undo>>,
}

/// The folder that the project's binaries lie in: this one's.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("cannot tell where this program lies")?;
    let path = here.with_file_name(name);
    ensure!(
        path.exists(),
        "{} is missing; run `cargo build --release` first",
        path.display()
    );
    Ok(path)
}

impl Cluster {
    /// Starts a cluster in this folder, or what of it does not run.
    pub fn up(directory: &Path, base_port: u16) -> anyhow::Result<Self> {
        Self::up_as(binary("ankole")?, directory, base_port, None, 1)
    }

    /// The same, with the binaries of another build.
    pub fn up_of(binaries: &Path, directory: &Path, base_port: u16) -> anyhow::Result<Self> {
        Self::up_as(binaries.join("ankole"), directory, base_port, None, 1)
    }

    /// The same, with so many agents, and with every connection between its processes going
    /// through ports that the caller forwards: see `ankole dev up --forwarded-from`.
    pub fn up_forwarded(
        directory: &Path,
        base_port: u16,
        forwarded_from: u16,
        agents: u16,
    ) -> anyhow::Result<Self> {
        let ankole = binary("ankole")?;
        Self::up_as(ankole, directory, base_port, Some(forwarded_from), agents)
    }

    fn up_as(
        ankole: PathBuf,
        directory: &Path,
        base_port: u16,
        forwarded_from: Option<u16>,
        agents: u16,
    ) -> anyhow::Result<Self> {
        let managers = (0..3)
            .map(|index| format!("127.0.0.1:{}", base_port + index))
            .collect();
        let cluster = Self {
            driver: Driver::new(ankole, directory),
            base_port,
            forwarded_from,
            agents,
            managers,
            undo: Mutex::default(),
        };
        cluster.start_missing()?;
        Ok(cluster)
    }

    /// Starts those of its processes that do not run.
    pub fn start_missing(&self) -> anyhow::Result<()> {
        let base_port = self.base_port.to_string();
        let agents = self.agents.to_string();
        let mut rest = vec!["--base-port", &base_port, "--agents", &agents];
        let forwarded_from = self.forwarded_from.map(|port| port.to_string());
        if let Some(port) = &forwarded_from {
            rest.extend(["--forwarded-from", port]);
        }
        let _starting = interrupt::starting()?;
        self.undo_slot().get_or_insert_with(|| {
            let driver = self.driver.clone();
            interrupt::undo_with(move || driver.end())
        });
        self.driver.dev(&["up"], &rest).map(drop)
    }

    fn undo_slot(&self) -> MutexGuard<'_, Option<Undo>> {
        self.undo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops every process.
    pub fn down(&self) -> anyhow::Result<()> {
        self.driver.dev(&["down"], &[])?;
        *self.undo_slot() = None;
        Ok(())
    }

    /// Stops every process and deletes the data.
    pub fn destroy(&self) -> anyhow::Result<()> {
        self.driver.dev(&["down", "--destroy"], &[])?;
        *self.undo_slot() = None;
        Ok(())
    }

    /// Runs `ankole` against this cluster and returns what it prints.
    pub fn ankole(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["--output", "json"];
        for manager in &self.managers {
            all.extend(["--manager", manager]);
        }
        all.extend(arguments);
        capture(&self.driver.ankole, &all)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<T> {
        let text = self.ankole(arguments)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`ankole {}` printed {text}", arguments.join(" ")))
    }

    /// What runs.
    pub fn status(&self) -> anyhow::Result<Status> {
        self.driver.status()
    }

    /// Creates a volume and serves it.
    pub fn serve(&self, name: &str, size: &str) -> anyhow::Result<Volume> {
        self.ankole(&["volume", "create", name, "--size", size])?;
        self.json(&["volume", "attach", name])
    }

    /// Creates a volume and serves it on this node.
    pub fn serve_on(&self, name: &str, size: &str, node: &str) -> anyhow::Result<Volume> {
        self.ankole(&["volume", "create", name, "--size", size])?;
        self.json(&["volume", "attach", name, "--node", node])
    }

    /// Takes a volume to this node, whatever the node that serves it says.
    pub fn move_by_force(&self, name: &str, node: &str) -> anyhow::Result<Volume> {
        self.json(&["volume", "attach", name, "--node", node, "--force"])
    }

    /// A volume as the managers see it.
    pub fn volume(&self, name: &str) -> anyhow::Result<Volume> {
        self.json(&["volume", "get", name])
    }

    /// Takes a snapshot.
    pub fn snapshot(&self, volume: &str, name: &str) -> anyhow::Result<Snapshot> {
        self.json(&["snapshot", "create", volume, name])
    }

    /// A volume's snapshots, oldest first.
    pub fn snapshots(&self, volume: &str) -> anyhow::Result<Vec<Snapshot>> {
        self.json(&["snapshot", "list", volume])
    }

    /// Sends a signal to a process of the cluster, by its name in the status.
    pub fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let status = self.status()?;
        let process = status.processes.iter().find(|process| process.name == name);
        let pid = process
            .and_then(|process| process.pid)
            .and_then(Pid::from_raw)
            .with_context(|| format!("{name} does not run"))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {name}"))
    }

    /// Kills a process with SIGKILL.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::KILL)
    }

    /// Kills every process of the cluster, engines included, at once.
    pub fn kill_all(&self) -> anyhow::Result<()> {
        self.driver.kill_all()
    }

    /// The name of the process of the leading manager.
    pub fn leader(&self) -> anyhow::Result<String> {
        let leader = self.status()?.cluster.context("no manager leads")?.leader;
        ensure!(leader != 0, "no manager leads");
        Ok(format!("meta-{leader}"))
    }

    /// Where a node's blockd stores its replicas.
    pub fn store(&self, node: &str) -> PathBuf {
        self.driver.directory.join(format!("blockd-{node}"))
    }

    /// Waits until the volume is what is asked for.
    pub fn wait_volume(
        &self,
        name: &str,
        limit: Duration,
        what: &str,
        reached: impl Fn(&Volume) -> bool,
    ) -> anyhow::Result<Volume> {
        let deadline = Instant::now() + limit;
        loop {
            let last = self.volume(name);
            if let Ok(volume) = &last
                && reached(volume)
            {
                return last;
            }
            if Instant::now() >= deadline {
                bail!(
                    "volume {name} is not {what} after {} s: {last:?}",
                    limit.as_secs()
                );
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.undo_slot().take().is_some() {
            // Whatever went wrong, no process is left behind.
            self.driver.end();
        }
    }
}
