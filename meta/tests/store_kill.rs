//! A process that appends to the store is killed again and again: nothing that it was told is
//! durable may be missing. The child is this test program itself, in the role below.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ankole_meta::store::{Batch, KvStore, Scan, SledStore, Tree, Writer};

const DIRECTORY: &str = "ANKOLE_TEST_STORE";
const KILLS: u64 = 14;
/// Grows with each round, so that the kill falls in ever other places.
const ACKNOWLEDGED_BEFORE_KILL: u64 = 7;

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn value(number: u64) -> Vec<u8> {
    number
        .to_le_bytes()
        .repeat(1 + usize::try_from(number % 40).unwrap())
}

fn next_number(store: &dyn KvStore) -> u64 {
    let last = store.last_below(Tree::Log, &[0xff]).unwrap();
    last.map_or(0, |(key, _)| {
        u64::from_be_bytes(key.try_into().unwrap()) + 1
    })
}

#[test]
#[ignore = "the role of a child process: run by nothing_acknowledged_is_lost_under_kill_9"]
fn child_appends_until_it_is_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("run by its parent");
    let store = Arc::new(SledStore::open(directory.as_ref()).unwrap());
    let first = next_number(store.as_ref());
    let writer = Writer::start(store).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for number in first.. {
            let mut batch = Batch::default();
            batch.put(key(number), value(number));
            writer.write_durably(Tree::Log, batch).await.unwrap();
            eprintln!("{number}");
        }
    });
}

/// Runs the child, kills it after so many acknowledgements, and returns the last one.
fn run_and_kill(directory: &std::path::Path, acknowledgements: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "child_appends_until_it_is_killed",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = None;
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..acknowledgements {
        let line = lines.next().expect("the child ended by itself").unwrap();
        last = Some(line.parse().expect("the child complains"));
    }
    child.kill().unwrap();
    // What it had said before the kill arrived counts too.
    for line in lines.map_while(Result::ok) {
        last = line.parse().ok().or(last);
    }
    child.wait().unwrap();
    last.expect("it was killed after an acknowledgement")
}

#[test]
fn nothing_acknowledged_is_lost_under_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=KILLS {
        let last = run_and_kill(directory.path(), ACKNOWLEDGED_BEFORE_KILL * round);
        let store = SledStore::open(directory.path()).unwrap();
        let found = next_number(&store);
        assert!(
            found > last,
            "round {round}: {last} was acknowledged, found {found}"
        );
        let mut expected = 0;
        let check = &mut |stored: &[u8], stored_value: &[u8]| {
            assert_eq!(stored, key(expected), "round {round}: a hole");
            assert_eq!(
                stored_value,
                value(expected),
                "round {round}: record {expected}"
            );
            expected += 1;
            Scan::Continue
        };
        store.scan(Tree::Log, &[], &[0xff], check).unwrap();
        assert_eq!(expected, found);
    }
}
