//! A manager's directory: whose it is, and the store in it.
//!
//! ```text
//! manager.json    id and cluster: replaced atomically
//! lock, store/    the store
//! snapshots/      the snapshot
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ankole_proto::ClusterId;
use serde::{Deserialize, Serialize};

use crate::raft::ManagerId;
use crate::store::{Batch, KvStore, OpenError, SledStore, StoreError, Tree};

const IDENTITY: &str = "manager.json";
const IDENTITY_ASIDE: &str = "manager.json.new";
const SNAPSHOTS: &str = "snapshots";
/// Whose store it is, in the store itself: one without it was emptied, by damage that sled took for
/// a new database.
const OWNER: &[u8] = b"owner";
const FORMAT: u32 = 1;
/// Above any identity that was written by us.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// A directory that a manager cannot use.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is another manager's.
    #[error(
        "{} belongs to manager {found}, not to manager {wanted}: give each manager a directory of \
         its own, or the right --id", .path.display()
    )]
    OtherManager {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who wanted it.
        wanted: ManagerId,
    },
    /// Its store was lost.
    #[error(
        "{} says that manager {id} ran here, but its store is gone. Remove this manager from the \
         group and add it again under a new id and with a new directory", .path.display()
    )]
    StoreGone {
        /// The directory.
        path: PathBuf,
        /// Whose it was.
        id: u64,
    },
    /// The store in it is of another cluster than its identity.
    #[error("{} is of cluster {stated}, but its store is of cluster {found}: restore the one that \
             belongs there", .path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// According to its identity.
        stated: ClusterId,
        /// According to its store.
        found: ClusterId,
    },
    /// Nothing is there.
    #[error("{} holds no manager's store", .0.display())]
    Empty(PathBuf),
    /// Its identity is unreadable.
    #[error("{} cannot be read: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {act} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Access(#[from] StoreError),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterId>,
}

/// An open directory.
pub struct Directory {
    path: PathBuf,
    id: ManagerId,
    identity: Option<Identity>,
    /// The store in it.
    pub store: Arc<SledStore>,
}

impl Directory {
    /// Opens a manager's directory, or makes one.
    ///
    /// # Errors
    ///
    /// When it is another manager's, in use, or damaged: see [`DirectoryError`].
    pub fn open(path: &Path, id: ManagerId) -> Result<Self, DirectoryError> {
        let identity = read_identity(path)?;
        if let Some(identity) = &identity {
            if identity.id != id.number() {
                return Err(DirectoryError::OtherManager {
                    path: path.into(),
                    found: identity.id,
                    wanted: id,
                });
            }
            if !SledStore::exists(path) {
                return Err(DirectoryError::StoreGone {
                    path: path.into(),
                    id: identity.id,
                });
            }
        }
        let store = Arc::new(SledStore::open(path)?);
        let owner = store.read(Tree::Vote, OWNER)?;
        if identity.is_some() && owner != Some(owner_of(id)) {
            return Err(DirectoryError::StoreGone {
                path: path.into(),
                id: id.number(),
            });
        }
        Ok(Self {
            path: path.into(),
            id,
            identity,
            store,
        })
    }

    /// Opens the store of a stopped manager.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be opened.
    pub fn open_store(path: &Path) -> Result<(u64, SledStore), DirectoryError> {
        let identity = read_identity(path)?.filter(|_| SledStore::exists(path));
        let identity = identity.ok_or_else(|| DirectoryError::Empty(path.into()))?;
        Ok((identity.id, SledStore::open(path)?))
    }

    /// No manager has run here yet.
    pub fn is_new(&self) -> bool {
        self.identity.is_none()
    }

    /// Where the snapshots are.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    /// Marks it as this manager's, and of this cluster when that is known. Durable.
    ///
    /// # Errors
    ///
    /// When it is of another cluster, or cannot be written.
    pub fn claim(&mut self, cluster: Option<ClusterId>) -> Result<(), DirectoryError> {
        let stated = self.identity.as_ref().and_then(|known| known.cluster);
        if let (Some(stated), Some(found)) = (stated, cluster)
            && stated != found
        {
            return Err(DirectoryError::OtherCluster {
                path: self.path.clone(),
                stated,
                found,
            });
        }
        let identity = Identity {
            format: FORMAT,
            id: self.id.number(),
            cluster: cluster.or(stated),
        };
        if self.identity.is_none() {
            let mut batch = Batch::default();
            batch.put(OWNER, owner_of(self.id));
            self.store.write(Tree::Vote, batch)?;
            self.store.flush()?;
        }
        if self.identity.as_ref() != Some(&identity) {
            write_identity(&self.path, &identity)?;
            self.identity = Some(identity);
        }
        Ok(())
    }
}

fn owner_of(id: ManagerId) -> Vec<u8> {
    id.number().to_be_bytes().to_vec()
}

fn read_identity(directory: &Path) -> Result<Option<Identity>, DirectoryError> {
    let path = directory.join(IDENTITY);
    let damaged = |reason: String| DirectoryError::Damaged {
        path: path.clone(),
        reason,
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > IDENTITY_BYTES_MAX => {
            return Err(damaged("it is too long".into()));
        }
        _ => {}
    }
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    match identity.format {
        FORMAT => Ok(Some(identity)),
        other => Err(damaged(format!("its format {other} is of a newer version"))),
    }
}

fn write_identity(directory: &Path, identity: &Identity) -> Result<(), DirectoryError> {
    let aside = directory.join(IDENTITY_ASIDE);
    let target = directory.join(IDENTITY);
    let mut bytes = serde_json::to_vec_pretty(identity)
        .map_err(|error| failed("write", &target)(error.into()))?;
    bytes.push(b'\n');
    File::create(&aside)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .map_err(failed("write", &aside))?;
    fs::rename(&aside, &target).map_err(failed("write", &target))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync", directory))
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io {
        act,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ManagerId {
        ManagerId::new(number).unwrap()
    }

    #[test]
    fn a_directory_serves_one_manager_of_one_cluster() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(path.path(), id(1)).unwrap();
        assert!(directory.is_new());
        directory.claim(None).unwrap();
        directory.claim(Some(ClusterId::from_bits(5))).unwrap();
        let other = directory.claim(Some(ClusterId::from_bits(6)));
        assert!(matches!(other, Err(DirectoryError::OtherCluster { .. })));
        drop(directory);
        let other = Directory::open(path.path(), id(2));
        assert!(matches!(
            other,
            Err(DirectoryError::OtherManager { found: 1, .. })
        ));
        let directory = Directory::open(path.path(), id(1)).unwrap();
        assert!(!directory.is_new());
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let path = tempfile::tempdir().unwrap();
        let _open = Directory::open(path.path(), id(1)).unwrap();
        let second = Directory::open(path.path(), id(1));
        assert!(matches!(
            second,
            Err(DirectoryError::Store(OpenError::Locked { .. }))
        ));
    }

    #[test]
    fn a_manager_whose_store_vanished_does_not_start_with_an_empty_one() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(path.path(), id(1)).unwrap();
        directory.claim(None).unwrap();
        drop(directory);
        fs::remove_dir_all(path.path().join("store")).unwrap();
        let gone = Directory::open(path.path(), id(1));
        assert!(matches!(gone, Err(DirectoryError::StoreGone { id: 1, .. })));
    }
    #[test]
    fn a_store_that_damage_has_emptied_does_not_start_under_the_old_id() {
        for damage in [Vec::new(), vec![0; 1 << 20], vec![0xab; 1 << 20]] {
            let path = tempfile::tempdir().unwrap();
            let mut directory = Directory::open(path.path(), id(1)).unwrap();
            directory.claim(None).unwrap();
            drop(directory);
            fs::write(path.path().join("store/db"), &damage).unwrap();
            let opened = Directory::open(path.path(), id(1));
            let refused = matches!(
                opened,
                Err(DirectoryError::StoreGone { .. }
                    | DirectoryError::Store(OpenError::Lost { .. }))
            );
            assert!(
                refused,
                "damage of {} bytes: {:?}",
                damage.len(),
                opened.err()
            );
        }
    }
}
