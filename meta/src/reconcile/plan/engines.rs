//! Engines: those that have ended, and those without target that a detached volume needs.

use ankole_proto::NodeName;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{EngineEndedCommand, StartWorkerCommand, StopWorkerCommand};

use super::{AWAY_MS, Commands, SILENT_MS, View};
use crate::reconcile::{Liveness, agent_alive, agent_orders, liveness};
use crate::state::{Phase, Replica, ReplicaMode, Volume};

impl View<'_> {
    pub(super) fn engines(self, commands: &mut Commands) {
        for volume in self.state.volumes().values() {
            if let Some(command) = self.engine(volume) {
                commands.push(command);
            }
        }
    }

    fn engine(self, volume: &Volume) -> Option<Command> {
        let volume_id = volume.id.to_string();
        let wanted = volume.wanted_engine().is_some();
        if let Some(node) = volume.engine_node() {
            let target = matches!(volume.phase, Phase::Attached(_)) && volume.worker.is_none();
            let ended = (!target)
                .then(|| self.ended(volume, node, wanted))
                .flatten();
            if let Some(reason) = ended {
                let node = node.to_string();
                return Some(Command::EngineEnded(EngineEndedCommand {
                    volume_id,
                    node,
                    reason,
                }));
            }
        }
        let needed = volume.phase == Phase::Detached && self.needs_worker(volume);
        match (&volume.worker, needed) {
            (None, true) => {
                let node = self.worker_node(volume)?.to_string();
                Some(Command::StartWorker(StartWorkerCommand { volume_id, node }))
            }
            (Some(worker), false) if !worker.ending => {
                Some(Command::StopWorker(StopWorkerCommand { volume_id }))
            }
            _ => None,
        }
    }

    /// Why the engine counts as ended, when it does: its agent says so in answer to orders without
    /// it, or neither of them is heard of any more. What may still run there is fenced by the next
    /// epoch (INV-1).
    fn ended(self, volume: &Volume, node: &NodeName, wanted: bool) -> Option<String> {
        let heard = self.observed.engines.get(&volume.id).is_some_and(|seen| {
            seen.said.node == *node && self.now.tick.since_ms(seen.at.tick) <= SILENT_MS
        });
        match agent_alive(self.observed, self.now, node) {
            Liveness::Up if !wanted => {
                let orders = agent_orders(self.state, node).revision;
                let seen = self.observed.agents.get(node)?;
                let gone = seen.answers(orders) && !seen.said.engines.contains_key(&volume.id);
                gone.then(|| "its agent has ended it".to_owned())
            }
            Liveness::Down { silent_ms } if !heard => Some(format!(
                "its node has not reported for {} s",
                silent_ms / 1000
            )),
            _ => None,
        }
    }

    /// Whether a detached volume has something to do that only an engine can.
    fn needs_worker(self, volume: &Volume) -> bool {
        let settled = self.removal_settled(volume);
        // One that runs goes on.
        let can_compare = match volume.worker {
            Some(_) => volume.is_comparable(),
            None => self.can_compare(volume),
        };
        let compares = volume.comparison.wanted().is_some() && can_compare;
        !volume.tasks.is_empty()
            || compares
            || volume.replicas.iter().any(|(id, one)| match one.mode {
                ReplicaMode::Rebuilding => true,
                ReplicaMode::OutOfSync => {
                    let spare = volume.can_spare(*id, self.now.wall_ms);
                    settled && !spare && self.can_rebuild(*id, one)
                }
                // An engine finds out that it is lost, and then it is replaced; or repairs it.
                ReplicaMode::InSync => {
                    let lost =
                        self.away(&one.node) && self.room_beside(volume, Some(*id)).is_some();
                    lost || self.can_repair(volume, one)
                }
                ReplicaMode::Creating | ReplicaMode::Deleting => false,
            })
    }

    /// Whether all in-sync replicas of a volume can be compared with each other now. One that is away
    /// for a moment would be recorded lost by an engine that is started for that.
    fn can_compare(self, volume: &Volume) -> bool {
        let up = |node| liveness(self.state, self.observed, self.now, node) == Liveness::Up;
        let mut in_sync = volume.in_mode(ReplicaMode::InSync);
        volume.is_comparable() && in_sync.all(|(_, replica)| up(&replica.node))
    }

    /// Whether a replica has damage that a peer could mend.
    fn can_repair(self, volume: &Volume, replica: &Replica) -> bool {
        let in_sync = volume.in_mode(ReplicaMode::InSync);
        !replica.wear.damages.is_empty() && in_sync.count() > 1
    }

    /// Whether a node stays away.
    pub(super) fn away(self, node: &NodeName) -> bool {
        match liveness(self.state, self.observed, self.now, node) {
            Liveness::Down { silent_ms } => silent_ms > AWAY_MS,
            Liveness::Up | Liveness::Unknown => false,
        }
    }

    /// A node whose agent is up, one with an in-sync replica first.
    fn worker_node(self, volume: &Volume) -> Option<NodeName> {
        let alive = |node: &&NodeName| agent_alive(self.observed, self.now, node) == Liveness::Up;
        let near = volume
            .in_mode(ReplicaMode::InSync)
            .map(|(_, replica)| &replica.node);
        near.chain(self.observed.agents.keys()).find(alive).cloned()
    }
}
