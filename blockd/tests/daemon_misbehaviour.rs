//! Peers that break the rules: each loses its own connection, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it finds something wrong"
)]

mod daemon_support;

use std::path::PathBuf;
use std::time::Duration;

use ankole_blockd::session::Limits;
use ankole_proto::wire::{ErrorCode, HEADER_BYTES, Opcode, REQUESTS_IN_FLIGHT_MAX};
use daemon_support::{Client, Node, block, encode, eventually, open_request};
use proptest::prelude::*;

const BLOCK: u64 = 4096;

/// A client that has the replica open and finds it as it was, whatever others do.
struct Witness {
    client: Client,
    generation: u64,
}

impl Witness {
    fn new(node: &Node) -> Self {
        let mut client = node.open(1);
        client.write(0, &block(0, 1));
        Self {
            client,
            generation: 1,
        }
    }

    fn check(&mut self) {
        assert_eq!(self.client.read(0, BLOCK), block(0, self.generation));
        self.generation += 1;
        self.client.write(0, &block(0, self.generation));
    }
}

#[test]
fn a_frame_cut_at_any_length_ends_only_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut witness = Witness::new(&node);
    let mut client = node.connect();
    let open = encode(client.header(Opcode::Open, 0, 0), &open_request(1).encode());
    for length in 0..open.len() {
        let mut client = node.connect();
        client.send_bytes(&open[..length]);
        client.end_sending();
        assert!(
            client.receive().is_err(),
            "answered {length} bytes of an Open"
        );
    }
    witness.check();
    eventually("the cut connections are off the list", || {
        (node.server.connections() == 2).then_some(())
    });
}

#[test]
fn a_write_cut_at_any_length_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    node.open(1).write(0, &block(0, 1));
    for length in (0..HEADER_BYTES + 4096).step_by(61) {
        let mut client = node.open(1);
        let write = encode(client.header(Opcode::Write, 0, BLOCK), &block(0, 2));
        client.send_bytes(&write[..length]);
        client.end_sending();
        assert!(client.receive().is_err());
    }
    assert_eq!(node.open(1).read(0, BLOCK), block(0, 1));
}

#[test]
fn a_damaged_frame_behind_good_ones_leaves_them_answered() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    let mut bytes = encode(client.header(Opcode::Write, 0, BLOCK), &block(0, 1));
    let mut damaged = encode(client.header(Opcode::Write, 0, BLOCK), &block(0, 2));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    bytes.extend(damaged);
    client.send_bytes(&bytes);
    assert_eq!(client.receive().unwrap().header.error, None);
    assert!(client.receive().is_err());
    assert_eq!(node.open(1).read(0, BLOCK), block(0, 1));
}

#[test]
fn a_request_before_open_and_a_second_open_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    for opcode in Opcode::ALL.into_iter().filter(|op| *op != Opcode::Open) {
        let mut client = node.connect();
        let header = client.header(opcode, 0, 0);
        assert_eq!(client.refused(header, &[]), ErrorCode::NotOpen);
        assert!(client.receive().is_err());
    }
    let mut client = node.open(1);
    assert_eq!(client.open(&open_request(1)), Err(ErrorCode::NotOpen));
    assert!(client.receive().is_err());
}

#[test]
fn a_reply_from_an_engine_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    let header = client.header(Opcode::Ping, 0, 0).reply();
    assert_eq!(client.refused(header, &[]), ErrorCode::Malformed);
    assert!(client.receive().is_err());
}

#[test]
fn a_silent_connection_is_closed_before_and_after_open() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        open_deadline: Duration::from_millis(300),
        idle_deadline: Duration::from_millis(600),
        ..Limits::default()
    };
    let node = Node::start_with(dir.path(), None, limits);
    node.create_replica();
    let mut silent = node.connect();
    assert!(silent.receive().is_err());
    let mut idle = node.open(1);
    assert!(idle.receive().is_err());
    eventually("both are off the list", || {
        (node.server.connections() == 0).then_some(())
    });
}

#[test]
fn the_connection_beyond_the_bound_is_refused_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let node = Node::start_with(dir.path(), None, limits);
    node.create_replica();
    let mut witness = Witness::new(&node);
    let second = node.connect();
    eventually("two connections", || {
        (node.server.connections() == 2).then_some(())
    });
    let mut third = node.connect();
    let refused = third.receive().unwrap();
    assert_eq!(refused.header.error, Some(ErrorCode::Overloaded));
    assert!(third.receive().is_err());
    witness.check();
    drop(second);
    eventually("there is room again", || {
        (node.server.connections() == 1).then_some(())
    });
    let mut fourth = node.connect();
    let header = fourth.header(Opcode::Ping, 0, 0);
    assert_eq!(fourth.refused(header, &[]), ErrorCode::NotOpen);
}

#[test]
fn the_request_beyond_the_bound_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    // While the replica is held no flush can be answered.
    let slot = node.store.slot(daemon_support::REPLICA).unwrap();
    let held = slot.replica().unwrap();
    for _ in 0..=REQUESTS_IN_FLIGHT_MAX {
        let flush = client.header(Opcode::Flush, 0, 0);
        client.send(flush, &[]);
    }
    let overloaded = client.receive().unwrap();
    assert_eq!(overloaded.header.error, Some(ErrorCode::Overloaded));
    drop(held);
    assert!(client.receive().is_err());
    assert!(node.open(1).read(0, BLOCK).iter().all(|byte| *byte == 0));
}

#[test]
fn a_ping_is_answered_while_the_replica_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    let slot = node.store.slot(daemon_support::REPLICA).unwrap();
    let held = slot.replica().unwrap();
    client.act(Opcode::Ping, 0, 0);
    drop(held);
}

#[test]
fn a_bad_replica_is_reported_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    node.open(1).act(Opcode::Close, 0, 0);
    node.stop();
    let bad = ankole_proto::ReplicaId::from_bits(0xbad);
    let at: PathBuf = dir.path().join("ankole/replicas").join(bad.to_string());
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("replica.json"), b"{ nonsense").unwrap();
    let node = Node::start(dir.path());
    let report = node.store.report();
    let replicas = &report[0].replicas;
    assert_eq!(replicas.len(), 2);
    let faulted = replicas.iter().find(|r| r.id == bad.to_string()).unwrap();
    assert_eq!(faulted.state(), ankole_proto::rpc::v1::StoredState::Faulted);
    assert!(faulted.message.contains("replica.json"), "{faulted:?}");
    let mut client = node.connect();
    let mut request = open_request(2);
    request.replica = bad;
    assert_eq!(client.open(&request), Err(ErrorCode::Faulted));
    node.open(2).write(0, &block(0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_ends_only_its_connection(
        before in any::<bool>(),
        mut bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES..600),
        prefix in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start_new(dir.path());
        let mut client = if before { node.connect() } else { node.open(1) };
        if prefix {
            bytes[..5].copy_from_slice(b"ANKB\x01");
        }
        client.send_bytes(&bytes);
        prop_assert!(client.receive().is_err(), "garbage was answered");
        let mut next = node.open(2);
        next.write(0, &block(0, 1));
        prop_assert_eq!(next.read(0, BLOCK), block(0, 1));
    }
}
