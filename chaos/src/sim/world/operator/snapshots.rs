//! What people do with snapshots.

use std::time::Duration;

use ankole_meta::state::SnapshotState;
use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::LogCommand;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{SnapshotGroupId, SnapshotId, VolumeId};
use rand::Rng;

use super::Act;
use crate::sim::world::World;
use crate::sim::world::proposals::Asker;

/// A snapshot as the model knows it.
#[derive(Debug, Clone)]
pub(in super::super::super) struct Taken {
    /// When it was asked for.
    pub(in super::super::super) begin: Duration,
    /// When it was recorded as done.
    pub(in super::super::super) end: Option<Duration>,
}

impl World {
    pub(super) fn take_snapshot(&mut self) {
        let Some(volume) = self.some_volume() else {
            return;
        };
        let Some(id) = self.snapshot_begins(volume.id) else {
            return;
        };
        let command = Command::CreateSnapshot(rpc::CreateSnapshotCommand {
            volume_id: volume.id.to_string(),
            snapshot_id: id.to_string(),
            name: id.to_string(),
        });
        self.ask_managers(Act::Any, command);
    }

    /// A snapshot of all volumes as one cut.
    pub(super) fn take_group(&mut self) {
        let volumes: Vec<VolumeId> = self.models.keys().copied().collect();
        if volumes.len() < 2 {
            return;
        }
        let mut members = Vec::new();
        for volume in volumes {
            if let Some(snapshot) = self.snapshot_begins(volume) {
                members.push((volume, snapshot));
            }
        }
        let id = SnapshotGroupId::from_bits(self.random.random());
        let listed = members.iter().map(|(volume, snapshot)| rpc::GroupMember {
            volume_id: volume.to_string(),
            snapshot_id: snapshot.to_string(),
        });
        let command = Command::CreateSnapshotGroup(rpc::CreateSnapshotGroupCommand {
            group_id: id.to_string(),
            name: id.to_string(),
            members: listed.collect(),
        });
        self.groups.push(members);
        self.ask_managers(Act::Any, command);
    }

    fn snapshot_begins(&mut self, volume: VolumeId) -> Option<SnapshotId> {
        let begin = self.schedule.now();
        let id = SnapshotId::from_bits(self.random.random());
        let model = self.models.get_mut(&volume)?;
        model.snapshots.insert(id, Taken { begin, end: None });
        Some(id)
    }

    /// Some snapshot that is there.
    pub(super) fn some_snapshot(&mut self, volume: VolumeId) -> Option<SnapshotId> {
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
        let write = model.history.begin_revert(begin, end, now);
        let command = Command::RevertVolume(rpc::RevertVolumeCommand {
            volume_id: volume.id.to_string(),
            snapshot_id: snapshot.to_string(),
        });
        let command = LogCommand {
            request_id: format!("{:032x}", self.random.random::<u128>()),
            ..self.fleet.entry(now, command)
        };
        let request = command.request_id.clone();
        self.reverts.insert(request, (volume.id, write));
        self.propose(Asker::Operator(Act::Revert), command);
    }
}
