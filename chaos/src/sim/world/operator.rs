//! The people in front of the cluster: volumes created, moved, resized in their number of copies,
//! snapshots taken, gone back to and deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use ankole_meta::reconcile::{Want, place};
use ankole_meta::state::{Phase, SnapshotState, Volume};
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use ankole_proto::{Credential, ReplicaId, SnapshotId, VolumeId};
use rand::Rng;

use super::super::checker::Verdict;
use super::super::fleet::clock;
use super::super::history::WriteId;
use super::super::workload;
use super::proposals::Asker;
use super::{Happening, World};

/// Between two looks at what there is.
const INTERVAL: Duration = Duration::from_millis(200);
/// A detached volume is attached again at one look in so many.
const ATTACH_ONE_IN: u32 = 4;
/// The first port of every agent, and how many volumes there may be on one node.
const PORT_FIRST: u32 = 3260;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Any,
    /// A volume is on its way.
    Create,
    Revert,
}

/// A snapshot as the model knows it.
#[derive(Debug, Clone)]
pub(in super::super) struct Taken {
    /// When it was asked for.
    pub(in super::super) begin: Duration,
    /// When it was recorded as done.
    pub(in super::super) end: Option<Duration>,
}

impl World {
    pub(super) fn operate(&mut self) -> Verdict {
        self.schedule.after(INTERVAL, Happening::Operate);
        let now = self.schedule.now();
        if !self.fleet.is_led(now) {
            return Ok(());
        }
        let there = self.fleet.state.volumes().len();
        if there < self.volumes_wanted && !self.creating && (!self.healing || there == 0) {
            self.create_volume();
        }
        let detached: Vec<VolumeId> = self
            .fleet
            .state
            .volumes()
            .values()
            .filter(|volume| volume.phase == Phase::Detached)
            .map(|volume| volume.id)
            .collect();
        for volume in detached {
            if self.healing || self.random.random_ratio(1, ATTACH_ONE_IN) {
                self.attach(volume, false);
            }
        }
        Ok(())
    }

    fn create_volume(&mut self) {
        let now = self.schedule.now();
        let count = self.random.random_range(2..=self.hosts.len().min(3));
        let want = Want {
            count,
            size: workload::size(),
            taken: BTreeSet::new(),
        };
        let placed = place(&self.fleet.state, &self.fleet.observed, clock(now), &want);
        let Ok(places) = placed else { return };
        let id = VolumeId::from_bits(self.random.random());
        let placements = places.into_iter().map(|(node, disk)| rpc::Placement {
            replica_id: ReplicaId::from_bits(self.random.random()).to_string(),
            node: node.to_string(),
            disk_id: disk.to_string(),
            source_replica_id: String::new(),
        });
        let command = Command::CreateVolume(rpc::CreateVolumeCommand {
            volume_id: id.to_string(),
            name: format!("v{}", self.next_name),
            size_bytes: workload::size().bytes(),
            placements: placements.collect(),
            credential: Credential::from_bytes([7; 32]).as_bytes().to_vec(),
            replica_count: u32::try_from(count).unwrap_or_default(),
            ..rpc::CreateVolumeCommand::default()
        });
        self.next_name += 1;
        self.creating = true;
        self.ask_managers(Act::Create, command);
    }

    /// Under a request id, as people's calls are.
    fn ask_managers(&mut self, act: Act, command: Command) {
        let command = LogCommand {
            request_id: format!("{:032x}", self.random.random::<u128>()),
            ..self.fleet.entry(self.schedule.now(), command)
        };
        self.propose(Asker::Operator(act), command);
    }

    pub(super) fn acted(&mut self, act: &Act, answer: Option<&LogAnswer>) {
        if matches!(act, Act::Create) {
            self.creating = false;
        }
        if let (Act::Revert, Some(answer)) = (act, answer) {
            let refusal = answer.refusal.as_ref();
            self.note(format_args!("revert: {:?} {refusal:?}", answer.task_id));
        }
    }

    /// Some volume.
    pub(super) fn some_volume(&mut self) -> Option<Volume> {
        let volumes = self.fleet.state.volumes();
        let at = self.random.random_range(0..volumes.len().max(1));
        volumes.values().nth(at).cloned()
    }

    pub(super) fn attach(&mut self, volume: VolumeId, force: bool) {
        let now = self.schedule.now();
        let Some(present) = self.fleet.volume(volume).map(|one| one.phase.clone()) else {
            return;
        };
        let nodes: Vec<_> = self
            .fleet
            .agents_up(now)
            .into_iter()
            .filter(|node| present.node() != Some(node))
            .collect();
        if nodes.is_empty() {
            return;
        }
        let node = nodes[self.random.random_range(0..nodes.len())].clone();
        let volumes = self.fleet.state.volumes();
        let number = volumes.keys().position(|id| *id == volume).unwrap_or(0);
        let command = Command::AttachVolume(rpc::AttachVolumeCommand {
            volume_id: volume.to_string(),
            node: node.to_string(),
            port: PORT_FIRST + u32::try_from(number).unwrap_or_default(),
            revision: 0,
            force,
        });
        self.ask_managers(Act::Any, command);
    }

    pub(super) fn detach(&mut self) {
        if let Some(volume) = self.some_volume() {
            let volume_id = volume.id.to_string();
            let command = Command::DetachVolume(rpc::DetachVolumeCommand {
                volume_id,
                revision: 0,
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn delete_volume(&mut self) {
        if let Some(volume) = self.some_volume() {
            let volume_id = volume.id.to_string();
            let command = Command::DeleteVolume(rpc::DeleteVolumeCommand {
                volume_id,
                revision: 0,
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn restart_engine(&mut self) {
        if let Some(volume) = self.some_volume() {
            let volume_id = volume.id.to_string();
            let command = Command::RestartEngine(rpc::RestartEngineCommand {
                volume_id,
                revision: 0,
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn change_count(&mut self, count: u32) {
        if let Some(volume) = self.some_volume() {
            let command = Command::UpdateVolume(rpc::UpdateVolumeCommand {
                volume_id: volume.id.to_string(),
                replica_count: count,
                ..rpc::UpdateVolumeCommand::default()
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn take_snapshot(&mut self) {
        let now = self.schedule.now();
        let Some(volume) = self.some_volume() else {
            return;
        };
        let id = SnapshotId::from_bits(self.random.random());
        let taken = Taken {
            begin: now,
            end: None,
        };
        let Some(model) = self.models.get_mut(&volume.id) else {
            return;
        };
        model.snapshots.insert(id, taken);
        let command = Command::CreateSnapshot(rpc::CreateSnapshotCommand {
            volume_id: volume.id.to_string(),
            snapshot_id: id.to_string(),
            name: id.to_string(),
        });
        self.ask_managers(Act::Any, command);
    }

    /// Some snapshot that is there.
    fn some_snapshot(&mut self, volume: VolumeId) -> Option<SnapshotId> {
        let ready: Vec<SnapshotId> = self
            .fleet
            .state
            .snapshots_of(volume)
            .filter(|one| one.state == SnapshotState::Ready)
            .map(|one| one.id)
            .collect();
        let at = self.random.random_range(0..ready.len().max(1));
        ready.get(at).copied()
    }

    pub(super) fn delete_snapshot(&mut self) {
        let Some(volume) = self.some_volume() else {
            return;
        };
        if let Some(snapshot) = self.some_snapshot(volume.id) {
            let snapshot_id = snapshot.to_string();
            let command = Command::DeleteSnapshot(rpc::DeleteSnapshotCommand { snapshot_id });
            self.ask_managers(Act::Any, command);
            self.summary.deletions += 1;
        }
    }

    pub(super) fn revert(&mut self) {
        let now = self.schedule.now();
        let Some(volume) = self.some_volume() else {
            return;
        };
        let Some(snapshot) = self.some_snapshot(volume.id) else {
            return;
        };
        let Some(model) = self.models.get_mut(&volume.id) else {
            return;
        };
        let Some((begin, end)) = model
            .snapshots
            .get(&snapshot)
            .and_then(|taken| Some((taken.begin, taken.end?)))
        else {
            return;
        };
        let write = model
            .history
            .begin_revert(volume.size.extent(), begin, end, now);
        let command = Command::RevertVolume(rpc::RevertVolumeCommand {
            volume_id: volume.id.to_string(),
            snapshot_id: snapshot.to_string(),
        });
        let command = LogCommand {
            request_id: format!("{:032x}", self.random.random::<u128>()),
            ..self.fleet.entry(now, command)
        };
        model_revert(&mut self.reverts, &command, volume.id, write);
        self.propose(Asker::Operator(Act::Revert), command);
    }
}

/// Remembers which write of a volume's history a call is.
fn model_revert(
    reverts: &mut std::collections::BTreeMap<String, (VolumeId, WriteId)>,
    command: &LogCommand,
    volume: VolumeId,
    write: WriteId,
) {
    reverts.insert(command.request_id.clone(), (volume, write));
}
