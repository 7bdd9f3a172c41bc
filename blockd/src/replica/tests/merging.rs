//! Merges and the space that they need.

use super::model::sectors;
use super::support::{BLOCK, Rig, directory, layer};
use super::world::exported;
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{BlockRun, LayerFiles, Lengths, Part, file_path};
use crate::replica::{DataError, Progress, State, WorkError};

const CHUNKS: u64 = 12;
const BLOCKS: u64 = CHUNKS * 512;
const CHUNK: u64 = 512 * BLOCK;

/// A full layer under a sealed one that has every fourth chunk itself, under an empty head.
fn two_layers(chunks: u64) -> (SimDisk, Rig<SimDisk>) {
    let (disk, mut rig) = Rig::new(chunks * 512);
    let fill = |rig: &mut Rig<SimDisk>, chunk: u64, byte: u8| {
        let data = vec![byte; usize::try_from(CHUNK).unwrap()];
        rig.write(chunk * CHUNK, &data).unwrap();
    };
    for chunk in 0..chunks {
        fill(&mut rig, chunk, u8::try_from(chunk + 1).unwrap());
    }
    rig.seal(2).unwrap();
    for chunk in (0..chunks).step_by(4) {
        fill(&mut rig, chunk, 100);
    }
    rig.seal(3).unwrap();
    (disk, rig)
}

fn fill_disk(disk: &SimDisk, free_bytes: u64) {
    let space = disk.space().unwrap();
    disk.set_capacity(space.capacity_bytes - space.free_bytes + free_bytes);
}

#[test]
fn a_merge_needs_room_for_a_few_chunks_and_gives_back_as_it_goes() {
    let (disk, mut rig) = two_layers(CHUNKS);
    let before = rig.read_all();
    fill_disk(&disk, 5 * CHUNK);
    rig.replica.allow_allocation(false);
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    assert_eq!(rig.replica.layers().len(), 2, "the layer is gone");
    assert_eq!(rig.read_all(), before);
    assert_eq!(exported(&disk, 2), sectors(&before));
    // The names that are gone count once that is durable.
    disk.sync_dir(&directory().join("layers")).unwrap();
    let least = 5 * CHUNK + CHUNKS / 4 * CHUNK;
    assert!(disk.space().unwrap().free_bytes >= least);
}

#[test]
fn a_merge_into_the_live_head_gives_back_too() {
    let (disk, mut rig) = two_layers(CHUNKS);
    let before = rig.read_all();
    fill_disk(&disk, 5 * CHUNK);
    for gone in [1, 2] {
        rig.replica.remove_layer(layer(gone)).unwrap();
    }
    rig.merge_all();
    assert_eq!(rig.replica.layers().len(), 1);
    assert_eq!(rig.read_all(), before);
}

#[test]
fn a_stop_between_any_two_steps_leaves_both_layers_readable() {
    for steps in 0.. {
        let (disk, mut rig) = two_layers(CHUNKS);
        let before = rig.read_all();
        rig.replica.remove_layer(layer(1)).unwrap();
        let mut is_over = false;
        for _ in 0..steps {
            match rig.replica.merge_step(512).unwrap() {
                Progress::Idle => is_over = true,
                Progress::Working { .. } => {}
                Progress::Sync(plan) => {
                    let result = plan.run();
                    rig.replica.finish_flush(plan, result).unwrap();
                }
            }
        }
        if is_over {
            assert!(steps > CHUNKS, "only {steps} steps");
            return;
        }
        for fate in Fate::ALL {
            let found = disk.crash(fate, steps);
            let report = crate::replica::verify(&found, directory()).unwrap();
            assert_eq!(report.damaged, 0, "{steps} steps, {fate:?}");
            let mut rig = Rig::load(&found, BLOCKS, 2);
            assert!(rig.read_all() == before, "{steps} steps, {fate:?}");
            rig.merge_all();
            assert!(rig.read_all() == before, "{steps} steps, {fate:?}, merged");
        }
    }
}

#[test]
fn a_full_disk_at_any_call_of_a_merge_loses_nothing() {
    let mut refused = 0;
    for call in 0.. {
        let (disk, mut rig) = two_layers(4);
        let before = rig.read_all();
        rig.replica.remove_layer(layer(1)).unwrap();
        let start = disk.calls();
        disk.fail(start + call, Fault::Full);
        loop {
            match rig.replica.merge_step(96) {
                Ok(Progress::Idle) => break,
                Ok(Progress::Working { .. }) => {}
                Ok(Progress::Sync(plan)) => {
                    let result = plan.run();
                    if rig.replica.finish_flush(plan, result).is_err() {
                        break;
                    }
                }
                Err(_) => refused += 1,
            }
            if *rig.replica.state() != State::Ready {
                break;
            }
        }
        if disk.calls() <= start + call {
            assert!(refused > 10, "only {refused} refusals");
            return;
        }
        let mut rig = if *rig.replica.state() == State::Ready {
            rig
        } else {
            // A sync that fails is final, whatever the reason.
            continue;
        };
        assert!(rig.read_all() == before, "call {call}");
        rig.merge_all();
        assert!(rig.read_all() == before, "call {call}, merged");
        assert_eq!(exported(&disk, 2), sectors(&before), "call {call}");
    }
}

#[test]
fn a_block_that_fails_its_sum_stops_a_merge_and_is_not_copied() {
    let (disk, mut rig) = two_layers(4);
    let path = file_path(directory(), layer(1), Part::Image);
    // In a chunk that only the lower layer has.
    let bad = CHUNK + 7 * BLOCK;
    disk.flip_bit(&path, bad + 5, 1).unwrap();
    rig.replica.remove_layer(layer(1)).unwrap();
    let refused = loop {
        match rig.replica.merge_step(96) {
            Ok(Progress::Sync(plan)) => {
                let result = plan.run();
                rig.replica.finish_flush(plan, result).unwrap();
            }
            Ok(Progress::Working { .. }) => {}
            Ok(Progress::Idle) => panic!("a damaged block was merged"),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WorkError::Checksum(found) if found.layer == layer(1)));
    let target = file_path(directory(), layer(2), Part::Image);
    let copy = disk.peek_page(&target, bad).unwrap();
    assert!(copy.iter().all(|byte| *byte == 0), "it was copied");
    assert!(matches!(rig.read(bad, 512), Err(DataError::Checksum(_))));
}

#[test]
fn what_is_damaged_on_its_way_into_another_layer_does_not_match_there() {
    let (disk, rig) = two_layers(2);
    let open = |id| {
        let lengths = Lengths::of(rig.replica.size());
        LayerFiles::open(&disk, directory(), layer(id), lengths).unwrap()
    };
    let run = BlockRun {
        first: ankole_proto::BlockNumber::from_raw(512 + 7),
        count: 3,
    };
    // After the comparison, before the copy.
    let path = file_path(directory(), layer(1), Part::Image);
    disk.flip_bit(&path, run.first.offset() + BLOCK + 5, 1)
        .unwrap();
    let mut damaged = vec![2; 3 * 4096];
    damaged[4096 + 5] ^= 2;
    // Shared and written: the simulated disk does one after the other.
    for parity in 0..2 {
        let (from, to) = (open(1), open(2));
        to.image.punch_hole(0..2 * CHUNK).unwrap();
        while disk.calls() % 2 != parity {
            to.image.len().unwrap();
        }
        from.copy_run(run, &damaged, &to, &mut Vec::new()).unwrap();
        let mut data = vec![0; 3 * 4096];
        let mut bad = Vec::new();
        to.read_run(run, &mut data, &mut Vec::new(), |block, _| {
            bad.push(block.raw());
            Ok::<_, std::io::Error>(())
        })
        .unwrap();
        assert_eq!(bad, [512 + 8]);
        assert!(data == damaged);
    }
}

#[test]
fn an_io_error_at_any_call_of_a_merge_faults_or_harms_nothing() {
    let mut faulted = 0;
    for call in 0.. {
        let (disk, mut rig) = two_layers(4);
        let before = rig.read_all();
        rig.replica.remove_layer(layer(1)).unwrap();
        let start = disk.calls();
        disk.fail(start + call, Fault::Io);
        loop {
            match rig.replica.merge_step(96) {
                Ok(Progress::Idle) | Err(_) => break,
                Ok(Progress::Working { .. }) => {}
                Ok(Progress::Sync(plan)) => {
                    let result = plan.run();
                    if rig.replica.finish_flush(plan, result).is_err() {
                        break;
                    }
                }
            }
        }
        if disk.calls() <= start + call {
            break;
        }
        if *rig.replica.state() == State::Ready {
            assert!(rig.read_all() == before, "call {call}");
        } else {
            faulted += 1;
        }
        assert_eq!(exported(&disk, 2), sectors(&before), "call {call}");
    }
    assert!(faulted > 10, "only {faulted} faults");
}
