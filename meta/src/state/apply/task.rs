//! The outcome of an engine's task.

use ankole_proto::SnapshotId;
use ankole_proto::rpc::v1::{LogAnswer, TaskDoneCommand};

use super::{Apply, answer};
use crate::state::{Refusal, Severity, SnapshotState, Task, TaskKind, Volume};

impl Apply<'_> {
    /// Only the first task of the queue is ever handed out; one that waits no more was reported
    /// before.
    pub(super) fn task_done(&mut self, c: &TaskDoneCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_of_engine(&c.volume_id, c.epoch)?;
        let front = volume
            .tasks
            .front()
            .map_or(volume.next_task, |task| task.id);
        if c.task_id != 0 && c.task_id < front {
            return Ok(answer(&volume));
        }
        let task = volume
            .tasks
            .front()
            .copied()
            .filter(|task| task.id == c.task_id);
        let task = task.ok_or(Refusal::UnknownTask(c.task_id))?;
        volume.tasks.pop_front();
        let snapshot = task.kind.snapshot();
        let snapshot = snapshot.and_then(|id| self.state.snapshots.get(&id));
        let seals = matches!(task.kind, TaskKind::Seal { .. });
        let group = snapshot.and_then(|one| one.group).filter(|_| seals);
        if c.refusal.is_empty() {
            self.finish(&mut volume, task);
        } else {
            self.give_up(&mut volume, task, &c.refusal);
        }
        let answer = LogAnswer {
            task_id: task.id,
            ..self.put(volume.clone())
        };
        match group {
            Some(group) if c.refusal.is_empty() => self.member_sealed(volume.id, group),
            Some(group) => self.member_refused(&volume, group, &c.refusal),
            None => {}
        }
        Ok(answer)
    }

    fn finish(&mut self, volume: &mut Volume, task: Task) {
        let old_head = volume.head;
        let snapshot = task.kind.snapshot();
        let snapshot = snapshot.and_then(|id| self.state.snapshots.get(&id).cloned());
        match (task.kind, snapshot) {
            (TaskKind::Expand { size }, _) => {
                volume.size = size;
                let message = format!("it has {} bytes now", size.bytes());
                self.volume_event(Severity::Info, "VolumeExpanded", &volume.name, message);
            }
            (TaskKind::Seal { new_head, .. }, Some(mut snapshot)) => {
                volume.layers.insert(new_head, Some(old_head));
                volume.head = new_head;
                snapshot.layer = Some(old_head);
                snapshot.size = volume.size;
                if snapshot.group.is_some() {
                    // Ready when all are.
                    self.put_snapshot(snapshot);
                    return;
                }
                snapshot.state = SnapshotState::Ready;
                let message = format!("snapshot {} is ready", snapshot.name);
                self.put_snapshot(snapshot);
                self.volume_event(Severity::Info, "SnapshotReady", &volume.name, message);
            }
            (TaskKind::Revert { new_head, .. }, Some(snapshot)) => {
                volume.layers.insert(new_head, snapshot.layer);
                volume.layers.remove(&old_head);
                volume.head = new_head;
                let message = format!("its contents are those of snapshot {}", snapshot.name);
                self.volume_event(Severity::Info, "VolumeReverted", &volume.name, message);
            }
            // A snapshot that a task waits for cannot be deleted.
            (TaskKind::Seal { .. } | TaskKind::Revert { .. }, None) => {}
        }
    }

    fn give_up(&mut self, volume: &mut Volume, task: Task, reason: &str) {
        volume.remember_refused(task.id, reason);
        let (kind, what) = match task.kind {
            TaskKind::Seal { snapshot, .. } => {
                self.remove_snapshot(snapshot);
                drop_reverts(volume, snapshot, reason);
                ("SnapshotRefused", "the snapshot was not taken")
            }
            TaskKind::Revert { .. } => ("RevertRefused", "the volume was not reverted"),
            TaskKind::Expand { .. } => ("ExpandRefused", "the volume has not grown"),
        };
        self.volume_event(
            Severity::Warning,
            kind,
            &volume.name,
            format!("{what}: {reason}"),
        );
    }
}

/// What was to go back to a snapshot that was not taken cannot be done.
fn drop_reverts(volume: &mut Volume, snapshot: SnapshotId, reason: &str) {
    let goes_back =
        |task: &Task| matches!(task.kind, TaskKind::Revert { snapshot: to, .. } if to == snapshot);
    let dropped: Vec<u64> = volume
        .tasks
        .iter()
        .filter(|task| goes_back(task))
        .map(|task| task.id)
        .collect();
    volume.tasks.retain(|task| !goes_back(task));
    for task in dropped {
        let why = format!("the snapshot to go back to was not taken: {reason}");
        volume.remember_refused(task, &why);
    }
}
