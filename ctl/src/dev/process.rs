//! Finding, starting and ending the processes of a dev cluster.
//!
//! A process belongs to the cluster in a directory when it runs one of our binaries with a command
//! line that names a path in that directory. Nothing else is ever signalled.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use super::layout::{Daemon, Layout};

const BINARIES: [&str; 3] = ["ankole-meta", "ankole-blockd", "ankole-engine"];
/// A daemon stops within 10 s of SIGTERM; longer, and it is killed.
const TERMINATION_LIMIT: Duration = Duration::from_secs(15);
/// SIGKILL cannot be refused, but a process in disk I/O ends only after it.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running process of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) arguments: Vec<String>,
}

impl Running {
    /// Whether it runs this daemon: the same binary with the same first arguments.
    pub(crate) fn is(&self, daemon: &Daemon) -> bool {
        let binary = self
            .arguments
            .first()
            .and_then(|path| Path::new(path).file_name());
        binary.is_some_and(|name| name == daemon.binary)
            && self
                .arguments
                .get(1..)
                .is_some_and(|rest| rest == daemon.arguments)
    }

    /// Whether it is an engine that serves a volume.
    pub(crate) fn is_engine(&self) -> bool {
        self.arguments.get(1).is_some_and(|verb| verb == "run")
    }

    /// The value of a flag on its command line.
    pub(crate) fn flag(&self, flag: &str) -> Option<&str> {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument == flag)?;
        self.arguments.get(at + 1).map(String::as_str)
    }
}

/// Every process of the cluster that runs now.
pub(crate) fn running(layout: &Layout) -> anyhow::Result<Vec<Running>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read the process table")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end between the listing and the look at it.
        let Ok(command_line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let arguments: Vec<String> = command_line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let arguments = arguments[..arguments.len().saturating_sub(1)].to_vec();
        if belongs(&arguments, &layout.directory) {
            found.push(Running { pid, arguments });
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

fn belongs(arguments: &[String], directory: &Path) -> bool {
    let binary = arguments
        .first()
        .and_then(|path| Path::new(path).file_name()?.to_str());
    binary.is_some_and(|name| BINARIES.contains(&name))
        && arguments
            .iter()
            .skip(1)
            .any(|argument| Path::new(argument).starts_with(directory))
}

/// Starts a daemon in a session of its own, with its output going to the end of its log.
pub(crate) fn start(layout: &Layout, daemon: &Daemon) -> anyhow::Result<()> {
    let here = std::env::current_exe().context("cannot tell where this command lies")?;
    let binary = here.with_file_name(daemon.binary);
    if !binary.exists() {
        bail!(
            "{} is missing; build everything with `cargo build --release`",
            binary.display()
        );
    }
    let data = layout.data(&daemon.name);
    std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let log_path = data.join("log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("cannot open {}", log_path.display()))?;
    let mut command = Command::new(&binary);
    command
        .args(&daemon.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(())
}

/// Asks the processes to stop and waits for it; kills those that do not.
pub(crate) async fn stop(layout: &Layout, processes: &[Running]) -> anyhow::Result<()> {
    for process in processes {
        send(layout, process, Signal::TERM)?;
    }
    let stubborn = wait_gone(layout, processes, TERMINATION_LIMIT).await?;
    for process in &stubborn {
        eprintln!("process {} did not stop in time; killing it", process.pid);
        send(layout, process, Signal::KILL)?;
    }
    let left = wait_gone(layout, &stubborn, KILL_LIMIT).await?;
    if left.is_empty() {
        Ok(())
    } else {
        let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
        bail!(
            "processes {} cannot be ended; look at their state with ps",
            pids.join(", ")
        )
    }
}

/// Signals exactly that process: its number may have gone to another since it was listed.
fn send(layout: &Layout, process: &Running, signal: Signal) -> anyhow::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Ok(());
    };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    let still = running(layout)?.iter().any(|now| now.pid == process.pid);
    if still {
        // It may have ended by now, which is what was wanted.
        let _ = pidfd_send_signal(&handle, signal);
    }
    Ok(())
}

async fn wait_gone(
    layout: &Layout,
    processes: &[Running],
    limit: Duration,
) -> anyhow::Result<Vec<Running>> {
    let deadline = Instant::now() + limit;
    loop {
        let now = running(layout)?;
        let left: Vec<Running> = processes
            .iter()
            .filter(|process| now.iter().any(|other| other.pid == process.pid))
            .cloned()
            .collect();
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn only_our_binaries_in_the_directory_belong_to_the_cluster() {
        let directory = Path::new("/data/dev");
        let ours = words("/opt/ankole-meta serve --directory /data/dev/meta-1");
        assert!(belongs(&ours, directory));
        let elsewhere = words("/opt/ankole-meta serve --directory /data/dev2/meta-1");
        assert!(!belongs(&elsewhere, directory));
        let foreign = words("/usr/bin/vim /data/dev/meta-1/log");
        assert!(!belongs(&foreign, directory));
    }

    #[test]
    fn a_flag_of_a_command_line_is_found() {
        let running = Running {
            pid: 1,
            arguments: words("ankole-engine run --volume abc"),
        };
        assert!(running.is_engine());
        assert_eq!(running.flag("--volume"), Some("abc"));
        assert_eq!(running.flag("--epoch"), None);
    }
}
