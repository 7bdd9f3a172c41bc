//! The directory of one engine: what it says of itself, and the lock that says that it lives.
//!
//! ```text
//! <directory>/lock           locked (flock) for as long as the engine's process lives
//! <directory>/engine.json    EngineRecord: replaced atomically, kept after the end
//! <directory>/reservations   of earlier versions: the persistent reservations of the volume
//! <directory>/log            what the engine logs, and log.1 from before
//! ```
//!
//! The kernel drops the lock with the process, however that ends: a free lock is how an agent sees
//! an engine dead, also one that it did not start.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ankole_proto::{Epoch, VolumeId};
use serde::{Deserialize, Serialize};

use super::lock::{Lock, LockError};

/// A record is a few hundred bytes, reservations a few kilobytes; more is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// An engine's directory, whoever looks at it.
#[derive(Debug, Clone)]
pub struct EngineDirectory {
    path: PathBuf,
}

/// An engine's directory, locked by this process until it is dropped.
#[derive(Debug)]
pub struct HeldDirectory {
    directory: EngineDirectory,
    _lock: Lock,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// Its process, while the lock is held.
    pub pid: i32,
    /// Its volume.
    pub volume: VolumeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Where initiators find it; `None` without a target.
    pub portal: Option<SocketAddr>,
    /// The port that it listens on; `None` without a target.
    pub port: Option<u16>,
    /// How far it is.
    pub phase: Phase,
    /// Why it does not serve, or holds I/O; empty otherwise.
    pub message: String,
    /// No older engine can still believe in a lease: this one has served, so it waited them out,
    /// or all before it were seen dead. Once it has ended, too, the next need not wait.
    #[serde(default)]
    pub alone: bool,
}

/// How far an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It opens the replicas.
    Starting,
    /// Initiators can log in; without a target: it can do tasks.
    Serving,
    /// It was told to end.
    Stopping,
    /// It ended in order.
    Closed,
    /// It ended because of a newer engine.
    Fenced,
    /// It ended for another reason, which the message tells.
    Failed,
}

/// Why an engine's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An engine of the volume still runs there, or it cannot be told.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Not what an engine writes.
    #[error("{path} is not an engine's record ({source}); remove it", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl EngineDirectory {
    /// The directory at this path, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its engine logs.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("engine.json")
    }

    fn reservations_path(&self) -> PathBuf {
        self.path.join("reservations")
    }

    /// Creates it where it is missing.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Io`].
    pub fn create(&self) -> Result<(), DirectoryError> {
        fs::create_dir_all(&self.path).map_err(failed("create", &self.path))
    }

    /// Creates and locks it, waiting a moment for whoever holds it.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Lock`] when another engine lives there.
    pub async fn hold(self) -> Result<HeldDirectory, DirectoryError> {
        self.create()?;
        let lock = Lock::take(&self.lock_path()).await?;
        Ok(HeldDirectory {
            directory: self,
            _lock: lock,
        })
    }

    /// Whether an engine lives there.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Lock`] when that cannot be told.
    pub fn is_held(&self) -> Result<bool, DirectoryError> {
        Ok(Lock::is_taken(&self.lock_path())?)
    }

    /// What the engine there says or said of itself; `None` when none ever did.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Record`] when the file is damaged.
    pub fn record(&self) -> Result<Option<EngineRecord>, DirectoryError> {
        let path = self.record_path();
        let Some(bytes) = read_bounded(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| DirectoryError::Record { path, source })
    }
}

impl HeldDirectory {
    /// Replaces the record. Not synced: after a power cut no engine lives.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Io`].
    pub fn write(&self, record: &EngineRecord) -> Result<(), DirectoryError> {
        let path = self.directory.record_path();
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| failed("write", &path)(io::Error::other(error)))?;
        replace(&path, &text)
    }

    /// The reservations that an engine of an earlier version stored, until the managers have them.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Io`].
    pub fn reservations(&self) -> Result<Option<Vec<u8>>, DirectoryError> {
        read_bounded(&self.directory.reservations_path())
    }

    /// Removes them: the managers have newer ones.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Io`].
    pub fn remove_reservations(&self) -> Result<(), DirectoryError> {
        let path = self.directory.reservations_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io {
        action,
        path,
        source,
    }
}

fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, DirectoryError> {
    use io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let error = io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB");
        return Err(failed("read", path)(error));
    }
    Ok(Some(bytes))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DirectoryError> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside).map_err(failed("create", &aside))?;
    file.write_all(bytes).map_err(failed("write", &aside))?;
    fs::rename(&aside, path).map_err(failed("replace", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> EngineRecord {
        EngineRecord {
            pid: 7,
            volume: VolumeId::from_bits(1),
            epoch: Epoch::from_raw(2),
            portal: Some("127.0.0.1:3260".parse().unwrap()),
            port: Some(3260),
            phase: Phase::Serving,
            message: String::new(),
            alone: true,
        }
    }

    #[tokio::test]
    async fn a_held_directory_is_seen_as_held_until_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let directory = EngineDirectory::new(parent.path().join("a/b"));
        assert!(!directory.is_held().unwrap());
        let held = directory.clone().hold().await.unwrap();
        assert!(directory.is_held().unwrap());
        let second = directory.clone().hold().await;
        assert!(
            matches!(second, Err(DirectoryError::Lock(LockError::Taken(_)))),
            "{second:?}"
        );
        drop(held);
        assert!(!directory.is_held().unwrap());
        directory.hold().await.unwrap();
    }

    #[tokio::test]
    async fn records_and_reservations_read_back_and_damage_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let directory = EngineDirectory::new(parent.path());
        assert_eq!(directory.record().unwrap(), None);
        let held = directory.clone().hold().await.unwrap();
        held.write(&record()).unwrap();
        assert_eq!(directory.record().unwrap(), Some(record()));
        assert_eq!(held.reservations().unwrap(), None);
        fs::write(parent.path().join("reservations"), "held by a").unwrap();
        assert_eq!(held.reservations().unwrap().unwrap(), b"held by a");
        held.remove_reservations().unwrap();
        held.remove_reservations().unwrap();
        assert_eq!(held.reservations().unwrap(), None);
        fs::write(parent.path().join("engine.json"), "{").unwrap();
        assert!(matches!(
            directory.record(),
            Err(DirectoryError::Record { .. })
        ));
    }
}
