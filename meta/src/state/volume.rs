//! A volume on record: its replicas, its tree of layers and its tasks.

use std::collections::{BTreeMap, VecDeque};

use ankole_proto::wire::body::SEALED_LAYERS_MAX;
use ankole_proto::{
    Credential, DiskId, Epoch, LayerId, NodeName, ReplicaId, SnapshotId, VolumeId, VolumeSize,
};

use ankole_proto::rpc::v1 as rpc;

use super::{Chap, Phase, Refusal, ReplicaMode, Wear};

/// The most tasks that wait for a volume's engine: more means that nobody works on them.
pub const TASKS_MAX: usize = 32;

/// The most replicas that a volume is to have: more cost every write and protect against nothing
/// likely.
pub const REPLICAS_MAX: u32 = 8;

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
    /// Engines of this epoch and older ones are to be replaced.
    pub restart_epoch: Epoch,
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
    /// When a write is durable.
    pub write_cache: WriteCache,
    /// What each rebuild of its replicas copies at most; 0: no limit.
    pub rebuild_bytes_per_second: u64,
    /// Who may log in to its target; `None`: anybody.
    pub chap: Option<Chap>,
    /// The last scrub that was asked for.
    pub scrub: Scrub,
    /// The comparisons of its replicas with each other.
    pub comparison: Comparison,
    /// Bad blocks of its replicas, also of those that are gone, rewritten from a peer.
    pub repaired_blocks: u64,
    /// What it began as, when it is a clone.
    pub origin: Option<CloneOrigin>,
}

/// The snapshot that a clone began as; it may be gone by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloneOrigin {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Of which volume.
    pub volume: VolumeId,
    /// The layer under its name, which the clone shares with all below it.
    pub layer: LayerId,
}

/// When a write is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteCache {
    /// When a flush says so.
    #[default]
    On,
    /// When it is acknowledged.
    Off,
}

/// A scrub that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrub {
    /// Its number within the volume, from 1; 0: none was ever asked for.
    pub request: u64,
    /// When.
    pub asked_at_ms: u64,
}

/// The comparisons of a volume's in-sync replicas with each other, which its engine makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The number of the last one that was ordered, from 1; 0: none ever was.
    pub request: u64,
    /// When.
    pub ordered_at_ms: u64,
    /// The number of the last one that was made, and what it found.
    pub made: u64,
    /// When that was.
    pub finished_at_ms: u64,
    /// Bytes of all layers.
    pub total_bytes: u64,
    /// Chunks that did not read the same everywhere.
    pub differing_chunks: u64,
    /// Of these the ones of which no contents had a majority.
    pub undecided_chunks: u64,
    /// Chunks that could not be compared.
    pub skipped_chunks: u64,
}

impl Comparison {
    /// What the last one found, as it is told; `None`: none was made.
    pub fn told(&self) -> Option<rpc::ComparisonProgress> {
        (self.made > 0).then_some(rpc::ComparisonProgress {
            done_bytes: self.total_bytes,
            total_bytes: self.total_bytes,
            bytes_per_second: 0,
            differing_chunks: self.differing_chunks,
            undecided_chunks: self.undecided_chunks,
            skipped_chunks: self.skipped_chunks,
            finished_at_ms: self.finished_at_ms,
        })
    }

    /// The one that is to be made.
    pub const fn wanted(&self) -> Option<u64> {
        if self.request > self.made {
            Some(self.request)
        } else {
            None
        }
    }
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
    /// The log index of the last change of its mode; 0: never since it was added.
    pub mode_revision: u64,
    /// What is known of its medium.
    pub wear: Wear,
    /// Nothing of it was copied from another one since it was created empty, or was found to be equal
    /// to all others. Only what such replicas hold alike, two of them say.
    pub independent: bool,
    /// While a clone is being created: the replica on the same disk whose layers it is to share.
    pub source: Option<ReplicaId>,
}

/// Something an engine is to do once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its number within the volume, from 1.
    pub id: u64,
    /// What it is.
    pub kind: TaskKind,
}

/// The kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Take a snapshot: seal the head.
    Seal {
        /// Which snapshot.
        snapshot: SnapshotId,
        /// The head that it makes.
        new_head: LayerId,
    },
    /// Go back to a snapshot.
    Revert {
        /// To which.
        snapshot: SnapshotId,
        /// The head that it makes.
        new_head: LayerId,
    },
    /// Grow the volume.
    Expand {
        /// To this size.
        size: VolumeSize,
    },
}

impl TaskKind {
    /// The snapshot it is about, if it is about one.
    pub const fn snapshot(self) -> Option<SnapshotId> {
        match self {
            Self::Seal { snapshot, .. } | Self::Revert { snapshot, .. } => Some(snapshot),
            Self::Expand { .. } => None,
        }
    }
}

/// The moment of a log entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// Its proposer's clock.
    pub ms: u64,
    /// Its index.
    pub index: u64,
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

    /// A layer and all below it, each with the one below.
    pub fn chain(&self, top: LayerId) -> BTreeMap<LayerId, Option<LayerId>> {
        let mut chain = BTreeMap::new();
        let mut next = Some(top);
        while let Some(layer) = next {
            let Some(below) = self.layers.get(&layer).copied() else {
                break;
            };
            // A tree has no cycle; a record that has one must not be followed for ever.
            if chain.insert(layer, below).is_some() {
                break;
            }
            next = below;
        }
        chain
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

    /// The size that it has, or will have when the tasks that wait are done.
    pub fn size_wanted(&self) -> VolumeSize {
        let growing = self.tasks.iter().rev().find_map(|task| match task.kind {
            TaskKind::Expand { size } => Some(size),
            TaskKind::Seal { .. } | TaskKind::Revert { .. } => None,
        });
        growing.unwrap_or(self.size)
    }

    /// The replicas that are not being deleted.
    pub fn live(&self) -> impl Iterator<Item = (ReplicaId, &Replica)> {
        let all = self.replicas.iter().map(|(id, replica)| (*id, replica));
        all.filter(|(_, replica)| replica.mode != ReplicaMode::Deleting)
    }

    /// Whether a replica is to be added: fewer good ones are on record than wanted. Of those that
    /// had too many faults one is replaced at a time.
    pub fn wants_replica(&self, now_ms: u64) -> bool {
        let wanted = self.replica_count as usize;
        let good = self.live().filter(|(_, one)| !one.wear.is_worn(now_ms));
        self.has_data() && good.count() < wanted && self.live().count() <= wanted
    }

    /// Whether a replica can go: as many others as wanted are on record and good, and in sync when
    /// this one is.
    pub fn can_spare(&self, replica: ReplicaId, now_ms: u64) -> bool {
        let Some(found) = self.replicas.get(&replica) else {
            return false;
        };
        let in_sync = found.mode == ReplicaMode::InSync;
        let others = self.live().filter(|(id, other)| {
            let alike = !in_sync || other.mode == ReplicaMode::InSync;
            *id != replica && alike && !other.wear.is_worn(now_ms)
        });
        let deleting = found.mode == ReplicaMode::Deleting;
        self.has_data() && !deleting && others.count() >= self.replica_count as usize
    }

    /// Whether there is anything to compare a replica with.
    pub fn is_comparable(&self) -> bool {
        self.in_mode(ReplicaMode::InSync).nth(1).is_some()
    }

    /// The comparison that is to be made, when there is anything to compare.
    pub fn wanted_comparison(&self) -> Option<u64> {
        self.comparison.wanted().filter(|_| self.is_comparable())
    }

    /// Whether its replicas can be scrubbed.
    pub fn may_be_scrubbed(&self) -> bool {
        self.has_data()
    }

    /// Whether it holds what somebody may want back.
    pub(super) fn has_data(&self) -> bool {
        matches!(
            self.phase,
            Phase::Detached | Phase::Attached(_) | Phase::Detaching(_)
        )
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
        at: At,
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
        found.since_ms = at.ms;
        found.mode_revision = at.index;
        found.independent &= next == ReplicaMode::InSync;
        Ok(())
    }

    /// Puts a task at the end of the queue and tells its number.
    ///
    /// # Errors
    ///
    /// When too many wait, or when it would make more sealed layers than a volume may have (INV-7).
    pub(super) fn enqueue(&mut self, kind: TaskKind) -> Result<u64, Refusal> {
        if self.tasks.len() >= TASKS_MAX {
            return Err(Refusal::TooManyTasks {
                volume: self.name.clone(),
            });
        }
        let seals = |kind: TaskKind| matches!(kind, TaskKind::Seal { .. });
        let to_seal = self.tasks.iter().filter(|task| seals(task.kind)).count();
        let sealed = self.layers.len().saturating_sub(1) + to_seal;
        if seals(kind) && sealed >= SEALED_LAYERS_MAX {
            return Err(Refusal::TooManySnapshots {
                volume: self.name.clone(),
            });
        }
        let id = self.next_task;
        self.next_task += 1;
        self.tasks.push_back(Task { id, kind });
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
