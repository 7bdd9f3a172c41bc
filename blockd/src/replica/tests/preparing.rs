//! Layers that are shared with a clone, and copied step by step before they are written to; files
//! that are closed when nobody waits.

use ankole_proto::wire::rebuild::{BeginRebuild, ChunkBitmap, LayerBlocks, WriteLayer};
use ankole_proto::{Extent, LayerId};

use super::cloning::{BLOCKS, clone_at, load_clone};
use super::model::sectors;
use super::support::{BLOCK, Place, Rig, directory, layer, new_disk};
use super::world::exported_from;
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::{Progress, State, destroy, verify};

/// Two full sealed layers and a clone of them, which is being rebuilt.
fn rebuilding_clone() -> (SimDisk, Rig<SimDisk>, Rig<SimDisk>) {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 500 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(100 * BLOCK, &[2; 400 * 4096]).unwrap();
    rig.seal(3).unwrap();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    let mut clone = load_clone(&disk, 1);
    begin(&mut clone);
    (disk, rig, clone)
}

fn begin(clone: &mut Rig<SimDisk>) {
    let begin = BeginRebuild {
        head: clone.replica.head(),
        size: clone.replica.size(),
        layers: clone.replica.layers(),
    };
    clone.replica.begin_rebuild(clone.epoch, &begin).unwrap();
}

/// One step; whether it was not the last.
fn step(rig: &mut Rig<SimDisk>, id: LayerId) -> bool {
    match rig.replica.prepare_step(id, 16).unwrap() {
        Progress::Idle => return false,
        Progress::Working { .. } => {}
        Progress::Sync(plan) => {
            let result = plan.run();
            rig.replica.finish_flush(plan, result).unwrap();
        }
    }
    true
}

fn names(disk: &SimDisk, place: Place, suffix: &str) -> usize {
    let found = disk.list(&place.directory().join("layers")).unwrap();
    found.iter().filter(|name| name.ends_with(suffix)).count()
}

/// Block 7 of the clone's layer 1 becomes something else.
fn write_one(clone: &mut Rig<SimDisk>) {
    let extent = Extent::new(7 * BLOCK, BLOCK).unwrap();
    let mut blocks = LayerBlocks {
        data: vec![9; 4096].into(),
        present: ChunkBitmap::default(),
        zero: ChunkBitmap::default(),
    };
    blocks.present.set(7, true);
    let body = WriteLayer {
        layer: layer(1),
        blocks,
    };
    clone
        .replica
        .write_layer(clone.epoch, extent, &body)
        .unwrap();
}

#[test]
fn a_shared_layer_is_copied_in_short_steps_between_which_io_goes_on() {
    let (disk, mut rig, mut clone) = rebuilding_clone();
    let whole = rig.read_all();
    assert!(clone.replica.needs_copy(layer(1)).unwrap());
    let (mut steps, mut longest) = (0, 0);
    loop {
        let before = disk.calls();
        if !step(&mut clone, layer(1)) {
            break;
        }
        steps += 1;
        longest = longest.max(disk.calls() - before);
        clone.write(510 * BLOCK, &[steps; 4096]).unwrap();
        assert!(rig.read_all() == whole);
    }
    assert!(usize::from(steps) > 500 / 16, "only {steps} steps");
    assert!(longest < 25, "a step of {longest} calls");
    assert!(!clone.replica.needs_copy(layer(1)).unwrap());
    assert!(clone.replica.needs_copy(layer(2)).unwrap());
    // Nothing is copied any more when it is written to.
    let before = disk.calls();
    write_one(&mut clone);
    assert!(disk.calls() - before < 25);
    clone.replica.finish_rebuild(clone.epoch).unwrap();
    assert_eq!(clone.read(7 * BLOCK, BLOCK).unwrap(), vec![9; 4096]);
    let last = clone.read(510 * BLOCK, BLOCK).unwrap();
    assert_eq!(last, vec![steps; 4096]);
    assert!(rig.read_all() == whole);
    for place in [Place::Original, Place::Clone] {
        assert_eq!(verify(&disk, place.directory()).unwrap().damaged, 0);
    }
}

#[test]
fn what_was_copied_stays_when_the_rebuild_begins_again() {
    let (_, _, mut clone) = rebuilding_clone();
    let mut whole = 0;
    while step(&mut clone, layer(1)) {
        whole += 1;
    }
    let (_, _, mut clone) = rebuilding_clone();
    for _ in 0..whole - 5 {
        assert!(step(&mut clone, layer(1)));
    }
    begin(&mut clone);
    let mut rest = 0;
    while step(&mut clone, layer(1)) {
        rest += 1;
    }
    assert_eq!(rest, 5);
}

#[test]
fn two_layers_that_are_copied_in_turns_both_come_to_an_end() {
    let (disk, _, mut clone) = rebuilding_clone();
    let mut steps = 0;
    loop {
        let (first, second) = (step(&mut clone, layer(1)), step(&mut clone, layer(2)));
        if !first && !second {
            break;
        }
        steps += 1;
        assert!(steps < 1000, "they put each other aside");
    }
    for id in [1, 2] {
        assert!(!clone.replica.needs_copy(layer(id)).unwrap());
    }
    assert_eq!(names(&disk, Place::Clone, ".new"), 0);
}

#[test]
fn a_copy_is_given_up_when_the_layer_is_not_shared_any_more() {
    let (disk, rig, mut clone) = rebuilding_clone();
    for _ in 0..5 {
        assert!(step(&mut clone, layer(1)));
    }
    assert!(names(&disk, Place::Clone, ".new") > 0);
    drop(rig);
    destroy(&disk, directory()).unwrap();
    assert!(!step(&mut clone, layer(1)));
    assert_eq!(names(&disk, Place::Clone, ".new"), 0);
    write_one(&mut clone);
    clone.replica.finish_rebuild(clone.epoch).unwrap();
    assert_eq!(clone.read(7 * BLOCK, BLOCK).unwrap(), vec![9; 4096]);
}

#[test]
fn a_stop_at_any_call_of_the_copying_leaves_both_replicas_as_they_were() {
    for call in 0.. {
        let (disk, mut rig, mut clone) = rebuilding_clone();
        let whole = rig.read_all();
        let cloned = exported_from(&disk, Place::Original, 2);
        let start = disk.calls();
        disk.fail(start + call, Fault::Stop);
        while let Ok(progress) = clone.replica.prepare_step(layer(1), 100) {
            match progress {
                Progress::Idle => break,
                Progress::Working { .. } => {}
                Progress::Sync(plan) => {
                    let result = plan.run();
                    if clone.replica.finish_flush(plan, result).is_err() {
                        break;
                    }
                }
            }
        }
        let stopped = disk.calls() > start + call;
        for fate in Fate::ALL {
            let found = disk.crash(fate, call);
            let context = format!("call {call}, {fate:?}");
            let mut rig = Rig::load(&found, BLOCKS, 2);
            assert!(rig.read_all() == whole, "{context}");
            let mut clone = load_clone(&found, 2);
            for suffix in [".new", ".old"] {
                assert_eq!(names(&found, Place::Clone, suffix), 0, "{context}");
            }
            clone.replica.finish_rebuild(clone.epoch).unwrap();
            assert_eq!(sectors(&clone.read_all()), cloned, "{context}");
            let report = verify(&found, Place::Clone.directory()).unwrap();
            assert_eq!(report.damaged, 0, "{context}");
        }
        if !stopped {
            assert!(call > 30, "only {call} calls");
            break;
        }
    }
}

#[test]
fn the_files_of_removed_layers_stay_open_until_somebody_takes_them() {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 8 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.seal(3).unwrap();
    for gone in [1, 2] {
        rig.replica.remove_layer(layer(gone)).unwrap();
    }
    rig.merge_all();
    for id in [1, 2] {
        let path = file_path(directory(), layer(id), Part::Image);
        assert!(disk.open(&path).is_err(), "layer {id} has its name");
    }
    assert_eq!(rig.replica.take_removed().layers(), 2);
    assert_eq!(rig.replica.take_removed().layers(), 0);
    // However many there are, those that nobody takes are bounded.
    for head in 4..60 {
        rig.seal(head).unwrap();
        rig.replica.remove_layer(layer(head - 1)).unwrap();
        rig.merge_all();
    }
    assert!(rig.replica.take_removed().layers() <= 16);
    assert_eq!(*rig.replica.state(), State::Ready);
    assert_eq!(rig.read(0, BLOCK).unwrap(), vec![1; 4096]);
    assert_eq!(
        disk.open(&file_path(directory(), layer(59), Part::Map))
            .unwrap()
            .links()
            .unwrap(),
        1
    );
}
