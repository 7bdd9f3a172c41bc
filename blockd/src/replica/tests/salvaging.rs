//! What the offline tools give of a replica that is damaged, or not whole.

use std::path::Path;

use super::support::{BLOCK, Rig, directory, layer};
use crate::disk::sim::{Fate, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::descriptor::{Descriptor, StoredState};
use crate::replica::{
    DamagedBlock, ExportError, ExportRequest, Exported, OnDamage, OnPartial, UnreadableRange,
    export, inspect, salvage, verify,
};

const BLOCKS: u64 = 20;
const SKIP: ExportRequest = ExportRequest {
    layer: None,
    damage: OnDamage::Skip,
    partial: OnPartial::Refuse,
};

/// Closed in order. Block 0 is 1 in the base and 2 in the head; 1 is hidden by the head; 2 is in the
/// base only and 3 in the head only. What the volume reads as.
fn closed() -> (SimDisk, Vec<u8>) {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 3 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(0, &[2; 4096]).unwrap();
    rig.unmap(BLOCK, BLOCK).unwrap();
    rig.write(3 * BLOCK, &[4; 4096]).unwrap();
    let wanted = rig.read_all();
    rig.replica.close(rig.epoch).unwrap();
    (disk, wanted)
}

fn salvaged(disk: &SimDisk, request: &ExportRequest) -> Result<(Vec<u8>, Exported), ExportError> {
    let mut out = Vec::new();
    let exported = salvage(disk, directory(), request, |offset, data| {
        let at = usize::try_from(offset).unwrap();
        out.resize(out.len().max(at + data.len()), 0);
        out[at..at + data.len()].copy_from_slice(data);
        Ok(())
    })?;
    out.resize(usize::try_from(exported.size.bytes()).unwrap(), 0);
    Ok((out, exported))
}

fn is_told(exported: &Exported, offset: u64) -> bool {
    let covers =
        |range: &UnreadableRange| (range.offset..range.offset + range.length).contains(&offset);
    exported.unreadable.told.iter().any(covers)
}

/// Every block is as it should be, or zeros and on the list.
fn check(disk: &SimDisk, wanted: &[u8], what: &str) -> Exported {
    let (found, exported) = salvaged(disk, &SKIP).unwrap();
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (number, (found, wanted)) in (0..).zip(found.chunks(4096).zip(wanted.chunks(4096))) {
        let expected: &[u8] = if is_told(&exported, number * BLOCK) {
            &[0; 4096]
        } else {
            wanted
        };
        assert!(found == expected, "{what}: block {number}");
    }
    let told: u64 = exported
        .unreadable
        .told
        .iter()
        .map(|range| range.length)
        .sum();
    assert_eq!(exported.unreadable.bytes, told);
    exported
}

fn refusal(disk: &SimDisk) -> String {
    let error = export(disk, directory(), None, |_, _| Ok(())).unwrap_err();
    error.to_string()
}

fn range(id: u64, first: u64, count: u64) -> UnreadableRange {
    UnreadableRange {
        layer: layer(id),
        offset: first * BLOCK,
        length: count * BLOCK,
    }
}

#[test]
fn a_sound_replica_is_given_whole() {
    let (disk, wanted) = closed();
    assert!(check(&disk, &wanted, "sound").is_whole());
    assert!(inspect(&disk, directory()).unwrap().is_sound());
}

#[test]
fn a_bad_block_ends_an_export_that_names_the_option_and_is_skipped_with_it() {
    let (disk, wanted) = closed();
    let path = file_path(directory(), layer(1), Part::Image);
    disk.flip_bit(&path, 2 * BLOCK + 5, 1).unwrap();
    let told = refusal(&disk);
    assert!(told.contains("block 2 of layer 0000000000000001"), "{told}");
    assert!(told.contains("--skip-damaged"), "{told}");
    assert!(!told.contains("delete"), "{told}");
    let exported = check(&disk, &wanted, "a bad block");
    assert_eq!(exported.unreadable.told, [range(1, 2, 1)]);
    assert!(!exported.is_whole());
}

#[test]
fn whatever_bit_flips_what_is_given_is_right_or_listed() {
    for id in [1, 2] {
        for (part, bytes) in [(Part::Map, 256), (Part::Sums, 16), (Part::Image, 4)] {
            for bit in 0..8 * bytes {
                let (disk, wanted) = closed();
                // Of the image one bit of every block.
                let byte = bit / 8 * if part == Part::Image { BLOCK } else { 1 };
                let path = file_path(directory(), layer(id), part);
                disk.flip_bit(&path, byte, u8::try_from(bit % 8).unwrap())
                    .unwrap();
                check(&disk, &wanted, &format!("bit {bit} of {}", path.display()));
            }
        }
    }
}

#[test]
fn a_damaged_record_hides_its_chunk_from_there_down_and_no_newer_block() {
    let (disk, wanted) = closed();
    let map = |id| file_path(directory(), layer(id), Part::Map);
    disk.flip_bit(&map(1), 7, 0).unwrap();
    // The head has blocks 0 and 3 and hides 1.
    let exported = check(&disk, &wanted, "the base's record");
    let expected = [range(1, 2, 1), range(1, 4, BLOCKS - 4)];
    assert_eq!(exported.unreadable.told, expected);
    assert!(refusal(&disk).contains("1.map: 1 records cannot be used"));
    let (disk, wanted) = closed();
    disk.flip_bit(&map(2), 7, 0).unwrap();
    let exported = check(&disk, &wanted, "the head's record");
    assert_eq!(exported.unreadable.told, [range(2, 0, BLOCKS)]);
    // As of the snapshot nothing is lost.
    let request = ExportRequest {
        layer: Some(layer(1)),
        ..SKIP
    };
    assert!(salvaged(&disk, &request).unwrap().1.is_whole());
}

#[test]
fn records_that_have_become_zeros_let_no_older_data_through() {
    for id in [1, 2] {
        let (disk, wanted) = closed();
        let path = file_path(directory(), layer(id), Part::Map);
        let map = disk.open(&path).unwrap();
        map.set_len(0).unwrap();
        map.set_len(256).unwrap();
        assert!(refusal(&disk).contains("records are missing or old"));
        let exported = check(&disk, &wanted, &path.display().to_string());
        assert!(!exported.is_whole());
        assert!(!inspect(&disk, directory()).unwrap().is_sound());
        assert_eq!(verify(&disk, directory()).unwrap().damaged, 1);
    }
}

#[test]
fn records_that_are_gone_beside_a_damaged_one_are_told_to_be_possible_and_never_exported_over() {
    let (disk, mut rig) = Rig::new(1024);
    rig.write(0, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(0, &[2; 4096]).unwrap();
    rig.write(600 * BLOCK, &[2; 4096]).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    let path = file_path(directory(), layer(2), Part::Map);
    let map = disk.open(&path).unwrap();
    map.write_at(&[std::io::IoSlice::new(&[0; 256])], 0)
        .unwrap();
    disk.flip_bit(&path, 256, 0).unwrap();
    let given = export(&disk, directory(), None, |_, _| {
        panic!("something was given before the export was refused");
    });
    let told = given.unwrap_err().to_string();
    assert!(
        told.contains("1 records cannot be used; whether others"),
        "{told}"
    );
    let (_, exported) = salvaged(&disk, &SKIP).unwrap();
    assert!(
        exported.troubles[0].contains("cannot be told"),
        "{exported:?}"
    );
    assert!(!exported.is_whole());
}

#[test]
fn a_layer_decides_nothing_beyond_its_size_even_where_its_record_is_damaged() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.expand(BLOCKS + 700).unwrap();
    rig.write(600 * BLOCK, &[2; 4096]).unwrap();
    let wanted = rig.read_all();
    rig.replica.close(rig.epoch).unwrap();
    let path = file_path(directory(), layer(1), Part::Map);
    for missing in [false, true] {
        if missing {
            disk.remove_file(&path).unwrap();
        } else {
            disk.flip_bit(&path, 7, 0).unwrap();
        }
        let exported = check(&disk, &wanted, "a smaller layer");
        assert_eq!(exported.unreadable.told, [range(1, 0, BLOCKS)]);
    }
}

#[test]
fn a_short_or_missing_file_costs_what_it_held_and_hides_nothing_else() {
    for (id, missing) in [(1, false), (1, true), (2, false), (2, true)] {
        for part in Part::ALL {
            let (disk, wanted) = closed();
            let path = file_path(directory(), layer(id), part);
            if missing {
                disk.remove_file(&path).unwrap();
            } else {
                disk.open(&path).unwrap().set_len(1).unwrap();
            }
            let what = path.display().to_string();
            assert!(refusal(&disk).contains(&what));
            let exported = check(&disk, &wanted, &what);
            assert!(exported.troubles[0].contains(&what) && !exported.is_whole());
            let looked = inspect(&disk, directory()).unwrap();
            for found in &looked.layers {
                let is_this = found.layer == layer(id).to_string();
                let told = found.findings.iter().any(|one| one.contains(&what));
                let as_expected = (found.damaged > 0, told) == (is_this, is_this);
                assert!(as_expected, "{what}: {looked:?}");
                assert!(is_this || found.used_bytes > 0);
            }
            // The other layer is verified all the same.
            let other = layer(3 - id);
            let sums = file_path(directory(), other, Part::Sums);
            disk.flip_bit(&sums, 0, 0).unwrap();
            let found = verify(&disk, directory()).unwrap();
            let of_other = |damage: &&DamagedBlock| damage.layer == other.to_string();
            assert_eq!(
                found.damages.iter().filter(of_other).count(),
                1,
                "{found:?}"
            );
            assert!(found.findings.iter().any(|one| one.contains(&what)));
        }
    }
}

#[test]
fn what_a_cut_image_lacks_is_no_hole_that_a_stop_has_left() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(0, &[2; 4096]).unwrap();
    rig.flush().unwrap();
    let path = file_path(directory(), layer(2), Part::Image);
    disk.open(&path).unwrap().set_len(0).unwrap();
    let (found, exported) = salvaged(&disk, &SKIP).unwrap();
    assert!(found.iter().all(|byte| *byte == 0), "older data was given");
    assert_eq!(exported.unreadable.told, [range(2, 0, 1)]);
}

#[test]
fn a_replica_that_is_not_whole_is_given_only_when_that_is_asked_for() {
    let faulted = StoredState::Faulted {
        reason: "a sync".to_owned(),
    };
    for (state, word) in [
        (StoredState::Rebuilding, "being rebuilt"),
        (faulted, "faulted (a sync)"),
    ] {
        let (disk, wanted) = closed();
        let path = directory().join("replica.json");
        let text = disk.read_file(&path, 1 << 20).unwrap();
        let mut descriptor = Descriptor::decode(&text).unwrap();
        descriptor.state = state.clone();
        disk.replace_file(&path, &descriptor.encode()).unwrap();
        let told = refusal(&disk);
        assert!(
            told.contains(word) && told.contains("--incomplete"),
            "{told}"
        );
        assert!(salvaged(&disk, &SKIP).is_err());
        let request = ExportRequest {
            damage: OnDamage::Refuse,
            partial: OnPartial::Take,
            layer: None,
        };
        let (found, exported) = salvaged(&disk, &request).unwrap();
        assert!(found == wanted);
        assert!(!exported.is_whole() && exported.state == state);
    }
}

#[test]
fn blocks_that_an_unclean_stop_left_without_their_sums_are_given_and_counted() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.flush().unwrap();
    let disk = disk.crash(Fate::Dropped, 0);
    let (found, exported) = salvaged(&disk, &SKIP).unwrap();
    assert_eq!(found[..4096], [1; 4096]);
    assert_eq!(exported.unsettled_blocks, 1);
    assert!(exported.is_whole());
}

#[test]
fn unreadable_ranges_are_bounded_and_all_are_counted() {
    let (disk, mut rig) = Rig::new(600);
    for block in 0..600 {
        rig.write(block * BLOCK, &[1; 4096]).unwrap();
    }
    rig.replica.close(rig.epoch).unwrap();
    let path = file_path(directory(), layer(1), Part::Image);
    for block in (0..600).filter(|block| block % 3 != 0) {
        disk.flip_bit(&path, block * BLOCK, 0).unwrap();
    }
    let (_, exported) = salvaged(&disk, &SKIP).unwrap();
    let unreadable = &exported.unreadable;
    assert_eq!((unreadable.ranges, unreadable.bytes), (200, 400 * BLOCK));
    assert_eq!(unreadable.told.len(), 100);
    assert_eq!(unreadable.told[99], range(1, 298, 2));
}

#[test]
fn a_directory_of_another_name_is_told() {
    let (disk, _) = closed();
    let name = Path::new("00000000000000000000000000000099");
    disk.rename(directory(), name).unwrap();
    let looked = inspect(&disk, name).unwrap();
    assert!(
        looked.findings[0].contains("renamed or copied"),
        "{looked:?}"
    );
    assert!(!looked.is_sound());
    assert_eq!(verify(&disk, name).unwrap().damaged, 1);
}
