//! Raft's log, vote and committed index in the store.
//!
//! `Tree::Log` holds `e` + big-endian index → `RaftEntry`, and `p` → `RaftLogId` of the last entry
//! purged. `Tree::Vote` holds `vote` → `RaftBallot` and `committed` → `RaftLogId`. A vote and
//! appended entries are on the media before they are reported.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, RaftLogId};
use prost::Message;

use super::codec::{self, CodecError};
use super::timing::APPEND_BYTES_MAX;
use super::{Entry, LogId, StorageError, StorageIoError, TypeConfig, Vote};
use crate::store::{Batch, KvStore, Scan, StoreError, Tree, Writer, WriterGone};

const PURGED: &[u8] = b"p";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const ENTRY: u8 = b'e';
/// Above every entry's key.
const ENTRIES_END: &[u8] = b"f";
/// Entries deleted in one batch.
const DELETE_BATCH: usize = 1024;

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the key {0:02x?} does not belong in the log")]
    ForeignKey(Vec<u8>),
}

pub(crate) fn entry_key(index: u64) -> Vec<u8> {
    let mut key = vec![ENTRY];
    key.extend_from_slice(&index.to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> Result<u64, LogError> {
    match key.split_first() {
        Some((&ENTRY, index)) => index
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| LogError::ForeignKey(key.to_vec())),
        _ => Err(LogError::ForeignKey(key.to_vec())),
    }
}

/// The vote on record.
pub(crate) fn stored_vote(store: &dyn KvStore) -> Result<Option<Vote>, LogError> {
    let Some(bytes) = store.read(Tree::Vote, VOTE)? else {
        return Ok(None);
    };
    Ok(Some(codec::vote_in(codec::decode("vote", &bytes)?)))
}

/// The first and last entries' ids, and what is purged.
pub(crate) fn stored_ends(store: &dyn KvStore) -> Result<LogState<TypeConfig>, LogError> {
    let purged = stored_log_id(store, Tree::Log, PURGED)?;
    let last = match store.last_below(Tree::Log, ENTRIES_END)? {
        Some((key, value)) if key.first() == Some(&ENTRY) => Some(read_entry(&key, &value)?.log_id),
        _ => None,
    };
    Ok(LogState {
        last_purged_log_id: purged,
        last_log_id: last.max(purged),
    })
}

/// The committed log id on record.
pub(crate) fn stored_committed(store: &dyn KvStore) -> Result<Option<LogId>, LogError> {
    stored_log_id(store, Tree::Vote, COMMITTED)
}

fn stored_log_id(store: &dyn KvStore, tree: Tree, key: &[u8]) -> Result<Option<LogId>, LogError> {
    let Some(bytes) = store.read(tree, key)? else {
        return Ok(None);
    };
    Ok(Some(codec::log_id_in(codec::decode("log id", &bytes)?)))
}

fn read_entry(key: &[u8], value: &[u8]) -> Result<Entry, LogError> {
    index_of(key)?;
    Ok(codec::entry_in(codec::decode("log entry", value)?)?)
}

/// Reads entries, up to a number of bytes but at least one.
fn read_entries(
    store: &dyn KvStore,
    from: u64,
    to: &[u8],
    bytes_max: usize,
) -> Result<Vec<Entry>, LogError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut failure = None;
    store.scan(Tree::Log, &entry_key(from), to, &mut |key, value| {
        bytes += value.len();
        if bytes > bytes_max && !entries.is_empty() {
            return Scan::Stop;
        }
        match read_entry(key, value) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                failure = Some(error);
                return Scan::Stop;
            }
        }
        Scan::Continue
    })?;
    failure.map_or(Ok(entries), Err)
}

/// See the module. Cheap to clone; all writes go through the store's one writer.
#[derive(Clone)]
pub(crate) struct LogStorage {
    store: Arc<dyn KvStore>,
    writer: Writer,
    ends: LogState<TypeConfig>,
}

impl LogStorage {
    /// The log in a store. Finishes a purge that a crash interrupted.
    pub(crate) fn open(store: Arc<dyn KvStore>, writer: Writer) -> Result<Self, LogError> {
        let ends = stored_ends(store.as_ref())?;
        if let Some(purged) = ends.last_purged_log_id {
            for batch in deletions(
                store.as_ref(),
                0,
                &entry_key(purged.index.saturating_add(1)),
            )? {
                store.write(Tree::Log, batch)?;
            }
        }
        Ok(Self {
            store,
            writer,
            ends,
        })
    }

    async fn read(
        &self,
        from: u64,
        to: Vec<u8>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let store = self.store.clone();
        let read = move || read_entries(store.as_ref(), from, &to, bytes_max);
        match tokio::task::spawn_blocking(read).await {
            Ok(entries) => entries.map_err(|error| StorageIoError::read_logs(&error).into()),
            Err(cancelled) => Err(StorageIoError::read_logs(&cancelled).into()),
        }
    }

    async fn delete(&self, from: u64, to: Vec<u8>) -> Result<(), StorageError> {
        let store = self.store.clone();
        let find = move || deletions(store.as_ref(), from, &to);
        let batches = match tokio::task::spawn_blocking(find).await {
            Ok(found) => found.map_err(|error| StorageIoError::read_logs(&error))?,
            Err(cancelled) => return Err(StorageIoError::read_logs(&cancelled).into()),
        };
        for batch in batches {
            self.writer
                .write(Tree::Log, batch)
                .await
                .map_err(write_failed)?;
        }
        Ok(())
    }
}

/// Batches that delete the entries of a range, the last entries first: a crash between two of them
/// leaves no hole.
fn deletions(store: &dyn KvStore, from: u64, to: &[u8]) -> Result<Vec<Batch>, LogError> {
    let mut keys = Vec::new();
    store.scan(Tree::Log, &entry_key(from), to, &mut |key, _| {
        keys.push(key.to_vec());
        Scan::Continue
    })?;
    keys.reverse();
    let batch_of = |keys: &[Vec<u8>]| {
        let mut batch = Batch::default();
        keys.iter().for_each(|key| batch.remove(key.clone()));
        batch
    };
    Ok(keys.chunks(DELETE_BATCH).map(batch_of).collect())
}

fn write_failed(gone: WriterGone) -> StorageError {
    StorageIoError::write_logs(&gone).into()
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&index) => index.checked_add(1).map(entry_key),
            Bound::Excluded(&index) => Some(entry_key(index)),
            Bound::Unbounded => None,
        };
        let to = to.unwrap_or_else(|| ENTRIES_END.to_vec());
        if entry_key(from) >= to {
            return Ok(Vec::new());
        }
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start, entry_key(end), APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        Ok(self.ends.clone())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.put(VOTE, codec::vote_out(vote).encode_to_vec());
        self.writer
            .write_durably(Tree::Vote, batch)
            .await
            .map_err(|gone| StorageIoError::write_vote(&gone).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        stored_vote(self.store.as_ref()).map_err(|error| StorageIoError::read_vote(&error).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        match committed {
            Some(id) => batch.put(COMMITTED, codec::log_id_out(&id).encode_to_vec()),
            None => batch.remove(COMMITTED),
        }
        // Not durable by itself: a crash only makes the next start apply fewer entries at once.
        let written = self.writer.write(Tree::Vote, batch).await;
        written.map_err(write_failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        stored_committed(self.store.as_ref()).map_err(|error| StorageIoError::read(&error).into())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        let mut last = None;
        for entry in entries {
            let id = *entry.get_log_id();
            batch.put(
                entry_key(id.index),
                codec::entry_out(&entry).encode_to_vec(),
            );
            last = Some(id);
        }
        let written = self.writer.write_durably(Tree::Log, batch).await;
        written.map_err(write_failed)?;
        self.ends.last_log_id = last.or(self.ends.last_log_id);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.delete(log_id.index, ENTRIES_END.to_vec()).await?;
        let synced = self.writer.write_durably(Tree::Log, Batch::default()).await;
        synced.map_err(write_failed)?;
        self.ends = stored_ends(self.store.as_ref()).map_err(|error| {
            StorageError::from_io_error(
                ErrorSubject::Logs,
                ErrorVerb::Read,
                io::Error::other(error.to_string()),
            )
        })?;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        // The flush covers the state machine too: what is purged is never needed to rebuild it.
        let synced = self.writer.write_durably(Tree::Log, Batch::default()).await;
        synced.map_err(write_failed)?;
        let mut batch = Batch::default();
        batch.put(PURGED, codec::log_id_out(&log_id).encode_to_vec());
        let written = self.writer.write(Tree::Log, batch).await;
        written.map_err(write_failed)?;
        let end = entry_key(log_id.index.saturating_add(1));
        self.delete(0, end).await?;
        self.ends.last_purged_log_id = Some(log_id);
        self.ends.last_log_id = self.ends.last_log_id.max(Some(log_id));
        Ok(())
    }
}
