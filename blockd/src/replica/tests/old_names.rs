//! The second names (`.old`) that shared files keep while copies take their place: without them the
//! other replica would change a file that a crash can bring back.

use std::path::{Path, PathBuf};

use super::cloning::{BLOCKS, clone_at, load_clone};
use super::support::{BLOCK, Place, Rig, layer, new_disk};
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::{Progress, State, verify};

/// Layers 1 and 2 of a few blocks, shared by two replicas that are to merge 1 into 2.
fn shared() -> (SimDisk, Rig<SimDisk>, Rig<SimDisk>) {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 6 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(BLOCK, &[2; 4096]).unwrap();
    rig.seal(3).unwrap();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    let mut clone = load_clone(&disk, 1);
    for one in [&mut rig, &mut clone] {
        one.replica.remove_layer(layer(1)).unwrap();
    }
    (disk, rig, clone)
}

fn merge(rig: &mut Rig<SimDisk>) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    loop {
        match rig.replica.merge_step(64).map_err(|error| text(&error))? {
            Progress::Idle => return Ok(()),
            Progress::Working { .. } => {}
            Progress::Sync(plan) => {
                let result = plan.run();
                let finished = rig.replica.finish_flush(plan, result);
                finished.map_err(|error| text(&error))?;
            }
        }
    }
}

fn left_behind(disk: &SimDisk, place: Place) -> Vec<String> {
    let names = disk.list(&place.directory().join("layers")).unwrap();
    let is_left = |name: &String| name.ends_with(".old") || name.ends_with(".new");
    names.into_iter().filter(is_left).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    path.with_extension(format!("{}.{suffix}", path.extension().unwrap().display()))
}

#[test]
fn a_process_that_ends_among_the_renames_lets_nobody_change_what_a_power_cut_brings_back() {
    let mut among_renames = 0;
    for call in 0.. {
        let (disk, mut rig, clone) = shared();
        let whole = rig.read_all();
        let start = disk.calls();
        disk.fail(start + call, Fault::Stop);
        let done = merge(&mut rig);
        let stopped = disk.calls() > start + call;
        assert!(stopped || done.is_ok(), "{done:?}");
        drop((rig, clone));
        disk.restart();
        among_renames += u64::from(!left_behind(&disk, Place::Original).is_empty());
        // The next process loads both, and what is the clone's alone now it changes in place.
        let rig = Rig::load(&disk, BLOCKS, 2);
        let mut clone = load_clone(&disk, 2);
        assert_eq!(left_behind(&disk, Place::Original), [""; 0]);
        assert!(clone.read_all() == whole);
        merge(&mut clone).unwrap();
        drop((rig, clone));
        for fate in Fate::ALL {
            let found = disk.crash(fate, call);
            let context = format!("call {call}, {fate:?}");
            let mut rig = Rig::load(&found, BLOCKS, 3);
            assert!(rig.read_all() == whole, "{context}");
            rig.merge_all();
            assert!(rig.read_all() == whole, "{context}, merged");
            assert!(load_clone(&found, 3).read_all() == whole, "{context}");
            for place in [Place::Original, Place::Clone] {
                let report = verify(&found, place.directory()).unwrap();
                assert_eq!(report.damaged, 0, "{context}, {place:?}");
            }
        }
        if !stopped {
            break;
        }
    }
    assert!(among_renames > 5, "only {among_renames} stops there");
}

#[test]
fn a_refusal_among_the_renames_is_made_good_by_the_next_attempt() {
    let mut refused = 0;
    for call in 0.. {
        let (disk, mut rig, mut clone) = shared();
        let whole = rig.read_all();
        let start = disk.calls();
        disk.fail(start + call, Fault::Full);
        let done = merge(&mut rig);
        if disk.calls() <= start + call {
            break;
        }
        if *rig.replica.state() != State::Ready {
            // A sync that fails is final, whatever the reason.
            continue;
        }
        refused += u64::from(done.is_err());
        let before = left_behind(&disk, Place::Original);
        merge(&mut rig).unwrap();
        // A second name that could not be removed at the very end goes when the replica is loaded.
        drop(rig);
        let mut rig = Rig::load(&disk, BLOCKS, 2);
        assert_eq!(
            left_behind(&disk, Place::Original),
            [""; 0],
            "call {call}, before: {before:?}"
        );
        for part in Part::ALL {
            let path = file_path(Place::Clone.directory(), layer(2), part);
            let links = disk.open(&path).unwrap().links().unwrap();
            assert_eq!(links, 1, "call {call}: {part:?} has a name too many");
        }
        assert!(rig.read_all() == whole, "call {call}");
        merge(&mut clone).unwrap();
        assert!(clone.read_all() == whole, "call {call}");
        for place in [Place::Original, Place::Clone] {
            assert_eq!(verify(&disk, place.directory()).unwrap().damaged, 0);
        }
    }
    assert!(refused > 10, "only {refused} refusals");
}

#[test]
fn a_second_name_of_another_file_does_not_stand_for_the_shared_one() {
    let path = file_path(Place::Original.directory(), layer(2), Part::Image);
    let old = with_suffix(&path, "old");
    let mut seen = 0;
    for call in 0.. {
        let (disk, mut rig, _) = shared();
        // Left by an attempt of long ago: an empty file.
        disk.create(&old).unwrap();
        let start = disk.calls();
        disk.fail(start + call, Fault::Stop);
        let done = merge(&mut rig);
        let stopped = disk.calls() > start + call;
        assert!(stopped || done.is_ok(), "{done:?}");
        disk.restart();
        let is_replaced = disk.open(&path).unwrap().links().unwrap() == 1;
        if let (true, Ok(second)) = (is_replaced, disk.open(&old)) {
            assert_eq!(second.len().unwrap(), BLOCKS * BLOCK, "call {call}");
            seen += 1;
        }
        if !stopped {
            assert_eq!(left_behind(&disk, Place::Original), [""; 0]);
            break;
        }
    }
    assert!(seen > 2, "seen {seen} times");
}

#[test]
fn names_that_are_not_ours_are_left_alone() {
    let (disk, rig, _) = shared();
    drop(rig);
    let layers = Place::Original.directory().join("layers");
    for name in [
        "notes.old",
        "1.img.older",
        "x.img.old",
        "0000000000000001.txt.old",
    ] {
        disk.create(&layers.join(name)).unwrap();
    }
    Rig::load(&disk, BLOCKS, 2);
    assert_eq!(
        disk.list(&layers)
            .unwrap()
            .iter()
            .filter(|name| name.contains("old"))
            .count(),
        4
    );
}
