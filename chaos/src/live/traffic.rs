//! The verifying load, as a process of its own, so that it can be killed as well.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::verdict::Verdict;
use crate::load::{self, Gap};

/// After the load's own time and its patience with unanswered operations.
const END_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// A load that runs.
pub(super) struct Traffic {
    url: String,
    folder: PathBuf,
    seed: u64,
    end: Instant,
    child: Child,
}

impl Traffic {
    /// Starts it; it ends by itself.
    pub(super) fn start(url: &str, folder: &Path, seed: u64, end: Instant) -> anyhow::Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            folder: folder.to_owned(),
            seed,
            end,
            child: spawn(url, folder, seed, end)?,
        })
    }

    /// What was written.
    pub(super) fn shadow(&self) -> PathBuf {
        self.folder.join("shadow")
    }

    /// The gaps in I/O until now.
    pub(super) fn gaps(&self) -> anyhow::Result<Vec<Gap>> {
        load::gaps(&self.folder.join("gaps"))
    }

    /// Kills it and starts the next at another portal: it reads and writes there what it wrote
    /// here.
    pub(super) fn move_to(&mut self, url: String) -> anyhow::Result<()> {
        self.url = url;
        self.kill()
    }

    /// Kills it and starts the next, which goes on with the same shadow.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.url, &self.folder, self.seed, self.end)?;
        Ok(())
    }

    /// An error when it ended before its time.
    pub(super) fn still_runs(&mut self, end: Instant) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        let early = Instant::now() < end && ended.is_some();
        ensure!(!early, "the load ended early: {}", self.complaints()?);
        Ok(())
    }

    fn complaints(&self) -> anyhow::Result<String> {
        let said = std::fs::read(self.folder.join("load.err"))?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// Waits for its end. It and those killed before it must have had nothing to say: it tells of
    /// errors and mismatches at once.
    pub(super) fn finish(&mut self, verdict: &mut Verdict) -> anyhow::Result<()> {
        let deadline = self.end.max(Instant::now()) + END_LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                break None;
            }
            std::thread::sleep(POLL);
        };
        let complaints = self.complaints()?;
        let result = match status {
            Some(status) if status.success() && complaints.is_empty() => Ok(()),
            Some(status) => Err(anyhow::anyhow!("{status}: {complaints}")),
            None => Err(anyhow::anyhow!("it hangs: {complaints}")),
        };
        let what = "the load sees no error and no wrong data";
        verdict.note(what, result.as_ref().map(drop));
        if let Ok(said) = std::fs::read_to_string(self.folder.join("load.out")) {
            println!("{}", said.trim());
        }
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(url: &str, folder: &Path, seed: u64, end: Instant) -> anyhow::Result<Child> {
    // Not shorter than to the end: one that has ended before counts as one that failed.
    let left = end.saturating_duration_since(Instant::now());
    let seconds = left.as_secs() + 1;
    let log = |name: &str| {
        let mut options = File::options();
        options.create(true).append(true);
        options.open(folder.join(name))
    };
    Command::new(std::env::current_exe()?)
        .args([
            "load", "--url", url, "--rw", "randrw", "--mix", "40", "--verify",
        ])
        .args(["--flush-every", "64", "--depth", "8"])
        .args([
            "--seconds",
            &seconds.to_string(),
            "--seed",
            &seed.to_string(),
        ])
        .arg("--shadow")
        .arg(folder.join("shadow"))
        .arg("--gaps")
        .arg(folder.join("gaps"))
        .stdin(Stdio::null())
        .stdout(log("load.out")?)
        .stderr(log("load.err")?)
        .spawn()
        .context("cannot start the load")
}
