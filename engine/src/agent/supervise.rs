//! The agent's loop: wait, look, plan, act.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ankole_proto::VolumeId;
use ankole_proto::rpc::v1;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::AgentArgs;
use super::grant::{Granted, grant};
use super::heartbeat::{Orders, heartbeats};
use super::plan::{Action, Observed, STOP_LIMIT, Supervision};
use super::process::{Engine, Launch, Processes, Start};
use crate::managers::Managers;
use crate::run::lock::{Lock, LockError};
use crate::volume::Moment;

/// Between two looks at the engines: how late the death of an adopted engine is noticed. That of a
/// child is noticed at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the agent waits for its engines when it is told to stop them: their own limit, and the
/// time it takes to kill one.
const STOP_ENGINES_LIMIT: Duration = Duration::from_secs(STOP_LIMIT.as_secs() + 5);

/// Why an agent cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody to take orders from.
    #[error("no manager is given: name at least one with --manager host:port")]
    NoManager,
    /// Another agent works there.
    #[error("an agent already works in this directory: {0}")]
    Lock(#[from] LockError),
    /// The directory cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something that every process may have.
    #[error("the agent cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Supervises the engines of this node until SIGTERM or SIGINT, in the current `LocalSet`.
///
/// # Errors
///
/// [`AgentError`] when it cannot begin.
pub async fn run(args: AgentArgs) -> Result<(), AgentError> {
    let engines = args.directory.join("engines");
    std::fs::create_dir_all(&engines).map_err(|source| AgentError::Directory {
        path: engines.clone(),
        source,
    })?;
    let _lock = Lock::take(&args.directory.join("lock")).await?;
    let managers = Rc::new(Managers::new(&args.managers).ok_or(AgentError::NoManager)?);
    let launch = Launch {
        program: std::env::current_exe()?,
        node: args.node.clone(),
        engine_host: args.engine_host,
        managers: args.managers.clone(),
        engines,
    };
    let (status, status_receiver) = watch::channel(Vec::new());
    let (order_sender, orders) = mpsc::channel(1);
    let mut agent = Agent {
        processes: Processes::new(launch),
        supervision: Supervision::default(),
        wanted: None,
        grants: JoinSet::new(),
        starting: BTreeSet::new(),
        managers: Rc::clone(&managers),
        args: args.clone(),
        status,
        started: Instant::now(),
    };
    // The first report tells of the engines that are there already.
    agent.look()?;
    let beats = tokio::task::spawn_local(async move {
        heartbeats(&managers, &args, status_receiver, order_sender).await;
    });
    let result = agent.work(orders).await;
    beats.abort();
    result
}

struct Agent {
    processes: Processes,
    supervision: Supervision,
    /// The last orders; `None` before the first: then nothing is known to be unwanted.
    wanted: Option<Orders>,
    grants: JoinSet<Granted>,
    /// The volumes whose epochs are being asked for.
    starting: BTreeSet<VolumeId>,
    managers: Rc<Managers>,
    args: AgentArgs,
    status: watch::Sender<Vec<v1::EngineProcess>>,
    started: Instant,
}

impl Agent {
    async fn work(&mut self, mut orders: mpsc::Receiver<Orders>) -> Result<(), AgentError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut child_ended = signal(SignalKind::child())?;
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = child_ended.recv() => {}
                _ = looks.tick() => {}
                Some(wanted) = orders.recv() => self.wanted = Some(wanted),
                Some(granted) = self.grants.join_next() => self.granted(granted),
            }
            self.round()?;
        }
        if self.args.stop_engines {
            self.stop_engines(&mut looks).await?;
        } else {
            tracing::info!("the agent ends; its engines go on");
        }
        Ok(())
    }

    /// Looks, plans, acts.
    fn round(&mut self) -> io::Result<()> {
        let engines = self.look()?;
        let Some(wanted) = &self.wanted else {
            return Ok(());
        };
        let mut observed: BTreeMap<VolumeId, Observed> = engines
            .iter()
            .map(|(volume, engine)| (*volume, engine.observed.clone()))
            .collect();
        for volume in &self.starting {
            observed.insert(*volume, Observed::Starting);
        }
        let now = Moment::after_start(self.started.elapsed());
        for action in self.supervision.plan(wanted, &observed, now) {
            self.act(action, &engines);
        }
        Ok(())
    }

    /// Finds the engines and tells the managers when something changed.
    fn look(&mut self) -> io::Result<BTreeMap<VolumeId, Engine>> {
        let engines = self.processes.observe()?;
        let report = report(&engines);
        self.status.send_if_modified(|status| {
            let differs = *status != report;
            if differs {
                *status = report;
            }
            differs
        });
        Ok(engines)
    }

    fn act(&mut self, action: Action, engines: &BTreeMap<VolumeId, Engine>) {
        let signal = |volume, signal| {
            if let Some(engine) = engines.get(&volume) {
                self.processes.signal(volume, engine, signal);
            }
        };
        match action {
            Action::Terminate(volume) => signal(volume, Signal::TERM),
            Action::Kill(volume) => signal(volume, Signal::KILL),
            Action::Start {
                volume,
                expected,
                ended,
            } => {
                self.starting.insert(volume);
                let managers = Rc::clone(&self.managers);
                let node = self.args.node.clone();
                self.grants.spawn_local(async move {
                    Granted {
                        volume,
                        ended,
                        epoch: grant(&managers, &node, volume, expected).await,
                    }
                });
            }
        }
    }

    fn granted(&mut self, granted: Result<Granted, tokio::task::JoinError>) {
        let granted = match granted {
            Ok(granted) => granted,
            // Nothing aborts these tasks, so one has panicked: what we rely on is broken.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let volume = granted.volume;
        self.starting.remove(&volume);
        let previous_ended = granted.previous_ended();
        let epoch = match granted.epoch {
            Ok(epoch) => epoch,
            Err(error) => {
                tracing::warn!(%volume, %error, "no epoch for an engine");
                return;
            }
        };
        // The volume may have gone elsewhere while we asked.
        let Some(wanted) = self.wanted.as_ref().and_then(|all| all.get(&volume)) else {
            return;
        };
        let start = Start {
            volume,
            epoch,
            port: wanted.port,
            previous_ended,
        };
        if let Err(error) = self.processes.spawn(start) {
            tracing::error!(%volume, %epoch, %error, "an engine cannot be started");
        }
    }

    /// Ends all engines, in order where they can.
    async fn stop_engines(&mut self, looks: &mut tokio::time::Interval) -> io::Result<()> {
        tracing::info!("the agent stops its engines");
        self.wanted = Some(Orders::new());
        let all_ended = async {
            loop {
                self.round()?;
                let running = self
                    .processes
                    .observe()?
                    .values()
                    .any(|engine| matches!(engine.observed, Observed::Running { .. }));
                if !running {
                    return Ok(());
                }
                looks.tick().await;
            }
        };
        timeout(STOP_ENGINES_LIMIT, all_ended)
            .await
            .unwrap_or_else(|_| Err(io::Error::other("some engines did not end")))
    }
}

fn report(engines: &BTreeMap<VolumeId, Engine>) -> Vec<v1::EngineProcess> {
    engines
        .iter()
        .filter_map(|(volume, engine)| match engine.observed {
            Observed::Running { epoch, .. } => Some(v1::EngineProcess {
                volume_id: volume.to_string(),
                epoch: epoch.raw(),
                serving: engine.serving,
                message: engine.message.clone(),
            }),
            Observed::Starting | Observed::Ended { .. } => None,
        })
        .collect()
}
