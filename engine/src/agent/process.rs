//! Engine processes: starting, finding, signalling.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ankole_proto::{Epoch, NodeName, VolumeId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::plan::Observed;
use crate::managers::ManagerAddress;
use crate::run::directory::{DirectoryError, EngineDirectory, EngineRecord, Phase};
use crate::run::exit;
use crate::run::log;

/// What every engine of this node is started with.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) node: NodeName,
    pub(super) engine_host: IpAddr,
    pub(super) managers: Vec<ManagerAddress>,
    /// Holds a directory per volume.
    pub(super) engines: PathBuf,
}

/// An engine to be started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    /// `None`: without a target.
    pub(super) port: Option<u16>,
    pub(super) previous_ended: bool,
}

/// Why an engine was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot start {program}: {source}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot open the engine's log: {0}")]
    Log(io::Error),
}

/// An engine that this agent started.
#[derive(Debug)]
struct Started {
    child: Child,
    start: Start,
    /// Set once the child was reaped.
    exit_code: Option<i32>,
}

/// An engine as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Engine {
    pub(super) observed: Observed,
    pub(super) serving: bool,
    pub(super) message: String,
    /// Where signals go; `None` when no process lives.
    pid: Option<i32>,
}

/// The engines of this node, whoever started them.
#[derive(Debug)]
pub(super) struct Processes {
    launch: Launch,
    started: BTreeMap<VolumeId, Started>,
}

impl Processes {
    pub(super) fn new(launch: Launch) -> Self {
        Self {
            launch,
            started: BTreeMap::new(),
        }
    }

    fn directory(&self, volume: VolumeId) -> EngineDirectory {
        EngineDirectory::new(self.launch.engines.join(volume.to_string()))
    }

    /// Starts an engine that outlives this agent: its own process group, nothing inherited but its
    /// log.
    pub(super) fn spawn(&mut self, start: Start) -> Result<(), SpawnError> {
        let directory = self.directory(start.volume);
        directory.create()?;
        let output = log::start(&directory.log_path()).map_err(SpawnError::Log)?;
        let errors = output.try_clone().map_err(SpawnError::Log)?;
        let mut command = Command::new(&self.launch.program);
        command
            .args(arguments(&self.launch, start, &directory))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let child = command.spawn().map_err(|source| SpawnError::Spawn {
            program: self.launch.program.clone(),
            source,
        })?;
        tracing::info!(volume = %start.volume, epoch = %start.epoch, pid = child.id(),
            "engine started");
        let started = Started {
            child,
            start,
            exit_code: None,
        };
        self.started.insert(start.volume, started);
        Ok(())
    }

    /// Every engine that is, or once was, on this node.
    pub(super) fn observe(&mut self) -> io::Result<BTreeMap<VolumeId, Engine>> {
        self.reap();
        let mut volumes: Vec<VolumeId> = self.started.keys().copied().collect();
        for entry in fs::read_dir(&self.launch.engines)? {
            if let Some(volume) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                volumes.push(volume);
            }
        }
        Ok(volumes
            .into_iter()
            .filter_map(|volume| Some((volume, self.observe_one(volume)?)))
            .collect())
    }

    fn reap(&mut self) {
        for (volume, started) in &mut self.started {
            if started.exit_code.is_some() {
                continue;
            }
            match started.child.try_wait() {
                Ok(Some(status)) => {
                    tracing::info!(%volume, epoch = %started.start.epoch, %status, "engine ended");
                    started.exit_code = Some(status.code().unwrap_or(exit::FAILED));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%volume, %error, "cannot wait for an engine"),
            }
        }
    }

    fn observe_one(&self, volume: VolumeId) -> Option<Engine> {
        let directory = self.directory(volume);
        let record = match directory.record() {
            Ok(record) => record.filter(|record| record.volume == volume),
            Err(error) => {
                tracing::warn!(%volume, %error, "an engine's record is unreadable");
                None
            }
        };
        if let Some(started) = self.started.get(&volume) {
            return Some(own_child(started, record));
        }
        // In doubt an engine lives: one that is dead is only replaced later.
        let held = directory.is_held().unwrap_or_else(|error| {
            tracing::warn!(%volume, %error, "cannot tell whether an engine lives");
            true
        });
        record.map(|record| adopted(record, held))
    }

    /// Sends the signal to the volume's engine, if it is the process that was observed.
    pub(super) fn signal(&self, volume: VolumeId, engine: &Engine, signal: Signal) {
        let Some(pid) = engine.pid.and_then(Pid::from_raw) else {
            return;
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(error) => {
                tracing::debug!(%volume, %error, "the engine has ended by itself");
                return;
            }
        };
        // The number may have gone to another process; not while its engine holds the lock.
        let own = self
            .started
            .get(&volume)
            .is_some_and(|started| started.exit_code.is_none());
        if !own && !self.directory(volume).is_held().unwrap_or(false) {
            return;
        }
        tracing::info!(%volume, ?signal, "signalling an engine");
        if let Err(error) = pidfd_send_signal(process, signal) {
            tracing::warn!(%volume, %error, "cannot signal an engine");
        }
    }
}

fn own_child(started: &Started, record: Option<EngineRecord>) -> Engine {
    let Start { epoch, port, .. } = started.start;
    let record = record.filter(|record| record.epoch == epoch);
    let message = record
        .as_ref()
        .map_or("", |record| &record.message)
        .to_owned();
    let alone = record
        .as_ref()
        .map_or(started.start.previous_ended, |record| record.alone);
    match started.exit_code {
        None => Engine {
            observed: Observed::Running { epoch, port },
            serving: record.is_some_and(|record| record.phase == Phase::Serving),
            message,
            pid: i32::try_from(started.child.id()).ok(),
        },
        Some(code) => Engine {
            observed: Observed::Ended {
                epoch,
                fenced: code == exit::FENCED,
                alone,
            },
            serving: false,
            message,
            pid: None,
        },
    }
}

fn adopted(record: EngineRecord, held: bool) -> Engine {
    if held {
        Engine {
            observed: Observed::Running {
                epoch: record.epoch,
                port: record.port,
            },
            serving: record.phase == Phase::Serving,
            message: record.message,
            pid: Some(record.pid),
        }
    } else {
        Engine {
            observed: Observed::Ended {
                epoch: record.epoch,
                fenced: record.phase == Phase::Fenced,
                alone: record.alone,
            },
            serving: false,
            message: record.message,
            pid: None,
        }
    }
}

fn arguments(launch: &Launch, start: Start, directory: &EngineDirectory) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["run".into()];
    let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    option("--volume", start.volume.to_string().into());
    option("--epoch", start.epoch.to_string().into());
    option("--node", launch.node.to_string().into());
    option("--directory", directory.path().into());
    for manager in &launch.managers {
        option("--manager", manager.to_string().into());
    }
    match start.port {
        Some(port) => {
            let portal = SocketAddr::new(launch.engine_host, port).to_string();
            option("--listen", portal.clone().into());
            option("--advertise", portal.into());
        }
        None => arguments.push("--without-target".into()),
    }
    if start.previous_ended {
        arguments.push("--previous-ended".into());
    }
    arguments
}
