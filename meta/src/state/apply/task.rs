//! The outcome of an engine's task.

use ankole_proto::rpc::v1::{LogAnswer, TaskDoneCommand};

use super::{Apply, answer};
use crate::state::changes::Key;
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
        if c.refusal.is_empty() {
            self.finish(&mut volume, task);
        } else {
            self.give_up(&mut volume, task, &c.refusal);
        }
        Ok(LogAnswer {
            task_id: task.id,
            ..self.put(volume)
        })
    }

    fn finish(&mut self, volume: &mut Volume, task: Task) {
        let old_head = volume.head;
        let snapshot = self.state.snapshots.get(&task.kind.snapshot()).cloned();
        match (task.kind, snapshot) {
            (TaskKind::Seal(_), Some(mut snapshot)) => {
                volume.layers.insert(task.new_head, Some(old_head));
                snapshot.layer = Some(old_head);
                snapshot.state = SnapshotState::Ready;
                let message = format!("snapshot {} is ready", snapshot.name);
                self.put_snapshot(snapshot);
                self.volume_event(Severity::Info, "SnapshotReady", &volume.name, message);
            }
            (TaskKind::Revert(_), Some(snapshot)) => {
                volume.layers.insert(task.new_head, snapshot.layer);
                volume.layers.remove(&old_head);
                let message = format!("its contents are those of snapshot {}", snapshot.name);
                self.volume_event(Severity::Info, "VolumeReverted", &volume.name, message);
            }
            // A snapshot that a task waits for cannot be deleted.
            (_, None) => return,
        }
        volume.head = task.new_head;
    }

    fn give_up(&mut self, volume: &mut Volume, task: Task, reason: &str) {
        volume.remember_refused(task.id, reason);
        let (kind, what) = match task.kind {
            TaskKind::Seal(snapshot) => {
                self.state.snapshots.remove(&snapshot);
                self.touched.note(Key::Snapshot(snapshot));
                ("SnapshotRefused", "the snapshot was not taken")
            }
            TaskKind::Revert(_) => ("RevertRefused", "the volume was not reverted"),
        };
        self.volume_event(
            Severity::Warning,
            kind,
            &volume.name,
            format!("{what}: {reason}"),
        );
    }
}
