//! Flipped bits and missing files: one replica says which file, and never gives other data.

use std::path::Path;

use ankole_proto::{Extent, LayerId};
use proptest::prelude::*;

use super::support::{BLOCK, Rig, directory, layer, spec};
use crate::disk::sim::{Fate, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::descriptor::Descriptor;
use crate::replica::{DataError, LayerError, LoadError, Medium, Replica, State, WorkError, verify};

const BLOCKS: u64 = 20;

/// A replica with a sealed layer of one block and a head of another, closed in order.
fn closed() -> SimDisk {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(BLOCK, &[2; 4096]).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    disk
}

fn read_back(disk: &SimDisk) -> Result<Vec<u8>, DataError> {
    Rig::load(disk, BLOCKS, 2).read(0, 2 * BLOCK)
}

#[test]
fn a_flipped_bit_of_data_or_sum_is_a_mismatch_that_names_layer_and_block() {
    for (id, block) in [(1, 0), (2, 1)] {
        for (part, byte) in [
            (Part::Image, block * BLOCK + 77),
            (Part::Sums, block * 4 + 1),
        ] {
            let disk = closed();
            let path = file_path(directory(), layer(id), part);
            disk.flip_bit(&path, byte, 3).unwrap();
            assert_eq!(verify(&disk, directory()).unwrap().damaged, 1);
            let Err(DataError::Checksum(found)) = read_back(&disk) else {
                panic!("{}: not found", path.display());
            };
            assert_eq!((found.layer, found.block.raw()), (layer(id), block));
        }
    }
}

#[test]
fn a_flipped_bit_of_a_map_faults_the_replica_and_names_the_file() {
    for id in [1, 2] {
        for bit in 0..8 * 256 {
            let disk = closed();
            let path = file_path(directory(), layer(id), Part::Map);
            disk.flip_bit(&path, bit / 8, u8::try_from(bit % 8).unwrap())
                .unwrap();
            let Err(LoadError::BadFile { file, .. }) = Replica::load(&disk, directory()) else {
                panic!("bit {bit} of the map of layer {id} was not found");
            };
            assert_eq!(Path::new(&file), path);
        }
    }
}

#[test]
fn records_of_a_map_that_have_become_zeros_fault_the_replica_and_name_the_file() {
    // What the layer 2 does to block 0: it holds it, or only hides it.
    let hide: fn(&mut Rig<SimDisk>) = |rig| rig.unmap(0, BLOCK).unwrap();
    let hold: fn(&mut Rig<SimDisk>) = |rig| rig.write(0, &[2; 4096]).unwrap();
    for act in [hide, hold] {
        for sealed in [false, true] {
            let (disk, mut rig) = Rig::new(BLOCKS);
            rig.write(0, &[1; 4096]).unwrap();
            rig.seal(2).unwrap();
            act(&mut rig);
            if sealed {
                rig.seal(3).unwrap();
            } else {
                rig.replica.close(rig.epoch).unwrap();
            }
            drop(rig);
            let path = file_path(directory(), layer(2), Part::Map);
            let map = disk.open(&path).unwrap();
            let bytes = map.len().unwrap();
            map.set_len(0).unwrap();
            map.set_len(bytes).unwrap();
            let Err(LoadError::BadFile { file, .. }) = Replica::load(&disk, directory()) else {
                panic!("not found; sealed: {sealed}");
            };
            assert_eq!(Path::new(&file), path);
        }
    }
}

#[test]
fn a_map_of_another_layer_is_told_as_foreign_with_what_to_do() {
    let disk = closed();
    let path = file_path(directory(), layer(1), Part::Map);
    let other = file_path(directory(), layer(2), Part::Map);
    let bytes = disk.read_file(&other, 1 << 20).unwrap();
    disk.replace_file(&path, &bytes).unwrap();
    let Err(error) = Replica::load(&disk, directory()) else {
        panic!("a map of another layer was taken");
    };
    assert!(matches!(error, LoadError::Foreign { .. }), "{error}");
    let told = error.to_string();
    for part in [
        path.to_str().unwrap(),
        "belongs to chunk 0 of layer 0000000000000002",
        "put the right one in its place",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_flipped_bit_of_the_description_never_gives_another_replica() {
    let disk = closed();
    let path = directory().join("replica.json");
    let good = disk.read_file(&path, 1 << 20).unwrap();
    let wanted = Descriptor::decode(&good).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = Descriptor::decode(&bytes) {
            assert_eq!(found, wanted, "bit {bit}");
        }
    }
}

#[test]
fn a_map_record_that_is_damaged_under_a_loaded_replica_faults_it_for_good() {
    let sealed = Extent::new(0, BLOCKS * BLOCK).unwrap();
    type Act = fn(&mut Rig<SimDisk>, Extent) -> Option<Medium>;
    let acts: [(u64, Act); 6] = [
        (2, |rig, _| match rig.write(2 * BLOCK, &[3; 4096]) {
            Err(DataError::Medium(medium)) => Some(medium),
            _ => None,
        }),
        (2, |rig, _| match rig.unmap(BLOCK, BLOCK) {
            Err(DataError::Medium(medium)) => Some(medium),
            _ => None,
        }),
        (1, |rig, whole| {
            match rig.replica.digest(rig.epoch, layer(1), whole) {
                Err(LayerError::Medium(medium)) => Some(medium),
                _ => None,
            }
        }),
        (1, |rig, whole| {
            match rig.replica.read_layer(rig.epoch, layer(1), whole) {
                Err(LayerError::Medium(medium)) => Some(medium),
                _ => None,
            }
        }),
        (1, |rig, _| {
            rig.replica.begin_scrub(0, 1);
            match rig.replica.scrub_step(100, 2) {
                Err(WorkError::Medium(medium)) => Some(medium),
                _ => None,
            }
        }),
        (1, |rig, _| {
            rig.replica.remove_layer(layer(1)).unwrap();
            rig.replica.merge_step(100).unwrap();
            match rig.replica.merge_step(100) {
                Err(WorkError::Medium(medium)) => Some(medium),
                _ => None,
            }
        }),
    ];
    for (number, (id, act)) in acts.into_iter().enumerate() {
        let disk = closed();
        let mut rig = Rig::load(&disk, BLOCKS, 2);
        let wanted = rig.read(0, 2 * BLOCK).unwrap();
        let path = file_path(directory(), layer(id), Part::Map);
        disk.flip_bit(&path, 0, 5).unwrap();
        // What is read is where it was when the replica was loaded.
        assert_eq!(rig.read(0, 2 * BLOCK).unwrap(), wanted);
        let Some(Medium::Map {
            layer: of, chunk, ..
        }) = act(&mut rig, sealed)
        else {
            panic!("act {number}: not found");
        };
        assert_eq!((of, chunk.raw()), (layer(id), 0), "act {number}");
        let State::Faulted { reason } = rig.replica.state() else {
            panic!("act {number}: not faulted");
        };
        assert!(
            reason.contains("at chunk 0: a map record does not match"),
            "{reason}"
        );
        assert!(matches!(rig.read(0, 512), Err(DataError::Unusable(_))));
        assert!(matches!(rig.flush(), Err(DataError::Unusable(_))));
        drop(rig);
        let again = Replica::load(&disk, directory());
        assert!(matches!(again, Err(LoadError::Faulted { .. })));
    }
}

/// Puts a file of a layer in the place of the same file of another layer, of this replica or of
/// another one.
fn put_in_place(from: (&SimDisk, u64), to: (&SimDisk, u64), part: Part) {
    let path = |id| file_path(directory(), layer(id), part);
    let bytes = from.0.read_file(&path(from.1), 1 << 30).unwrap();
    let file = to.0.create(&path(to.1)).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            let block = [std::io::IoSlice::new(block)];
            file.write_at(&block, number as u64 * BLOCK).unwrap();
        }
    }
}

#[test]
fn a_file_of_another_layer_in_the_place_of_one_is_found_and_its_data_never_returned() {
    for (from, to) in [(1, 2), (2, 1)] {
        for part in Part::ALL {
            let disk = closed();
            put_in_place((&disk, from), (&disk, to), part);
            let found = verify(&disk, directory()).unwrap();
            assert!(found.damaged > 0, "{part:?} of {from} as {to}");
            if part == Part::Map {
                let Err(LoadError::Foreign { file, .. }) = Replica::load(&disk, directory()) else {
                    panic!("the map of {from} was taken for that of {to}");
                };
                assert_eq!(Path::new(&file), file_path(directory(), layer(to), part));
                continue;
            }
            let Err(DataError::Checksum(bad)) = read_back(&disk) else {
                panic!("{part:?} of {from} was read as that of {to}");
            };
            assert_eq!((bad.layer, bad.block.raw()), (layer(to), to - 1));
        }
    }
}

/// Blocks in a sealed layer and in the head, on which an engine is still at work.
fn opened(sealed: &[u64], head: &[u64]) -> (SimDisk, Rig<SimDisk>) {
    let (disk, mut rig) = Rig::new(BLOCKS);
    for block in sealed {
        rig.write(block * BLOCK, &[5; 4096]).unwrap();
    }
    rig.seal(2).unwrap();
    for block in head {
        rig.write(block * BLOCK, &[7; 4096]).unwrap();
    }
    rig.flush().unwrap();
    (disk, rig)
}

/// Nothing in a layer's files says of which replica they are, for clones share them. A map is found by
/// how many blocks it has; where that is not noted, or agrees, one that lacks a block can only be told
/// by comparing with a peer.
#[test]
fn a_file_of_another_replica_in_the_place_of_one_is_found_by_sums_or_by_the_peers_digest() {
    let other = || {
        let (disk, mut rig) = opened(&[0, 7], &[1]);
        rig.replica.close(rig.epoch).unwrap();
        disk
    };
    for (id, block) in [(1, 0), (2, 1)] {
        for part in [Part::Image, Part::Sums] {
            let disk = closed();
            put_in_place((&other(), id), (&disk, id), part);
            assert_eq!(verify(&disk, directory()).unwrap().damaged, 1);
            let Err(DataError::Checksum(bad)) = read_back(&disk) else {
                panic!("{part:?} of layer {id} was taken for this replica's");
            };
            assert_eq!((bad.layer, bad.block.raw()), (layer(id), block));
        }
    }
    for (from, to) in [(other(), closed()), (closed(), other())] {
        put_in_place((&from, 1), (&to, 1), Part::Map);
        assert!(verify(&to, directory()).unwrap().damaged > 0);
        let Err(LoadError::BadFile { file, .. }) = Replica::load(&to, directory()) else {
            panic!("a map of another number of blocks was taken");
        };
        let path = file_path(directory(), layer(1), Part::Map);
        assert_eq!(Path::new(&file), path);
    }
    let disk = closed();
    put_in_place((&opened(&[7], &[]).0, 1), (&disk, 1), Part::Map);
    // The block that it should not have is a hole, which has no sum.
    assert_eq!(verify(&disk, directory()).unwrap().damaged, 1);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    let bad = rig.read(7 * BLOCK, BLOCK);
    assert!(matches!(bad, Err(DataError::Checksum(_))), "{bad:?}");
    let whole = Extent::new(0, BLOCKS * BLOCK).unwrap();
    let bad = rig.replica.digest(rig.epoch, layer(1), whole);
    assert!(matches!(bad, Err(LayerError::Checksum(_))), "{bad:?}");
    // Of a head in use nothing is noted: where it has less, only the digests differ.
    let disk = opened(&[0], &[1, 7]).0;
    put_in_place((&closed(), 2), (&disk, 2), Part::Map);
    assert_eq!(verify(&disk, directory()).unwrap().damaged, 0);
    let digest = |disk: &SimDisk| {
        let mut rig = Rig::load(disk, BLOCKS, 2);
        rig.replica.digest(rig.epoch, layer(2), whole).unwrap()
    };
    assert_ne!(digest(&disk), digest(&opened(&[0], &[1, 7]).0));
}

#[test]
fn missing_and_short_files_are_named() {
    for part in Part::ALL {
        let disk = closed();
        let path = file_path(directory(), layer(1), part);
        disk.open(&path).unwrap().set_len(10).unwrap();
        for _ in 0..2 {
            let Err(LoadError::BadFile { file, .. }) = Replica::load(&disk, directory()) else {
                panic!("{part:?} was not missed");
            };
            assert_eq!(Path::new(&file), path);
            let _ = disk.remove_file(&path);
        }
    }
}

#[test]
fn a_size_that_no_file_backs_is_refused_before_memory_is_taken_for_it() {
    let disk = closed();
    let path = directory().join("replica.json");
    let good = disk.read_file(&path, 1 << 20).unwrap();
    let mut descriptor = Descriptor::decode(&good).unwrap();
    descriptor.size = ankole_proto::VolumeSize::from_bytes(64 << 40).unwrap();
    descriptor.layer_mut(layer(2)).unwrap().size = descriptor.size;
    disk.replace_file(&path, &descriptor.encode()).unwrap();
    let Err(LoadError::BadFile { file, .. }) = Replica::load(&disk, directory()) else {
        panic!("a volume of 64 TiB was loaded");
    };
    assert_eq!(
        Path::new(&file),
        file_path(directory(), layer(2), Part::Image)
    );
}

#[test]
fn a_head_that_lost_its_sum_in_an_unclean_stop_is_summed_anew_and_counted() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.flush().unwrap();
    let disk = disk.crash(Fate::Dropped, 0);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    assert_eq!(rig.read(0, BLOCK).unwrap(), vec![1; 4096]);
    let told = crate::store::replica_report(rig.replica.id(), &rig.replica, 0);
    assert_eq!(told.resummed_blocks, 1);
    while !matches!(
        rig.replica.settle_step(100).unwrap(),
        crate::replica::Progress::Idle
    ) {}
    let path = file_path(directory(), layer(1), Part::Image);
    disk.flip_bit(&path, 9, 0).unwrap();
    assert!(matches!(rig.read(0, BLOCK), Err(DataError::Checksum(_))));
}

#[test]
fn the_descriptions_of_all_formats_are_read_and_the_newest_stays() {
    let wanted = Descriptor::new(&spec(BLOCKS));
    let old = include_bytes!("golden-replica-1.json");
    assert_eq!(Descriptor::decode(old).unwrap(), wanted);
    let golden = include_bytes!("golden-replica-2.json");
    assert_eq!(Descriptor::decode(golden).unwrap(), wanted);
    // Without a count of what its maps say, which this one has not, the next format is the same.
    let of_format = |format: u32| {
        let format = format!("\"format\": {format}");
        String::from_utf8_lossy(golden).replace("\"format\": 2", &format)
    };
    assert_eq!(String::from_utf8(wanted.encode()).unwrap(), of_format(3));
    let refused = Descriptor::decode(of_format(4).as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("format 4"), "{refused}");
}

#[test]
fn a_store_of_format_1_opens_with_what_it_holds() {
    let disk = closed();
    let path = directory().join("replica.json");
    let text = disk.read_file(&path, 1 << 20).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let layers = value["replica"]["layers"].as_array().unwrap().clone();
    let compact: Vec<String> = layers
        .iter()
        .map(|layer| {
            format!(
                r#"{{"id":{},"parent":{},"removing":false,"unsettled":false}}"#,
                layer["id"], layer["parent"]
            )
        })
        .collect();
    let replica = format!(
        concat!(
            r#"{{"replica":{},"volume":{},"size":{},"credential":{},"epoch":{},"stop":{},"#,
            r#""boot":{},"state":{},"head":{},"layers":[{}]}}"#
        ),
        value["replica"]["replica"],
        value["replica"]["volume"],
        value["replica"]["size"],
        value["replica"]["credential"],
        value["replica"]["epoch"],
        value["replica"]["stop"],
        value["replica"]["boot"],
        value["replica"]["state"],
        value["replica"]["head"],
        compact.join(",")
    );
    let sum = ankole_proto::crc32c(replica.as_bytes());
    let old = format!(r#"{{"format":1,"crc32c":{sum},"replica":{replica}}}"#);
    value.take();
    disk.replace_file(&path, old.as_bytes()).unwrap();
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    let wanted = [[1; 4096], [2; 4096]].concat();
    assert_eq!(rig.read(0, 2 * BLOCK).unwrap(), wanted);
    // It is written in the newest format from now on, and can grow.
    rig.expand(BLOCKS + 600).unwrap();
    rig.write((BLOCKS + 599) * BLOCK, &[3; 4096]).unwrap();
    rig.seal(3).unwrap();
    let mut rig = Rig::load(&disk, BLOCKS, 3);
    assert_eq!(rig.read(0, 2 * BLOCK).unwrap(), wanted);
    let last = rig.read((BLOCKS + 599) * BLOCK, BLOCK).unwrap();
    assert_eq!(last, vec![3; 4096]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_a_description_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        id in 1..u64::MAX,
    ) {
        prop_assert!(Descriptor::decode(&bytes).is_err());
        let layer = LayerId::from_raw(id).unwrap();
        let chunk = ankole_proto::ChunkNumber::from_raw(id);
        let _ = crate::layer::MapRecord::decode(&bytes, layer, chunk);
    }
}
