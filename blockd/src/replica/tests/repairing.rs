//! Repair: bad blocks are written anew, others never; a stop leaves a block bad or whole.

use ankole_proto::Extent;
use ankole_proto::wire::ErrorCode;
use ankole_proto::wire::rebuild::WriteLayer;

use super::support::{BLOCK, Place, Rig, directory, layer, new_disk};
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::layer::{Part, file_path};
use crate::replica::refusal::Refusal;
use crate::replica::{CloneSpec, DataError, LayerError, Progress, ReplicaSpec, State, verify};

const BLOCKS: u64 = 520;

fn part() -> Extent {
    Extent::new(0, 512 * BLOCK).unwrap()
}

/// A sealed layer and a head of a few blocks each.
fn rig() -> (SimDisk, Rig<SimDisk>) {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 4 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(2 * BLOCK, &[2; 4 * 4096]).unwrap();
    rig.unmap(BLOCK, BLOCK).unwrap();
    rig.replica.write_sums(usize::MAX).unwrap();
    rig.flush().unwrap();
    (disk, rig)
}

/// What a healthy peer has there.
fn frame(id: u64) -> WriteLayer {
    let (_, mut peer) = rig();
    let epoch = peer.epoch;
    WriteLayer {
        layer: layer(id),
        blocks: peer.replica.read_layer(epoch, layer(id), part()).unwrap(),
    }
}

fn flip(disk: &SimDisk, id: u64, part: Part, block: u64) {
    let byte = match part {
        Part::Image => block * BLOCK + 99,
        _ => block * 4 + 2,
    };
    let path = file_path(directory(), layer(id), part);
    disk.flip_bit(&path, byte, 4).unwrap();
}

fn repair(rig: &mut Rig<SimDisk>, id: u64) -> Result<u64, LayerError> {
    rig.replica.repair_layer(rig.epoch, part(), &frame(id))
}

#[test]
fn what_is_bad_is_written_anew_and_durable_where_it_is_sealed() {
    let (_, mut healthy) = rig();
    let wanted = healthy.read_all();
    for (id, block) in [(1, 0), (2, 3)] {
        for part in [Part::Image, Part::Sums] {
            let (disk, rig) = rig();
            flip(&disk, id, part, block);
            drop(rig);
            let mut rig = Rig::load(&disk.crash(Fate::Kept, 0), BLOCKS, 2);
            if id == 1 {
                assert!(matches!(rig.read(0, 512), Err(DataError::Checksum(_))));
                assert_eq!(rig.replica.damages().0, 1);
            }
            assert_eq!(repair(&mut rig, id).unwrap(), 1, "{id} {part:?}");
            assert_eq!(rig.replica.damages(), (0, vec![]));
            assert_eq!(rig.read_all(), wanted);
            assert_eq!(repair(&mut rig, id).unwrap(), 0);
        }
    }
}

#[test]
fn a_block_that_cannot_be_read_is_told_and_repaired() {
    let (disk, mut rig) = rig();
    let call = disk.calls();
    // The run as a whole, then its first block alone.
    disk.fail(call, Fault::Io);
    disk.fail(call + 1, Fault::Io);
    let Err(DataError::Checksum(bad)) = rig.read(0, BLOCK) else {
        panic!("it was read");
    };
    assert_eq!((bad.layer, bad.block.raw()), (layer(1), 0));
    assert_eq!(*rig.replica.state(), State::Ready);
    let (count, damages) = rig.replica.damages();
    assert_eq!((count, damages[0].at), (1, bad));
    assert_eq!(repair(&mut rig, 1).unwrap(), 0);
    assert_eq!(rig.replica.damages().0, 0);
}

#[test]
fn sound_blocks_are_left_alone_whatever_the_frame_says() {
    let (disk, mut rig) = rig();
    flip(&disk, 1, Part::Image, 3);
    let mut body = frame(1);
    let mut data = body.blocks.data.to_vec();
    data[..4096].fill(9);
    body.blocks.data = data.into();
    assert_eq!(
        rig.replica.repair_layer(rig.epoch, part(), &body).unwrap(),
        1
    );
    assert_eq!(rig.read(0, BLOCK).unwrap(), vec![1; 4096]);
    assert_eq!(verify(&disk, directory()).unwrap().damaged, 0);
}

#[test]
fn frames_that_do_not_fit_are_refused_in_words() {
    let (disk, mut rig) = rig();
    flip(&disk, 1, Part::Image, 3);
    let mut other = frame(2);
    other.layer = layer(1);
    let refused = rig.replica.repair_layer(rig.epoch, part(), &other);
    let error = refused.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TreeConflict);
    assert!(error.to_string().contains("block 0 of layer"), "{error}");
    let outside = Extent::new(0, BLOCK).unwrap();
    let refused = rig.replica.repair_layer(rig.epoch, outside, &frame(1));
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Malformed);
    let mut absent = frame(1);
    absent.layer = layer(77);
    let refused = rig.replica.repair_layer(rig.epoch, part(), &absent);
    assert_eq!(refused.unwrap_err().code(), ErrorCode::NoSuchLayer);
    assert!(rig.read(0, 4 * BLOCK).is_ok());
    assert_eq!(verify(&disk, directory()).unwrap().damaged, 1);
}

#[test]
fn a_stop_at_every_call_of_a_repair_leaves_the_block_bad_or_whole() {
    let mut whole = 0;
    for damaged in [Part::Image, Part::Sums] {
        for call in 0.. {
            let (disk, mut rig) = rig();
            flip(&disk, 1, damaged, 0);
            let start = disk.calls();
            disk.fail(start + call, Fault::Stop);
            let done = repair(&mut rig, 1);
            for fate in Fate::ALL {
                let found = disk.crash(fate, call);
                let mut again = Rig::load(&found, BLOCKS, 2);
                match again.read(0, BLOCK) {
                    Ok(data) => assert_eq!(data, vec![1; 4096], "call {call}, {fate:?}"),
                    Err(DataError::Checksum(_)) => {
                        assert!(done.is_err(), "call {call}, {fate:?}: it was answered");
                    }
                    Err(error) => panic!("call {call}, {fate:?}: {error}"),
                }
                let bad = repair(&mut again, 1).unwrap();
                whole += u64::from(bad == 0);
                assert_eq!(again.read(0, BLOCK).unwrap(), vec![1; 4096]);
            }
            if disk.calls() <= start + call {
                break;
            }
        }
    }
    assert!(whole > 8, "{whole}");
}

#[test]
fn a_shared_layer_is_repaired_in_place_when_its_sum_says_so_and_else_copied_first() {
    for damaged in [Part::Image, Part::Sums] {
        let (disk, mut rig) = rig();
        let spec = CloneSpec {
            replica: ReplicaSpec {
                base_layer: layer(100),
                ..Place::Clone.spec(BLOCKS)
            },
            layer: layer(1),
        };
        let clone_directory = Place::Clone.directory();
        rig.replica.clone_into(clone_directory, &spec).unwrap();
        flip(&disk, 1, damaged, 0);
        let mut clone = Rig::load_at(&disk, Place::Clone, BLOCKS, 1);
        assert!(clone.read(0, 512).is_err());
        if damaged == Part::Image {
            assert_eq!(repair(&mut rig, 1).unwrap(), 1);
            assert_eq!(clone.read(0, BLOCK).unwrap(), vec![1; 4096]);
            continue;
        }
        let refused = repair(&mut rig, 1).unwrap_err();
        assert!(matches!(refused, LayerError::Shared(_)), "{refused}");
        loop {
            match rig.replica.private_step(1).unwrap() {
                Progress::Idle => break,
                Progress::Working { .. } => {}
                Progress::Sync(plan) => {
                    let result = plan.run();
                    rig.replica.finish_flush(plan, result).unwrap();
                }
            }
        }
        assert_eq!(repair(&mut rig, 1).unwrap(), 1);
        assert_eq!(rig.read(0, BLOCK).unwrap(), vec![1; 4096]);
        // The clone has its own copy, and its own repair.
        assert!(clone.read(0, 512).is_err());
    }
}

#[test]
fn a_bad_block_leaves_the_list_when_it_is_overwritten_unmapped_or_merged_away() {
    let (disk, mut rig) = rig();
    for block in [2, 3, 4] {
        flip(&disk, 2, Part::Image, block);
    }
    rig.replica.begin_scrub(0, 1);
    while !matches!(rig.replica.scrub_step(7, 2).unwrap(), Progress::Idle) {}
    let blocks = |rig: &Rig<SimDisk>| -> Vec<u64> {
        let (_, damages) = rig.replica.damages();
        damages.iter().map(|damage| damage.at.block.raw()).collect()
    };
    assert_eq!(blocks(&rig), [2, 3, 4]);
    rig.write(2 * BLOCK, &[5; 4096]).unwrap();
    assert_eq!(blocks(&rig), [3, 4]);
    rig.unmap(3 * BLOCK, BLOCK).unwrap();
    assert_eq!(blocks(&rig), [4]);
    rig.seal(3).unwrap();
    rig.write(4 * BLOCK, &[6; 4096]).unwrap();
    assert_eq!(blocks(&rig), [4]);
    rig.replica.remove_layer(layer(2)).unwrap();
    rig.merge_all();
    assert_eq!(blocks(&rig), [0; 0]);
    assert_eq!(rig.read(4 * BLOCK, BLOCK).unwrap(), vec![6; 4096]);
}
