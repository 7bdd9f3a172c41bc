//! Where a volume's engine runs, and under which epoch.

use ankole_proto::rpc::v1::{
    AttachVolumeCommand, DetachVolumeCommand, EngineEndedCommand, GrantEpochCommand, LogAnswer,
    RestartEngineCommand, StartWorkerCommand, StopWorkerCommand,
};
use ankole_proto::{Epoch, NodeName};

use super::{Apply, answer, parse};
use crate::state::{Phase, Refusal, Severity, Volume, Worker};

impl Apply<'_> {
    pub(super) fn attach(&mut self, c: &AttachVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_at(&c.volume_id, c.revision)?;
        let node: NodeName = parse(&c.node)?;
        match &volume.phase {
            Phase::Attached(at) if *at == node => return Ok(answer(&volume)),
            Phase::Attached(at) if !c.force => {
                let node = at.clone();
                let volume = volume.name;
                return Err(Refusal::AttachedElsewhere { volume, node });
            }
            Phase::Detaching(_) if !c.force => return Err(volume.wrong_phase("attached")),
            _ => {}
        }
        let taken_from = volume.phase.node().cloned();
        let port = u16::try_from(c.port).ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| Refusal::Invalid(format!("{} is no port", c.port)))?;
        volume.enter(Phase::Attached(node.clone()), "attached")?;
        self.free_port(&volume, &node, port)?;
        volume.port = port;
        let message = format!("to be served on {node}, port {port}");
        if let Some(from) = taken_from {
            // The epoch that its engine is granted fences the one there (INV-1).
            let message = format!("taken from {from} by force, {message}");
            self.volume_event(Severity::Warning, "VolumeTaken", &volume.name, message);
        } else {
            self.volume_event(Severity::Info, "VolumeAttached", &volume.name, message);
        }
        Ok(self.put(volume))
    }

    fn free_port(&self, volume: &Volume, node: &NodeName, port: u16) -> Result<(), Refusal> {
        let taken = self.state.volumes.values().find(|other| {
            other.id != volume.id && other.port == port && other.phase.node() == Some(node)
        });
        taken.map_or(Ok(()), |other| {
            Err(Refusal::PortTaken {
                port,
                node: node.clone(),
                volume: other.name.clone(),
            })
        })
    }

    pub(super) fn detach(&mut self, c: &DetachVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_at(&c.volume_id, c.revision)?;
        let node = match &volume.phase {
            Phase::Detached | Phase::Detaching(_) => return Ok(answer(&volume)),
            Phase::Attached(node) => node.clone(),
            Phase::Creating | Phase::Deleting => return Err(volume.wrong_phase("detached")),
        };
        volume.enter(Phase::Detaching(node.clone()), "detached")?;
        let message = format!("its engine on {node} is to end");
        self.volume_event(Severity::Info, "VolumeDetaching", &volume.name, message);
        Ok(self.put(volume))
    }

    /// Its agent ends it and asks for the next epoch, as after a crash.
    pub(super) fn restart_engine(
        &mut self,
        c: &RestartEngineCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_at(&c.volume_id, c.revision)?;
        let Phase::Attached(node) = volume.phase.clone() else {
            return Err(volume.wrong_phase("restarted"));
        };
        volume.restart_epoch = volume.epoch;
        let message = format!("its engine on {node} is to be replaced");
        self.volume_event(Severity::Info, "EngineRestart", &volume.name, message);
        Ok(self.put(volume))
    }

    pub(super) fn start_worker(&mut self, c: &StartWorkerCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        if volume.phase != Phase::Detached || volume.worker.is_some() {
            return Err(volume.wrong_phase("given an engine without target"));
        }
        volume.worker = Some(Worker {
            node: parse(&c.node)?,
            ending: false,
        });
        Ok(self.put(volume))
    }

    pub(super) fn stop_worker(&mut self, c: &StopWorkerCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let Some(worker) = &mut volume.worker else {
            return Ok(answer(&volume));
        };
        worker.ending = true;
        Ok(self.put(volume))
    }

    pub(super) fn engine_ended(&mut self, c: &EngineEndedCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let node: NodeName = parse(&c.node)?;
        if volume
            .worker
            .as_ref()
            .is_some_and(|worker| worker.node == node)
        {
            volume.worker = None;
            let answer = self.put(volume.clone());
            self.remove_when_empty(&volume);
            return Ok(answer);
        }
        if volume.phase != Phase::Detaching(node.clone()) {
            return Ok(answer(&volume));
        }
        volume.enter(Phase::Detached, "detached")?;
        let message = format!("its engine on {node} has ended: {}", c.reason);
        self.volume_event(Severity::Info, "VolumeDetached", &volume.name, message);
        Ok(self.put(volume))
    }

    /// INV-1: the only place where an epoch changes, and it grows by one.
    pub(super) fn grant_epoch(&mut self, c: &GrantEpochCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let node: NodeName = parse(&c.node)?;
        if volume.wanted_engine().map(|(wanted, _)| wanted) != Some(&node) {
            let why = match volume.engine_node() {
                Some(other) if *other != node => format!("its engine belongs on node {other}"),
                Some(_) => "its engine there is to end".to_owned(),
                None => format!("it is {}", volume.phase.kind()),
            };
            return Err(Refusal::NotHere {
                volume: volume.name,
                node,
                why,
            });
        }
        let expected = Epoch::from_raw(c.expected_epoch);
        if expected != volume.epoch {
            return Err(Refusal::EpochMoved {
                is: volume.epoch,
                expected,
            });
        }
        volume.epoch = volume.epoch.next();
        let message = format!("epoch {} is granted to node {node}", volume.epoch);
        self.volume_event(Severity::Info, "EpochGranted", &volume.name, message);
        Ok(self.put(volume))
    }
}
