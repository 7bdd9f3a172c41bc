//! What people do with whole volumes.

use std::collections::BTreeSet;

use ankole_meta::reconcile::{Want, place, place_clone};
use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{Credential, ReplicaId, VolumeId};
use rand::Rng;

use super::super::super::fleet::clock;
use super::super::super::workload;
use super::Act;
use crate::sim::world::World;

/// The ports of every agent; one that is taken is refused, and another is tried.
const PORTS: std::ops::Range<u32> = 3260..3276;
/// So many volumes more than are wanted may come about as clones.
const CLONES_MAX: usize = 2;

impl World {
    pub(super) fn create_volume(&mut self) {
        let now = self.schedule.now();
        let count = self.random.random_range(2..=self.hosts.len().min(3));
        let want = Want {
            count,
            size: workload::size(),
            taken: BTreeSet::new(),
        };
        let placed = place(&self.fleet.state, &self.fleet.observed, clock(now), &want);
        let Ok(places) = placed else { return };
        let placements = places.into_iter().map(|(node, disk)| rpc::Placement {
            replica_id: ReplicaId::from_bits(self.random.random()).to_string(),
            node: node.to_string(),
            disk_id: disk.to_string(),
            source_replica_id: String::new(),
        });
        let placements = placements.collect();
        self.ask_for_volume(
            count,
            rpc::CreateVolumeCommand {
                size_bytes: workload::size().bytes(),
                placements,
                ..rpc::CreateVolumeCommand::default()
            },
        );
    }

    /// What the admin API does when it is asked for a clone.
    pub(super) fn clone_volume(&mut self) {
        let now = self.schedule.now();
        let Some(source) = self.some_volume() else {
            return;
        };
        let too_many = self.fleet.state.volumes().len() >= self.volumes_wanted + CLONES_MAX;
        let picked = self.some_snapshot(source.id);
        let snapshot = picked.and_then(|id| self.fleet.state.snapshots().get(&id).cloned());
        let Some(snapshot) = snapshot.filter(|_| !too_many && !self.creating) else {
            return;
        };
        let (state, observed) = (&self.fleet.state, &self.fleet.observed);
        let count = source.replica_count as usize;
        let placed = place_clone(state, observed, clock(now), &source, snapshot.size, count);
        let Ok(places) = placed else { return };
        let placements = places.into_iter().map(|place| rpc::Placement {
            replica_id: ReplicaId::from_bits(self.random.random()).to_string(),
            node: place.node.to_string(),
            disk_id: place.disk.to_string(),
            source_replica_id: place.replica.to_string(),
        });
        let placements = placements.collect();
        self.ask_for_volume(
            count,
            rpc::CreateVolumeCommand {
                size_bytes: snapshot.size.bytes(),
                placements,
                source_snapshot_id: snapshot.id.to_string(),
                ..rpc::CreateVolumeCommand::default()
            },
        );
    }

    fn ask_for_volume(&mut self, count: usize, volume: rpc::CreateVolumeCommand) {
        let id = VolumeId::from_bits(self.random.random());
        let command = Command::CreateVolume(rpc::CreateVolumeCommand {
            volume_id: id.to_string(),
            name: format!("v{}", self.next_name),
            credential: Credential::from_bytes([7; 32]).as_bytes().to_vec(),
            replica_count: u32::try_from(count).unwrap_or_default(),
            ..volume
        });
        self.next_name += 1;
        self.creating = true;
        self.ask_managers(Act::Create, command);
    }

    pub(in super::super) fn attach(&mut self, volume: VolumeId, force: bool) {
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
        let command = Command::AttachVolume(rpc::AttachVolumeCommand {
            volume_id: volume.to_string(),
            node: node.to_string(),
            port: self.random.random_range(PORTS),
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

    pub(in super::super) fn restart_engine(&mut self) {
        if let Some(volume) = self.some_volume() {
            let volume_id = volume.id.to_string();
            let command = Command::RestartEngine(rpc::RestartEngineCommand {
                volume_id,
                revision: 0,
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn change_count(&mut self) {
        if let Some(volume) = self.some_volume() {
            let command = Command::UpdateVolume(rpc::UpdateVolumeCommand {
                volume_id: volume.id.to_string(),
                replica_count: self.random.random_range(2..=3),
                ..rpc::UpdateVolumeCommand::default()
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn expand(&mut self) {
        if let Some(volume) = self.some_volume() {
            let command = Command::ExpandVolume(rpc::ExpandVolumeCommand {
                volume_id: volume.id.to_string(),
                size_bytes: workload::grown_size().bytes(),
                revision: 0,
            });
            self.ask_managers(Act::Any, command);
        }
    }

    pub(super) fn scrub_some(&mut self) {
        if let Some(volume) = self.some_volume() {
            self.scrub(volume.id);
        }
    }

    /// Once everything is healed all that has rotted must be found and mended.
    pub(super) fn scrub_each_once(&mut self) {
        let attached = self.fleet.state.volumes().values();
        let due: Vec<VolumeId> = attached
            .filter(|volume| volume.scrub.asked_at_ms < self.healed_at_ms)
            .map(|volume| volume.id)
            .collect();
        for volume in due {
            self.scrub(volume);
        }
    }

    fn scrub(&mut self, volume: VolumeId) {
        let volume_id = volume.to_string();
        let command = Command::ScrubVolume(rpc::ScrubVolumeCommand {
            volume_id,
            periodic: false,
        });
        self.ask_managers(Act::Any, command);
    }
}
