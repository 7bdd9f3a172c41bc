//! What a manager keeps on disk: a small ordered key/value store, written by one thread.
//!
//! Owns the database, its lock and its recovery. Promises that a batch is seen whole or not at
//! all, that batches survive a crash in the order in which they were written, and that what was
//! flushed is on the media. A failed write or flush ends the process and is never retried
//! (INV-10). Knows nothing of Raft. Only `sled.rs` names sled.

mod error;
mod memory;
mod recover;
mod sled;
mod writer;

pub use error::{OpenError, StoreError};
pub use memory::MemoryStore;
pub use sled::SledStore;
pub use writer::{Writer, WriterGone};

/// The greatest value in bytes: sled slows down and moves much data with larger ones.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// A separate key space. A batch is atomic within one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// Log entries and what has been purged of them.
    Log,
    /// The vote and the committed index.
    Vote,
    /// The state machine's records and how far it has applied.
    State,
}

impl Tree {
    /// All of them.
    pub const ALL: [Tree; 3] = [Tree::Log, Tree::Vote, Tree::State];

    /// Its name on disk: never changed.
    pub const fn name(self) -> &'static str {
        match self {
            Tree::Log => "log",
            Tree::Vote => "vote",
            Tree::State => "state",
        }
    }
}

/// Records to put and to remove, all at once. The last word on a key counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Puts a record.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Removes a record, if there is one.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }

    /// Adds changes in order: `None` removes.
    pub fn extend(&mut self, changes: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) {
        self.changes.extend(changes);
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn check_sizes(&self) -> Result<(), StoreError> {
        for (key, value) in &self.changes {
            let bytes = value.as_ref().map_or(0, Vec::len);
            if bytes > VALUE_BYTES_MAX {
                return Err(StoreError::ValueTooLarge {
                    key: key.clone(),
                    bytes,
                });
            }
        }
        Ok(())
    }
}

/// Whether a scan wants more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The next record, please.
    Continue,
    /// That was enough.
    Stop,
}

/// An ordered store. Calls block on the disk: keep them off the async workers.
pub trait KvStore: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// When the medium fails or the store is damaged; so for all calls.
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the records with `from <= key < to` in ascending order.
    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), StoreError>;

    /// The record with the greatest key below `to`.
    fn last_below(&self, tree: Tree, to: &[u8]) -> Result<Option<Record>, StoreError>;

    /// Applies a batch: visible at once, durable after the next flush. Values above
    /// [`VALUE_BYTES_MAX`] are refused.
    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError>;

    /// Makes everything written so far durable on the media.
    fn flush(&self) -> Result<(), StoreError>;
}

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);
