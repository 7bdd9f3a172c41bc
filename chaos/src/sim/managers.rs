//! The managers' record of the volume: one register that only changes as the rules allow.
//!
//! In place of three managers and their log stands what they amount to: a linearizable record that
//! is out of reach at times, and whose answer may be lost after it has acted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::mutation::Mutation;
use ankole_engine::mirror::event::{
    Member, Orders, Record, RecordRefusal, Role, Task, TaskId, TaskKind,
};
use ankole_proto::{
    Credential, Epoch, LayerId, NodeName, ReplicaAddress, ReplicaId, SnapshotId, VolumeId,
    VolumeSize,
};

/// What a replica is on record as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    InSync,
    Rebuilding,
    OutOfSync,
}

/// A snapshot on record.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    task: TaskId,
    pub(super) layer: LayerId,
    /// When it was asked for.
    pub(super) begin: Duration,
    /// When it was recorded as done.
    pub(super) end: Option<Duration>,
}

/// The record.
#[derive(Debug)]
pub(super) struct Managers {
    pub(super) volume: VolumeId,
    pub(super) size: VolumeSize,
    pub(super) credential: Credential,
    pub(super) epoch: Epoch,
    pub(super) head: LayerId,
    pub(super) replicas: BTreeMap<ReplicaId, (NodeName, Mode)>,
    pub(super) snapshots: Vec<Snapshot>,
    task: Option<Task>,
    next_task: u64,
    next_layer: u64,
    revision: u64,
    /// Layers of deleted snapshots, to be merged away.
    pub(super) unwanted: Vec<LayerId>,
    mutation: Option<Mutation>,
    /// Nobody reaches them before then.
    pub(super) unreachable_until: Duration,
    pub(super) rebuilds: u64,
}

fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw.max(1)).unwrap_or_else(|| unreachable!("not 0"))
}

impl Managers {
    pub(super) fn new(
        size: VolumeSize,
        replicas: &[(ReplicaId, NodeName)],
        mutation: Option<Mutation>,
    ) -> Self {
        let replicas = replicas
            .iter()
            .map(|(id, node)| (*id, (node.clone(), Mode::InSync)))
            .collect();
        Self {
            volume: VolumeId::from_bits(0xa),
            size,
            credential: Credential::from_bytes([7; 32]),
            epoch: Epoch::ZERO,
            head: layer(1),
            replicas,
            snapshots: Vec::new(),
            task: None,
            next_task: 1,
            next_layer: 2,
            revision: 1,
            unwanted: Vec::new(),
            mutation,
            unreachable_until: Duration::ZERO,
            rebuilds: 0,
        }
    }

    /// The base layer that every replica was created with.
    pub(super) fn base(&self) -> LayerId {
        layer(1)
    }

    /// The replicas in this mode.
    pub(super) fn with(&self, mode: Mode) -> impl Iterator<Item = ReplicaId> + '_ {
        let of_mode = move |entry: &(&ReplicaId, &(NodeName, Mode))| entry.1.1 == mode;
        self.replicas.iter().filter(of_mode).map(|(id, _)| *id)
    }

    /// What a replica is on record as.
    pub(super) fn mode(&self, replica: ReplicaId) -> Option<Mode> {
        Some(self.replicas.get(&replica)?.1)
    }

    /// The next engine's epoch.
    pub(super) fn grant(&mut self) -> Epoch {
        if self.mutation != Some(Mutation::GrantTwice) || self.epoch == Epoch::ZERO {
            self.epoch = self.epoch.next();
        }
        self.revision += 1;
        self.epoch
    }

    /// What an engine is told.
    pub(super) fn orders(&self) -> Orders {
        let members = self.replicas.iter().filter_map(|(replica, (node, mode))| {
            let role = match mode {
                Mode::InSync => Role::InSync,
                Mode::Rebuilding => Role::Rebuilding,
                Mode::OutOfSync => return None,
            };
            let address = ReplicaAddress {
                tcp: ([127, 0, 0, 1], 1).into(),
                unix: None,
            };
            Some(Member {
                replica: *replica,
                node: node.clone(),
                address: Some(address),
                role,
                damages: Vec::new(),
            })
        });
        Orders {
            revision: self.revision,
            volume: self.volume,
            epoch: self.epoch,
            size: self.size,
            head: self.head,
            replicas: members.collect(),
            credential: self.credential,
            tasks: self.task.into_iter().collect(),
        }
    }

    /// A returning replica is to be made equal.
    pub(super) fn start_rebuild(&mut self, replica: ReplicaId) {
        if let Some((_, mode)) = self.replicas.get_mut(&replica)
            && *mode == Mode::OutOfSync
        {
            *mode = if self.mutation == Some(Mutation::PromoteAtOnce) {
                Mode::InSync
            } else {
                Mode::Rebuilding
            };
            self.revision += 1;
        }
    }

    /// Drops a replica from the in-sync set without asking whether it is the last: wrong, and done
    /// on purpose only.
    pub(super) fn drop_from(&mut self, replica: ReplicaId) {
        if let Some((_, mode)) = self.replicas.get_mut(&replica) {
            *mode = Mode::OutOfSync;
            self.revision += 1;
        }
    }

    /// A faulted replica gives way to a new, empty one on the same node.
    pub(super) fn replace(&mut self, old: ReplicaId, new: ReplicaId) -> bool {
        match self.replicas.get(&old) {
            Some((node, Mode::OutOfSync | Mode::Rebuilding)) => {
                let node = node.clone();
                self.replicas.remove(&old);
                self.replicas.insert(new, (node, Mode::OutOfSync));
                self.revision += 1;
                true
            }
            _ => false,
        }
    }

    fn begin_task(&mut self, kind: TaskKind) -> TaskId {
        let id = TaskId(self.next_task);
        self.task = Some(Task { id, kind });
        self.next_task += 1;
        self.revision += 1;
        id
    }

    fn new_layer(&mut self) -> LayerId {
        self.next_layer += 1;
        layer(self.next_layer - 1)
    }

    /// Asks for a snapshot, unless a task is under way.
    pub(super) fn ask_snapshot(&mut self, now: Duration) -> bool {
        if self.task.is_some() {
            return false;
        }
        let new_head = self.new_layer();
        let snapshot = SnapshotId::from_bits(u128::from(self.next_task));
        let task = self.begin_task(TaskKind::Seal {
            snapshot,
            head: self.head,
            new_head,
            group: None,
        });
        self.snapshots.push(Snapshot {
            task,
            layer: self.head,
            begin: now,
            end: None,
        });
        true
    }

    /// The complete snapshot with this number, counted around.
    fn complete(&self, number: usize) -> Option<usize> {
        let complete: Vec<usize> = (0..self.snapshots.len())
            .filter(|at| self.snapshots[*at].end.is_some())
            .collect();
        let at = number.checked_rem(complete.len())?;
        complete.get(at).copied()
    }

    /// Asks for a return to some snapshot, unless a task is under way; between when it was taken.
    pub(super) fn ask_revert(&mut self, number: usize) -> Option<(Duration, Duration)> {
        if self.task.is_some() {
            return None;
        }
        let snapshot = self.snapshots.get(self.complete(number)?)?.clone();
        let new_head = self.new_layer();
        self.begin_task(TaskKind::Revert {
            to: snapshot.layer,
            new_head,
        });
        Some((snapshot.begin, snapshot.end?))
    }

    /// Deletes some snapshot; which layer is to go. Not while a task, which may need it, is under
    /// way.
    pub(super) fn delete_snapshot(&mut self, number: usize) -> Option<LayerId> {
        if self.task.is_some() {
            return None;
        }
        let at = self.complete(number)?;
        let mut gone = self.snapshots.remove(at).layer;
        if self.mutation == Some(Mutation::RemoveWrongLayer)
            && let Some(other) = self.snapshots.first()
        {
            gone = other.layer;
        }
        self.unwanted.push(gone);
        Some(gone)
    }

    /// Records something for the engine of this epoch.
    pub(super) fn record(
        &mut self,
        epoch: Epoch,
        record: &Record,
        now: Duration,
    ) -> Result<Orders, RecordRefusal> {
        if epoch != self.epoch {
            return Err(RecordRefusal::Fenced);
        }
        match record {
            Record::ReplicaLost { replica, .. } => {
                let before = self.replicas.clone();
                self.lose(*replica)?;
                if self.mutation == Some(Mutation::ForgetLosses) {
                    self.revision += 1;
                    let told = self.orders();
                    self.replicas = before;
                    return Ok(told);
                }
            }
            Record::ReplicaInSync { replica } => self.restore(*replica)?,
            Record::TaskDone { task, refusal } => self.finish(*task, refusal.is_some(), now)?,
        }
        self.revision += 1;
        Ok(self.orders())
    }

    fn lose(&mut self, replica: ReplicaId) -> Result<(), RecordRefusal> {
        let in_sync = self.with(Mode::InSync).count();
        let (_, mode) = self
            .replicas
            .get_mut(&replica)
            .ok_or(RecordRefusal::Unknown)?;
        match mode {
            // INV-4.
            Mode::InSync if in_sync == 1 => return Err(RecordRefusal::LastInSync),
            Mode::InSync | Mode::Rebuilding => *mode = Mode::OutOfSync,
            // Said before: the answer was lost.
            Mode::OutOfSync => {}
        }
        Ok(())
    }

    fn restore(&mut self, replica: ReplicaId) -> Result<(), RecordRefusal> {
        let (_, mode) = self
            .replicas
            .get_mut(&replica)
            .ok_or(RecordRefusal::Unknown)?;
        match mode {
            Mode::Rebuilding => {
                *mode = Mode::InSync;
                self.rebuilds += 1;
                Ok(())
            }
            Mode::InSync => Ok(()),
            Mode::OutOfSync => Err(RecordRefusal::Unknown),
        }
    }

    fn finish(&mut self, id: TaskId, refused: bool, now: Duration) -> Result<(), RecordRefusal> {
        let Some(task) = self.task.take_if(|task| task.id == id) else {
            return if id.0 < self.next_task {
                Ok(())
            } else {
                Err(RecordRefusal::Unknown)
            };
        };
        if refused {
            self.snapshots.retain(|snapshot| snapshot.task != id);
            return Ok(());
        }
        match task.kind {
            TaskKind::Seal { new_head, .. } | TaskKind::Revert { new_head, .. } => {
                self.head = new_head;
            }
            TaskKind::Expand { size } => self.size = size,
        }
        let taken = self
            .snapshots
            .iter_mut()
            .find(|snapshot| snapshot.task == id);
        if let Some(snapshot) = taken {
            snapshot.end = Some(now);
        }
        Ok(())
    }

    /// Whether a task waits for an engine.
    pub(super) fn has_task(&self) -> bool {
        self.task.is_some()
    }
}
