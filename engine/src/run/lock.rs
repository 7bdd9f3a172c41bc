//! A lock file that says that its process lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

/// How long to wait for a lock: whoever looks whether it is free holds it for a moment, and a
/// predecessor that was just killed may not be gone yet.
const WAIT: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{path} is locked by another process; end that one first", path = .0.display())]
    Taken(PathBuf),
    /// The system refused.
    #[error("cannot lock {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl Fn(io::Error) -> LockError {
    move |source| LockError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Lock {
    /// Creates the file where it is missing and takes the lock, waiting a moment for it.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub async fn take(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(failed(path))?;
        let deadline = Instant::now() + WAIT;
        while !try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed(path))? {
            if Instant::now() >= deadline {
                return Err(LockError::Taken(path.to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Self { _file: file })
    }

    /// Whether a process has it.
    ///
    /// # Errors
    ///
    /// [`LockError::Io`] when that cannot be told.
    pub fn is_taken(path: &Path) -> Result<bool, LockError> {
        match File::open(path) {
            Ok(file) => try_lock(&file, FlockOperation::NonBlockingLockShared)
                .map(|free| !free)
                .map_err(failed(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(path)(error)),
        }
    }
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
