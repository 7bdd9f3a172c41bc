//! Clones: two replicas that share layers, and never see what the other one does.

use ankole_proto::Extent;
use ankole_proto::wire::rebuild::{BeginRebuild, WriteLayer};
use proptest::prelude::*;

use super::model::{Contents, sectors};
use super::pair::Pair;
use super::steps::{Operation, Step, operation};
use super::support::{BLOCK, Place, Rig, cases, directory, layer, new_disk};
use super::world::exported_from;
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::{
    CloneError, CloneSpec, DataError, Replica, ReplicaSpec, WorkError, destroy, verify,
};

/// One chunk and a bit.
pub(super) const BLOCKS: u64 = 516;
pub(super) const HEAD: u64 = 100;

fn clone_spec(blocks: u64, at: u64) -> CloneSpec {
    CloneSpec {
        replica: ReplicaSpec {
            base_layer: layer(HEAD),
            ..Place::Clone.spec(blocks)
        },
        layer: layer(at),
    }
}

pub(super) fn clone_at(rig: &mut Rig<SimDisk>, blocks: u64, at: u64) -> Result<(), CloneError> {
    let spec = clone_spec(blocks, at);
    rig.replica.clone_into(Place::Clone.directory(), &spec)
}

/// Sealed layers 1 and 2 and a head that differ, on their own disk.
fn source() -> (SimDisk, Rig<SimDisk>) {
    let disk = new_disk(BLOCKS);
    let mut rig = Rig::load(&disk, BLOCKS, 1);
    rig.write(0, &[1; 6 * 4096]).unwrap();
    rig.write(513 * BLOCK, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(BLOCK, &[2; 4096]).unwrap();
    rig.unmap(2 * BLOCK, BLOCK).unwrap();
    rig.seal(3).unwrap();
    rig.write(3 * BLOCK, &[3; 4096]).unwrap();
    rig.flush().unwrap();
    (disk, rig)
}

pub(super) fn load_clone(disk: &SimDisk, epoch: u64) -> Rig<SimDisk> {
    Rig::load_at(disk, Place::Clone, 1, epoch)
}

fn links(disk: &SimDisk, id: u64) -> u64 {
    let path = file_path(directory(), layer(id), Part::Image);
    disk.open(&path).unwrap().links().unwrap()
}

#[test]
fn a_clone_reads_as_its_layer_takes_no_space_and_goes_its_own_way() {
    let (disk, mut rig) = source();
    let before = (rig.read_all(), exported_from(&disk, Place::Original, 2));
    let free = disk.space().unwrap().free_bytes;
    clone_at(&mut rig, BLOCKS + 600, 2).unwrap();
    assert!(free - disk.space().unwrap().free_bytes <= 4 * BLOCK);
    let mut clone = load_clone(&disk, 1);
    let mut wanted = before.1.clone();
    wanted.resize(wanted.len() + 600 * 8, 0);
    assert_eq!(sectors(&clone.read_all()), wanted);
    clone.write(0, &[9; 8192]).unwrap();
    clone.unmap(4 * BLOCK, BLOCK).unwrap();
    clone.seal(101).unwrap();
    clone.write(1000 * BLOCK, &[8; 4096]).unwrap();
    rig.write(0, &[7; 4096]).unwrap();
    rig.revert(layer(2), 50).unwrap();
    assert_eq!(sectors(&rig.read_all()), before.1);
    assert_eq!(clone.read(0, BLOCK).unwrap(), vec![9; 4096]);
    assert_eq!(clone.read(1000 * BLOCK, BLOCK).unwrap(), vec![8; 4096]);
    assert_eq!(rig.replica.used_bytes(), 8 * BLOCK);
    assert_eq!(clone.replica.used_bytes(), 11 * BLOCK);
}

#[test]
fn a_merge_leaves_the_other_replica_as_it_was_and_what_is_alone_is_not_copied() {
    let (disk, mut rig) = source();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    let mut clone = load_clone(&disk, 1);
    let (whole, cloned) = (rig.read_all(), clone.read_all());
    assert_eq!((links(&disk, 1), links(&disk, 2)), (2, 2));
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    assert_eq!(links(&disk, 2), 1);
    assert_eq!(
        (rig.read_all(), clone.read_all()),
        (whole.clone(), cloned.clone())
    );
    // Now the clone is alone with its files: nothing is copied any more.
    let free = |disk: &SimDisk| {
        // Space comes back once the names are durably gone.
        for place in [Place::Original, Place::Clone] {
            disk.sync_dir(&place.directory().join("layers")).unwrap();
        }
        disk.space().unwrap().free_bytes
    };
    let before = free(&disk);
    clone.replica.remove_layer(layer(1)).unwrap();
    clone.merge_all();
    assert!(free(&disk) >= before);
    // A merge into the head copies nothing either.
    clone.replica.remove_layer(layer(2)).unwrap();
    clone.merge_all();
    assert_eq!(clone.replica.layers().len(), 1);
    assert_eq!((rig.read_all(), clone.read_all()), (whole.clone(), cloned));
    for place in [Place::Original, Place::Clone] {
        assert_eq!(verify(&disk, place.directory()).unwrap().damaged, 0);
    }
    destroy(&disk, Place::Clone.directory()).unwrap();
    assert_eq!(rig.read_all(), whole);
}

#[test]
fn the_source_may_be_deleted() {
    let (disk, mut rig) = source();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    let wanted = load_clone(&disk, 1).read_all();
    drop(rig);
    destroy(&disk, directory()).unwrap();
    assert_eq!(load_clone(&disk, 2).read_all(), wanted);
    assert_eq!(verify(&disk, Place::Clone.directory()).unwrap().damaged, 0);
}

#[test]
fn what_cannot_be_cloned_is_refused_in_words_and_nothing_is_created() {
    let (disk, mut rig) = source();
    let refused = |rig: &mut Rig<SimDisk>, blocks, at, words: &str| {
        let error = clone_at(rig, blocks, at).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(disk.list("".as_ref()).unwrap(), ["replica"]);
    };
    refused(&mut rig, BLOCKS, 7, "no layer");
    refused(&mut rig, BLOCKS, 3, "not sealed");
    refused(&mut rig, BLOCKS - 1, 2, "less than");
    let mut taken = clone_spec(BLOCKS, 2);
    taken.replica.base_layer = layer(1);
    let error = rig.replica.clone_into(Place::Clone.directory(), &taken);
    assert!(matches!(error, Err(CloneError::HeadTaken(_))));
    rig.replica.remove_layer(layer(2)).unwrap();
    refused(&mut rig, BLOCKS, 2, "removed");
    clone_at(&mut rig, BLOCKS, 1).unwrap();
    assert!(matches!(
        clone_at(&mut rig, BLOCKS, 1),
        Err(CloneError::Exists)
    ));
}

#[test]
fn a_layer_whose_sums_are_in_doubt_is_cloned_once_they_are_settled() {
    let (disk, mut rig) = source();
    rig.write(0, &[4; 4096]).unwrap();
    let disk = disk.crash(Fate::Kept, 1);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    rig.seal(4).unwrap();
    let error = clone_at(&mut rig, BLOCKS, 3).unwrap_err();
    assert!(error.is_passing(), "{error}");
    while !matches!(
        rig.replica.settle_step(100).unwrap(),
        crate::replica::Progress::Idle
    ) {}
    clone_at(&mut rig, BLOCKS, 3).unwrap();
    assert_eq!(load_clone(&disk, 1).read_all(), rig.read_all());
}

#[test]
fn without_room_for_a_copy_a_merge_waits_and_both_replicas_read_on() {
    let (disk, mut rig) = source();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    let whole = rig.read_all();
    rig.replica.remove_layer(layer(1)).unwrap();
    let space = disk.space().unwrap();
    disk.set_capacity(space.capacity_bytes - space.free_bytes);
    let refused = loop {
        match rig.replica.merge_step(3) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(
        refused,
        WorkError::Medium(crate::replica::Medium::NoSpace)
    ));
    assert_eq!(rig.read_all(), whole);
    disk.set_capacity(space.capacity_bytes);
    rig.merge_all();
    assert_eq!(rig.read_all(), whole);
}

#[test]
fn a_bad_block_of_a_shared_layer_stays_bad_in_both() {
    let (disk, mut rig) = source();
    clone_at(&mut rig, BLOCKS, 2).unwrap();
    let path = file_path(directory(), layer(2), Part::Image);
    disk.flip_bit(&path, BLOCK + 5, 1).unwrap();
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    assert!(matches!(rig.read(BLOCK, 512), Err(DataError::Checksum(_))));
    let mut clone = load_clone(&disk, 1);
    assert!(matches!(
        clone.read(BLOCK, 512),
        Err(DataError::Checksum(_))
    ));
}

#[test]
fn a_clone_that_is_rebuilt_changes_nothing_of_its_source_at_any_stop() {
    // A peer of the clone holds something else in the shared layer.
    let peer = || {
        let (_, mut rig) = Rig::new(BLOCKS);
        rig.write(0, &[4; 3 * 4096]).unwrap();
        rig.seal(2).unwrap();
        rig.write(BLOCK, &[5; 4096]).unwrap();
        rig
    };
    let rebuild = |disk: &SimDisk| -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let mut clone =
            Replica::load(disk, Place::Clone.directory()).map_err(|error| text(&error))?;
        let request = Place::Clone.open_request(BLOCKS, 9);
        clone.open(&request).map_err(|error| text(&error))?;
        let mut peer = peer();
        let begin = BeginRebuild {
            head: peer.replica.head(),
            size: peer.replica.size(),
            layers: peer.replica.layers(),
        };
        clone
            .begin_rebuild(request.epoch, &begin)
            .map_err(|error| text(&error))?;
        let chunks = [(0, 512), (512, BLOCKS - 512)]
            .map(|(first, count)| Extent::new(first * BLOCK, count * BLOCK).unwrap());
        let layers = peer.replica.layers();
        for (link, extent) in layers
            .iter()
            .flat_map(|link| chunks.map(|chunk| (link, chunk)))
        {
            let from = peer.epoch;
            // As an engine does: compare, then copy.
            clone
                .digest(request.epoch, link.layer, extent)
                .map_err(|error| text(&error))?;
            let body = WriteLayer {
                layer: link.layer,
                blocks: peer.replica.read_layer(from, link.layer, extent).unwrap(),
            };
            clone
                .write_layer(request.epoch, extent, &body)
                .map_err(|error| text(&error))?;
        }
        clone
            .finish_rebuild(request.epoch)
            .map_err(|error| text(&error))
    };
    for call in 0.. {
        let (disk, mut rig) = source();
        clone_at(&mut rig, BLOCKS, 2).unwrap();
        // A sum that is wrong: the rebuild must not put it right for the source.
        let path = file_path(directory(), layer(1), Part::Sums);
        disk.flip_bit(&path, 4 * 4, 1).unwrap();
        let whole = rig.read(0, 4 * BLOCK).unwrap();
        let start = disk.calls();
        disk.fail(start + call, Fault::Stop);
        let done = rebuild(&disk);
        let stopped = disk.calls() > start + call;
        assert!(stopped || done.is_ok(), "{done:?}");
        for fate in Fate::ALL {
            let found = disk.crash(fate, call);
            rebuild(&found).unwrap();
            let mut rig = Rig::load(&found, BLOCKS, 100);
            assert!(rig.read(0, 4 * BLOCK).unwrap() == whole, "{call} {fate:?}");
            let bad = rig.read(4 * BLOCK, BLOCK);
            assert!(matches!(bad, Err(DataError::Checksum(_))), "{call}");
            let mut clone = load_clone(&found, 100);
            assert!(clone.read_all() == peer().read_all(), "{call} {fate:?}");
        }
        if !stopped {
            break;
        }
    }
}

/// Cloning, then merging in both replicas in turns, until the machine stops.
fn clone_and_merge(disk: &SimDisk, rig: &mut Rig<SimDisk>) -> Result<(), String> {
    fn merge_step(rig: &mut Rig<SimDisk>) -> Result<bool, String> {
        use crate::replica::Progress;
        match rig
            .replica
            .merge_step(2)
            .map_err(|error| error.to_string())?
        {
            Progress::Idle => Ok(false),
            Progress::Working { .. } => Ok(true),
            Progress::Sync(plan) => {
                let result = plan.run();
                let finished = rig.replica.finish_flush(plan, result);
                finished.map(|()| true).map_err(|error| error.to_string())
            }
        }
    }
    let text = |error: &dyn std::error::Error| error.to_string();
    rig.replica
        .remove_layer(layer(1))
        .map_err(|error| text(&error))?;
    // The merge is on its way when the layer becomes shared.
    for _ in 0..3 {
        merge_step(rig)?;
    }
    clone_at(rig, BLOCKS, 2).map_err(|error| text(&error))?;
    let mut clone = Replica::load(disk, Place::Clone.directory()).map_err(|error| text(&error))?;
    let request = Place::Clone.open_request(BLOCKS, 1);
    clone.open(&request).map_err(|error| text(&error))?;
    clone.remove_layer(layer(1)).map_err(|error| text(&error))?;
    let mut clone = Rig {
        place: Place::Clone,
        replica: clone,
        blocks: BLOCKS,
        epoch: request.epoch,
        sequence: 0,
    };
    loop {
        let (here, there) = (merge_step(rig)?, merge_step(&mut clone)?);
        if !here && !there {
            return Ok(());
        }
    }
}

/// Both replicas hold what they held, whatever the stop left.
fn check(found: &SimDisk, whole: &[u8], cloned: &Contents, context: &str) -> bool {
    let mut rig = Rig::load(found, BLOCKS, 100);
    assert_eq!(rig.read_all(), whole, "{context}");
    assert_eq!(
        &exported_from(found, Place::Original, 2),
        cloned,
        "{context}"
    );
    let is_there = found.list(Place::Clone.directory()).is_ok();
    if !is_there {
        // What an interrupted creation left does not hinder the next.
        clone_at(&mut rig, BLOCKS, 2).unwrap();
    }
    let mut clone = load_clone(found, 100);
    assert_eq!(&sectors(&clone.read_all()), cloned, "{context}");
    clone.replica.remove_layer(layer(2)).unwrap();
    clone.merge_all();
    rig.merge_all();
    assert_eq!(rig.read_all(), whole, "{context}");
    assert_eq!(&sectors(&clone.read_all()), cloned, "{context}");
    for place in [Place::Original, Place::Clone] {
        let verified = verify(found, place.directory()).unwrap();
        assert_eq!(verified.damaged, 0, "{context}: {verified:?}");
    }
    is_there
}

#[test]
fn a_stop_at_every_call_of_cloning_and_of_merges_beside_a_clone_changes_neither_replica() {
    let (mut absent, mut there) = (0, 0);
    for call in 0.. {
        let (disk, mut rig) = source();
        let whole = rig.read_all();
        let cloned = exported_from(&disk, Place::Original, 2);
        let start = disk.calls();
        disk.fail(start + call, Fault::Stop);
        let done = clone_and_merge(&disk, &mut rig);
        let stopped = disk.calls() > start + call;
        assert!(stopped || done.is_ok(), "{done:?}");
        for fate in Fate::ALL {
            let context = format!("call {call}, {fate:?}");
            if check(&disk.crash(fate, call), &whole, &cloned, &context) {
                there += 1;
            } else {
                absent += 1;
            }
        }
        if !stopped {
            break;
        }
    }
    assert!(absent > 50 && there > 300, "{absent} absent, {there} there");
}

#[test]
fn a_failed_call_while_cloning_harms_nothing() {
    for fault in [Fault::Io, Fault::Full] {
        for call in 0.. {
            let (disk, mut rig) = source();
            let whole = rig.read_all();
            let start = disk.calls();
            disk.fail(start + call, fault);
            let done = clone_at(&mut rig, BLOCKS, 2);
            if disk.calls() <= start + call {
                break;
            }
            assert_eq!(rig.read_all(), whole, "{fault:?} at call {call}");
            if done.is_err() && disk.list(Place::Clone.directory()).is_err() {
                clone_at(&mut rig, BLOCKS, 2).unwrap();
            }
            assert_eq!(
                sectors(&load_clone(&disk, 1).read_all()),
                exported_from(&disk, Place::Original, 2)
            );
        }
    }
}

#[test]
fn a_failed_call_while_layers_are_made_private_harms_neither_replica() {
    for fault in [Fault::Io, Fault::Full] {
        let mut failed = 0;
        for call in 0.. {
            let (disk, mut rig) = source();
            let whole = rig.read_all();
            let cloned = exported_from(&disk, Place::Original, 2);
            let start = disk.calls();
            disk.fail(start + call, fault);
            let done = clone_and_merge(&disk, &mut rig);
            if disk.calls() <= start + call {
                break;
            }
            failed += u64::from(done.is_err());
            // Whatever has failed, what is in the files is what was there.
            for (place, id, wanted) in [
                (Place::Original, 2, &cloned),
                (Place::Original, 3, &sectors(&whole)),
                (Place::Clone, 2, &cloned),
            ] {
                if disk.list(place.directory()).is_ok() {
                    let found = exported_from(&disk, place, id);
                    assert_eq!(&found, wanted, "{fault:?} at call {call}, {place:?}");
                }
            }
        }
        assert!(failed > 50, "only {failed} failures of {fault:?}");
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn a_replica_and_its_clone_read_as_two_models_after_every_sequence(
        before in prop::collection::vec(operation(BLOCKS * 8), 1..20),
        which in any::<usize>(),
        after in prop::collection::vec((any::<bool>(), operation(BLOCKS * 8)), 1..40),
    ) {
        let mut pair = Pair::new(BLOCKS);
        let before = before.into_iter().chain([Operation::Seal]);
        let before = before.map(|operation| Step::Operate { on_clone: false, operation });
        let after = after
            .into_iter()
            .map(|(on_clone, operation)| Step::Operate { on_clone, operation });
        for step in before.chain([Step::Clone { which }]).chain(after) {
            pair.apply(&step).unwrap();
        }
        let mut worlds = pair.worlds();
        prop_assert_eq!(worlds.len(), 2);
        for world in &mut worlds {
            world.compare();
            world.end_all().unwrap();
            world.merge_all().unwrap();
        }
        for world in worlds {
            world.compare();
            world.settle().unwrap();
            let found = verify(&world.disk, world.rig.place.directory()).unwrap();
            prop_assert_eq!(found.damaged, 0);
        }
    }
}
