//! The agent of a host: the real plan of what to start and to end, and what stands for its
//! processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ankole_engine::agent::heartbeat::{Orders, wanted};
use ankole_engine::agent::plan::{Action, Observed, Supervision};
use ankole_engine::volume::Moment;
use ankole_proto::rpc::v1::{AgentOrders, AgentReport, EngineProcess};
use ankole_proto::{Epoch, NodeName, VolumeId};

use super::engine::EngineId;

/// What the directory of an engine says, which outlives the agent and the host.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) engine: EngineId,
    pub(super) epoch: Epoch,
    pub(super) port: Option<u16>,
    pub(super) alone: bool,
    pub(super) fenced: bool,
    pub(super) running: bool,
}

/// An agent, and the engines' records on its host.
#[derive(Default)]
pub(super) struct Agent {
    process: Option<Process>,
    pub(super) records: BTreeMap<VolumeId, Record>,
}

struct Process {
    supervision: Supervision,
    /// The last orders; `None` before the first.
    wanted: Option<Orders>,
    starting: BTreeSet<VolumeId>,
    started: Duration,
    seen_revision: u64,
}

impl Agent {
    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn start(&mut self, now: Duration) {
        self.process = Some(Process {
            supervision: Supervision::default(),
            wanted: None,
            starting: BTreeSet::new(),
            started: now,
            seen_revision: 0,
        });
    }

    /// Which process it is.
    pub(super) fn instance(&self) -> Option<u64> {
        let started = self.process.as_ref()?.started;
        u64::try_from(started.as_nanos()).ok()
    }

    /// The agent ends; its engines go on.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// The engines that run here.
    pub(super) fn running(&self) -> Vec<EngineId> {
        let records = self.records.values().filter(|record| record.running);
        records.map(|record| record.engine).collect()
    }

    /// What it tells the managers.
    pub(super) fn report(&self, node: &NodeName) -> Option<AgentReport> {
        let process = self.process.as_ref()?;
        let running = self.records.iter().filter(|(_, record)| record.running);
        Some(AgentReport {
            node: node.to_string(),
            engine_host: "127.0.0.1".to_owned(),
            port_first: 3260,
            port_last: 3299,
            engines: running
                .map(|(volume, record)| EngineProcess {
                    volume_id: volume.to_string(),
                    epoch: record.epoch.raw(),
                    ..EngineProcess::default()
                })
                .collect(),
            seen_revision: process.seen_revision,
            ..AgentReport::default()
        })
    }

    /// Takes the managers' orders.
    pub(super) fn follow(&mut self, orders: AgentOrders) -> Result<(), String> {
        let revision = orders.revision;
        let wanted = wanted(orders).map_err(|error| error.to_string())?;
        if let Some(process) = self.process.as_mut() {
            process.wanted = Some(wanted);
            process.seen_revision = revision;
        }
        Ok(())
    }

    /// Looks, and says what is to be done.
    pub(super) fn round(&mut self, now: Duration) -> Vec<Action> {
        let Some(process) = self.process.as_mut() else {
            return Vec::new();
        };
        let Some(wanted) = &process.wanted else {
            return Vec::new();
        };
        let mut observed: BTreeMap<VolumeId, Observed> = self
            .records
            .iter()
            .map(|(volume, record)| (*volume, observe(record)))
            .collect();
        for volume in &process.starting {
            observed.insert(*volume, Observed::Starting);
        }
        let now = Moment::after_start(now.saturating_sub(process.started));
        let actions = process.supervision.plan(wanted, &observed, now);
        for action in &actions {
            if let Action::Start { volume, .. } = action {
                process.starting.insert(*volume);
            }
        }
        actions
    }

    /// An epoch was asked for, and there is an answer; the port that is still wanted, if any.
    pub(super) fn granted(&mut self, volume: VolumeId) -> Option<Option<u16>> {
        let process = self.process.as_mut()?;
        if !process.starting.remove(&volume) {
            return None;
        }
        let wanted = process.wanted.as_ref()?.get(&volume)?;
        Some(wanted.port)
    }
}

fn observe(record: &Record) -> Observed {
    if record.running {
        Observed::Running {
            epoch: record.epoch,
            port: record.port,
        }
    } else {
        Observed::Ended {
            epoch: record.epoch,
            fenced: record.fenced,
            alone: record.alone,
        }
    }
}
