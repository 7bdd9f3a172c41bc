//! The store on real files: what the simulated disk is trusted to do is what the filesystem does.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use ankole_blockd::disk::{Disk, DiskFile, LocalDisk};
use ankole_blockd::layer::{Part, file_path};
use ankole_blockd::replica::{self, CloneSpec, Mutation, Progress, Replica, ReplicaSpec};
use ankole_proto::wire::body::{Memory, OpenRequest, Seal};
use ankole_proto::{Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};
use bytes::BytesMut;

const BLOCK: u64 = 4096;
const BYTES: u64 = 64 << 20;

fn spec() -> ReplicaSpec {
    ReplicaSpec {
        replica: ReplicaId::from_bits(1),
        volume: VolumeId::from_bits(2),
        size: VolumeSize::from_bytes(BYTES).unwrap(),
        base_layer: LayerId::from_raw(1).unwrap(),
        credential: Credential::from_bytes([1; 32]),
    }
}

fn open(replica: &mut Replica<LocalDisk>, epoch: u64) -> Memory {
    let spec = spec();
    replica.set_boot("boot");
    let request = OpenRequest {
        volume: spec.volume,
        replica: spec.replica,
        epoch: Epoch::from_raw(epoch),
        size: spec.size,
        credential: spec.credential,
    };
    replica.open(&request).unwrap().memory
}

fn extent(block: u64, count: u64) -> Extent {
    Extent::new(block * BLOCK, count * BLOCK).unwrap()
}

fn mutation(sequence: u64) -> Mutation {
    Mutation {
        sequence: Sequence::from_raw(sequence),
        watermark: Sequence::from_raw(sequence - 1),
    }
}

fn read(replica: &mut Replica<LocalDisk>, block: u64, count: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    let epoch = replica.epoch();
    replica.read(epoch, extent(block, count), &mut out).unwrap();
    out.to_vec()
}

fn merge_all(replica: &mut Replica<LocalDisk>) {
    loop {
        match replica.merge_step(256).unwrap() {
            Progress::Idle => break,
            Progress::Working { .. } => {}
            Progress::Sync(plan) => {
                let result = plan.run();
                replica.finish_flush(plan, result).unwrap();
            }
        }
    }
}

#[test]
fn a_replica_on_real_files_keeps_what_it_was_given_over_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let disk = LocalDisk::open(root.path()).unwrap();
    let directory = Path::new("replica");
    replica::create(&disk, directory, &spec()).unwrap();
    assert!(replica::create(&disk, directory, &spec()).is_err());
    let mut replica = Replica::load(&disk, directory).unwrap();
    assert_eq!(open(&mut replica, 1), Memory::Clean);
    let epoch = Epoch::from_raw(1);
    let data = vec![5; 600 * 4096];
    replica
        .write(epoch, extent(100, 600), &data, mutation(1), true)
        .unwrap();
    let seal = Seal {
        head: LayerId::from_raw(1).unwrap(),
        new_head: LayerId::from_raw(2).unwrap(),
    };
    replica.seal(epoch, seal).unwrap();
    replica
        .write(epoch, extent(101, 1), &[6; 4096], mutation(2), false)
        .unwrap();
    replica.unmap(epoch, extent(102, 1), mutation(3)).unwrap();
    // As after kill -9: nothing is closed.
    drop(replica);
    let mut replica = Replica::load(&disk, directory).unwrap();
    assert_eq!(open(&mut replica, 2), Memory::Restarted);
    let read_back = read(&mut replica, 100, 4);
    let wanted: Vec<u8> = [5, 6, 0, 5].into_iter().flat_map(|b| [b; 4096]).collect();
    assert_eq!(read_back, wanted);
    replica.remove_layer(seal.head).unwrap();
    merge_all(&mut replica);
    assert_eq!(read(&mut replica, 100, 4), wanted);
    assert_eq!(replica.layers().len(), 1);
    replica.close(Epoch::from_raw(2)).unwrap();
    let verified = replica::verify(&disk, directory).unwrap();
    assert_eq!((verified.damaged, verified.blocks), (0, 599));
    replica::destroy(&disk, directory).unwrap();
    assert!(disk.list(Path::new("")).unwrap().is_empty());
}

#[test]
fn the_filesystem_tells_holes_from_blocks() {
    let root = tempfile::tempdir().unwrap();
    let disk = LocalDisk::open(root.path()).unwrap();
    let file = disk.create(Path::new("f")).unwrap();
    file.set_len(1 << 20).unwrap();
    let block = [1; 4096];
    let buffers = [std::io::IoSlice::new(&block)];
    file.write_at(&buffers, 8 * BLOCK).unwrap();
    file.write_at(&buffers, 9 * BLOCK).unwrap();
    assert_eq!(file.next_data(0).unwrap(), Some(8 * BLOCK..10 * BLOCK));
    file.punch_hole(8 * BLOCK..9 * BLOCK).unwrap();
    assert_eq!(file.next_data(0).unwrap(), Some(9 * BLOCK..10 * BLOCK));
    assert_eq!(file.next_data(10 * BLOCK).unwrap(), None);
    let mut out = [9; 4096];
    assert_eq!(file.read_at(&mut out, 8 * BLOCK).unwrap(), 4096);
    assert_eq!(out, [0; 4096]);
}

#[test]
fn a_clone_on_real_files_shares_them_until_one_of_the_two_changes_them() {
    let root = tempfile::tempdir().unwrap();
    let disk = LocalDisk::open(root.path()).unwrap();
    let (directory, beside) = (Path::new("replica"), Path::new("clone"));
    replica::create(&disk, directory, &spec()).unwrap();
    let mut source = Replica::load(&disk, directory).unwrap();
    open(&mut source, 1);
    let epoch = Epoch::from_raw(1);
    let layer = |raw| LayerId::from_raw(raw).unwrap();
    let mut sequence = 0;
    for head in [1, 2] {
        sequence += 1;
        let data = vec![u8::try_from(head).unwrap(); 300 * 4096];
        let extent = extent(head * 100, 300);
        source
            .write(epoch, extent, &data, mutation(sequence), false)
            .unwrap();
        let seal = Seal {
            head: layer(head),
            new_head: layer(head + 1),
        };
        source.seal(epoch, seal).unwrap();
    }
    let spec = CloneSpec {
        replica: ReplicaSpec {
            replica: ReplicaId::from_bits(11),
            size: VolumeSize::from_bytes(2 * BYTES).unwrap(),
            base_layer: layer(100),
            ..spec()
        },
        layer: layer(2),
    };
    source.clone_into(beside, &spec).unwrap();
    let image = |directory: &Path| {
        let file = disk.open(&file_path(directory, layer(2), Part::Image));
        file.unwrap().links().unwrap()
    };
    assert_eq!((image(directory), image(beside)), (2, 2));
    let wanted = read(&mut source, 100, 300);
    source.remove_layer(layer(1)).unwrap();
    merge_all(&mut source);
    assert_eq!((image(directory), image(beside)), (1, 1));
    assert_eq!(read(&mut source, 100, 300), wanted);
    assert_eq!(disk.list(&directory.join("layers")).unwrap().len(), 6);
    for place in [directory, beside] {
        let verified = replica::verify(&disk, place).unwrap();
        assert_eq!(verified.damaged, 0, "{verified:?}");
    }
    let blocks = |place| replica::verify(&disk, place).unwrap().blocks;
    assert_eq!((blocks(directory), blocks(beside)), (400, 600));
    // Files of the clone are no longer than those of the source were.
    let looked = replica::inspect(&disk, beside).unwrap();
    assert_eq!(looked.size_bytes, 2 * BYTES);
    assert_eq!(looked.layers[0].reclaimable_bytes, 200 * BLOCK);
    assert!(!looked.layers[0].shared, "the source has merged it away");
}
