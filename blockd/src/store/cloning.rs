//! Replicas that begin as a sealed layer of another one on the same disk.

use ankole_proto::{DiskId, LayerId, ReplicaId};

use super::disk_root::DiskRoot;
use super::slot::with_sources;
use super::{Barred, Creation, Slot, Store};
use crate::replica::{CloneError, CloneSpec, ReplicaSpec};

/// What a clone begins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which replica.
    pub source: ReplicaId,
    /// Which of its sealed layers.
    pub layer: LayerId,
}

/// Why a replica was not cloned. Nothing was created.
#[derive(Debug, thiserror::Error)]
pub enum CloneRefused {
    /// The clone's disk is not one of this daemon's.
    #[error("disk {0} is not on this node")]
    NoSuchDisk(DiskId),
    /// There is no such source.
    #[error("cannot be cloned: its source, replica {0}, is not on this node; place it elsewhere")]
    NoSuchSource(ReplicaId),
    /// Files are shared within one disk only.
    #[error(
        "cannot be cloned: its source, replica {source_id}, is on disk {there}, not on {wanted}; \
         place it there"
    )]
    OtherDisk {
        /// The source.
        source_id: ReplicaId,
        /// Its disk.
        there: DiskId,
        /// The clone's.
        wanted: DiskId,
    },
    /// The source cannot be used.
    #[error("cannot be cloned: its source, replica {source_id}, cannot be used: {reason}")]
    BadSource {
        /// The source.
        source_id: ReplicaId,
        /// What it says.
        reason: String,
    },
    /// The source refused.
    #[error("cannot be cloned from replica {source_id}: {}", with_sources(.reason))]
    Refused {
        /// The source.
        source_id: ReplicaId,
        /// Why.
        reason: CloneError,
    },
}

impl CloneRefused {
    /// Whether the same order may succeed soon, without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason.is_passing())
    }
}

impl Creation {
    /// What the replica is to be.
    pub(super) const fn spec(&self) -> ReplicaSpec {
        ReplicaSpec {
            replica: self.replica,
            volume: self.volume,
            size: self.size,
            base_layer: self.base,
            credential: self.credential,
        }
    }
}

impl Store {
    /// Creates a replica that begins as a sealed layer of another one; one that exists is left as
    /// it is.
    ///
    /// # Errors
    ///
    /// [`CloneRefused`].
    pub fn clone_replica(&self, creation: &Creation, origin: Origin) -> Result<(), CloneRefused> {
        let id = creation.replica;
        if self.slot(id).is_some() {
            return Ok(());
        }
        let source_id = origin.source;
        let root = self
            .disks
            .iter()
            .find(|root| root.id() == creation.disk)
            .ok_or(CloneRefused::NoSuchDisk(creation.disk))?;
        let source = self
            .slot(source_id)
            .ok_or(CloneRefused::NoSuchSource(source_id))?;
        if source.disk() != creation.disk {
            return Err(CloneRefused::OtherDisk {
                source_id,
                there: source.disk(),
                wanted: creation.disk,
            });
        }
        let bad = |reason: String| CloneRefused::BadSource { source_id, reason };
        source.loaded().map_err(|barred| bad(barred.to_string()))?;
        let mut replica = source
            .replica()
            .ok_or_else(|| bad(Barred::Retired(source_id).to_string()))?;
        let spec = CloneSpec {
            replica: creation.spec(),
            layer: origin.layer,
        };
        let cloned = replica.clone_into(&DiskRoot::replica_dir(id), &spec);
        drop(replica);
        match cloned {
            // Made by a daemon that did not live to load it.
            Ok(()) | Err(CloneError::Exists) => {}
            Err(reason) => return Err(CloneRefused::Refused { source_id, reason }),
        }
        self.take_in(id, Slot::load(root, id, self.started, self.changed()));
        tracing::info!(replica = %id, volume = %creation.volume, source = %source_id,
            layer = %origin.layer, "replica cloned");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use ankole_proto::wire::body::{OpenRequest, Seal};
    use ankole_proto::{Credential, Epoch, VolumeId, VolumeSize};

    use super::*;
    use crate::store::ConnectionId;

    fn layer(raw: u64) -> LayerId {
        LayerId::from_raw(raw).unwrap()
    }

    fn creation(store: &Store, disk: usize, replica: u128) -> Creation {
        Creation {
            replica: ReplicaId::from_bits(replica),
            volume: VolumeId::from_bits(replica + 100),
            disk: store.disks()[disk].id(),
            size: VolumeSize::from_bytes(8 << 20).unwrap(),
            credential: Credential::from_bytes([3; 32]),
            base: layer(if replica == 1 { 1 } else { 10 }),
        }
    }

    /// Two disks, and on the first a replica with a snapshot of layer 1.
    fn store(dir: &Path) -> (Store, Creation, Origin) {
        let paths: Vec<PathBuf> = ["one", "two"].map(|name| dir.join(name)).to_vec();
        for path in &paths {
            std::fs::create_dir_all(path).unwrap();
        }
        let store = Store::open(&paths).unwrap();
        let source = creation(&store, 0, 1);
        store.create(&source).unwrap();
        let slot = store.slot(source.replica).unwrap();
        let request = OpenRequest {
            volume: source.volume,
            replica: source.replica,
            epoch: Epoch::from_raw(1),
            size: source.size,
            credential: source.credential,
        };
        slot.open(&request, ConnectionId(1)).unwrap();
        let seal = Seal {
            head: layer(1),
            new_head: layer(2),
        };
        slot.replica().unwrap().seal(request.epoch, seal).unwrap();
        let clone = creation(&store, 0, 2);
        let origin = Origin {
            source: source.replica,
            layer: layer(1),
        };
        (store, clone, origin)
    }

    #[test]
    fn a_clone_is_there_at_once_and_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (store, clone, origin) = store(dir.path());
        store.clone_replica(&clone, origin).unwrap();
        store.clone_replica(&clone, origin).unwrap();
        assert_eq!(
            store.slot(clone.replica).unwrap().volume(),
            Some(clone.volume)
        );
        let paths: Vec<PathBuf> = store.disks().iter().map(|d| d.path().into()).collect();
        drop(store);
        let again = Store::open(&paths).unwrap();
        let slot = again.slot(clone.replica).unwrap();
        assert_eq!(slot.replica().unwrap().layers().len(), 2);
        again.delete(origin.source).unwrap();
        assert_eq!(slot.volume(), Some(clone.volume));
    }

    #[test]
    fn each_refusal_says_why_and_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, clone, origin) = store(dir.path());
        let refused = |creation: &Creation, origin, words: &str| {
            let error = store.clone_replica(creation, origin).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(store.slot(creation.replica).is_none());
        };
        let elsewhere = Creation {
            disk: store.disks()[1].id(),
            ..clone.clone()
        };
        refused(&elsewhere, origin, "is on disk");
        let nowhere = Creation {
            disk: DiskId::from_bits(9),
            ..clone.clone()
        };
        refused(&nowhere, origin, "is not on this node");
        let unknown = Origin {
            source: ReplicaId::from_bits(77),
            ..origin
        };
        refused(&clone, unknown, "not on this node; place it elsewhere");
        let unsealed = Origin {
            layer: layer(2),
            ..origin
        };
        refused(&clone, unsealed, "is not sealed");
        let slot = store.slot(origin.source).unwrap();
        let mut source = slot.replica().unwrap();
        let body = ankole_proto::wire::rebuild::BeginRebuild {
            head: source.head(),
            size: source.size(),
            layers: source.layers(),
        };
        source.begin_rebuild(Epoch::from_raw(1), &body).unwrap();
        drop(source);
        refused(&clone, origin, "being rebuilt");
    }
}
