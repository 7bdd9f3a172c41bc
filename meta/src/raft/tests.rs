use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite, log_id};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use proptest::prelude::*;
use prost::Message;

use super::log::LogStorage;
use super::machine::StateMachine;
use super::snapshot::SnapshotDirectory;
use super::*;
use crate::state::{Changes, RecordError, Replicated};
use crate::store::{KvStore, MemoryStore, SledStore, Writer};

/// A state of texts: a command's request id "key=value" puts one, "key=" removes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Texts(BTreeMap<Vec<u8>, Vec<u8>>);

impl Replicated for Texts {
    fn apply(&mut self, index: u64, command: &LogCommand) -> (LogAnswer, Changes) {
        let (key, value) = command.request_id.split_once('=').unwrap_or(("", ""));
        let value = Some(value.as_bytes().to_vec()).filter(|value| !value.is_empty());
        match &value {
            Some(value) => self.0.insert(key.into(), value.clone()),
            None => self.0.remove(key.as_bytes()),
        };
        let answer = LogAnswer {
            revision: index,
            ..LogAnswer::default()
        };
        (answer, vec![(key.into(), value)])
    }

    fn from_records(
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RecordError> {
        Ok(Self(records.collect()))
    }

    fn to_records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let records = self.0.iter();
        records
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

type Parts = (LogStorage, StateMachine<Texts>);

fn open(store: Arc<dyn KvStore>, snapshots: &std::path::Path) -> Parts {
    let writer = Writer::start(store.clone()).unwrap();
    let (snapshots, newest) = SnapshotDirectory::open(snapshots).unwrap();
    let log = LogStorage::open(store.clone(), writer.clone()).unwrap();
    let cluster = Arc::new(OnceLock::new());
    let machine = StateMachine::open(store, writer, snapshots, newest, cluster).unwrap();
    (log, machine)
}

struct OnSled;

impl StoreBuilder<TypeConfig, LogStorage, StateMachine<Texts>, tempfile::TempDir> for OnSled {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStorage, StateMachine<Texts>), StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SledStore::open(&directory.path().join("manager")).unwrap());
        let (log, machine) = open(store, &directory.path().join("snapshots"));
        Ok((directory, log, machine))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    Suite::test_all(OnSled).unwrap();
}

fn command(index: u64, text: &str) -> Entry {
    let command = LogCommand {
        request_id: text.into(),
        ..LogCommand::default()
    };
    Entry {
        log_id: log_id(1, 1, index),
        payload: EntryPayload::Normal(Proposal::Command(command.encode_to_vec())),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn an_applied_state_is_read_back_with_its_position() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::default());
    runtime().block_on(async {
        let (mut log, mut machine) = open(store.clone(), directory.path());
        let cluster = Entry {
            log_id: log_id(1, 1, 3),
            payload: EntryPayload::Normal(Proposal::Cluster(ClusterId::from_bits(9))),
        };
        let entries = [
            command(1, "a=1"),
            command(2, "b=2"),
            cluster,
            command(4, "a="),
        ];
        log.blocking_append(entries.clone()).await.unwrap();
        let answers = machine.apply(entries).await.unwrap();
        assert_eq!(answers.len(), 4);
        assert_eq!(answers[1].revision, 2);
        // The purge stores the state before it deletes the log behind it.
        log.purge(log_id(1, 1, 4)).await.unwrap();
    });
    let (_, mut machine) = open(Arc::new(store.crashed(0)), directory.path());
    let texts = machine.shared().with(|texts| texts.to_records());
    assert_eq!(texts, [(b"b".to_vec(), b"2".to_vec())]);
    let (applied, _) = runtime().block_on(machine.applied_state()).unwrap();
    assert_eq!(applied, Some(log_id(1, 1, 4)));
    let cluster = machine.shared().cluster.get().copied();
    assert_eq!(cluster, Some(ClusterId::from_bits(9)));
}

#[test]
fn a_snapshot_whose_installation_was_cut_off_is_installed_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (_, mut machine) = open(Arc::new(MemoryStore::default()), directory.path());
        machine.apply([command(1, "a=1")]).await.unwrap();
        let mut builder = machine.get_snapshot_builder().await;
        builder.build_snapshot().await.unwrap();
    });
    // A store that knows nothing of what the snapshot holds, but something that it lacks.
    let store = Arc::new(MemoryStore::default());
    let mut stale = crate::store::Batch::default();
    stale.put(b"rold".to_vec(), b"x".to_vec());
    store.write(crate::store::Tree::State, stale).unwrap();
    let (_, machine) = open(store.clone(), directory.path());
    let expected = [(b"a".to_vec(), b"1".to_vec())];
    assert_eq!(machine.shared().with(Replicated::to_records), expected);
    let stored = machine::stored(&store.crashed(0)).unwrap().contents;
    assert_eq!(stored.records, expected);
    assert_eq!(stored.applied, Some(log_id(1, 1, 1)));
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Vote(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u8..5).prop_map(Step::Append),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => any::<u64>().prop_map(Step::Vote),
    ];
    proptest::collection::vec(step, 1..20)
}

/// The log as a plain list: what the store must say after a crash.
#[derive(Debug, Default)]
struct Oracle {
    entries: BTreeMap<u64, Entry>,
    purged: Option<u64>,
    vote: Option<Vote>,
}

impl Oracle {
    fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.max(self.purged).map_or(0, |index| index + 1)
    }

    async fn step(&mut self, step: &Step, log: &mut LogStorage) {
        match *step {
            Step::Append(count) => {
                let first = self.next();
                let entries: Vec<Entry> = (first..first + u64::from(count))
                    .map(|index| command(index, &format!("k{index}=v")))
                    .collect();
                log.blocking_append(entries.clone()).await.unwrap();
                let indexed = entries.into_iter().map(|entry| (entry.log_id.index, entry));
                self.entries.extend(indexed);
            }
            Step::Truncate(back) => {
                let from = self.next().saturating_sub(u64::from(back) % 8);
                let from = self.purged.map_or(from, |purged| from.max(purged + 1));
                log.truncate(log_id(1, 1, from)).await.unwrap();
                self.entries.split_off(&from);
            }
            Step::Purge(back) => {
                let upto = self.next().saturating_sub(1 + u64::from(back) % 8);
                if self.entries.contains_key(&upto) {
                    log.purge(log_id(1, 1, upto)).await.unwrap();
                    self.entries = self.entries.split_off(&(upto + 1));
                    self.purged = Some(upto);
                }
            }
            Step::Vote(term) => {
                let vote = Vote::new(term, 1);
                log.save_vote(&vote).await.unwrap();
                self.vote = Some(vote);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_crash_after_any_step_loses_nothing_of_the_log(
        steps in steps(), kept: proptest::sample::Index
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::default());
        let mut oracle = Oracle::default();
        let runtime = runtime();
        runtime.block_on(async {
            let (mut log, _machine) = open(store.clone(), directory.path());
            for step in &steps {
                oracle.step(step, &mut log).await;
            }
        });
        let kept = kept.index(store.unsynced() + 1);
        let (mut log, _machine) = open(Arc::new(store.crashed(kept)), directory.path());
        runtime.block_on(async {
            let entries = log.try_get_log_entries(..).await.unwrap();
            let ends = log.get_log_state().await.unwrap();
            let vote = log.read_vote().await.unwrap();
            prop_assert_eq!(vote, oracle.vote);
            // A purge may be undone in whole; what is left has no hole and ends at the same entry.
            let expected: Vec<Entry> = oracle.entries.values().cloned().collect();
            prop_assert!(entries.ends_with(&expected), "{entries:?} lacks {expected:?}");
            for pair in entries.windows(2) {
                prop_assert_eq!(pair[0].log_id.index + 1, pair[1].log_id.index);
            }
            if let (Some(purged), Some(first)) = (ends.last_purged_log_id, entries.first()) {
                prop_assert_eq!(purged.index + 1, first.log_id.index);
            }
            let last = ends.last_log_id.map(|id| id.index + 1).unwrap_or(0);
            prop_assert_eq!(last, oracle.next());
            Ok(())
        })?;
    }
}
