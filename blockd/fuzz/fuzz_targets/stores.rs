//! A store at rest with up to three flipped bits anywhere, and files cut, lengthened or removed:
//! loading, reading, verifying and exporting give an error, or exactly what was written (INV-13).
#![no_main]

use std::path::{Path, PathBuf};

use ankole_blockd::disk::sim::{Fate, SimDisk};
use ankole_blockd::disk::{Disk, DiskFile};
use ankole_blockd::layer::{Part, file_path};
use ankole_blockd::replica::{self, Mutation, Replica, ReplicaSpec};
use ankole_proto::wire::body::{OpenRequest, Seal};
use ankole_proto::{Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const BLOCK: u64 = 4096;
/// More than one chunk, and the last one not whole.
const BLOCKS: u64 = 700;
/// A CRC32C finds every three flipped bits in a block.
const FLIPS_MAX: usize = 3;

thread_local! {
    static STORE: SimDisk = store();
}

fn directory() -> &'static Path {
    Path::new("replica")
}

fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).expect("not 0")
}

fn spec() -> ReplicaSpec {
    ReplicaSpec {
        replica: ReplicaId::from_bits(1),
        volume: VolumeId::from_bits(2),
        size: VolumeSize::from_bytes(BLOCKS * BLOCK).expect("a size"),
        base_layer: layer(1),
        credential: Credential::from_bytes([7; 32]),
    }
}

fn open(replica: &mut Replica<SimDisk>, epoch: u64) -> bool {
    let spec = spec();
    let request = OpenRequest {
        volume: spec.volume,
        replica: spec.replica,
        epoch: Epoch::from_raw(epoch),
        size: spec.size,
        credential: spec.credential,
    };
    replica.open(&request).is_ok()
}

/// What block `block` holds: see `store`.
fn contents(block: u64) -> u8 {
    match block {
        0..4 => 1,
        4..6 => 2,
        600..604 => 3,
        _ => 0,
    }
}

/// Blocks 0..8 in a sealed layer; in the head 4..6 overwritten, 6..8 unmapped, 600..604 written.
fn store() -> SimDisk {
    let disk = SimDisk::new(1 << 30);
    replica::create(&disk, directory(), &spec()).expect("an empty disk");
    let mut replica = Replica::load(&disk, directory()).expect("just made");
    assert!(open(&mut replica, 1));
    let epoch = Epoch::from_raw(1);
    let extent = |first, count| Extent::new(first * BLOCK, count * BLOCK).expect("in range");
    let mut sequence = 0;
    let mut mutation = || {
        sequence += 1;
        Mutation {
            sequence: Sequence::from_raw(sequence),
            watermark: Sequence::from_raw(sequence - 1),
        }
    };
    let mut write = |replica: &mut Replica<SimDisk>, first, count: u64, byte| {
        let data = vec![byte; usize::try_from(count * BLOCK).expect("small")];
        let extent = extent(first, count);
        replica
            .write(epoch, extent, &data, mutation(), false)
            .expect("room");
    };
    write(&mut replica, 0, 8, 1);
    let seal = Seal {
        head: layer(1),
        new_head: layer(2),
    };
    replica.seal(epoch, seal).expect("a layer more");
    write(&mut replica, 4, 2, 2);
    write(&mut replica, 600, 4, 3);
    let last = Mutation {
        sequence: Sequence::from_raw(100),
        watermark: Sequence::from_raw(99),
    };
    replica.unmap(epoch, extent(6, 2), last).expect("unmapped");
    replica.begin_scrub(1, 1);
    replica.scrub_step(3, 1).expect("sound");
    replica.save_scrub();
    replica.close(epoch).expect("closed");
    disk
}

fn file(number: u8) -> PathBuf {
    let parts = [Part::Image, Part::Map, Part::Sums];
    match (number % 8).checked_sub(1) {
        None => directory().join("replica.json"),
        Some(6) => directory().join("scrub.json"),
        Some(rest) => file_path(
            directory(),
            layer(1 + u64::from(rest / 3)),
            parts[usize::from(rest % 3)],
        ),
    }
}

/// Damages the store as the input says: file, kind, and where.
fn damage(disk: &SimDisk, mut input: &[u8]) {
    let mut flips = 0;
    while let [number, kind, a, b, c, d, rest @ ..] = input {
        input = rest;
        let path = file(*number);
        let at = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
        let Ok(file) = disk.open(&path) else { continue };
        let Ok(length) = file.len() else { continue };
        match kind >> 5 {
            0 => drop(disk.remove_file(&path)),
            1 => drop(file.set_len(at % (length + 1))),
            2 => drop(file.set_len(length + at % (1 << 20))),
            _ if flips < FLIPS_MAX && length > 0 => {
                flips += 1;
                drop(disk.flip_bit(&path, at % length, kind & 7));
            }
            _ => {}
        }
    }
}

fn check(block: u64, data: &[u8]) {
    let wanted = contents(block);
    assert!(data.iter().all(|byte| *byte == wanted), "block {block}");
}

fn read_all(disk: &SimDisk) {
    let Ok(mut replica) = Replica::load(disk, directory()) else {
        return;
    };
    if !open(&mut replica, 2) {
        return;
    }
    replica.begin_scrub(0, 5);
    while matches!(
        replica.scrub_step(100, 6),
        Ok(replica::Progress::Working { .. })
    ) {}
    let _ = replica.damages();
    for block in (0..10).chain(598..606).chain([BLOCKS - 1]) {
        let mut out = BytesMut::new();
        let extent = Extent::new(block * BLOCK, BLOCK).expect("in range");
        if replica.read(Epoch::from_raw(2), extent, &mut out).is_ok() {
            check(block, &out);
        } else {
            assert!(out.is_empty());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    STORE.with(|store| {
        let disk = store.crash(Fate::Kept, 0);
        damage(&disk, data);
        let _ = replica::inspect(&disk, directory());
        let _ = replica::verify(&disk, directory());
        let _ = replica::export(&disk, directory(), None, |offset, block| {
            check(offset / BLOCK, block);
            Ok(())
        });
        read_all(&disk);
    });
});
