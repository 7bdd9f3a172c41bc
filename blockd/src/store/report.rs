//! What the managers are told of the disks and replicas.

use ankole_proto::rpc::v1::{
    self as rpc, Damage, DiskReport, LayerUsage, ReplicaReport, ScrubProgress, StoredState,
};
use ankole_proto::wire::body::Memory;
use ankole_proto::{LayerId, ReplicaId};

use super::disk_root::DiskRoot;
use super::warning::{add_left_out, warning};
use super::{Missing, Slot, Store, now_ms};
use crate::disk::{Disk, Space};
use crate::layer::Flaw;
use crate::replica::{Replica, ScrubReport, State};

impl Store {
    /// Every disk with its replicas, as they are now.
    pub fn report(&self) -> Vec<DiskReport> {
        let slots = self.slots();
        let mut reports: Vec<DiskReport> = self
            .disks
            .iter()
            .map(|root| {
                let id = root.id();
                let mut replicas: Vec<ReplicaReport> = slots
                    .iter()
                    .filter(|slot| slot.disk() == id)
                    .map(|slot| slot.report())
                    .collect();
                replicas.extend(
                    self.missing
                        .read()
                        .iter()
                        .filter(|(_, missing)| missing.disk == id)
                        .map(|(replica, missing)| missing_report(&replica.to_string(), missing)),
                );
                disk_report(root, replicas)
            })
            .collect();
        // The id of a disk that was left out may not be known: one that works tells of it.
        if let Some(report) = reports.iter_mut().find(|report| report.fault.is_empty()) {
            add_left_out(&mut report.warning, &self.left_out);
        }
        reports
    }
}

impl Slot {
    /// What the managers are told of it.
    fn report(&self) -> ReplicaReport {
        let replica = match self.loaded() {
            Ok(replica) => replica.lock(),
            Err(bad) => {
                return ReplicaReport {
                    id: self.id().to_string(),
                    state: StoredState::Faulted.into(),
                    message: bad.to_string(),
                    ..ReplicaReport::default()
                };
            }
        };
        ReplicaReport {
            standstill: self.standstills.lock().told(),
            ..replica_report(self.id(), &replica, now_ms())
        }
    }
}

/// What the managers are told of a replica that could be loaded; `now_ms` by the clock that its
/// scrubs are begun with.
pub fn replica_report<D: Disk>(id: ReplicaId, replica: &Replica<D>, now_ms: u64) -> ReplicaReport {
    let (state, message) = match replica.state() {
        State::Ready => (StoredState::Ready, String::new()),
        State::Rebuilding => (StoredState::Rebuilding, String::new()),
        State::Faulted { reason } => (StoredState::Faulted, reason.clone()),
    };
    let head = replica.head();
    let mut layers: Vec<LayerId> = replica
        .layers()
        .iter()
        .map(|link| link.layer)
        .filter(|layer| *layer != head)
        .collect();
    layers.push(head);
    let (damaged_blocks, damages) = replica.damages();
    let scrub = replica.scrub_report();
    ReplicaReport {
        id: id.to_string(),
        volume_id: replica.volume().to_string(),
        state: state.into(),
        message,
        epoch: replica.epoch().raw(),
        used_bytes: replica.used_bytes(),
        layers: layers.iter().map(ToString::to_string).collect(),
        memory_lost: matches!(replica.memory(), Memory::Lost | Memory::Restarted),
        size_bytes: replica.size().bytes(),
        usage: replica.usage().iter().map(layer_usage).collect(),
        scrub: Some(scrub_progress(&scrub, now_ms)),
        scrub_request: scrub.request,
        damaged_blocks,
        damages: damages.iter().map(damage).collect(),
        resummed_blocks: replica.resummed_blocks(),
        standstill: String::new(),
    }
}

fn layer_usage(usage: &crate::replica::LayerUsage) -> LayerUsage {
    LayerUsage {
        layer: usage.link.layer.to_string(),
        used_bytes: usage.used_bytes,
        reclaimable_bytes: usage.reclaimable_bytes,
    }
}

fn damage(damage: &crate::replica::Damage) -> Damage {
    let flaw = match damage.flaw {
        Flaw::Mismatch => rpc::Flaw::Mismatch,
        Flaw::Unreadable => rpc::Flaw::Unreadable,
    };
    Damage {
        layer: damage.at.layer.to_string(),
        offset: damage.at.block.offset(),
        flaw: flaw.into(),
        found_at_ms: damage.found_at_ms,
    }
}

fn scrub_progress(scrub: &ScrubReport, now_ms: u64) -> ScrubProgress {
    let end = match scrub.finished_at_ms {
        0 => now_ms,
        finished => finished,
    };
    let ms = end.saturating_sub(scrub.started_at_ms).max(1);
    let bytes_per_second = scrub.done_bytes.saturating_mul(1000) / ms;
    ScrubProgress {
        done_bytes: scrub.done_bytes,
        total_bytes: scrub.total_bytes,
        bytes_per_second,
        findings: scrub.findings,
        started_at_ms: scrub.started_at_ms,
        finished_at_ms: scrub.finished_at_ms,
    }
}

fn disk_report(root: &DiskRoot, replicas: Vec<ReplicaReport>) -> DiskReport {
    let (space, fault, warning) = match root.space() {
        Ok(space) => (space, String::new(), warning(space, &replicas)),
        Err(error) => {
            let none = Space {
                capacity_bytes: 0,
                free_bytes: 0,
            };
            let fault = format!("{}: {error}", root.path().display());
            (none, fault, String::new())
        }
    };
    DiskReport {
        id: root.id().to_string(),
        path: root.path().display().to_string(),
        capacity_bytes: space.capacity_bytes,
        free_bytes: space.free_bytes,
        fault,
        replicas,
        warning,
    }
}

fn missing_report(id: &str, missing: &Missing) -> ReplicaReport {
    ReplicaReport {
        id: id.to_owned(),
        volume_id: missing.volume.to_string(),
        state: StoredState::Faulted.into(),
        message: missing.reason.clone(),
        ..ReplicaReport::default()
    }
}
