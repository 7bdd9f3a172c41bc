//! The real binary: the ready line, the orderly end, and the sudden one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it finds something wrong"
)]

mod daemon_support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ankole_blockd::store::Store;
use ankole_proto::wire::Opcode;
use ankole_proto::wire::body::Memory;
use daemon_support::{Client, Node, block, eventually, open_request};

const BLOCK: u64 = 4096;
/// Blocks that the writers go over again and again.
const BLOCKS: u64 = 512;

/// A running `ankole-blockd serve`, killed when dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(disk: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ankole-blockd"))
            .args(["serve", "--node", "n1", "--listen", "127.0.0.1:0"])
            // Nobody listens there: the data path needs no manager.
            .args(["--manager", "127.0.0.1:1", "--disk"])
            .arg(disk)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("listen="))
            .unwrap_or_else(|| panic!("no ready line but {line:?}"))
            .parse()
            .unwrap();
        Self { child, address }
    }

    fn open(&self, epoch: u64) -> (Client, ankole_proto::wire::body::Opened) {
        let mut client = Client::tcp(self.address);
        let opened = client.open(&open_request(epoch)).unwrap();
        (client, opened)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn create_replica(dir: &Path) {
    let node = Node::start_new(dir);
    node.stop();
}

#[test]
fn every_acknowledged_write_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    create_replica(dir.path());
    // For each block: the last generation answered, and the last one sent.
    let mut answered = vec![0u64; 512];
    let mut sent = vec![0u64; 512];
    for round in 1..=3u64 {
        let mut process = Process::start(dir.path());
        let (mut client, opened) = process.open(round);
        assert_eq!(opened.memory == Memory::Restarted, round > 1);
        for number in 0..BLOCKS {
            let at = usize::try_from(number).unwrap();
            let found = client.read(number * BLOCK, BLOCK);
            let generation = (answered[at]..=sent[at])
                .find(|generation| found == expected(number, *generation))
                .unwrap_or_else(|| panic!("block {number} lost an acknowledged write"));
            answered[at] = generation;
            sent[at] = generation;
        }
        let target = std::num::NonZeroU64::new(700 * round).unwrap();
        write_until_killed(&mut process, client, &mut answered, &mut sent, target.get());
    }
}

/// Pipelines writes and kills the process once so many have been answered, with others under way.
fn write_until_killed(
    process: &mut Process,
    mut client: Client,
    answered: &mut [u64],
    sent: &mut [u64],
    target: u64,
) {
    let mut under_way = std::collections::BTreeMap::new();
    let mut count = 0;
    let mut next = 0u64;
    let mut killed = false;
    loop {
        while !killed && under_way.len() < 32 {
            let number = next % BLOCKS;
            let at = usize::try_from(number).unwrap();
            // Never two writes of one block at once.
            if under_way.values().any(|(other, _, _)| *other == number) {
                break;
            }
            next += 1;
            let generation = sent[at] + 1;
            let oldest = under_way.values().map(|(_, _, sequence)| *sequence).min();
            client.watermark = oldest.unwrap_or(client.sequence + 1) - 1;
            let header = client.header(Opcode::Write, number * BLOCK, BLOCK);
            let frame = daemon_support::encode(header, &block(number, generation));
            if client.try_send_bytes(&frame).is_err() {
                break;
            }
            sent[at] = generation;
            under_way.insert(header.request_id, (number, generation, header.sequence));
        }
        let Ok(reply) = client.receive() else {
            assert!(killed, "the daemon closed a good connection");
            return;
        };
        assert_eq!(reply.header.error, None);
        let (number, generation, _) = under_way.remove(&reply.header.request_id).unwrap();
        answered[usize::try_from(number).unwrap()] = generation;
        count += 1;
        if count == target {
            process.child.kill().unwrap();
            process.child.wait().unwrap();
            killed = true;
        }
    }
}

fn expected(number: u64, generation: u64) -> Vec<u8> {
    if generation == 0 {
        vec![0; 4096]
    } else {
        block(number, generation)
    }
}

#[test]
fn a_told_end_is_orderly_and_quick() {
    let dir = tempfile::tempdir().unwrap();
    create_replica(dir.path());
    let mut process = Process::start(dir.path());
    let (mut client, _) = process.open(1);
    client.write(0, &block(0, 1));
    let pid = rustix::process::Pid::from_child(&process.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = eventually("the daemon has ended", || process.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let store = Arc::new(Store::open(&[dir.path().to_path_buf()]).unwrap());
    let report = store.report();
    assert!(
        report[0].replicas[0].memory_lost,
        "an engine had it open: {report:?}"
    );
}

#[test]
fn a_second_daemon_on_the_same_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Process::start(dir.path());
    let second = Command::new(env!("CARGO_BIN_EXE_ankole-blockd"))
        .args(["serve", "--node", "n2", "--listen", "127.0.0.1:0"])
        .args(["--manager", "127.0.0.1:1", "--disk"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("in use by another"), "{told}");
}
