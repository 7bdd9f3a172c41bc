//! Asking for snapshots, going back to them, deleting them.

use ankole_proto::rpc::v1::{
    CreateSnapshotCommand, DeleteSnapshotCommand, LayerGoneCommand, LogAnswer, RevertVolumeCommand,
};
use ankole_proto::{LayerId, SnapshotId};

use super::{Apply, answer, parse};
use crate::state::changes::Key;
use crate::state::{PhaseKind, Refusal, Severity, Snapshot, SnapshotState, TaskKind, Volume};

impl Apply<'_> {
    pub(super) fn create_snapshot(
        &mut self,
        c: &CreateSnapshotCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        works_on_tasks(&volume, "given a snapshot")?;
        let id: SnapshotId = parse(&c.snapshot_id)?;
        let taken = self
            .state
            .snapshots_of(volume.id)
            .any(|one| one.name == c.name && one.state != SnapshotState::Deleting);
        if taken || self.state.snapshots.contains_key(&id) {
            return Err(Refusal::SnapshotExists(c.name.clone()));
        }
        let task = self.enqueue(&mut volume, |new_head| TaskKind::Seal {
            snapshot: id,
            new_head,
        })?;
        self.put_snapshot(Snapshot {
            id,
            name: c.name.clone(),
            volume: volume.id,
            layer: None,
            state: SnapshotState::Creating,
            created_at_ms: self.at_ms,
            // As it is when the snapshot is taken, which may be after the volume has grown.
            size: volume.size_wanted(),
        });
        Ok(LogAnswer {
            snapshot_id: id.to_string(),
            task_id: task,
            ..self.put(volume)
        })
    }

    pub(super) fn revert_volume(&mut self, c: &RevertVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        works_on_tasks(&volume, "reverted")?;
        let snapshot = self.snapshot(&c.snapshot_id)?;
        if snapshot.volume != volume.id {
            return Err(Refusal::NoSnapshot(snapshot.id));
        }
        if snapshot.state == SnapshotState::Deleting {
            let why = "it is being deleted; choose another";
            return Err(Refusal::WrongSnapshot {
                name: snapshot.name,
                act: "reverted to",
                why,
            });
        }
        let task = self.enqueue(&mut volume, |new_head| TaskKind::Revert {
            snapshot: snapshot.id,
            new_head,
        })?;
        let snapshot_id = snapshot.id.to_string();
        Ok(LogAnswer {
            snapshot_id,
            task_id: task,
            ..self.put(volume)
        })
    }

    pub(super) fn delete_snapshot(
        &mut self,
        c: &DeleteSnapshotCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut snapshot = self.snapshot(&c.snapshot_id)?;
        let volume = self.volume(&snapshot.volume.to_string())?;
        let waits = volume
            .tasks
            .iter()
            .any(|task| task.kind.snapshot() == Some(snapshot.id));
        if waits || snapshot.state == SnapshotState::Creating {
            let why = "an engine is still to take it or to revert to it; wait for that";
            return Err(Refusal::WrongSnapshot {
                name: snapshot.name,
                act: "deleted",
                why,
            });
        }
        let snapshot_id = snapshot.id.to_string();
        if snapshot.state == SnapshotState::Deleting {
            return Ok(LogAnswer {
                snapshot_id,
                ..answer(&volume)
            });
        }
        snapshot.state = SnapshotState::Deleting;
        let message = format!("snapshot {} is being deleted", snapshot.name);
        self.volume_event(Severity::Info, "SnapshotDeleting", &volume.name, message);
        self.put_snapshot(snapshot);
        Ok(LogAnswer {
            snapshot_id,
            ..self.put(volume)
        })
    }

    /// The layer of a deleted snapshot was merged into the next newer one, which lies on its parent
    /// from now on (INV-6, INV-7).
    pub(super) fn layer_gone(&mut self, c: &LayerGoneCommand) -> Result<LogAnswer, Refusal> {
        let snapshot = self.snapshot(&c.snapshot_id)?;
        let mut volume = self.volume(&snapshot.volume.to_string())?;
        let deleting = snapshot.state == SnapshotState::Deleting;
        let Some(layer) = snapshot
            .layer
            .filter(|layer| deleting && *layer != volume.head)
        else {
            let why = "it is not being deleted";
            return Err(Refusal::WrongSnapshot {
                name: snapshot.name,
                act: "removed",
                why,
            });
        };
        if volume.children(layer).count() > 1 {
            let why = "several branches lie on it";
            return Err(Refusal::WrongSnapshot {
                name: snapshot.name,
                act: "removed",
                why,
            });
        }
        volume.drop_layer(layer);
        self.state.snapshots.remove(&snapshot.id);
        self.touched.note(Key::Snapshot(snapshot.id));
        let message = format!("snapshot {} is gone", snapshot.name);
        self.volume_event(Severity::Info, "SnapshotDeleted", &volume.name, message);
        Ok(self.put(volume))
    }

    pub(super) fn snapshot(&self, id: &str) -> Result<Snapshot, Refusal> {
        let id: SnapshotId = parse(id)?;
        self.state
            .snapshots
            .get(&id)
            .cloned()
            .ok_or(Refusal::NoSnapshot(id))
    }

    /// Puts a task that makes a head at the end of the queue.
    fn enqueue(
        &mut self,
        volume: &mut Volume,
        kind: impl Fn(LayerId) -> TaskKind,
    ) -> Result<u64, Refusal> {
        // Checked on a copy first: a refusal must not use up a layer.
        let probe = LayerId::from_raw(self.state.next_layer).unwrap_or(volume.head);
        volume.clone().enqueue(kind(probe))?;
        let new_head = self.allocate_layer()?;
        volume.enqueue(kind(new_head))
    }
}

/// Whether the volume's engine takes tasks, or one would be started for them.
pub(super) fn works_on_tasks(volume: &Volume, act: &'static str) -> Result<(), Refusal> {
    match volume.phase.kind() {
        PhaseKind::Detached | PhaseKind::Attached => Ok(()),
        _ => Err(volume.wrong_phase(act)),
    }
}
