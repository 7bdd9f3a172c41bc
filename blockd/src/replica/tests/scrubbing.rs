//! Scrubs find what is bad and nothing else, and go on after a restart; and what layers take.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::steps::{Operation, operation};
use super::support::{BLOCK, Place, Rig, cases, directory, layer, new_disk};
use super::world::World;
use crate::disk::Disk;
use crate::disk::sim::{Fate, SimDisk};
use crate::layer::{Part, file_path};
use crate::replica::{Progress, Replica, inspect, verify};

const BLOCKS: u64 = 1030;

fn scrub_all(rig: &mut Rig<SimDisk>) {
    while !matches!(rig.replica.scrub_step(3, 50).unwrap(), Progress::Idle) {}
}

fn settle_all(rig: &mut Rig<SimDisk>) {
    while !matches!(rig.replica.settle_step(100).unwrap(), Progress::Idle) {}
}

fn count_all(rig: &mut Rig<SimDisk>) {
    rig.replica.refresh_census();
    while !matches!(rig.replica.census_step(0).unwrap(), Progress::Idle) {}
}

#[test]
fn a_scrub_reads_everything_and_says_so() {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 5 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(600 * BLOCK, &[2; 2 * 4096]).unwrap();
    assert_eq!(rig.replica.scrub_report().started_at_ms, 0);
    assert!(rig.replica.is_scrub_due(1000, 1000));
    assert!(rig.replica.begin_scrub(7, 1000));
    assert!(!rig.replica.begin_scrub(7, 1001), "it was begun already");
    assert!(!rig.replica.is_scrub_due(1000, 5000), "it is under way");
    let report = rig.replica.scrub_report();
    assert_eq!((report.request, report.total_bytes), (7, 7 * BLOCK));
    scrub_all(&mut rig);
    let report = rig.replica.scrub_report();
    assert_eq!((report.done_bytes, report.findings), (7 * BLOCK, 0));
    assert_eq!((report.started_at_ms, report.finished_at_ms), (1000, 50));
    assert!(!rig.replica.is_scrub_due(1000, 1999));
    assert!(rig.replica.is_scrub_due(1000, 2000));
    // The time of the last scrub, and that the request was served, outlive the process.
    let again = Replica::load(&disk, directory()).unwrap();
    assert_eq!(again.scrub_report(), report);
}

#[test]
fn what_is_written_during_a_scrub_counts_to_what_there_is_to_read() {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 4096]).unwrap();
    rig.replica.begin_scrub(0, 1000);
    rig.write(4096, &[2; 3 * 4096]).unwrap();
    scrub_all(&mut rig);
    let report = rig.replica.scrub_report();
    assert_eq!(
        (report.done_bytes, report.total_bytes),
        (4 * BLOCK, 4 * BLOCK)
    );
}

#[test]
fn a_scrub_goes_on_after_a_restart_and_still_knows_what_it_found() {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 20 * 4096]).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    let path = file_path(directory(), layer(1), Part::Image);
    disk.flip_bit(&path, 2 * BLOCK, 1).unwrap();
    disk.flip_bit(&path, 15 * BLOCK, 1).unwrap();
    let mut replica = Replica::load(&disk, directory()).unwrap();
    replica.begin_scrub(0, 1000);
    for _ in 0..3 {
        replica.scrub_step(3, 1001).unwrap();
    }
    replica.save_scrub();
    assert_eq!(replica.scrub_report().done_bytes, 9 * BLOCK);
    assert_eq!(replica.take_news().count, 1);
    let found = replica.damages();
    assert_eq!((found.0, found.1[0].found_at_ms), (1, 1001));
    let mut replica = Replica::load(&disk, directory()).unwrap();
    assert_eq!(replica.damages(), found);
    assert_eq!(replica.take_news().count, 0, "it was told");
    while !matches!(replica.scrub_step(3, 1002).unwrap(), Progress::Idle) {}
    let report = replica.scrub_report();
    assert_eq!((report.done_bytes, report.findings), (20 * BLOCK, 2));
    assert_eq!(replica.damages().0, 2);
}

#[test]
fn what_earlier_versions_have_found_is_still_known() {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 4096]).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    let path = file_path(directory(), layer(1), Part::Image);
    disk.flip_bit(&path, 9, 1).unwrap();
    let mut replica = Replica::load(&disk, directory()).unwrap();
    replica.begin_scrub(1, 1000);
    while !matches!(replica.scrub_step(3, 1001).unwrap(), Progress::Idle) {}
    let path = directory().join("scrub.json");
    let now = disk.read_file(&path, 1 << 16).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&now).unwrap();
    record.as_object_mut().unwrap().remove("flaws").unwrap();
    disk.replace_file(&path, record.to_string().as_bytes())
        .unwrap();
    let again = Replica::load(&disk, directory()).unwrap();
    let (count, damages) = again.damages();
    assert_eq!((count, damages[0].found_at_ms), (1, 0));
    assert_eq!(again.scrub_report(), replica.scrub_report());
}

#[test]
fn a_record_of_scrubs_that_makes_no_sense_means_that_there_was_none() {
    let disk = new_disk(BLOCKS);
    let path = directory().join("scrub.json");
    for bytes in [&b"{"[..], b"", b"{\"report\":7}"] {
        disk.replace_file(&path, bytes).unwrap();
        let replica = Replica::load(&disk, directory()).unwrap();
        assert_eq!(
            replica.scrub_report(),
            crate::replica::ScrubReport::default()
        );
    }
}

#[test]
fn a_flipped_bit_of_the_record_of_scrubs_harms_nothing() {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 20 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(BLOCK, &[2; 4096]).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    let bad = file_path(directory(), layer(1), Part::Image);
    disk.flip_bit(&bad, 2 * BLOCK, 1).unwrap();
    // Half-way, with a bad block that is known.
    let mut replica = Replica::load(&disk, directory()).unwrap();
    replica.begin_scrub(3, 1000);
    replica.scrub_step(9, 1001).unwrap();
    replica.save_scrub();
    drop(replica);
    let path = directory().join("scrub.json");
    let good = disk.read_file(&path, 1 << 16).unwrap();
    let (mut kept, mut lost) = (0, 0);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let disk = disk.crash(Fate::Kept, 0);
        disk.replace_file(&path, &bytes).unwrap();
        let mut rig = Rig::load(&disk, BLOCKS, 2);
        if rig.replica.scrub_report() == crate::replica::ScrubReport::default() {
            lost += 1;
        } else {
            kept += 1;
        }
        assert_eq!(rig.read(BLOCK, BLOCK).unwrap(), vec![2; 4096], "bit {bit}");
        assert_eq!(rig.read(0, BLOCK).unwrap(), vec![1; 4096], "bit {bit}");
        assert!(rig.read(2 * BLOCK, BLOCK).is_err(), "bit {bit}");
        // It goes on wherever that is, and the next finds what there is.
        scrub_all(&mut rig);
        assert!(rig.replica.begin_scrub(0, 2000), "bit {bit}");
        scrub_all(&mut rig);
        let (count, damages) = rig.replica.damages();
        assert_eq!((count, damages.len()), (1, 1), "bit {bit}: {damages:?}");
        assert_eq!(
            (damages[0].at.layer, damages[0].at.block.raw()),
            (layer(1), 2)
        );
        assert_eq!(rig.replica.scrub_report().findings, 1, "bit {bit}");
    }
    assert!(kept > 50 && lost > 50, "{kept} kept, {lost} lost");
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn a_scrub_and_an_offline_look_find_the_blocks_whose_bits_were_flipped_and_no_others(
        operations in prop::collection::vec(operation(BLOCKS * 8), 1..30),
        flips in prop::collection::vec((any::<usize>(), any::<usize>(), 0..4096_u64), 0..6),
    ) {
        let (disk, rig) = Rig::new(BLOCKS);
        let mut world = World::new(disk.clone(), rig);
        for operation in &operations {
            world.apply(operation).unwrap();
        }
        world.end_all().unwrap();
        world.merge_all().unwrap();
        settle_all(&mut world.rig);
        world.apply(&Operation::Close).unwrap();
        // Every block that a layer holds.
        let mut held = Vec::new();
        for link in world.rig.replica.layers() {
            let size = crate::replica::descriptor::Descriptor::decode(
                &disk.read_file(&directory().join("replica.json"), 1 << 20).unwrap(),
            ).unwrap().size_of(link.layer);
            let lengths = crate::layer::Lengths::of(size);
            let files =
                crate::layer::LayerFiles::open(&disk, directory(), link.layer, lengths).unwrap();
            files.each_record::<std::io::Error>(
                |_, error| std::io::Error::other(error),
                |chunk, record| {
                    held.extend(chunk.extent_in(size).blocks()
                        .filter(|block| record.present.contains(block.in_chunk()))
                        .map(|block| (link.layer, block)));
                    Ok(())
                },
            ).unwrap();
        }
        let mut wanted = BTreeSet::new();
        for (which, part, byte) in flips {
            let Some((id, block)) = held.get(which % held.len().max(1)).copied() else { break };
            if !wanted.insert((id, block)) {
                continue;
            }
            let (part, at) = match part % 2 {
                0 => (Part::Image, block.offset() + byte),
                _ => (Part::Sums, block.raw() * 4 + byte % 4),
            };
            disk.flip_bit(&file_path(directory(), id, part), at, 3).unwrap();
        }
        let mut rig = Rig::load_at(&disk, Place::Original, 1, 1000);
        rig.replica.begin_scrub(1, 5);
        scrub_all(&mut rig);
        let (count, damages) = rig.replica.damages();
        let found: BTreeSet<_> =
            damages.iter().map(|found| (found.at.layer, found.at.block)).collect();
        prop_assert_eq!(&found, &wanted);
        let report = rig.replica.scrub_report();
        prop_assert_eq!((count, report.findings), (wanted.len() as u64, count));
        prop_assert_eq!((report.done_bytes, report.total_bytes),
            (held.len() as u64 * BLOCK, held.len() as u64 * BLOCK));
        let epoch = rig.epoch;
        rig.replica.close(epoch).unwrap();
        let verified = verify(&disk, directory()).unwrap();
        prop_assert_eq!(verified.damaged, count);
        prop_assert_eq!(verified.damages.len() as u64, count);
    }

    #[test]
    fn what_is_reclaimable_is_what_a_merge_gives_back(
        operations in prop::collection::vec(operation(BLOCKS * 8), 1..40),
        later in prop::collection::vec(operation(BLOCKS * 8), 0..10),
        which in any::<usize>(),
    ) {
        let (disk, rig) = Rig::new(BLOCKS);
        let mut world = World::new(disk.clone(), rig);
        for operation in &operations {
            world.apply(operation).unwrap();
        }
        count_all(&mut world.rig);
        // Counts that have become wrong are not kept.
        for operation in &later {
            world.apply(operation).unwrap();
        }
        world.end_all().unwrap();
        world.merge_all().unwrap();
        count_all(&mut world.rig);
        let usage = world.rig.replica.usage();
        let total: u64 = usage.iter().map(|usage| usage.used_bytes).sum();
        prop_assert_eq!(total, world.rig.replica.used_bytes());
        let looked = inspect(&disk, directory()).unwrap();
        for (usage, layer) in usage.iter().zip(&looked.layers) {
            prop_assert_eq!(&usage.link.layer.to_string(), &layer.layer);
            prop_assert_eq!(usage.used_bytes, layer.used_bytes);
            prop_assert_eq!(usage.reclaimable_bytes, layer.reclaimable_bytes);
        }
        if let Some(gone) = world.model.choose(which) {
            let children = |id| usage.iter().filter(|of| of.link.parent == Some(id)).count();
            // One that waits for its last child would go with this one.
            let others_wait = usage.iter().any(|usage| usage.removing);
            if children(layer(gone)) < 2 && !others_wait {
                let before = world.rig.replica.used_bytes();
                let reclaimable = usage.iter()
                    .find(|usage| usage.link.layer == layer(gone))
                    .map(|usage| usage.reclaimable_bytes);
                world.rig.replica.remove_layer(layer(gone)).unwrap();
                world.rig.merge_all();
                let given_back = before - world.rig.replica.used_bytes();
                prop_assert_eq!(Some(given_back), reclaimable);
            }
        }
    }
}
