//! A volume on record: its replicas, its tree of layers and its tasks.

use std::collections::{BTreeMap, VecDeque};

use ankole_proto::wire::body::SEALED_LAYERS_MAX;
use ankole_proto::{
    Credential, DiskId, Epoch, LayerId, NodeName, ReplicaId, SnapshotId, VolumeId, VolumeSize,
};

use super::{Phase, Refusal, ReplicaMode};

/// The most tasks that wait for a volume's engine: more means that nobody works on them.
pub const TASKS_MAX: usize = 32;

/// How many refused tasks a volume remembers, for those who wait for the outcome.
const REFUSED_MAX: usize = 8;

/// The name of a volume's target: the same for the volume's life, wherever it is attached.
pub fn iqn(volume: VolumeId) -> String {
    format!("iqn.2026-01.io.ankole:{volume}")
}

/// A virtual disk, as agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name, unique among volumes.
    pub name: String,
    /// Its size.
    pub size: VolumeSize,
    /// How many replicas are wanted.
    pub replica_count: u32,
    /// What it is meant to be doing.
    pub phase: Phase,
    /// The port of its target; of a detached volume the one it had last, 0 for none.
    pub port: u16,
    /// The engine without target that works on it. Never runs together with a target.
    pub worker: Option<Worker>,
    /// Of the last engine (INV-1).
    pub epoch: Epoch,
    /// Its replicas.
    pub replicas: BTreeMap<ReplicaId, Replica>,
    /// The writable layer.
    pub head: LayerId,
    /// Every layer, the head among them, and the one below it.
    pub layers: BTreeMap<LayerId, Option<LayerId>>,
    /// What its engine is to do, in this order.
    pub tasks: VecDeque<Task>,
    /// The number of the next task; smaller ones that do not wait are finished.
    pub next_task: u64,
    /// Tasks that an engine refused lately, and why.
    pub refused: VecDeque<(u64, String)>,
    /// Opens its replicas.
    pub credential: Credential,
    /// The log index of its last change.
    pub revision: u64,
    /// When it was created.
    pub created_at_ms: u64,
}

/// An engine without target, for a detached volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Where it runs.
    pub node: NodeName,
    /// Whether it is to end.
    pub ending: bool,
}

/// One copy of a volume, as agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its host.
    pub node: NodeName,
    /// Its disk there.
    pub disk: DiskId,
    /// What it is.
    pub mode: ReplicaMode,
    /// Why it is in this mode; empty when that needs no reason.
    pub reason: String,
    /// Since when.
    pub since_ms: u64,
}

/// Something an engine is to do once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its number within the volume, from 1.
    pub id: u64,
    /// The head that it makes.
    pub new_head: LayerId,
    /// What it is.
    pub kind: TaskKind,
}

/// The kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Take this snapshot: seal the head.
    Seal(SnapshotId),
    /// Go back to this snapshot.
    Revert(SnapshotId),
}

impl TaskKind {
    /// The snapshot it is about.
    pub const fn snapshot(self) -> SnapshotId {
        match self {
            Self::Seal(snapshot) | Self::Revert(snapshot) => snapshot,
        }
    }
}

/// A replica that no volume lists any more but that may still be on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its host.
    pub node: NodeName,
    /// Its disk.
    pub disk: DiskId,
    /// Of which it was.
    pub volume: VolumeId,
}

impl Volume {
    /// The replicas in this mode.
    pub fn in_mode(&self, mode: ReplicaMode) -> impl Iterator<Item = (ReplicaId, &Replica)> {
        let all = self.replicas.iter().map(|(id, replica)| (*id, replica));
        all.filter(move |(_, replica)| replica.mode == mode)
    }

    /// The layers that lie directly on this one.
    pub fn children(&self, layer: LayerId) -> impl Iterator<Item = LayerId> {
        let all = self.layers.iter();
        all.filter(move |(_, parent)| **parent == Some(layer))
            .map(|(child, _)| *child)
    }

    /// The node that an engine of this volume runs on, may run on, or is still to end on.
    pub fn engine_node(&self) -> Option<&NodeName> {
        self.worker
            .as_ref()
            .map(|worker| &worker.node)
            .or_else(|| self.phase.node())
    }

    /// The node that an engine of this volume is meant to run on, and whether with a target. A
    /// target waits until a worker has ended.
    pub fn wanted_engine(&self) -> Option<(&NodeName, bool)> {
        match (&self.phase, &self.worker) {
            (Phase::Attached(node), None) => Some((node, true)),
            (Phase::Detached, Some(worker)) if !worker.ending => Some((&worker.node, false)),
            _ => None,
        }
    }

    /// Why the engine refused a task, when it did.
    pub fn refusal_of(&self, task: u64) -> Option<&str> {
        let found = self.refused.iter().find(|(id, _)| *id == task);
        found.map(|(_, reason)| reason.as_str())
    }

    /// Whether a task still waits.
    pub fn task_waits(&self, task: u64) -> bool {
        self.tasks.iter().any(|waiting| waiting.id == task)
    }

    /// Makes `next` the phase.
    ///
    /// # Errors
    ///
    /// [`Refusal::WrongPhase`] when it may not follow the present one.
    pub(super) fn enter(&mut self, next: Phase, act: &'static str) -> Result<(), Refusal> {
        if !self.phase.kind().may_become(next.kind()) {
            return Err(self.wrong_phase(act));
        }
        self.phase = next;
        Ok(())
    }

    /// The refusal of an act that the present phase does not allow.
    pub(super) fn wrong_phase(&self, act: &'static str) -> Refusal {
        Refusal::WrongPhase {
            volume: self.name.clone(),
            act,
            phase: self.phase.kind(),
        }
    }

    /// Makes `next` the mode of a replica.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownReplica`], [`Refusal::WrongMode`] when the mode may not follow the present
    /// one, [`Refusal::LastInSync`] when a volume would be left without an in-sync replica (INV-4).
    pub(super) fn turn(
        &mut self,
        replica: ReplicaId,
        next: ReplicaMode,
        reason: &str,
        at_ms: u64,
    ) -> Result<(), Refusal> {
        let in_sync = self.in_mode(ReplicaMode::InSync).count();
        let keeps_data = self.phase != Phase::Deleting;
        let found = self
            .replicas
            .get_mut(&replica)
            .ok_or(Refusal::UnknownReplica(replica))?;
        if !found.mode.may_become(next) {
            return Err(Refusal::WrongMode {
                replica,
                mode: found.mode,
                wanted: next,
            });
        }
        if found.mode == ReplicaMode::InSync && in_sync <= 1 && keeps_data {
            return Err(Refusal::LastInSync(replica)); // INV-4
        }
        found.mode = next;
        found.reason = reason.to_owned();
        found.since_ms = at_ms;
        Ok(())
    }

    /// Puts a task at the end of the queue and tells its number.
    ///
    /// # Errors
    ///
    /// When too many wait, or when it would make more sealed layers than a volume may have (INV-7).
    pub(super) fn enqueue(&mut self, kind: TaskKind, new_head: LayerId) -> Result<u64, Refusal> {
        if self.tasks.len() >= TASKS_MAX {
            return Err(Refusal::TooManyTasks {
                volume: self.name.clone(),
            });
        }
        let sealed = self.layers.len().saturating_sub(1) + self.tasks.len();
        if matches!(kind, TaskKind::Seal(_)) && sealed >= SEALED_LAYERS_MAX {
            return Err(Refusal::TooManySnapshots {
                volume: self.name.clone(),
            });
        }
        let id = self.next_task;
        self.next_task += 1;
        self.tasks.push_back(Task { id, new_head, kind });
        Ok(id)
    }

    /// Keeps in mind that an engine refused a task.
    pub(super) fn remember_refused(&mut self, task: u64, reason: &str) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((task, reason.to_owned()));
    }

    /// Takes a layer out of the tree: those on it lie on its parent now.
    pub(super) fn drop_layer(&mut self, layer: LayerId) {
        let Some(below) = self.layers.remove(&layer) else {
            return;
        };
        for parent in self
            .layers
            .values_mut()
            .filter(|parent| **parent == Some(layer))
        {
            *parent = below;
        }
    }
}
