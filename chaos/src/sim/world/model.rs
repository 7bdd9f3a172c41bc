//! What a volume must hold, followed along with the log.

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_meta::state::SnapshotState;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{CreateVolumeCommand, LogAnswer, LogCommand};
use ankole_proto::{ReplicaId, SnapshotId, VolumeId};

use super::super::history::{History, WriteId};
use super::World;
use super::operator::Taken;

/// How long an engine must at least have heard nothing of a replica that has everything before it
/// goes on with one that may not.
const FORGETFUL_PATIENCE: Duration = Duration::from_secs(15);

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
                self.created(created);
            }
            Some(Command::ReplicaInSync(done)) => {
                self.intact(&done.replica_id);
                self.summary.rebuilds += u64::from(!again);
            }
            Some(Command::RecordComparison(_)) => self.summary.comparisons += u64::from(!again),
            Some(Command::ReplicaLost(lost)) => {
                if let (Ok(volume), Ok(replica)) = (lost.volume_id.parse(), lost.replica_id.parse())
                {
                    self.lost(volume, lost.epoch, replica);
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
                    self.note_snapshots();
                }
            }
            Some(Command::LayerGone(_)) => self.summary.deletions += u64::from(!again),
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

    /// An engine that reaches only replicas whose hosts lost their power may drop one that has it
    /// all, and with it what was not flushed; but only when it has waited for it and says so. What
    /// goes in any other way counts as kept, and is missed when it is read.
    fn lost(&mut self, volume: VolumeId, epoch: u64, replica: ReplicaId) {
        let now = self.schedule.now();
        let slots = self.hosts.iter().flat_map(|host| host.slots.values());
        let faulted = slots
            .filter(|slot| slot.id == replica)
            .any(|slot| slot.fault().is_some());
        let engine = self
            .engines
            .values()
            .find(|engine| engine.volume() == volume && engine.start.epoch.raw() == epoch);
        let allowed = engine.is_none_or(|engine| {
            let waited = faulted || engine.silence(replica, now) >= FORGETFUL_PATIENCE;
            engine.told_loss() && waited
        });
        if allowed {
            self.note_power_loss(volume);
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
    }

    /// Notes which snapshots are done: with the last of a group, the others of it, too.
    fn note_snapshots(&mut self) {
        let now = self.schedule.now();
        let taken = self.models.values_mut().flat_map(|one| &mut one.snapshots);
        for (id, taken) in taken {
            let snapshot = self.fleet.state.snapshots().get(id);
            let ready = snapshot.is_some_and(|one| one.state == SnapshotState::Ready);
            if ready && taken.end.is_none() {
                taken.end = Some(now);
                self.summary.snapshots += 1;
            }
        }
    }

    fn created(&mut self, created: &CreateVolumeCommand) {
        let Ok(id) = created.volume_id.parse::<VolumeId>() else {
            return;
        };
        if self.models.contains_key(&id) {
            return;
        }
        let salt = self.next_salt;
        self.next_salt += 1;
        let history = match created.source_snapshot_id.parse() {
            Ok(snapshot) => self.cloned(snapshot, salt),
            Err(_) => Some(History::new(salt)),
        };
        let Some(history) = history else { return };
        self.summary.clones += u64::from(!created.source_snapshot_id.is_empty());
        let model = Model {
            history,
            ..Model::default()
        };
        self.models.insert(id, model);
    }

    /// What a clone begins with.
    fn cloned(&self, snapshot: SnapshotId, salt: u64) -> Option<History> {
        let source = self.fleet.state.snapshots().get(&snapshot)?.volume;
        let model = self.models.get(&source)?;
        let taken = model.snapshots.get(&snapshot)?;
        let now = self.schedule.now();
        Some(model.history.cloned(salt, taken.begin, taken.end?, now))
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
