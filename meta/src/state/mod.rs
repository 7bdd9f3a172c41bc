//! What the managers have agreed on, and how a log entry changes it.
//!
//! Owns every fact that must survive all managers: volumes with their replicas, layers and tasks,
//! snapshots, nodes on record, events and the memory of requests. Pure: no clock (a command carries
//! its proposer's), no randomness (ids come in commands), only ordered maps, so that the same log
//! makes the same bytes on every manager (INV-11).
//!
//! Upholds, whatever is proposed: the epoch of a volume only grows (INV-1); a replica leaves the
//! in-sync set only under the current epoch (INV-3) and never as the last one (INV-4); at most 254
//! sealed layers and one head per volume (INV-7). A command that would break a rule is refused with
//! a typed [`Refusal`] and changes nothing.

mod apply;
mod changes;
mod chap;
mod event;
mod group;
mod nameless;
mod node;
mod phase;
pub(crate) mod record;
mod refusal;
mod request;
mod reservations;
mod snapshot;
mod volume;
mod wear;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use ankole_proto::{
    ClusterId, LayerId, NodeName, ReplicaId, SnapshotGroupId, SnapshotId, VolumeId,
};

pub use chap::{Chap, ChapError, Secret};
pub use event::{EVENTS_MAX, Event, Events, Severity};
pub use group::{
    GROUP_GATHER_MS, GROUP_HOLD_MS, GROUP_MEMBERS_MAX, GROUP_SEAL_MS, GROUPS_MAX, GroupMember,
    GroupStage, SnapshotGroup, UNDONE_MAX,
};
pub use node::{DiskOnRecord, NodeOnRecord};
pub use phase::{Phase, PhaseKind, ReplicaMode};
pub use refusal::Refusal;
pub use request::{REQUEST_AGE_MS_MAX, REQUESTS_MAX, Requests};
pub use reservations::{RESERVATIONS_BYTES_MAX, Reservations};
pub use snapshot::{Snapshot, SnapshotState};
pub use volume::{
    CloneOrigin, Comparison, Doomed, REPLICAS_MAX, Replica, Scrub, TASKS_MAX, Task, TaskKind,
    Volume, Worker, WriteCache, iqn,
};
pub use wear::{
    DAMAGES_MAX, Damage, FAULT_BLOCKS_MAX, FAULT_DAY_MS, FAULT_PAUSE_MS, FAULTS_MAX, Wear,
};

/// What one apply changes in the stored state: records to put (`Some`) or to remove (`None`), in
/// ascending key order. Goes to the store in one batch together with the applied index.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A state that log entries change: what `raft` keeps alike on every manager. Deterministic: same
/// entries, same records, same bytes (INV-11).
pub trait Replicated: Default + Send + Sync + 'static {
    /// Changes the state by one entry and tells which records changed. Never fails: what cannot be
    /// carried out is a refusal in the answer.
    fn apply(&mut self, index: u64, command: &LogCommand) -> (LogAnswer, Changes);

    /// The state with these records.
    ///
    /// # Errors
    ///
    /// When a record cannot be read: the store is damaged, or of a newer version.
    fn from_records(
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RecordError>;

    /// Every record, in ascending key order.
    fn to_records(&self) -> Vec<(Vec<u8>, Vec<u8>)>;
}

/// A stored record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the record with key {key:02x?} cannot be read: {reason}")]
pub struct RecordError {
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}

/// Everything the managers have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    cluster_id: Option<ClusterId>,
    next_layer: u64,
    volumes: BTreeMap<VolumeId, Volume>,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    nodes: BTreeMap<NodeName, NodeOnRecord>,
    doomed: BTreeMap<ReplicaId, Doomed>,
    events: Events,
    requests: Requests,
    reservations: BTreeMap<VolumeId, Reservations>,
    groups: BTreeMap<SnapshotGroupId, SnapshotGroup>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cluster_id: None,
            next_layer: 1,
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            nodes: BTreeMap::new(),
            doomed: BTreeMap::new(),
            events: Events::default(),
            requests: Requests::default(),
            reservations: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }
}

impl State {
    /// The group's id, once it has one.
    pub const fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// Every volume, those being deleted among them.
    pub const fn volumes(&self) -> &BTreeMap<VolumeId, Volume> {
        &self.volumes
    }

    /// Every snapshot of every volume.
    pub const fn snapshots(&self) -> &BTreeMap<SnapshotId, Snapshot> {
        &self.snapshots
    }

    /// Every node that ever reported.
    pub const fn nodes(&self) -> &BTreeMap<NodeName, NodeOnRecord> {
        &self.nodes
    }

    /// Replicas that no volume lists and that are still to be deleted.
    pub const fn doomed(&self) -> &BTreeMap<ReplicaId, Doomed> {
        &self.doomed
    }

    /// What happened lately.
    pub const fn events(&self) -> &Events {
        &self.events
    }

    /// What was carried out lately under a request id.
    pub const fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The persistent reservations of volumes, as their engines told last.
    pub const fn reservations(&self) -> &BTreeMap<VolumeId, Reservations> {
        &self.reservations
    }

    /// Snapshots of several volumes that are not all taken, or were undone lately.
    pub const fn groups(&self) -> &BTreeMap<SnapshotGroupId, SnapshotGroup> {
        &self.groups
    }

    /// The volume with this id or, when no id reads like that, this name.
    pub fn volume_named(&self, text: &str) -> Option<&Volume> {
        let by_id = text.parse().ok().and_then(|id| self.volumes.get(&id));
        by_id.or_else(|| self.volumes.values().find(|volume| volume.name == text))
    }

    /// The snapshot of a volume with this id or name; one that is not being deleted goes first.
    pub fn snapshot_named(&self, volume: VolumeId, text: &str) -> Option<&Snapshot> {
        let of_volume = || self.snapshots_of(volume);
        let named = |deleting: bool| {
            of_volume().find(|snapshot| {
                snapshot.name == text && (snapshot.state == SnapshotState::Deleting) == deleting
            })
        };
        let by_id = text.parse::<SnapshotId>().ok();
        by_id
            .and_then(|id| of_volume().find(|snapshot| snapshot.id == id))
            .or_else(|| named(false))
            .or_else(|| named(true))
    }

    /// Whether a layer of a volume, or one below it, may have been merged away on some of its replicas
    /// and not on others, for they do that each at its own pace. What a clone would share then
    /// differs. A layer with several children is not merged, and was not before: a deleted snapshot is
    /// not gone back to, so they only get fewer.
    pub fn merges_below(&self, volume: &Volume, layer: LayerId) -> bool {
        let chain = volume.chain(layer);
        self.snapshots_of(volume.id)
            .filter(|one| one.state == SnapshotState::Deleting)
            .filter_map(|one| one.layer)
            .chain(volume.nameless_layers(self))
            .any(|layer| chain.contains_key(&layer) && volume.children(layer).count() <= 1)
    }

    /// The snapshots of one volume.
    pub fn snapshots_of(&self, volume: VolumeId) -> impl Iterator<Item = &Snapshot> {
        self.snapshots
            .values()
            .filter(move |snapshot| snapshot.volume == volume)
    }
}
