//! The disks and replicas of this node.
//!
//! ```text
//! <disk>/ankole/lock                     held while a daemon uses the disk
//! <disk>/ankole/disk.json                the disk's id and its cluster's (see `marker`)
//! <disk>/ankole/replicas/<replica-id>/   one replica (see `crate::replica`)
//! <disk>/ankole/trash/                   replicas on their way out
//! ```
//!
//! A disk that cannot be used is left out, told in the log and in the report, and the others serve.
//!
//! Owns which replicas there are, who has each one open ([`Slot`]), and the background work on
//! them. Promises that a bad replica is told and left alone and stops nothing else, and that one
//! connection at a time speaks for a replica (INV-1). Must not know sockets or the managers.

mod barred;
mod cloning;
mod disk_root;
mod flush_gate;
mod marker;
mod marking;
mod offline;
mod preparation;
mod report;
mod slot;
mod standstill;
mod tenancy;
#[cfg(test)]
mod tests;
mod trash;
mod warning;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ankole_proto::{ClusterId, Credential, DiskId, LayerId, ReplicaId, VolumeId, VolumeSize};
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::replica::CacheBudget;

pub use barred::{Barred, SlotError};
pub use cloning::{CloneRefused, Origin};
pub use disk_root::{DiskRoot, DiskRootError};
pub use flush_gate::{FlushAnswer, FlushGate, FlushWaiter, Joined};
pub use marker::{Marker, MarkerError};
pub use offline::{Offline, OfflineError};
pub use preparation::CopyWaiter;
pub use report::replica_report;
pub use slot::{Occupant, Slot, StoreReplica};
pub use standstill::Work;
pub use tenancy::{ConnectionId, Tenancy};
pub use warning::Room;

/// The directory of replicas on a disk.
const REPLICAS: &str = "replicas";
/// The directory of what is to be removed.
const TRASH: &str = "trash";

/// All disks of this node and the replicas on them.
#[derive(Debug)]
pub struct Store {
    disks: Vec<DiskRoot>,
    /// Why others are not used; each reason names its disk.
    left_out: Vec<String>,
    slots: RwLock<BTreeMap<ReplicaId, Arc<Slot>>>,
    /// Ordered to exist, and not there: told to the managers.
    missing: RwLock<BTreeMap<ReplicaId, Missing>>,
    changed: Arc<Notify>,
    started: Instant,
    /// What all replicas may cache together.
    cache: Arc<CacheBudget>,
}

/// A replica to be created.
#[derive(Debug, Clone)]
pub struct Creation {
    /// Which.
    pub replica: ReplicaId,
    /// Of which volume.
    pub volume: VolumeId,
    /// On which disk.
    pub disk: DiskId,
    /// Of which size.
    pub size: VolumeSize,
    /// What opens it.
    pub credential: Credential,
    /// Its empty head.
    pub base: LayerId,
}

/// A replica that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of which volume.
    pub volume: VolumeId,
    /// On which disk.
    pub disk: DiskId,
    /// What the managers are told.
    pub reason: String,
}

impl Missing {
    /// One that was there once.
    pub fn lost(volume: VolumeId, disk: DiskId) -> Self {
        Self {
            volume,
            disk,
            reason: "missing from its disk; nothing was created in its place".to_owned(),
        }
    }
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// None of the disks can be used.
    #[error("no disk can be used: {0}")]
    NoDisk(String),
    /// A disk cannot be used, and others without it neither: it is another daemon's.
    #[error(transparent)]
    Disk(#[from] DiskRootError),
    /// The disks belong to different clusters.
    #[error("{path} belongs to cluster {found}, the disks before it to {expected}")]
    Mixed {
        /// Which disk.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose the others are.
        expected: ClusterId,
    },
}

/// Why orders of a cluster are not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The disks belong to another cluster.
    #[error(
        "these managers are of cluster {offered}, the disks here belong to {stored}: give this \
         daemon its own cluster's --manager addresses"
    )]
    Foreign {
        /// Of the managers.
        offered: ClusterId,
        /// Of the disks.
        stored: ClusterId,
    },
    /// The cluster cannot be written down.
    #[error(transparent)]
    Marker(#[from] MarkerError),
}

/// Why a replica was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The disk is not one of this daemon's.
    #[error("disk {0} is not on this node")]
    NoSuchDisk(DiskId),
    /// The replica's files cannot be made.
    #[error("replica {replica}: {reason}")]
    Replica {
        /// Which.
        replica: ReplicaId,
        /// What failed.
        reason: String,
    },
}

impl Store {
    /// Locks the disks and loads every replica on them. A replica that cannot be loaded is told in
    /// the log and to the managers, and serves nothing; so is a disk, as long as there is another.
    ///
    /// # Errors
    ///
    /// [`OpenStoreError`] when no disk can be used, or the operator named disks that are not one
    /// daemon's.
    pub fn open(paths: &[PathBuf]) -> Result<Self, OpenStoreError> {
        let started = Instant::now();
        let changed = Arc::new(Notify::new());
        let cache = CacheBudget::of(CacheBudget::DEFAULT_BYTES);
        let mut disks: Vec<DiskRoot> = Vec::with_capacity(paths.len());
        let mut slots = BTreeMap::new();
        let mut left_out = Vec::new();
        for path in paths {
            let (root, ids) = match DiskRoot::open(path).and_then(with_ids) {
                Ok(opened) => opened,
                Err(error @ DiskRootError::InUse { .. }) => return Err(error.into()),
                Err(error) => {
                    let reason = error.to_string();
                    tracing::error!(disk = %path.display(),
                        "left out, no replica there is served: {reason}. Restart this daemon when that is \
                         mended");
                    left_out.push(reason);
                    continue;
                }
            };
            let expected = disks.iter().find_map(DiskRoot::cluster);
            if let (Some(found), Some(expected)) = (root.cluster(), expected)
                && found != expected
            {
                return Err(OpenStoreError::Mixed {
                    path: path.clone(),
                    found,
                    expected,
                });
            }
            for id in ids {
                let slot = Slot::load(&root, id, started, Arc::clone(&changed));
                slot.share_cache(&cache);
                slots.insert(id, Arc::new(slot));
            }
            disks.push(root);
        }
        if disks.is_empty() {
            return Err(OpenStoreError::NoDisk(left_out.join("; ")));
        }
        Ok(Self {
            disks,
            left_out,
            slots: RwLock::new(slots),
            missing: RwLock::new(BTreeMap::new()),
            changed,
            started,
            cache,
        })
    }

    /// The disks, in the order given.
    pub fn disks(&self) -> &[DiskRoot] {
        &self.disks
    }

    /// Wakes whoever tells the managers when something has changed that they should hear at once.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// A replica of this node.
    pub fn slot(&self, id: ReplicaId) -> Option<Arc<Slot>> {
        self.slots.read().get(&id).map(Arc::clone)
    }

    /// All replicas of this node.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().values().map(Arc::clone).collect()
    }

    /// The cluster whose replicas these are; `None` before the first orders.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.disks.iter().find_map(DiskRoot::cluster)
    }

    /// Writes down whose replicas these are, or compares.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: nothing that this cluster orders may be done.
    pub fn join_cluster(&self, offered: ClusterId) -> Result<(), JoinError> {
        if let Some(stored) = self.cluster()
            && stored != offered
        {
            return Err(JoinError::Foreign { offered, stored });
        }
        for root in self.disks.iter().filter(|root| root.cluster().is_none()) {
            root.set_cluster(offered)?;
        }
        Ok(())
    }

    /// Creates a replica; one that exists is left as it is.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; nothing is left behind then.
    pub fn create(&self, creation: &Creation) -> Result<(), CreateError> {
        let id = creation.replica;
        if self.slot(id).is_some() {
            return Ok(());
        }
        let root = self
            .disks
            .iter()
            .find(|root| root.id() == creation.disk)
            .ok_or(CreateError::NoSuchDisk(creation.disk))?;
        let slot = Slot::create(root, creation, self.started, self.changed())?;
        self.take_in(id, slot);
        tracing::info!(replica = %id, volume = %creation.volume, disk = %root.path().display(),
            "replica created");
        Ok(())
    }

    /// A replica is there from now on.
    fn take_in(&self, id: ReplicaId, slot: Slot) {
        slot.share_cache(&self.cache);
        self.slots.write().insert(id, Arc::new(slot));
        self.missing.write().remove(&id);
        self.changed.notify_one();
    }

    /// Deletes a replica; one that does not exist is deleted already. Its connection is refused
    /// from the next frame on.
    ///
    /// # Errors
    ///
    /// As the system says; the replica then serves nothing and is tried again by the next order.
    pub fn delete(&self, id: ReplicaId) -> std::io::Result<()> {
        self.missing.write().remove(&id);
        let Some(slot) = self.slot(id) else {
            return Ok(());
        };
        slot.retire();
        if let Some(root) = self.disks.iter().find(|root| root.id() == slot.disk()) {
            trash::discard(root, id)?;
        }
        self.slots.write().remove(&id);
        tracing::info!(replica = %id, "replica deleted");
        self.changed.notify_one();
        Ok(())
    }

    /// Tells the managers of a replica that they think is here.
    pub fn report_missing(&self, id: ReplicaId, missing: Missing) {
        let mut all = self.missing.write();
        if all.get(&id) == Some(&missing) {
            return;
        }
        tracing::error!(replica = %id, volume = %missing.volume, disk = %missing.disk,
            "the managers expect a replica here that is not there: {}", missing.reason);
        all.insert(id, missing);
        drop(all);
        self.changed.notify_one();
    }

    /// Removes something of what was deleted; `false` when nothing is left of it.
    pub fn empty_trash(&self) -> bool {
        self.disks.iter().any(|root| match trash::empty_one(root) {
            Ok(emptied) => emptied,
            Err(error) => {
                tracing::warn!(disk = %root.path().display(), "cannot remove what was deleted: {error}");
                false
            }
        })
    }

    /// Syncs all replicas. Call when no connection is left. What an engine had open stays marked as
    /// in use: only the engine knows that nothing is in flight.
    pub fn close(&self) {
        for slot in self.slots() {
            slot.write_back();
        }
    }
}

/// A disk with the replicas on it.
fn with_ids(root: DiskRoot) -> Result<(DiskRoot, Vec<ReplicaId>), DiskRootError> {
    let ids = root.replica_ids().map_err(|source| DiskRootError::Io {
        path: root.path().to_path_buf(),
        source,
    })?;
    Ok((root, ids))
}

/// Milliseconds since 1970, by the host's clock.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The kernel's id of the present boot; empty where there is none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
