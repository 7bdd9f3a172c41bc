//! The files around the database: its lock, what a kill can leave behind, and moving a damaged one
//! aside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;

/// The database's index snapshots, which it can rebuild from its log.
const SNAPSHOT_PREFIX: &str = "snap.";
/// One that was being written when the process ended.
const TORN_SUFFIX: &str = ".generating";
/// Names tried for a directory to move things to.
const ASIDE_NAMES_MAX: u32 = 10_000;
/// How long a database of this process that was closed may keep its file.
const RELEASE_MAX: Duration = Duration::from_secs(5);
const RELEASE_POLL: Duration = Duration::from_millis(2);

/// Takes the lock that keeps a second process out. Held until the file is closed.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(OpenError::io("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.into() }),
        Err(errno) => Err(OpenError::io("lock", path)(errno.into())),
    }
}

/// Waits until sled's workers have let go of its file, which they hold for a moment after its last
/// handle is dropped. The caller holds the store's own lock, so nobody else can hold the file; one
/// that stays locked is left for sled to refuse.
#[allow(
    clippy::disallowed_methods,
    reason = "nothing tells when a lock is given up, but to ask again; the wait has a deadline"
)]
pub(super) fn await_release(data: &Path) {
    let Ok(file) = File::open(data) else {
        return;
    };
    let deadline = Instant::now() + RELEASE_MAX;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return;
        }
        thread::sleep(RELEASE_POLL);
    }
}

/// Makes a file's contents, or a directory's entries, durable.
pub(super) fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(OpenError::io("sync", path))
}

/// Deletes index snapshots that a kill left half written: with one of them the database would
/// refuse to open.
pub(super) fn delete_torn_snapshots(database: &Path) -> Result<(), OpenError> {
    for path in snapshots(database)? {
        if path.to_string_lossy().ends_with(TORN_SUFFIX) {
            fs::remove_file(&path).map_err(OpenError::io("delete", &path))?;
        }
    }
    Ok(())
}

/// Moves all index snapshots out of the database's directory.
pub(super) fn move_snapshots_aside(database: &Path) -> Result<(), OpenError> {
    let target = unused_name(database, "snapshots-aside")?;
    fs::create_dir(&target).map_err(OpenError::io("create", &target))?;
    for path in snapshots(database)? {
        if let Some(name) = path.file_name() {
            fs::rename(&path, target.join(name)).map_err(OpenError::io("move", &path))?;
        }
    }
    sync(database)
}

/// Moves the whole database aside, and tells where to.
pub(super) fn move_database_aside(database: &Path) -> Result<PathBuf, OpenError> {
    let target = unused_name(database, "lost")?;
    fs::rename(database, &target).map_err(OpenError::io("move", database))?;
    if let Some(parent) = database.parent() {
        sync(parent)?;
    }
    Ok(target)
}

fn snapshots(database: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(database).map_err(OpenError::io("list", database))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(OpenError::io("list", database))?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(SNAPSHOT_PREFIX)
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn unused_name(database: &Path, suffix: &str) -> Result<PathBuf, OpenError> {
    (1..=ASIDE_NAMES_MAX)
        .map(|number| database.with_extension(format!("{suffix}-{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| {
            OpenError::io("find a free name beside", database)(
                std::io::ErrorKind::AlreadyExists.into(),
            )
        })
}
