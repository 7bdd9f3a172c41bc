//! The binary under test, as processes that end with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ankole_engine::run::directory::{EngineDirectory, EngineRecord};
use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A process of `ankole-engine`; killed when dropped.
pub struct Process {
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts it; what it prints goes to `output`.
    pub fn start(arguments: &[&str], output: &Path) -> Self {
        let file = File::create(output).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ankole-engine"))
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self {
            child,
            output: output.to_owned(),
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process to end", || self.child.try_wait().unwrap())
    }

    /// What it printed.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until it finds what is waited for.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The engine's record, when its process lives.
pub fn living(directory: &EngineDirectory) -> Option<EngineRecord> {
    let held = directory.is_held().unwrap();
    directory.record().unwrap().filter(|_| held)
}

/// Ends the engine of a directory with SIGKILL.
pub fn kill(record: &EngineRecord) {
    let _ = kill_process(Pid::from_raw(record.pid).unwrap(), Signal::KILL);
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
