//! Finding replicas for the offline tools, and keeping a daemon away meanwhile.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk_root::{LOCK, ROOT};
use super::{DiskRoot, REPLICAS};
use crate::disk::{Disk, LocalDisk};

/// The replicas below a path, and the locks that keep a daemon away from them.
#[derive(Debug)]
pub struct Offline {
    /// Each replica's disk and its directory there.
    pub replicas: Vec<(LocalDisk, PathBuf)>,
    _lock: Option<File>,
}

/// Why nothing is looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The path cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A daemon has the store.
    #[error("{path} is in use by a running ankole-blockd: stop it first")]
    InUse {
        /// Which store.
        path: PathBuf,
    },
    /// There is no store.
    #[error(
        "{path} holds no replica: expected a directory given as --disk, its 'ankole' directory, or \
         one of 'ankole/replicas'"
    )]
    NoStore {
        /// Which path.
        path: PathBuf,
    },
}

impl Offline {
    /// Finds the replicas of a store (a directory given as `--disk`, or the `ankole` below it) or
    /// the one in a replica's directory.
    ///
    /// # Errors
    ///
    /// [`OfflineError`].
    pub fn find(path: &Path) -> Result<Self, OfflineError> {
        let io = |source| OfflineError::Io {
            path: path.to_path_buf(),
            source,
        };
        let path = path.canonicalize().map_err(io)?;
        if path.join("replica.json").is_file() {
            return Self::one(&path).map_err(io)?.locked(&store_above(&path));
        }
        let root = [path.join(ROOT), path.clone()]
            .into_iter()
            .find(|root| root.join(REPLICAS).is_dir())
            .ok_or(OfflineError::NoStore { path })?;
        let disk = LocalDisk::open_read_only(&root).map_err(io)?;
        let replicas = disk
            .list(Path::new(REPLICAS))
            .map_err(io)?
            .iter()
            .filter_map(|name| name.parse().ok())
            .map(|id| (disk.clone(), DiskRoot::replica_dir(id)))
            .collect();
        let found = Self {
            replicas,
            _lock: None,
        };
        found.locked(&root)
    }

    fn one(path: &Path) -> io::Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        Ok(Self {
            replicas: vec![(LocalDisk::open_read_only(parent)?, name)],
            _lock: None,
        })
    }

    /// Shares the lock that a daemon would need for itself.
    fn locked(mut self, root: &Path) -> Result<Self, OfflineError> {
        // For reading, so that it works on a filesystem that is mounted read-only.
        let lock = match File::open(root.join(LOCK)) {
            Ok(lock) => lock,
            // A copy of a replica stands in no store, and a store that no daemon had has no lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(error) => {
                tracing::warn!(
                    "{}: {error}: see to it that no ankole-blockd uses this store now",
                    root.join(LOCK).display()
                );
                return Ok(self);
            }
        };
        match lock.try_lock_shared() {
            Ok(()) => {
                self._lock = Some(lock);
                Ok(self)
            }
            Err(TryLockError::WouldBlock) => Err(OfflineError::InUse {
                path: root.to_path_buf(),
            }),
            Err(TryLockError::Error(source)) => Err(OfflineError::Io {
                path: root.to_path_buf(),
                source,
            }),
        }
    }
}

/// The store that a replica's directory lies in, if it lies in one.
fn store_above(replica: &Path) -> PathBuf {
    replica
        .parent()
        .and_then(Path::parent)
        .unwrap_or(replica)
        .to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_by_each_of_its_names_but_not_while_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let root = DiskRoot::open(dir.path()).unwrap();
        let replica = dir
            .path()
            .join("ankole/replicas/00000000000000000000000000000007");
        std::fs::create_dir_all(&replica).unwrap();
        std::fs::write(replica.join("replica.json"), b"{}").unwrap();
        let names = [dir.path().to_path_buf(), dir.path().join(ROOT), replica];
        for name in &names {
            let error = Offline::find(name).unwrap_err();
            assert!(matches!(error, OfflineError::InUse { .. }), "{error}");
        }
        drop(root);
        for name in &names {
            assert_eq!(Offline::find(name).unwrap().replicas.len(), 1);
        }
        let empty = tempfile::tempdir().unwrap();
        let error = Offline::find(empty.path()).unwrap_err();
        assert!(matches!(error, OfflineError::NoStore { .. }), "{error}");
    }
}
