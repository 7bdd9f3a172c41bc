//! The store on sled 0.34. Its `flush` only starts writeback, so every flush here ends with an
//! `fdatasync` of its file through a descriptor of our own.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Batch, KvStore, OpenError, Record, Scan, StoreError, Tree, recover};

/// Bytes of database pages kept in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
const LOCK_FILE: &str = "lock";
const DATABASE: &str = "store";

/// A store in a directory, open in this process only.
pub struct SledStore {
    trees: [sled::Tree; Tree::ALL.len()],
    database: sled::Db,
    /// sled's file, for the sync that sled does not do.
    file: File,
    // After the database, so that it is closed before the lock is given up.
    _lock: File,
}

impl SledStore {
    /// Opens the store in a directory, or makes one there.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]: in use, unreadable, or damaged and moved aside.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(directory).map_err(OpenError::io("create", directory))?;
        let lock = recover::lock(&directory.join(LOCK_FILE))?;
        let path = directory.join(DATABASE);
        fs::create_dir_all(&path).map_err(OpenError::io("create", &path))?;
        recover::delete_torn_snapshots(&path)?;
        let (database, trees) = open_or_recover(&path)?;
        for synced in [&path.join("conf"), &path, directory] {
            recover::sync(synced)?;
        }
        if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
            recover::sync(parent)?;
        }
        let data = path.join("db");
        let file = File::open(&data).map_err(OpenError::io("open", &data))?;
        Ok(Self {
            trees,
            database,
            file,
            _lock: lock,
        })
    }

    /// Whether a directory holds a store, readable or not.
    pub fn exists(directory: &Path) -> bool {
        directory.join(DATABASE).exists()
    }

    fn tree(&self, tree: Tree) -> &sled::Tree {
        let [log, vote, state] = &self.trees;
        match tree {
            Tree::Log => log,
            Tree::Vote => vote,
            Tree::State => state,
        }
    }
}

type Opened = (sled::Db, [sled::Tree; Tree::ALL.len()]);

fn open_or_recover(path: &Path) -> Result<Opened, OpenError> {
    let reason = match open_database(path) {
        Ok(opened) => return Ok(opened),
        Err(reason) => reason.damage_only(path)?,
    };
    tracing::warn!(%reason, "the store does not open: trying without its index snapshots");
    recover::move_snapshots_aside(path)?;
    match open_database(path) {
        Ok(opened) => Ok(opened),
        Err(reason) => {
            let reason = reason.damage_only(path)?;
            let moved_to = recover::move_database_aside(path)?;
            Err(OpenError::Lost { moved_to, reason })
        }
    }
}

/// Why sled did not open its files.
enum Refused {
    Damaged(String),
    Io(io::Error),
}

impl Refused {
    /// The damage; what may pass by itself (no permission, no space) becomes an error.
    fn damage_only(self, path: &Path) -> Result<String, OpenError> {
        match self {
            Self::Damaged(reason) => Ok(reason),
            Self::Io(source) => Err(OpenError::io("open the store in", path)(source)),
        }
    }
}

fn open_database(path: &Path) -> Result<Opened, Refused> {
    recover::await_release(&path.join("db"));
    let open = || -> sled::Result<Opened> {
        let database = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()?;
        let open = |tree: Tree| database.open_tree(tree.name());
        let trees = [open(Tree::Log)?, open(Tree::Vote)?, open(Tree::State)?];
        Ok((database, trees))
    };
    // sled asserts on some kinds of damage instead of returning an error.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(sled::Error::Io(source))) if !is_damage(source.kind()) => Err(Refused::Io(source)),
        Ok(Err(error)) => Err(Refused::Damaged(error.to_string())),
        Err(_) => Err(Refused::Damaged("its files contradict each other".into())),
    }
}

fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

fn failed(act: &'static str) -> impl Fn(sled::Error) -> StoreError {
    move |error| StoreError::Failed {
        act,
        source: error.into(),
    }
}

impl KvStore for SledStore {
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.tree(tree).get(key).map_err(failed("read"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), StoreError> {
        for record in self.tree(tree).range(from..to) {
            let (key, value) = record.map_err(failed("scan"))?;
            if visit(&key, &value) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last_below(&self, tree: Tree, to: &[u8]) -> Result<Option<Record>, StoreError> {
        let last = self.tree(tree).get_lt(to).map_err(failed("read"))?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut changes = sled::Batch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.tree(tree)
            .apply_batch(changes)
            .map_err(failed("write"))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.database.flush().map_err(failed("flush"))?;
        self.file.sync_data().map_err(|source| StoreError::Failed {
            act: "sync",
            source,
        })
    }
}
