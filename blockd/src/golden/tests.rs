//! Every golden store, unpacked to real files: what it holds, and that it goes on in the newest
//! format.

use std::path::{Path, PathBuf};

use ankole_proto::wire::body::{Memory, OpenRequest, Seal};
use ankole_proto::{
    ClusterId, Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize,
};
use bytes::BytesMut;

use super::recipe::{SECTOR, SECTORS, Stamps, bytes, contents};
use super::{GoldenStore, STORES, pack, unpack};
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, LocalDisk};
use crate::replica::{self, Mutation, Progress, Replica, Stop};
use crate::store::DiskRoot;

const BLOCK: u64 = 8 * SECTOR;
const HEAD: u64 = 6;
const CLOSED: u128 = 1;
const KILLED: u128 = 2;

struct Unpacked {
    root: tempfile::TempDir,
    disk: LocalDisk,
}

fn unpacked(store: &GoldenStore) -> Unpacked {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("ankole");
    std::fs::create_dir(&place).unwrap();
    let disk = LocalDisk::open(&place).unwrap();
    unpack(store.text, &disk).unwrap();
    Unpacked { root, disk }
}

fn directory(replica: u128) -> PathBuf {
    DiskRoot::replica_dir(ReplicaId::from_bits(replica))
}

fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).unwrap()
}

fn extent(first_block: u64, blocks: u64) -> Extent {
    Extent::new(first_block * BLOCK, blocks * BLOCK).unwrap()
}

fn all_bytes(stamps: &Stamps) -> Vec<u8> {
    bytes(0..SECTORS, |sector| {
        stamps[usize::try_from(sector).unwrap()]
    })
}

fn exported(disk: &LocalDisk, directory: &Path, layer: Option<LayerId>) -> Vec<u8> {
    let mut volume = vec![0; usize::try_from(SECTORS * SECTOR).unwrap()];
    let size = replica::export(disk, directory, layer, |offset, data| {
        let at = usize::try_from(offset).unwrap();
        volume[at..at + data.len()].copy_from_slice(data);
        Ok(())
    })
    .unwrap();
    assert_eq!(size.bytes(), SECTORS * SECTOR);
    volume
}

/// The volume and every snapshot of it, without a daemon; how many blocks lack their sums.
fn check_at_rest(disk: &LocalDisk, directory: &Path, head: &[u8]) -> u64 {
    let verified = replica::verify(disk, directory).unwrap();
    assert_eq!(verified.damaged, 0, "{:?}", verified.findings);
    assert!(exported(disk, directory, None) == head);
    for (raw, stamps) in contents().range(..HEAD) {
        let snapshot = exported(disk, directory, Some(layer(*raw)));
        assert!(snapshot == all_bytes(stamps), "snapshot {raw}");
    }
    verified.unsettled_blocks
}

fn opened(disk: &LocalDisk, replica: u128, epoch: u64) -> (Replica<LocalDisk>, Memory) {
    let mut loaded = Replica::load(disk, &directory(replica)).unwrap();
    loaded.set_boot("a later boot");
    let request = OpenRequest {
        volume: VolumeId::from_bits(0xf0 + replica),
        replica: ReplicaId::from_bits(replica),
        epoch: Epoch::from_raw(epoch),
        size: VolumeSize::from_bytes(SECTORS * SECTOR).unwrap(),
        credential: Credential::from_bytes([7; 32]),
    };
    let memory = loaded.open(&request).unwrap().memory;
    (loaded, memory)
}

fn read_all(replica: &mut Replica<LocalDisk>) -> Vec<u8> {
    let epoch = replica.epoch();
    let mut volume = Vec::new();
    for first in (0..1100).step_by(100) {
        let mut out = BytesMut::new();
        replica.read(epoch, extent(first, 100), &mut out).unwrap();
        volume.extend_from_slice(&out);
    }
    volume
}

/// Writes, unmaps and seals; what the volume holds then.
fn go_on(replica: &mut Replica<LocalDisk>, mut volume: Vec<u8>) -> Vec<u8> {
    let epoch = replica.epoch();
    let mutation = |sequence| Mutation {
        sequence: Sequence::from_raw(sequence),
        watermark: Sequence::from_raw(sequence - 1),
    };
    let data = vec![9; 4 * 4096];
    replica
        .write(epoch, extent(510, 4), &data, mutation(1), false)
        .unwrap();
    volume[510 * 4096..514 * 4096].fill(9);
    replica.unmap(epoch, extent(0, 2), mutation(2)).unwrap();
    volume[..2 * 4096].fill(0);
    let seal = Seal {
        head: layer(HEAD),
        new_head: layer(HEAD + 1),
    };
    replica.seal(epoch, seal).unwrap();
    replica
        .write(epoch, extent(1, 1), &[8; 4096], mutation(3), false)
        .unwrap();
    volume[4096..2 * 4096].fill(8);
    volume
}

fn settle(replica: &mut Replica<LocalDisk>) {
    while !matches!(replica.settle_step(1000).unwrap(), Progress::Idle) {}
}

fn format_of(disk: &LocalDisk, directory: &Path) -> u64 {
    let text = disk
        .read_file(&directory.join("replica.json"), 1 << 20)
        .unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    value["format"].as_u64().unwrap()
}

#[test]
fn a_store_of_every_format_holds_what_was_written_and_goes_on_in_the_newest() {
    let wanted = contents();
    for store in &STORES {
        let Unpacked { root: _root, disk } = unpacked(store);
        for replica in [CLOSED, KILLED] {
            let place = directory(replica);
            assert_eq!(format_of(&disk, &place), u64::from(store.format));
            let looked = replica::inspect(&disk, &place).unwrap();
            let stop = [Stop::Clean, Stop::Unclean][usize::from(replica == KILLED)];
            assert_eq!((looked.stop, looked.layers.len()), (stop, 5));
            let volume = all_bytes(&wanted[&HEAD]);
            // Since format 2 sums are written behind the blocks: the two of the last write lack theirs.
            let lacking = u64::from(store.format > 1 && replica == KILLED) * 2;
            assert_eq!(check_at_rest(&disk, &place, &volume), lacking);
            let (mut loaded, memory) = opened(&disk, replica, 4);
            let wanted_memory = [Memory::Clean, Memory::Lost][usize::from(replica == KILLED)];
            assert_eq!(memory, wanted_memory);
            assert!(read_all(&mut loaded) == volume);
            settle(&mut loaded);
            let volume = go_on(&mut loaded, volume);
            assert!(read_all(&mut loaded) == volume);
            loaded.close(loaded.epoch()).unwrap();
            drop(loaded);
            assert_eq!(check_at_rest(&disk, &place, &volume), 0);
            let (mut again, memory) = opened(&disk, replica, 5);
            assert_eq!(memory, Memory::Clean);
            assert!(read_all(&mut again) == volume);
            let newest = u64::from(crate::replica::FORMAT);
            assert_eq!(format_of(&disk, &place), newest);
        }
    }
}

#[test]
fn there_is_a_store_of_every_format_that_is_read() {
    let formats = STORES.map(|store| store.format);
    assert!(formats.iter().copied().eq(1..=crate::replica::FORMAT));
}

#[test]
fn a_disk_of_every_format_is_known_by_its_marker() {
    for store in &STORES {
        let Unpacked { root, disk } = unpacked(store);
        let line = store.text.lines().find(|line| line.contains("\"disk\":"));
        let opened = DiskRoot::open(root.path()).unwrap();
        assert!(line.unwrap().contains(&opened.id().to_string()));
        assert_eq!(opened.cluster(), Some(ClusterId::from_bits(0xc1)));
        assert_eq!(opened.replica_ids().unwrap().len(), 2);
        drop((opened, disk));
        let opened = DiskRoot::open(root.path()).unwrap();
        opened.set_cluster(ClusterId::from_bits(0xc2)).unwrap();
        let id = opened.id();
        drop(opened);
        let again = DiskRoot::open(root.path()).unwrap();
        assert_eq!(
            (again.id(), again.cluster()),
            (id, Some(ClusterId::from_bits(0xc2)))
        );
    }
}

#[test]
fn a_store_told_as_text_is_told_again_as_the_same_text() {
    for store in &STORES {
        let Unpacked { root: _root, disk } = unpacked(store);
        assert!(pack(&disk).unwrap() == store.text);
    }
    for damaged in [
        "0 1x00",
        "file x 1\n0 2x00",
        "file x 9\n0 1xzz",
        "file x",
        "|",
    ] {
        assert!(
            unpack(damaged, &SimDisk::new(1 << 20)).is_err(),
            "{damaged}"
        );
    }
}
