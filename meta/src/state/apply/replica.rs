//! What becomes of replicas.

use ankole_proto::rpc::v1::{
    AddReplicaCommand, LogAnswer, RemoveReplicaCommand, ReplaceReplicaCommand,
    ReplicaCreatedCommand, ReplicaGoneCommand, ReplicaInSyncCommand, ReplicaLostCommand,
    StartRebuildCommand,
};
use ankole_proto::{Epoch, ReplicaId};

use super::volume::place;
use super::{Apply, answer, parse};
use crate::state::changes::Key;
use crate::state::{Doomed, Phase, PhaseKind, Refusal, Replica, ReplicaMode, Severity, Volume};

impl Apply<'_> {
    /// A stored replica of a new volume is in sync, because nothing was written yet. One that was
    /// added later has to be rebuilt first (INV-9).
    pub(super) fn replica_created(
        &mut self,
        c: &ReplicaCreatedCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let replica: ReplicaId = parse(&c.replica_id)?;
        let found = volume
            .replicas
            .get(&replica)
            .ok_or(Refusal::UnknownReplica(replica))?;
        if found.mode != ReplicaMode::Creating {
            return Ok(answer(&volume));
        }
        if volume.phase.kind() != PhaseKind::Creating {
            let why = "it is new and has to be rebuilt";
            volume.turn(replica, ReplicaMode::OutOfSync, why, self.at())?;
            return Ok(self.put(volume));
        }
        if !self.source_is_good(&volume, found) {
            let why = "its source went out of sync before it was stored";
            return self.give_up_replica(volume, replica, why);
        }
        volume.turn(replica, ReplicaMode::InSync, "", self.at())?;
        if let Some(stored) = volume.replicas.get_mut(&replica) {
            // A clone shares layers of a replica that may be a copy.
            stored.independent = stored.source.is_none();
            stored.source = None;
        }
        self.complete_creation(&mut volume)?;
        Ok(self.put(volume))
    }

    pub(super) fn replica_gone(&mut self, c: &ReplicaGoneCommand) -> Result<LogAnswer, Refusal> {
        let id: ReplicaId = parse(&c.replica_id)?;
        if !c.abandoned && self.state.doomed.remove(&id).is_some() {
            self.touched.note(Key::Doomed(id));
            return Ok(LogAnswer::default());
        }
        let mut volume = self.volume(&c.volume_id)?;
        let replica = volume
            .replicas
            .get(&id)
            .ok_or(Refusal::UnknownReplica(id))?;
        if replica.mode != ReplicaMode::Deleting {
            let wanted = ReplicaMode::Deleting;
            return Err(Refusal::WrongMode {
                replica: id,
                mode: replica.mode,
                wanted,
            });
        }
        if c.abandoned {
            let (node, disk) = (replica.node.clone(), replica.disk);
            self.state.doomed.insert(
                id,
                Doomed {
                    node,
                    disk,
                    volume: volume.id,
                },
            );
            self.touched.note(Key::Doomed(id));
        }
        volume.replicas.remove(&id);
        let answer = self.put(volume.clone());
        self.remove_when_empty(&volume);
        Ok(answer)
    }

    /// INV-3, INV-4.
    pub(super) fn replica_lost(&mut self, c: &ReplicaLostCommand) -> Result<LogAnswer, Refusal> {
        let id: ReplicaId = parse(&c.replica_id)?;
        let mut volume = if !c.by_managers {
            self.volume_of_engine(&c.volume_id, c.epoch)?
        } else if self.is_rebuilding(&c.volume_id, id)? {
            // Its engine is refused when it calls the replica in sync after that.
            self.volume(&c.volume_id)?
        } else {
            self.volume_without_engine(&c.volume_id)?
        };
        let found = volume
            .replicas
            .get(&id)
            .ok_or(Refusal::UnknownReplica(id))?;
        if found.mode == ReplicaMode::OutOfSync {
            return Ok(answer(&volume));
        }
        let node = found.node.clone();
        volume.turn(id, ReplicaMode::OutOfSync, &c.reason, self.at())?;
        let message = format!("the replica on {node} is out of sync: {}", c.reason);
        self.volume_event(Severity::Warning, "ReplicaLost", &volume.name, message);
        Ok(self.put(volume))
    }

    fn is_rebuilding(&self, volume: &str, replica: ReplicaId) -> Result<bool, Refusal> {
        let volume = self.volume(volume)?;
        let found = volume.replicas.get(&replica);
        Ok(found.is_some_and(|found| found.mode == ReplicaMode::Rebuilding))
    }

    pub(super) fn start_rebuild(&mut self, c: &StartRebuildCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let id: ReplicaId = parse(&c.replica_id)?;
        if volume.wanted_engine().is_none() {
            return Err(volume.wrong_phase("rebuilt without an engine"));
        }
        volume.turn(id, ReplicaMode::Rebuilding, "", self.at())?;
        let message = format!("the replica on {} is being rebuilt", node_of(&volume, id));
        self.volume_event(Severity::Info, "RebuildStarted", &volume.name, message);
        Ok(self.put(volume))
    }

    pub(super) fn replica_in_sync(
        &mut self,
        c: &ReplicaInSyncCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_of_engine(&c.volume_id, c.epoch)?;
        let id: ReplicaId = parse(&c.replica_id)?;
        let found = volume
            .replicas
            .get(&id)
            .ok_or(Refusal::UnknownReplica(id))?;
        if found.mode == ReplicaMode::InSync {
            return Ok(answer(&volume));
        }
        if found.mode != ReplicaMode::Rebuilding {
            let wanted = ReplicaMode::InSync;
            return Err(Refusal::WrongMode {
                replica: id,
                mode: found.mode,
                wanted,
            });
        }
        volume.turn(id, ReplicaMode::InSync, "", self.at())?;
        let message = format!("the replica on {} is in sync again", node_of(&volume, id));
        self.volume_event(Severity::Info, "ReplicaInSync", &volume.name, message);
        Ok(self.put(volume))
    }

    pub(super) fn replace_replica(
        &mut self,
        c: &ReplaceReplicaCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let old: ReplicaId = parse(&c.replica_id)?;
        let replica = volume
            .replicas
            .get(&old)
            .ok_or(Refusal::UnknownReplica(old))?;
        let (mode, old_node) = (replica.mode, replica.node.clone());
        // An empty one beside replicas that share a source would not be equal to them.
        let clone = volume.phase == Phase::Creating && volume.origin.is_some();
        if clone || !matches!(mode, ReplicaMode::OutOfSync | ReplicaMode::Creating) {
            let wanted = ReplicaMode::Deleting;
            return Err(Refusal::WrongMode {
                replica: old,
                mode,
                wanted,
            });
        }
        let missing = || Refusal::Malformed("a replacement needs a place".to_owned());
        let (id, new) = place(
            self.state,
            c.placement.as_ref().ok_or_else(missing)?,
            self.at_ms,
        )?;
        node_is_free(&volume, Some(old), &new)?;
        let new_node = new.node.clone();
        volume.turn(old, ReplicaMode::Deleting, &c.reason, self.at())?;
        volume.replicas.insert(id, new);
        let message = format!(
            "the replica on {old_node} is replaced by one on {new_node}: {}",
            c.reason
        );
        self.volume_event(Severity::Warning, "ReplicaReplaced", &volume.name, message);
        Ok(self.put(volume))
    }

    pub(super) fn add_replica(&mut self, c: &AddReplicaCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        if !volume.wants_replica(self.at_ms) {
            return Err(too_many_or_few(&volume));
        }
        let missing = || Refusal::Malformed("a new replica needs a place".to_owned());
        let placement = c.placement.as_ref().ok_or_else(missing)?;
        let (id, new) = place(self.state, placement, self.at_ms)?;
        node_is_free(&volume, None, &new)?;
        let message = format!("one more replica is built on {}", new.node);
        volume.replicas.insert(id, new);
        self.volume_event(Severity::Info, "ReplicaAdded", &volume.name, message);
        Ok(self.put(volume))
    }

    /// An in-sync or rebuilding replica becomes out of sync first: its engine, which the record
    /// tells so, uses it no more when it is deleted (INV-3, INV-4).
    pub(super) fn remove_replica(
        &mut self,
        c: &RemoveReplicaCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let id: ReplicaId = parse(&c.replica_id)?;
        let mode = volume
            .replicas
            .get(&id)
            .ok_or(Refusal::UnknownReplica(id))?
            .mode;
        let next = match mode {
            ReplicaMode::Deleting => return Ok(answer(&volume)),
            ReplicaMode::InSync | ReplicaMode::Rebuilding => ReplicaMode::OutOfSync,
            ReplicaMode::Creating | ReplicaMode::OutOfSync => ReplicaMode::Deleting,
        };
        if !volume.can_spare(id, self.at_ms) {
            return Err(too_many_or_few(&volume));
        }
        volume.turn(id, next, &c.reason, self.at())?;
        if next == ReplicaMode::Deleting {
            let node = node_of(&volume, id);
            let message = format!("the replica on {node} is removed: {}", c.reason);
            self.volume_event(Severity::Info, "ReplicaRemoved", &volume.name, message);
        }
        Ok(self.put(volume))
    }

    /// The volume, when this epoch's engine is to run (INV-1, INV-3). An engine of a volume that is
    /// gone is fenced as well.
    pub(super) fn volume_of_engine(&self, id: &str, epoch: u64) -> Result<Volume, Refusal> {
        let engine = Epoch::from_raw(epoch);
        let fenced = |current| Refusal::Fenced { engine, current };
        let volume = self.volume(id).map_err(|refusal| match refusal {
            Refusal::NoVolume(_) => fenced(Epoch::ZERO),
            other => other,
        })?;
        if engine > volume.epoch {
            return Err(Refusal::EpochMoved {
                is: volume.epoch,
                expected: engine,
            });
        }
        if engine < volume.epoch || volume.engine_node().is_none() {
            return Err(fenced(volume.epoch));
        }
        Ok(volume)
    }

    fn volume_without_engine(&self, id: &str) -> Result<Volume, Refusal> {
        let volume = self.volume(id)?;
        if volume.engine_node().is_some() {
            return Err(volume.wrong_phase("judged by the managers"));
        }
        Ok(volume)
    }
}

/// Two replicas of a volume on one node would be lost together.
fn node_is_free(volume: &Volume, but: Option<ReplicaId>, new: &Replica) -> Result<(), Refusal> {
    let mut others = volume.live().filter(|(other, _)| Some(*other) != but);
    if new.source.is_some() {
        let text = "only a new volume's replicas can share a source";
        return Err(Refusal::Invalid(text.to_owned()));
    }
    if others.any(|(_, other)| other.node == new.node) {
        let text = format!("node {} has a replica of the volume already", new.node);
        return Err(Refusal::Invalid(text));
    }
    Ok(())
}

fn too_many_or_few(volume: &Volume) -> Refusal {
    Refusal::Replicas {
        volume: volume.name.clone(),
        live: volume.live().count(),
        wanted: volume.replica_count,
    }
}

fn node_of(volume: &Volume, replica: ReplicaId) -> &str {
    volume
        .replicas
        .get(&replica)
        .map_or("?", |replica| replica.node.as_str())
}
