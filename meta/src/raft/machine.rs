//! The state machine: the state in memory, and its records in the store.
//!
//! `Tree::State` holds `r` + key → record, and beside them, in the same batch, `applied` →
//! `RaftLogId`, `membership` → `RaftStoredMembership` and `cluster` → the cluster's id. An apply
//! changes the memory and queues one batch; it is not flushed, because the log can repeat it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use prost::Message;
use tokio::sync::watch;

use super::codec::{self, CodecError};
use super::snapshot::{Contents, SnapshotDirectory, SnapshotError, SnapshotFile, read_contents};
use super::{
    Entry, LogId, Proposal, SnapshotMeta, StorageError, StorageIoError, StoredMembership,
    TypeConfig,
};
use crate::state::{RecordError, Replicated};
use crate::store::{Batch, KvStore, Scan, StoreError, Tree, Writer};
use ankole_proto::rpc::v1 as rpc;

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
const CLUSTER: &[u8] = b"cluster";
const RECORD: u8 = b'r';
const RECORDS: &[u8] = b"r";
/// Above every record's key.
const RECORDS_END: &[u8] = b"s";
/// Entries whose changes go to the store together.
const APPLY_BATCH: usize = 64;

/// A state that cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the snapshot is not the one that was announced")]
    OtherSnapshot,
}

/// An entry that cannot be applied.
struct Unapplied(LogId, CodecError);

/// The cluster's id, once it is known.
pub(crate) type ClusterCell = Arc<OnceLock<ClusterId>>;

fn record_key(key: &[u8]) -> Vec<u8> {
    [RECORDS, key].concat()
}

/// What the store says of the state, besides the state itself.
pub(crate) struct Stored {
    pub(crate) contents: Contents,
}

/// Reads the whole state tree.
pub(crate) fn stored(store: &dyn KvStore) -> Result<Stored, MachineError> {
    let applied = match store.read(Tree::State, APPLIED)? {
        Some(bytes) => Some(codec::log_id_in(codec::decode("log id", &bytes)?)),
        None => None,
    };
    let membership = match store.read(Tree::State, MEMBERSHIP)? {
        Some(bytes) => codec::stored_membership_in(codec::decode("membership", &bytes)?)?,
        None => StoredMembership::default(),
    };
    let cluster_id = match store.read(Tree::State, CLUSTER)? {
        Some(bytes) => Some(codec::cluster_id_in(&String::from_utf8_lossy(&bytes))?),
        None => None,
    };
    let mut records = Vec::new();
    store.scan(Tree::State, RECORDS, RECORDS_END, &mut |key, value| {
        if let Some((&RECORD, key)) = key.split_first() {
            records.push((key.to_vec(), value.to_vec()));
        }
        Scan::Continue
    })?;
    Ok(Stored {
        contents: Contents {
            applied,
            membership,
            cluster_id,
            records,
        },
    })
}

/// The batch that turns what is stored into these contents.
fn replacement(store: &dyn KvStore, contents: &Contents) -> Result<Batch, MachineError> {
    let kept: BTreeSet<Vec<u8>> = contents
        .records
        .iter()
        .map(|(key, _)| record_key(key))
        .collect();
    let mut batch = Batch::default();
    store.scan(Tree::State, RECORDS, RECORDS_END, &mut |key, _| {
        if !kept.contains(key) {
            batch.remove(key);
        }
        Scan::Continue
    })?;
    for (key, value) in &contents.records {
        batch.put(record_key(key), value.clone());
    }
    put_position(&mut batch, contents.applied, &contents.membership);
    if let Some(id) = contents.cluster_id {
        batch.put(CLUSTER, id.to_string());
    }
    Ok(batch)
}

fn put_position(batch: &mut Batch, applied: Option<LogId>, membership: &StoredMembership) {
    if let Some(applied) = applied {
        batch.put(APPLIED, codec::log_id_out(&applied).encode_to_vec());
    }
    batch.put(
        MEMBERSHIP,
        codec::stored_membership_out(membership).encode_to_vec(),
    );
}

/// The state as everybody may read it.
pub(crate) struct Shared<S> {
    applied: RwLock<Applied<S>>,
    changed: watch::Sender<u64>,
    pub(super) cluster: ClusterCell,
}

struct Applied<S> {
    state: S,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl<S: Replicated> Shared<S> {
    fn new(contents: Contents, cluster: ClusterCell) -> Result<Self, MachineError> {
        if let Some(id) = contents.cluster_id {
            // The first one stays: it never changes within one cluster.
            let _ = cluster.set(id);
        }
        let state = S::from_records(&mut contents.records.into_iter())?;
        let index = contents.applied.map_or(0, |id| id.index);
        Ok(Self {
            applied: RwLock::new(Applied {
                state,
                last: contents.applied,
                membership: contents.membership,
            }),
            changed: watch::Sender::new(index),
            cluster,
        })
    }

    /// Reads the state; applying waits meanwhile.
    pub(super) fn with<T>(&self, read: impl FnOnce(&S) -> T) -> T {
        read(&self.applied.read().state)
    }

    /// Follows the applied index.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn contents(&self) -> Contents {
        let applied = self.applied.read();
        Contents {
            applied: applied.last,
            membership: applied.membership.clone(),
            cluster_id: self.cluster.get().copied(),
            records: applied.state.to_records(),
        }
    }

    fn position(&self) -> (Option<LogId>, StoredMembership) {
        let applied = self.applied.read();
        (applied.last, applied.membership.clone())
    }

    /// Applies entries in memory; what they change is to be stored.
    fn apply(&self, entries: Vec<Entry>) -> Result<(Vec<LogAnswer>, Batch), Unapplied> {
        let mut applied = self.applied.write();
        let mut answers = Vec::with_capacity(entries.len());
        let mut batch = Batch::default();
        for entry in entries {
            let answer = self.apply_one(&mut applied, &entry, &mut batch);
            answers.push(answer.map_err(|error| Unapplied(entry.log_id, error))?);
            applied.last = Some(entry.log_id);
        }
        put_position(&mut batch, applied.last, &applied.membership);
        Ok((answers, batch))
    }

    fn apply_one(
        &self,
        applied: &mut Applied<S>,
        entry: &Entry,
        batch: &mut Batch,
    ) -> Result<LogAnswer, CodecError> {
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            EntryPayload::Normal(Proposal::Cluster(id)) => {
                if self.cluster.set(*id).is_ok() {
                    batch.put(CLUSTER, id.to_string());
                }
            }
            EntryPayload::Normal(Proposal::Command(bytes)) => {
                let command: LogCommand = codec::decode("command", bytes)?;
                let (answer, changes) = applied.state.apply(entry.log_id.index, &command);
                let keyed = |(key, value): (Vec<u8>, _)| (record_key(&key), value);
                batch.extend(changes.into_iter().map(keyed));
                return Ok(answer);
            }
        }
        Ok(LogAnswer::default())
    }

    fn replace(&self, state: S, contents: Contents) {
        let index = contents.applied.map_or(0, |id| id.index);
        if let Some(id) = contents.cluster_id {
            // As in `new`.
            let _ = self.cluster.set(id);
        }
        *self.applied.write() = Applied {
            state,
            last: contents.applied,
            membership: contents.membership,
        };
        self.changed.send_replace(index);
    }
}

/// See the module.
pub(crate) struct StateMachine<S> {
    shared: Arc<Shared<S>>,
    store: Arc<dyn KvStore>,
    writer: Writer,
    snapshots: SnapshotDirectory,
}

impl<S: Replicated> StateMachine<S> {
    /// The state in a store. A snapshot that is ahead of it was being installed when the process
    /// ended: it is installed now. Call it before anything is written.
    pub(crate) fn open(
        store: Arc<dyn KvStore>,
        writer: Writer,
        snapshots: SnapshotDirectory,
        snapshot: Option<Contents>,
        cluster: ClusterCell,
    ) -> Result<Self, MachineError> {
        let mut contents = stored(store.as_ref())?.contents;
        if let Some(ahead) = snapshot.filter(|snapshot| snapshot.applied > contents.applied) {
            store.write(Tree::State, replacement(store.as_ref(), &ahead)?)?;
            store.flush()?;
            contents = ahead;
        }
        Ok(Self {
            shared: Arc::new(Shared::new(contents, cluster)?),
            store,
            writer,
            snapshots,
        })
    }

    /// The state, to be read by others.
    pub(crate) fn shared(&self) -> Arc<Shared<S>> {
        self.shared.clone()
    }

    async fn install(&self, meta: &SnapshotMeta, file: SnapshotFile) -> Result<(), MachineError> {
        let snapshots = self.snapshots.clone();
        let announced = meta.last_log_id;
        let read = move || -> Result<(S, Contents), MachineError> {
            let contents = read_contents(&file)?;
            if contents.applied != announced {
                return Err(MachineError::OtherSnapshot);
            }
            let state = S::from_records(&mut contents.records.iter().cloned())?;
            snapshots.publish(&contents)?;
            Ok((state, contents))
        };
        let (state, contents) = blocking(read).await?;
        // What was applied before is in the queue: it has to be stored before it is replaced.
        self.write_durably(Batch::default()).await?;
        let store = self.store.clone();
        let (batch, contents) = blocking(move || {
            let batch = replacement(store.as_ref(), &contents)?;
            Ok::<_, MachineError>((batch, contents))
        })
        .await?;
        self.write_durably(batch).await?;
        self.shared.replace(state, contents);
        Ok(())
    }

    async fn write_durably(&self, batch: Batch) -> Result<(), MachineError> {
        let written = self.writer.write_durably(Tree::State, batch).await;
        written.map_err(|gone| {
            MachineError::Store(StoreError::Failed {
                act: "write",
                source: std::io::Error::other(gone),
            })
        })
    }
}

/// Runs what waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
) -> Result<T, MachineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(MachineError::Snapshot(SnapshotError::Io(
            "handle",
            std::io::Error::other(error),
        ))),
    }
}

fn snapshot_failed(error: impl std::error::Error + 'static) -> StorageError {
    StorageIoError::read_state_machine(&error).into()
}

impl<S: Replicated> RaftStateMachine<TypeConfig> for StateMachine<S> {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok(self.shared.position())
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<LogAnswer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries = entries.into_iter();
        let mut answers = Vec::new();
        loop {
            let group: Vec<Entry> = entries.by_ref().take(APPLY_BATCH).collect();
            let Some(last) = group.last().map(|entry| entry.log_id) else {
                return Ok(answers);
            };
            let applied = self.shared.apply(group);
            let (group_answers, batch) =
                applied.map_err(|Unapplied(id, error)| StorageIoError::apply(id, &error))?;
            let written = self.writer.write(Tree::State, batch).await;
            written.map_err(|gone| StorageIoError::apply(last, &gone))?;
            self.shared.changed.send_replace(last.index);
            answers.extend(group_answers);
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            contents: self.shared.contents(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        let file = self.snapshots.incoming().map_err(snapshot_failed)?;
        Ok(Box::new(file))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        self.install(meta, *snapshot).await.map_err(snapshot_failed)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.snapshots.current().map_err(snapshot_failed)?;
        Ok(current.map(|(meta, file)| Snapshot {
            meta,
            snapshot: Box::new(file),
        }))
    }
}

/// A copy of the state, to be written while newer entries are applied.
pub(crate) struct SnapshotBuilder {
    contents: Contents,
    snapshots: SnapshotDirectory,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let contents = self.contents.clone();
        let snapshots = self.snapshots.clone();
        let (meta, file) = blocking(move || Ok(snapshots.publish(&contents)?))
            .await
            .map_err(snapshot_failed)?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(file),
        })
    }
}

/// What is known of the group's members without a running group.
pub(crate) fn members(membership: &StoredMembership) -> Vec<rpc::RaftMember> {
    codec::membership_out(membership.membership()).members
}
