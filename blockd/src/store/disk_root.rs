//! One disk: its directories, its marker, and the lock that keeps a second daemon away.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::{ClusterId, DiskId, ReplicaId};
use parking_lot::Mutex;

use super::marker::{Marker, MarkerError};
use super::{REPLICAS, TRASH};
use crate::disk::{Disk, LocalDisk, Space};

/// The store's directory on a disk.
pub(super) const ROOT: &str = "ankole";
/// Locked while a daemon uses the disk. Holds nothing.
pub(super) const LOCK: &str = "lock";

/// A disk that this daemon alone uses.
#[derive(Debug)]
pub struct DiskRoot {
    path: PathBuf,
    disk: LocalDisk,
    marker: Mutex<Marker>,
    /// Held until the daemon ends; the system lets go of it then, however it ends.
    _lock: File,
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskRootError {
    /// A directory or the lock file cannot be made or opened.
    #[error("disk {path}: {source}")]
    Io {
        /// Which disk.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("disk {path} is in use by another ankole-blockd: stop that one, or give this another")]
    InUse {
        /// Which disk.
        path: PathBuf,
    },
    /// The marker is no good.
    #[error(transparent)]
    Marker(#[from] MarkerError),
}

impl DiskRoot {
    /// Locks the disk and reads its marker; makes both on a disk that is new.
    ///
    /// # Errors
    ///
    /// [`DiskRootError`].
    pub fn open(path: &Path) -> Result<Self, DiskRootError> {
        let io = |source| DiskRootError::Io {
            path: path.to_path_buf(),
            source,
        };
        let root = path.join(ROOT);
        fs::create_dir_all(&root).map_err(io)?;
        let lock = File::create(root.join(LOCK)).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DiskRootError::InUse {
                path: path.to_path_buf(),
            },
            TryLockError::Error(source) => io(source),
        })?;
        let disk = LocalDisk::open(&root).map_err(io)?;
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(io)?;
        // Before there is a place for replicas: where there is one the marker was lost.
        let marker = Mutex::new(Marker::read_or_create(&disk)?);
        for name in [REPLICAS, TRASH] {
            fs::create_dir_all(root.join(name)).map_err(io)?;
        }
        disk.sync_dir(Path::new("")).map_err(io)?;
        sweep(&disk).map_err(io)?;
        Ok(Self {
            path: path.to_path_buf(),
            disk,
            marker,
            _lock: lock,
        })
    }

    /// The directory that the operator gave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of the store.
    pub const fn disk(&self) -> &LocalDisk {
        &self.disk
    }

    /// The disk's id.
    pub fn id(&self) -> DiskId {
        self.marker.lock().disk
    }

    /// The cluster whose replicas it holds.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.marker.lock().cluster
    }

    /// Writes down whose replicas it holds.
    ///
    /// # Errors
    ///
    /// [`MarkerError`]; the disk then still belongs to nobody.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), MarkerError> {
        let mut marker = self.marker.lock();
        let mut next = *marker;
        next.cluster = Some(cluster);
        next.write(&self.disk)?;
        *marker = next;
        Ok(())
    }

    /// How full it is.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    /// A replica's directory, below [`DiskRoot::disk`].
    pub fn replica_dir(id: ReplicaId) -> PathBuf {
        Path::new(REPLICAS).join(id.to_string())
    }

    /// The names below the directory of replicas that are replica ids. Others are told once.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn replica_ids(&self) -> io::Result<Vec<ReplicaId>> {
        let names = self.disk.list(Path::new(REPLICAS))?;
        Ok(names
            .iter()
            .filter_map(|name| match name.parse() {
                Ok(id) => Some(id),
                Err(_) => {
                    tracing::warn!(disk = %self.path.display(), name, "not a replica; left alone");
                    None
                }
            })
            .collect())
    }
}

/// Moves what an interrupted creation or deletion left to the trash.
fn sweep(disk: &LocalDisk) -> io::Result<()> {
    for name in disk.list(Path::new(REPLICAS))? {
        let unfinished = [".creating", ".deleting"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(|id| id.parse::<ReplicaId>().is_ok());
        if unfinished {
            let aside = Path::new(TRASH).join(format!("{name}.{:016x}", rand::random::<u64>()));
            disk.rename(&Path::new(REPLICAS).join(&name), &aside)?;
        }
    }
    // A daemon that was killed may have named a replica and not synced that. It is used from now on.
    disk.sync_dir(Path::new(REPLICAS))?;
    disk.sync_dir(Path::new(TRASH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_in_use_is_refused_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = DiskRoot::open(dir.path()).unwrap();
        let second = DiskRoot::open(dir.path());
        assert!(matches!(second, Err(DiskRootError::InUse { .. })));
        let id = first.id();
        drop(first);
        assert_eq!(DiskRoot::open(dir.path()).unwrap().id(), id);
    }
}
