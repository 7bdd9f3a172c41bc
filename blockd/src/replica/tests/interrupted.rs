//! Stops and calls that fall between two steps of something longer.

use std::path::Path;

use ankole_proto::wire::body::LayerLink;
use ankole_proto::wire::rebuild::BeginRebuild;

use super::support::{BLOCK, Rig, directory, layer};
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::{DataError, Medium, Progress, Replica, State};

const BLOCKS: u64 = 600;

/// What block 0 reads after the power failed, with nothing kept that was not synced.
fn after_power_cut(disk: &SimDisk) -> u8 {
    let found = disk.crash(Fate::Dropped, 1);
    Rig::load(&found, BLOCKS, 9).read(0, BLOCK).unwrap()[0]
}

#[test]
fn a_write_during_the_flush_of_an_unmap_does_not_bring_back_what_was_there() {
    for sealed in [false, true] {
        for write_data_too in [false, true] {
            let (disk, mut rig) = Rig::new(BLOCKS);
            if sealed {
                rig.write(0, &[9; 4096]).unwrap();
                rig.seal(2).unwrap();
            }
            rig.write(0, &[1; 4096]).unwrap();
            rig.flush().unwrap();
            rig.unmap(0, BLOCK).unwrap();
            if write_data_too {
                rig.write(5 * BLOCK, &[5; 4096]).unwrap();
            }
            let plan = rig.replica.plan_flush(rig.epoch).unwrap();
            rig.write(0, &[2; 4096]).unwrap();
            let result = plan.run();
            rig.replica.finish_flush(plan, result).unwrap();
            let found = after_power_cut(&disk);
            assert!(matches!(found, 0 | 2), "{found}, sealed: {sealed}");
            rig.flush().unwrap();
            assert_eq!(after_power_cut(&disk), 2);
        }
    }
}

/// A disk whose next punch meets a full disk.
fn refuse_next_punch(disk: &SimDisk, rig: &mut Rig<SimDisk>) -> Result<(), DataError> {
    let plan = rig.replica.plan_flush(rig.epoch).unwrap();
    let result = plan.run();
    disk.fail(disk.calls(), Fault::Full);
    rig.replica.finish_flush(plan, result)
}

#[test]
fn a_place_that_a_full_disk_does_not_let_be_punched_is_not_written() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.flush().unwrap();
    rig.unmap(0, BLOCK).unwrap();
    refuse_next_punch(&disk, &mut rig).unwrap();
    // The write tries again before it goes on, and is refused again.
    disk.fail(disk.calls(), Fault::Full);
    let refused = rig.write(0, &[2; 4096]).unwrap_err();
    assert!(matches!(refused, DataError::Medium(Medium::NoSpace)));
    assert_eq!(*rig.replica.state(), State::Ready);
    rig.write(0, &[3; 4096]).unwrap();
    assert!(matches!(after_power_cut(&disk), 0 | 3));
}

#[test]
fn recovery_makes_the_map_durable_before_it_punches() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[9; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(0, &[1; 4096]).unwrap();
    rig.flush().unwrap();
    rig.unmap(0, BLOCK).unwrap();
    // The process is killed, the page cache stays.
    drop(rig);
    drop(Replica::load(&disk, directory()).unwrap());
    let found = after_power_cut(&disk);
    assert!(matches!(found, 0 | 1), "an older layer's: {found}");
}

#[test]
fn recovery_makes_holes_durable_that_the_process_before_has_punched() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.write(5 * BLOCK, &[5; 4096]).unwrap();
    rig.flush().unwrap();
    rig.unmap(0, BLOCK).unwrap();
    rig.flush().unwrap();
    // The process is killed, the page cache stays.
    drop(rig);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    rig.write(0, &[2; 4096]).unwrap();
    // The map reaches the medium, the data does not.
    let path = file_path(directory(), layer(1), Part::Map);
    disk.open(&path).unwrap().sync().unwrap();
    let found = after_power_cut(&disk);
    assert!(matches!(found, 0 | 2), "of before the unmap: {found}");
}

#[test]
fn a_layer_whose_creation_failed_is_created_anew_and_not_synced_again() {
    let mut refused = 0;
    for call in 0.. {
        let (disk, mut rig) = Rig::new(BLOCKS);
        let end = disk.calls() + call;
        disk.fail(end, Fault::Full);
        let sealed = rig.seal(2);
        if disk.calls() <= end {
            break;
        }
        if sealed.is_err() && *rig.replica.state() == State::Ready {
            refused += 1;
            rig.seal(2).unwrap();
            rig.write(0, &[2; 4096]).unwrap();
            rig.flush().unwrap();
            assert_eq!(after_power_cut(&disk), 2, "call {call}");
        }
    }
    assert!(refused > 8, "only {refused} refusals");
}

/// A head above a layer that is to go, closed in order; the merge is done until `stop` says so.
fn merge_while_closed(stop: fn(&mut Rig<SimDisk>) -> bool) -> SimDisk {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[9; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(7 * BLOCK, &[7; 4096]).unwrap();
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    while !stop(&mut rig) {
        if let Progress::Sync(plan) = rig.replica.merge_step(3).unwrap() {
            let result = plan.run();
            rig.replica.finish_flush(plan, result).unwrap();
        }
    }
    disk
}

fn is_marked(rig: &mut Rig<SimDisk>) -> bool {
    let head = rig.replica.head();
    let record = rig
        .replica
        .record(head, ankole_proto::ChunkNumber::from_raw(0));
    record.unwrap().present.contains(0)
}

#[test]
fn a_flush_covers_what_a_merge_has_marked_while_no_engine_was_there() {
    let disk = merge_while_closed(is_marked);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    rig.write(0, &[2; 4096]).unwrap();
    rig.flush().unwrap();
    assert_eq!(after_power_cut(&disk), 2);
}

#[test]
fn copies_of_a_merge_that_were_not_marked_are_not_seen_again() {
    let is_copied = |rig: &mut Rig<SimDisk>| {
        let path = file_path(directory(), rig.replica.head(), Part::Image);
        let image = rig.replica.disk.open(&path).unwrap();
        image
            .next_data(0)
            .unwrap()
            .is_some_and(|data| data.start == 0)
    };
    let disk = merge_while_closed(is_copied);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    rig.unmap(0, BLOCK).unwrap();
    rig.flush().unwrap();
    rig.write(0, &[2; 4096]).unwrap();
    // The map reaches the medium, the data does not.
    let path = file_path(directory(), rig.replica.head(), Part::Map);
    disk.open(&path).unwrap().sync().unwrap();
    assert!(matches!(after_power_cut(&disk), 0 | 2));
}

#[test]
fn loading_makes_the_description_durable_before_what_it_says_is_done() {
    for call in 0.. {
        let (disk, mut rig) = Rig::new(BLOCKS);
        rig.write(0, &[1; 4096]).unwrap();
        rig.seal(2).unwrap();
        rig.replica.close(rig.epoch).unwrap();
        disk.fail(disk.calls() + call, Fault::Stop);
        let removed = rig.replica.remove_layer(layer(1));
        // Another process merges what is to be removed, while no engine is there.
        let killed = disk.kill();
        rig.replica = Replica::load(&killed, directory()).unwrap();
        while rig.merge_step() {
            let found = killed.crash(Fate::Dropped, 1);
            let mut rig = Rig::load(&found, BLOCKS, 9);
            assert_eq!(rig.read(0, BLOCK).unwrap()[0], 1, "call {call}");
        }
        if removed.is_ok() {
            return;
        }
    }
}

#[test]
fn a_write_that_is_refused_over_a_copy_of_a_merge_is_not_taken_for_it() {
    let mut refused = 0;
    for steps in 0..7 {
        for call in 0.. {
            let (disk, mut rig) = Rig::new(BLOCKS);
            rig.write(0, &[1; 4096]).unwrap();
            rig.seal(2).unwrap();
            rig.replica.remove_layer(layer(1)).unwrap();
            for _ in 0..steps {
                rig.merge_step();
            }
            disk.fail(disk.calls() + call, Fault::Full);
            if rig.write(0, &[2; 4096]).is_ok() {
                break;
            }
            refused += 1;
            disk.mend();
            // Once the head holds the block an overwrite may be refused half-way.
            let now = rig.read(0, BLOCK).unwrap()[0];
            rig.flush().unwrap();
            rig.merge_all();
            assert_eq!(rig.read(0, BLOCK).unwrap()[0], now, "{steps} {call}");
            assert_eq!(after_power_cut(&disk), now, "{steps} {call}");
        }
    }
    assert!(refused > 10, "only {refused} refusals");
}

/// The tree of a source, oldest first, each layer on the one before.
fn chain(rig: &Rig<SimDisk>, layers: &[u64]) -> BeginRebuild {
    let links = layers.iter().enumerate().map(|(at, raw)| LayerLink {
        layer: layer(*raw),
        parent: at.checked_sub(1).map(|below| layer(layers[below])),
    });
    BeginRebuild {
        size: rig.replica.size(),
        head: layer(*layers.last().unwrap()),
        layers: links.collect(),
    }
}

#[test]
fn a_rebuild_brings_back_a_layer_below_smaller_ones() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.seal(3).unwrap();
    rig.expand(2 * BLOCKS).unwrap();
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    let body = chain(&rig, &[1, 2, 3]);
    rig.replica.begin_rebuild(rig.epoch, &body).unwrap();
    drop(Replica::load(&disk, directory()).unwrap());
    rig.replica.finish_rebuild(rig.epoch).unwrap();
    drop(Replica::load(&disk, directory()).unwrap());
}

#[test]
fn a_rebuild_that_stops_while_a_sealed_layer_becomes_the_head_can_be_loaded() {
    for call in 0.. {
        let (disk, mut rig) = Rig::new(BLOCKS);
        rig.write(0, &[1; 4096]).unwrap();
        rig.seal(2).unwrap();
        rig.expand(2 * BLOCKS).unwrap();
        let body = chain(&rig, &[1]);
        disk.fail(disk.calls() + call, Fault::Stop);
        let begun = rig.replica.begin_rebuild(rig.epoch, &body);
        disk.restart();
        drop(rig);
        for disk in [&disk, &disk.crash(Fate::Dropped, 1)] {
            let mut rig = Rig::load(disk, BLOCKS, 2);
            match rig.replica.state() {
                State::Ready => assert_eq!(rig.read(0, 4096).unwrap()[0], 1),
                state => assert_eq!(*state, State::Rebuilding),
            }
        }
        if begun.is_ok() {
            return;
        }
    }
}

#[test]
fn a_sync_that_meets_a_full_disk_faults_what_is_in_use() {
    let mut faulted = 0;
    for call in 0.. {
        let (disk, mut rig) = Rig::new(BLOCKS);
        rig.write(0, &[1; 4096]).unwrap();
        disk.fail(disk.calls() + call, Fault::Full);
        let expanded = rig.expand(2 * BLOCKS);
        disk.mend();
        let flushed = rig.flush();
        if flushed.is_ok() {
            assert_eq!(after_power_cut(&disk), 1, "call {call}");
        } else {
            faulted += 1;
            assert!(matches!(rig.replica.state(), State::Faulted { .. }));
            let name = Path::new("replica.json");
            disk.open(&directory().join(name)).unwrap();
        }
        if expanded.is_ok() {
            break;
        }
    }
    assert!(
        faulted >= 4,
        "{faulted}: three files and a directory are synced"
    );
}

#[test]
fn a_copy_of_a_shared_layer_that_a_full_disk_refuses_is_made_by_the_next_attempt() {
    let mut refused = 0;
    for call in 0.. {
        let (disk, mut rig) = Rig::new(BLOCKS);
        rig.write(0, &[1; 4096]).unwrap();
        rig.seal(2).unwrap();
        rig.write(7 * BLOCK, &[7; 4096]).unwrap();
        rig.seal(3).unwrap();
        super::cloning::clone_at(&mut rig, BLOCKS, 2).unwrap();
        rig.replica.remove_layer(layer(1)).unwrap();
        let end = disk.calls() + call;
        disk.fail(end, Fault::Full);
        let before = refused;
        while rig.replica.is_shared(layer(2)).unwrap() {
            let done = match rig.replica.merge_step(3) {
                Ok(Progress::Sync(plan)) => {
                    let result = plan.run();
                    rig.replica.finish_flush(plan, result).is_ok()
                }
                done => done.is_ok(),
            };
            refused += u64::from(!done);
            if rig.replica.state() != &State::Ready {
                break;
            }
        }
        if disk.calls() <= end {
            break;
        }
        if let State::Faulted { reason } = rig.replica.state().clone() {
            // The copies have taken the place of the shared files: they are in use.
            assert!(!rig.replica.is_shared(layer(2)).unwrap(), "{reason}");
        } else if refused > before {
            rig.merge_all();
            assert_eq!(rig.read(0, BLOCK).unwrap(), [1; 4096], "call {call}");
        }
    }
    assert!(refused > 8, "only {refused} refusals");
}

#[test]
fn what_a_full_disk_did_not_let_be_expanded_is_read_and_written_as_before() {
    let mut refused = 0;
    for call in 0.. {
        let (disk, mut rig) = Rig::new(BLOCKS);
        rig.write(599 * BLOCK, &[1; 4096]).unwrap();
        rig.replica.close(rig.epoch).unwrap();
        // No sum is in memory.
        let mut rig = Rig::load(&disk, BLOCKS, 2);
        disk.fail(disk.calls() + call, Fault::Full);
        if rig.expand(BLOCKS + 5).is_ok() {
            break;
        }
        if *rig.replica.state() == State::Ready {
            refused += 1;
            assert_eq!(rig.read(599 * BLOCK, BLOCK).unwrap(), [1; 4096]);
            rig.write(599 * BLOCK + 512, &[2; 512]).unwrap();
            rig.flush().unwrap();
            rig.expand(BLOCKS + 5).unwrap();
            rig.write(604 * BLOCK, &[3; 4096]).unwrap();
            assert_eq!(rig.read(599 * BLOCK, BLOCK).unwrap()[512], 2);
        }
    }
    assert!(refused >= 4, "only {refused} refusals");
}

#[test]
fn an_unmap_that_a_full_disk_refuses_has_changed_nothing() {
    const CHUNKS: u64 = 20;
    let blocks = CHUNKS * 512;
    let mut refused = 0;
    for free_pages in 0.. {
        let (disk, mut rig) = Rig::new(blocks);
        // Parts of two blocks that only a snapshot holds, and whole ones between, in chunks whose map
        // records are in two pages.
        for chunk in 0..CHUNKS {
            rig.write(chunk * 512 * BLOCK, &[1; 4096]).unwrap();
        }
        rig.seal(2).unwrap();
        let before = rig.read_all();
        let space = disk.space().unwrap();
        disk.set_capacity(space.capacity_bytes - space.free_bytes + free_pages * BLOCK);
        match rig.unmap(512, (CHUNKS - 1) * 512 * BLOCK) {
            Ok(()) => break,
            Err(DataError::Medium(Medium::NoSpace)) => refused += 1,
            Err(error) => panic!("{free_pages} free: {error}"),
        }
        assert!(rig.read_all() == before, "{free_pages} free");
    }
    assert_eq!(
        refused, 6,
        "pages: two of blocks, two of sums, two of the map"
    );
}
