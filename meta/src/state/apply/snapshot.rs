//! Asking for snapshots, going back to them, deleting them.

use ankole_proto::rpc::v1::{
    CreateSnapshotCommand, DeleteSnapshotCommand, LayerGoneCommand, LogAnswer, RevertVolumeCommand,
};
use ankole_proto::{LayerId, SnapshotGroupId, SnapshotId, VolumeId};

use super::{Apply, answer, parse};
use crate::state::changes::Key;
use crate::state::{PhaseKind, Refusal, Severity, Snapshot, SnapshotState, TaskKind, Volume};

impl Apply<'_> {
    pub(super) fn create_snapshot(
        &mut self,
        c: &CreateSnapshotCommand,
    ) -> Result<LogAnswer, Refusal> {
        let volume = self.volume(&c.volume_id)?;
        works_on_tasks(&volume, "given a snapshot")?;
        let id: SnapshotId = parse(&c.snapshot_id)?;
        self.name_is_free(volume.id, id, &c.name)?;
        let (_, answer) = self.begin_snapshot(volume, id, &c.name, None)?;
        Ok(answer)
    }

    /// Whether a volume may get a snapshot with this id and name.
    pub(super) fn name_is_free(
        &self,
        volume: VolumeId,
        id: SnapshotId,
        name: &str,
    ) -> Result<(), Refusal> {
        let mut others = self.state.snapshots_of(volume);
        let taken = others.any(|one| one.name == name && one.state != SnapshotState::Deleting);
        if taken || self.state.snapshots.contains_key(&id) {
            return Err(Refusal::SnapshotExists(name.to_owned()));
        }
        Ok(())
    }

    /// Puts a snapshot on record and the task that takes it; the task's number and the answer.
    pub(super) fn begin_snapshot(
        &mut self,
        mut volume: Volume,
        id: SnapshotId,
        name: &str,
        group: Option<SnapshotGroupId>,
    ) -> Result<(u64, LogAnswer), Refusal> {
        let task = self.enqueue(&mut volume, |new_head| TaskKind::Seal {
            snapshot: id,
            new_head,
        })?;
        self.put_snapshot(Snapshot {
            id,
            name: name.to_owned(),
            volume: volume.id,
            layer: None,
            state: SnapshotState::Creating,
            created_at_ms: self.at_ms,
            // As it is when the snapshot is taken, which may be after the volume has grown.
            size: volume.size_wanted(),
            group,
        });
        let answer = LogAnswer {
            snapshot_id: id.to_string(),
            task_id: task,
            ..self.put(volume)
        };
        Ok((task, answer))
    }

    /// Takes a snapshot off the record.
    pub(super) fn remove_snapshot(&mut self, id: SnapshotId) {
        self.state.snapshots.remove(&id);
        self.touched.note(Key::Snapshot(id));
    }

    pub(super) fn revert_volume(&mut self, c: &RevertVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        works_on_tasks(&volume, "reverted")?;
        let snapshot = self.snapshot(&c.snapshot_id)?;
        if snapshot.volume != volume.id {
            return Err(Refusal::NoSnapshot(snapshot.id));
        }
        let why = match (snapshot.state, snapshot.group) {
            (SnapshotState::Deleting, _) => Some("it is being deleted; choose another"),
            (SnapshotState::Creating, Some(_)) => {
                Some("the other volumes of its group are not done; wait until it is ready")
            }
            _ => None,
        };
        if let Some(why) = why {
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
        if let Some(clone) = self.clone_under_way(|origin| origin.snapshot == snapshot.id) {
            return Err(Refusal::CloneUnderWay {
                what: format!("snapshot {:?}", snapshot.name),
                clone,
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
        if c.snapshot_id.is_empty() {
            return self.nameless_layer_gone(c);
        }
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
        self.remove_snapshot(snapshot.id);
        let message = format!("snapshot {} is gone", snapshot.name);
        self.volume_event(Severity::Info, "SnapshotDeleted", &volume.name, message);
        Ok(self.put(volume))
    }

    /// The same of a layer under no name. Said twice it has no further effect.
    fn nameless_layer_gone(&mut self, c: &LayerGoneCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let layer: LayerId = parse(&c.layer)?;
        let nameless = volume.nameless_layers(self.state).contains(&layer);
        if nameless && volume.children(layer).count() <= 1 {
            volume.drop_layer(layer);
            return Ok(self.put(volume));
        }
        Ok(answer(&volume))
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
