//! The block protocol over real sockets against the real store.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it finds something wrong"
)]

mod daemon_support;

use ankole_proto::wire::body::{Expand, Memory, Revert, Seal};
use ankole_proto::wire::rebuild::{ChunkDigest, LayerOf};
use ankole_proto::wire::{ErrorCode, Header, Opcode};
use ankole_proto::{Epoch, VolumeSize};
use daemon_support::{CREDENTIAL, Node, VOLUME_BYTES, block, eventually, layer, open_request};

const BLOCK: u64 = 4096;

#[test]
fn what_is_written_is_read_until_it_is_unmapped() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    assert!(client.read(0, 3 * BLOCK).iter().all(|byte| *byte == 0));
    client.write(BLOCK, &block(1, 1));
    client.write_fua(2 * BLOCK, &block(2, 1));
    client.write(BLOCK + 512, &[9; 512]);
    let mut expected = block(1, 1);
    expected[512..1024].fill(9);
    assert_eq!(client.read(BLOCK, BLOCK), expected);
    assert_eq!(client.read(2 * BLOCK, BLOCK), block(2, 1));
    client.act(Opcode::Flush, 0, 0);
    client.act(Opcode::Unmap, BLOCK, BLOCK);
    client.act(Opcode::WriteZeroes, 2 * BLOCK, 512);
    assert!(client.read(BLOCK, BLOCK).iter().all(|byte| *byte == 0));
    let mut expected = block(2, 1);
    expected[..512].fill(0);
    assert_eq!(client.read(2 * BLOCK, BLOCK), expected);
    node.stop();
}

#[test]
fn a_large_write_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    let data: Vec<u8> = (0..1024).flat_map(|number| block(number, 5)).collect();
    client.write(0, &data);
    assert_eq!(client.read(0, data.len() as u64), data);
}

#[test]
fn sealing_keeps_what_reverting_brings_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    client.write(0, &block(0, 1));
    let seal = Seal {
        head: layer(1),
        new_head: layer(2),
    };
    for _ in 0..2 {
        let header = client.header(Opcode::Seal, 0, 0);
        client.done(header, &seal.encode());
    }
    client.write(0, &block(0, 2));
    assert_eq!(client.read(0, BLOCK), block(0, 2));
    let header = client.header(Opcode::Digest, 0, 0);
    let sealed = ChunkDigest::decode(&client.done(header, &LayerOf(layer(1)).encode())).unwrap();
    assert_eq!(sealed.present.count(), 1);
    let header = client.header(Opcode::Revert, 0, 0);
    let revert = Revert {
        to: layer(1),
        new_head: layer(3),
    };
    client.done(header, &revert.encode());
    assert_eq!(client.read(0, BLOCK), block(0, 1));
    let header = client.header(Opcode::Seal, 0, 0);
    assert_eq!(
        client.refused(header, &seal.encode()),
        ErrorCode::TreeConflict
    );
}

#[test]
fn every_request_of_a_pipeline_is_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    let mut expected = std::collections::BTreeMap::new();
    for number in 0..64 {
        let write = client.header(Opcode::Write, number * BLOCK, BLOCK);
        client.send(write, &block(number, 1));
        expected.insert(write.request_id, Opcode::Write);
        let flush = client.header(Opcode::Flush, 0, 0);
        client.send(flush, &[]);
        expected.insert(flush.request_id, Opcode::Flush);
        let ping = client.header(Opcode::Ping, 0, 0);
        client.send(ping, &[]);
        expected.insert(ping.request_id, Opcode::Ping);
    }
    let mut order = Vec::new();
    while !expected.is_empty() {
        let reply = client.receive().unwrap().header;
        assert_eq!(reply.error, None);
        assert_eq!(expected.remove(&reply.request_id), Some(reply.opcode));
        order.push(reply.request_id);
    }
    assert!(
        !order.is_sorted(),
        "no frame was served while a flush was under way"
    );
    for number in 0..64 {
        assert_eq!(client.read(number * BLOCK, BLOCK), block(number, 1));
    }
}

#[test]
fn a_unix_socket_serves_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("block.sock");
    let node = Node::start_with(
        dir.path(),
        Some(&path),
        ankole_blockd::session::Limits::default(),
    );
    node.create_replica();
    let mut client = daemon_support::Client::unix(&path);
    client.open(&open_request(1)).unwrap();
    client.write(0, &block(0, 1));
    assert_eq!(client.read(0, BLOCK), block(0, 1));
    node.stop();
    assert!(!path.exists());
}

#[test]
fn extents_outside_the_volume_are_refused_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    for opcode in [Opcode::Read, Opcode::Unmap, Opcode::WriteZeroes] {
        for (offset, length) in [
            (VOLUME_BYTES, BLOCK),
            (VOLUME_BYTES - BLOCK, 2 * BLOCK),
            (u64::MAX - 4095, BLOCK),
        ] {
            let header = client.header(opcode, offset, length);
            assert_eq!(client.refused(header, &[]), ErrorCode::OutOfRange);
        }
    }
    let header = client.header(Opcode::Write, VOLUME_BYTES, BLOCK);
    assert_eq!(client.refused(header, &block(0, 0)), ErrorCode::OutOfRange);
    let header = client.header(Opcode::Read, 3, BLOCK);
    assert_eq!(client.refused(header, &[]), ErrorCode::Malformed);
    let header = client.header(Opcode::Write, 0, BLOCK);
    assert_eq!(client.refused(header, &[0; 512]), ErrorCode::Malformed);
    let header = client.header(Opcode::ReadLayer, 0, BLOCK);
    assert_eq!(
        client.refused(header, &LayerOf(layer(77)).encode()),
        ErrorCode::NoSuchLayer
    );
    client.write(0, &block(0, 1));
}

#[test]
fn a_newer_engine_fences_the_connection_of_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut old = node.open(4);
    old.write(0, &block(0, 1));
    let (mut new, opened) = node.open_told(7);
    assert_eq!(opened.previous_epoch, Epoch::from_raw(4));
    assert!(opened.lease_remaining_ms > 0, "{opened:?}");
    assert!(opened.lease_remaining_ms <= ankole_proto::wire::LEASE_MS);
    let header = old.header(Opcode::Write, 0, BLOCK);
    let reply = old.call(header, &block(0, 2)).unwrap();
    assert_eq!(reply.header.error, Some(ErrorCode::Fenced));
    assert_eq!(reply.header.sequence, 7);
    assert!(old.receive().is_err(), "the fenced connection is closed");
    assert_eq!(new.read(0, BLOCK), block(0, 1));
    let mut again = node.connect();
    assert_eq!(again.open(&open_request(6)), Err(ErrorCode::Fenced));
    new.write(0, &block(0, 3));
}

#[test]
fn a_reconnecting_engine_replaces_its_own_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut first = node.open(1);
    let (mut second, opened) = node.open_told(1);
    assert_eq!(opened.lease_remaining_ms, 0);
    let header = first.header(Opcode::Write, 0, BLOCK);
    assert_eq!(first.refused(header, &block(0, 1)), ErrorCode::NotOpen);
    assert!(first.receive().is_err());
    assert!(second.read(0, BLOCK).iter().all(|byte| *byte == 0));
}

#[test]
fn writes_above_the_watermark_are_remembered_for_the_next_engine() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    client.write(0, &block(0, 1));
    client.write(BLOCK, &block(1, 1));
    client.watermark = 1;
    client.act(Opcode::Ping, 0, 0);
    drop(client);
    let (_next, opened) = node.open_told(2);
    assert_eq!(opened.memory, Memory::Kept);
    let extents: Vec<u64> = opened.in_flight.iter().map(|e| e.extent.offset()).collect();
    assert_eq!(extents, [BLOCK]);
}

#[test]
fn an_orderly_close_leaves_nothing_in_flight_and_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    client.write(0, &block(0, 1));
    client.act(Opcode::Close, 0, 0);
    assert!(client.receive().is_err(), "closed behind the answer");
    let (_next, opened) = node.open_told(2);
    assert_eq!(opened.memory, Memory::Clean);
    assert_eq!(opened.lease_remaining_ms, 0);
}

#[test]
fn an_open_with_anything_wrong_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let right = open_request(1);
    let mut secret = *CREDENTIAL.as_bytes();
    secret[31] ^= 1;
    let cases = [
        (
            ankole_proto::wire::body::OpenRequest {
                credential: ankole_proto::Credential::from_bytes(secret),
                ..right.clone()
            },
            ErrorCode::BadCredential,
        ),
        (
            ankole_proto::wire::body::OpenRequest {
                volume: ankole_proto::VolumeId::from_bits(1),
                ..right.clone()
            },
            ErrorCode::WrongVolume,
        ),
        (
            ankole_proto::wire::body::OpenRequest {
                replica: ankole_proto::ReplicaId::from_bits(1),
                ..right
            },
            ErrorCode::NoSuchReplica,
        ),
    ];
    for (request, code) in cases {
        let mut client = node.connect();
        assert_eq!(client.open(&request), Err(code));
        assert!(client.receive().is_err(), "a refused Open ends it");
    }
    // None of them fenced anybody.
    let (_client, opened) = node.open_told(1);
    assert_eq!(opened.previous_epoch, Epoch::ZERO);
}

#[test]
fn a_deleted_replica_is_gone_for_its_connection_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    node.store.delete(daemon_support::REPLICA).unwrap();
    node.store.delete(daemon_support::REPLICA).unwrap();
    let header = client.header(Opcode::Read, 0, BLOCK);
    assert_eq!(client.refused(header, &[]), ErrorCode::NoSuchReplica);
    assert!(client.receive().is_err());
    let removed = (0..100).take_while(|_| node.store.empty_trash()).count();
    assert!((1..100).contains(&removed), "{removed}");
    eventually("the connection is off the list", || {
        (node.server.connections() == 0).then_some(())
    });
}

#[test]
fn a_stopping_daemon_answers_what_it_has_begun() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    client.write(0, &block(0, 1));
    let flush = client.header(Opcode::Flush, 0, 0);
    client.send(flush, &[]);
    // Answered behind the flush's arrival, so that it has begun when the daemon stops.
    let ping = client.header(Opcode::Ping, 0, 0);
    client.send(ping, &[]);
    let first = client.receive().unwrap();
    node.stop();
    let second = client.receive().unwrap();
    for reply in [&first, &second] {
        assert_eq!(reply.header.error, None);
    }
    assert_ne!(first.header.request_id, second.header.request_id);
    assert!(client.receive().is_err());
    let node = Node::start(dir.path());
    let (mut client, opened) = node.open_told(1);
    assert_eq!(
        opened.memory,
        Memory::Restarted,
        "its engine had not closed it"
    );
    assert_eq!(client.read(0, BLOCK), block(0, 1));
    client.act(Opcode::Close, 0, 0);
    node.stop();
    let node = Node::start(dir.path());
    let (_client, opened) = node.open_told(2);
    assert_eq!(opened.memory, Memory::Clean);
    assert_eq!(opened.lease_remaining_ms, 0);
}

#[test]
fn after_a_restart_in_use_a_newer_engine_waits_a_lease_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    client.write(0, &block(0, 1));
    node.stop();
    let node = Node::start(dir.path());
    let (_client, opened) = node.open_told(2);
    assert!(opened.lease_remaining_ms > 0, "{opened:?}");
    assert_eq!(opened.memory, Memory::Restarted);
}

#[test]
fn a_ping_renews_without_a_payload() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    assert!(client.act(Opcode::Ping, 0, 0).is_empty());
    let header: Header = client.header(Opcode::Ping, 0, 0);
    assert_eq!(client.refused(header, &[1]), ErrorCode::Malformed);
}

#[test]
fn a_replica_grows_while_it_serves_and_every_later_open_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_new(dir.path());
    let mut client = node.open(1);
    client.write(VOLUME_BYTES - BLOCK, &block(1, 1));
    let seal = Seal {
        head: layer(1),
        new_head: layer(2),
    };
    let header = client.header(Opcode::Seal, 0, 0);
    client.done(header, &seal.encode());
    let beyond = client.header(Opcode::Read, VOLUME_BYTES, BLOCK);
    assert_eq!(client.refused(beyond, &[]), ErrorCode::OutOfRange);
    let size = |bytes| VolumeSize::from_bytes(bytes).unwrap();
    // Again, and for less: nothing changes.
    for bytes in [2 * VOLUME_BYTES, 2 * VOLUME_BYTES, VOLUME_BYTES] {
        let header = client.header(Opcode::Expand, 0, 0);
        let body = Expand { size: size(bytes) };
        client.done(header, &body.encode());
    }
    let new = client.read(VOLUME_BYTES, BLOCK);
    assert!(new.iter().all(|byte| *byte == 0));
    client.write(2 * VOLUME_BYTES - BLOCK, &block(2, 1));
    client.act(Opcode::Flush, 0, 0);
    drop(client);
    node.stop();
    let node = Node::start(dir.path());
    // The engine still believes in the old size.
    let (mut client, opened) = node.open_told(2);
    assert_eq!(opened.size, size(2 * VOLUME_BYTES));
    assert_eq!(client.read(VOLUME_BYTES - BLOCK, BLOCK), block(1, 1));
    assert_eq!(client.read(2 * VOLUME_BYTES - BLOCK, BLOCK), block(2, 1));
    node.stop();
}
