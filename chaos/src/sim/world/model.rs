//! What a volume must hold, followed along with the log.

use std::collections::BTreeMap;

use ankole_meta::state::SnapshotState;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use ankole_proto::{ReplicaId, SnapshotId, VolumeId};

use super::super::history::{History, WriteId};
use super::World;
use super::operator::Taken;

/// What a volume must hold.
#[derive(Debug, Default)]
pub(in super::super) struct Model {
    pub(in super::super) history: History,
    pub(in super::super) snapshots: BTreeMap<SnapshotId, Taken>,
    /// Tasks that go back to a snapshot.
    reverts: BTreeMap<u64, WriteId>,
}

impl World {
    /// An entry of the log has taken effect.
    pub(super) fn committed(&mut self, command: &LogCommand, answer: &LogAnswer, again: bool) {
        if answer.refusal.is_some() {
            if !again {
                self.never_happens(command);
            }
            return;
        }
        match &command.command {
            Some(Command::CreateVolume(created)) => {
                if let Ok(id) = created.volume_id.parse() {
                    self.models.entry(id).or_default();
                }
            }
            Some(Command::ReplicaInSync(done)) => {
                self.intact(&done.replica_id);
                self.summary.rebuilds += u64::from(!again);
            }
            Some(Command::ReplicaLost(lost)) => {
                if let Ok(id) = lost.volume_id.parse() {
                    self.note_power_loss(id);
                }
            }
            Some(Command::RemoveReplica(gone)) => {
                if let Ok(id) = gone.volume_id.parse() {
                    self.note_power_loss(id);
                }
            }
            Some(Command::TaskDone(done)) => {
                if let Ok(id) = done.volume_id.parse() {
                    self.task_done(id, done.task_id, done.refusal.is_empty());
                }
            }
            Some(Command::RevertVolume(_)) => {
                if let Some((volume, write)) = self.reverts.remove(&command.request_id)
                    && let Some(model) = self.models.get_mut(&volume)
                {
                    model.reverts.insert(answer.task_id, write);
                }
            }
            _ => {}
        }
        self.models
            .retain(|id, _| self.fleet.state.volumes().contains_key(id));
        self.news();
    }

    /// A call that takes no effect, now or later.
    pub(super) fn never_happens(&mut self, command: &LogCommand) {
        let now = self.schedule.now();
        if let Some((volume, write)) = self.reverts.remove(&command.request_id)
            && let Some(model) = self.models.get_mut(&volume)
        {
            model.history.refuse(write, now);
        }
    }

    fn intact(&mut self, replica: &str) {
        let Ok(id) = replica.parse::<ReplicaId>() else {
            return;
        };
        for host in &mut self.hosts {
            if let Some(slot) = host.slot(id) {
                slot.intact = true;
            }
        }
    }

    /// The first task of a volume has left its queue, unless that was so before.
    fn task_done(&mut self, volume: VolumeId, task: u64, done: bool) {
        let now = self.schedule.now();
        let Some(model) = self.models.get_mut(&volume) else {
            return;
        };
        if let Some(revert) = model.reverts.remove(&task) {
            if done {
                model.history.acknowledge(revert, true, now);
                self.summary.reverts += 1;
            } else {
                model.history.refuse(revert, now);
            }
        }
        for (id, taken) in &mut model.snapshots {
            let snapshot = self.fleet.state.snapshots().get(id);
            let ready = snapshot.is_some_and(|one| one.state == SnapshotState::Ready);
            if ready && taken.end.is_none() {
                taken.end = Some(now);
                self.summary.snapshots += 1;
            }
        }
    }

    /// When no in-sync replica of a volume is left that has not lost its power, what was not
    /// flushed may be gone.
    pub(super) fn note_power_loss(&mut self, volume: VolumeId) {
        let in_sync = self.fleet.in_sync(volume);
        let slots = self.hosts.iter().flat_map(|host| host.slots.values());
        let intact = slots
            .filter(|slot| in_sync.contains(&slot.id))
            .any(|slot| slot.intact);
        if !intact && let Some(model) = self.models.get_mut(&volume) {
            model.history.power_cut();
        }
    }

    pub(super) fn note_power_losses(&mut self) {
        for volume in self.models.keys().copied().collect::<Vec<_>>() {
            self.note_power_loss(volume);
        }
    }
}
