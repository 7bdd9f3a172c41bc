//! Digests of what layers read as, for comparing replicas with each other.

use ankole_proto::wire::rebuild::ContentsDigest;
use ankole_proto::{ChunkNumber, Epoch};
use proptest::prelude::*;

use super::steps::{Operation, Work, operation};
use super::support::{BLOCK, Rig, cases, directory, layer};
use super::world::World;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::{ContentsHasher, Hashed, LayerError};

const CHUNK_BLOCKS: u64 = 512;
/// Two chunks and a short third.
const BLOCKS: u64 = 1030;

fn digest(rig: &mut Rig<SimDisk>, of: u64, chunk: u64) -> Result<ContentsDigest, LayerError> {
    let chunk = ChunkNumber::from_raw(chunk);
    rig.replica.digest_contents(rig.epoch, layer(of), chunk)
}

/// What the digest of a chunk is when it reads like `above` at the layer and like `below` at the base,
/// given as the byte of each sector.
fn expected(above: &[u8], below: &[u8], chunk: u64) -> (u64, [u8; 32]) {
    let mut hash = blake3::Hasher::new();
    let mut count = 0;
    let read = |contents: &[u8], block: u64| -> Vec<u8> {
        let first = usize::try_from(block * 8).unwrap();
        let sectors = (first..first + 8).map(|at| contents.get(at).copied().unwrap_or(0));
        sectors.flat_map(|byte| [byte; 512]).collect()
    };
    let end = (above.len() as u64 / 8).min((chunk + 1) * CHUNK_BLOCKS);
    for block in chunk * CHUNK_BLOCKS..end {
        let (above, below) = (read(above, block), read(below, block));
        if above != below {
            hash.update(&block.to_le_bytes());
            hash.update(&above);
            count += 1;
        }
    }
    (count, *hash.finalize().as_bytes())
}

/// The digest of every chunk of the head and of every layer that is left is that of the model.
fn check(world: &mut World) {
    world.apply(&Operation::Open).unwrap();
    let head = world.model.head;
    let mut layers = world.model.sealed.clone();
    layers.insert(head, world.model.now.clone());
    for (of, above) in &layers {
        for chunk in 0..world.rig.blocks.div_ceil(CHUNK_BLOCKS) {
            let found = digest(&mut world.rig, *of, chunk).unwrap();
            let nothing = Vec::new();
            let below = found.base.map_or(&nothing, |base| &layers[&base.raw()]);
            let wanted = expected(above, below, chunk);
            assert_eq!((found.blocks, found.data), wanted, "layer {of}");
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn they_say_what_was_written_however_far_the_merges_are(
        operations in prop::collection::vec(operation(BLOCKS * 8), 1..50)
    ) {
        let (disk, rig) = Rig::new(BLOCKS);
        let mut world = World::new(disk, rig);
        for operation in &operations {
            world.apply(operation).unwrap();
        }
        check(&mut world);
        for _ in 0..8 {
            world.apply(&Operation::Do(Work::Merge)).unwrap();
            check(&mut world);
        }
    }
}

/// Block 0 in layer 1, block 1 in layer 2, and a head, 3.
fn three_layers() -> (SimDisk, Rig<SimDisk>) {
    let (disk, mut rig) = Rig::new(BLOCKS);
    for number in 0..2 {
        rig.write(number * BLOCK, &[9; 4096]).unwrap();
        rig.seal(number + 2).unwrap();
    }
    (disk, rig)
}

#[test]
fn a_chunk_may_be_taken_in_part_by_part_while_merges_go_on() {
    let (_, mut rig) = Rig::new(BLOCKS);
    for number in 0..6 {
        for block in [number, 100 * number, 511 - number] {
            rig.write(block * BLOCK, &[u8::try_from(number).unwrap() + 1; 4096])
                .unwrap();
        }
        rig.seal(number + 2).unwrap();
    }
    for gone in [2, 3, 4] {
        rig.replica.remove_layer(layer(gone)).unwrap();
    }
    let whole = digest(&mut rig, 5, 0).unwrap();
    assert_eq!(whole.base, Some(layer(1)));
    let mut hasher = ContentsHasher::new(layer(5), ChunkNumber::from_raw(0));
    let mut parts = 0;
    let digest = loop {
        parts += 1;
        match rig
            .replica
            .hash_contents(rig.epoch, &mut hasher, 7)
            .unwrap()
        {
            Hashed::Part => drop(rig.merge_step()),
            Hashed::All(digest) => break digest,
        }
    };
    assert_eq!((digest, parts), (whole, 512_u64.div_ceil(7)));
    assert_eq!(rig.replica.layers().len(), 4, "the merges went on");
    // The base goes in the middle.
    let mut hasher = ContentsHasher::new(layer(5), ChunkNumber::from_raw(0));
    let first = rig.replica.hash_contents(rig.epoch, &mut hasher, 7);
    assert_eq!(first.unwrap(), Hashed::Part);
    rig.replica.remove_layer(layer(1)).unwrap();
    let rest = loop {
        let hashed = rig.replica.hash_contents(rig.epoch, &mut hasher, 7);
        if let Hashed::All(digest) = hashed.unwrap() {
            break digest;
        }
    };
    assert_eq!(rest, super::contents::digest(&mut rig, 5, 0).unwrap());
    assert_eq!(rest.base, None);
}

#[test]
fn how_a_block_is_held_does_not_show() {
    let (_, mut rig) = three_layers();
    let before = digest(&mut rig, 3, 0).unwrap();
    assert_eq!((before.base, before.blocks), (Some(layer(2)), 0));
    // The same again, zeros over a hole, a hole over a hole.
    rig.write(0, &[9; 4096]).unwrap();
    rig.write(5 * BLOCK, &[0; 4096]).unwrap();
    rig.unmap(6 * BLOCK, BLOCK).unwrap();
    assert_eq!(digest(&mut rig, 3, 0).unwrap(), before);
    // What hides a block of the base does.
    rig.unmap(0, BLOCK).unwrap();
    let hidden = digest(&mut rig, 3, 0).unwrap();
    assert_eq!(hidden.blocks, 1);
    rig.write(0, &[0; 4096]).unwrap();
    assert_eq!(digest(&mut rig, 3, 0).unwrap(), hidden);
}

#[test]
fn a_layer_that_is_being_removed_has_none_and_is_no_base() {
    let (_, mut rig) = three_layers();
    assert_eq!(digest(&mut rig, 2, 0).unwrap().base, Some(layer(1)));
    rig.replica.remove_layer(layer(1)).unwrap();
    let gone = digest(&mut rig, 1, 0).unwrap_err();
    assert!(matches!(gone, LayerError::NoSuchLayer(_)), "{gone}");
    let both = digest(&mut rig, 2, 0).unwrap();
    assert_eq!((both.base, both.blocks), (None, 2));
    rig.merge_all();
    assert_eq!(digest(&mut rig, 2, 0).unwrap(), both);
    let unknown = digest(&mut rig, 77, 0).unwrap_err();
    assert!(matches!(unknown, LayerError::NoSuchLayer(_)), "{unknown}");
    let outside = digest(&mut rig, 2, 3).unwrap_err();
    assert!(matches!(outside, LayerError::OutOfRange), "{outside}");
}

#[test]
fn a_bad_block_of_the_base_is_told_and_a_stale_epoch_is_refused() {
    let (disk, mut rig) = three_layers();
    rig.write(0, &[8; 4096]).unwrap();
    let path = file_path(directory(), layer(1), Part::Image);
    let byte = std::io::IoSlice::new(&[1]);
    disk.open(&path).unwrap().write_at(&[byte], 77).unwrap();
    let bad = digest(&mut rig, 3, 0).unwrap_err();
    assert!(bad.to_string().contains("checksum"), "{bad}");
    assert!(matches!(rig.read(0, BLOCK), Ok(data) if data[0] == 8));
    let chunk = ChunkNumber::from_raw(0);
    let stale = rig.replica.digest_contents(Epoch::ZERO, layer(3), chunk);
    assert!(stale.is_err(), "{stale:?}");
}
