//! Opening stores that a kill or a failing disk has left in a bad state.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;

use ankole_meta::store::{Batch, KvStore, OpenError, SledStore, StoreError, Tree, VALUE_BYTES_MAX};

fn filled(directory: &Path) {
    let store = SledStore::open(directory).unwrap();
    for number in 0_u32..200 {
        let mut batch = Batch::default();
        batch.put(number.to_be_bytes(), vec![7; 300]);
        store.write(Tree::State, batch).unwrap();
    }
    store.flush().unwrap();
}

fn count(directory: &Path) -> usize {
    let store = SledStore::open(directory).unwrap();
    let mut count = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        count += 1;
        ankole_meta::store::Scan::Continue
    };
    store.scan(Tree::State, &[], &[0xff], visit).unwrap();
    count
}

#[test]
fn a_torn_index_snapshot_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let torn = directory
        .path()
        .join("store/snap.0000000000001000.generating");
    fs::write(&torn, b"half of a snap").unwrap();
    assert_eq!(count(directory.path()), 200);
    assert!(!torn.exists());
}

#[test]
fn a_damaged_index_snapshot_is_moved_aside_and_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    fs::write(
        directory.path().join("store/snap.00000000FFFFFFFF"),
        b"nonsense",
    )
    .unwrap();
    assert_eq!(count(directory.path()), 200);
}

#[test]
fn a_store_beyond_repair_is_moved_aside_and_said_to_be_lost() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let conf = directory.path().join("store/conf");
    fs::write(conf, b"no configuration of any kind").unwrap();
    let lost = SledStore::open(directory.path());
    let Err(OpenError::Lost { moved_to, .. }) = lost else {
        panic!("it opened, or failed otherwise: {:?}", lost.err());
    };
    assert!(moved_to.join("db").exists());
    assert!(!SledStore::exists(directory.path()));
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let _open = SledStore::open(directory.path()).unwrap();
    let second = SledStore::open(directory.path());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
}

#[test]
fn a_value_that_is_too_large_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let write = |bytes: usize| {
        let mut batch = Batch::default();
        batch.put(*b"key", vec![0; bytes]);
        store.write(Tree::State, batch)
    };
    write(VALUE_BYTES_MAX).unwrap();
    let refused = write(VALUE_BYTES_MAX + 1);
    assert!(matches!(refused, Err(StoreError::ValueTooLarge { .. })));
    let stored = store.read(Tree::State, b"key").unwrap();
    assert_eq!(stored.map(|value| value.len()), Some(VALUE_BYTES_MAX));
}

#[test]
fn a_batch_as_large_as_a_whole_state_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let mut batch = Batch::default();
    for number in 0_u32..20_000 {
        batch.put(number.to_be_bytes(), vec![9; 200]);
    }
    let store = SledStore::open(directory.path()).unwrap();
    store.write(Tree::State, batch).unwrap();
    store.flush().unwrap();
    drop(store);
    assert_eq!(count(directory.path()), 20_000);
}

#[test]
fn a_store_opens_again_as_soon_as_it_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0_u32..30 {
        let store = SledStore::open(directory.path()).unwrap();
        let mut batch = Batch::default();
        for number in 0_u32..2_000 {
            batch.put((round * 2_000 + number).to_be_bytes(), vec![9; 200]);
        }
        store.write(Tree::State, batch).unwrap();
    }
    assert_eq!(count(directory.path()), 60_000);
}
