//! What each operation does, one at a time.

use ankole_proto::Epoch;
use ankole_proto::wire::body::Memory;

use super::support::{BLOCK, Rig, layer, open_request};
use crate::replica::{DataError, OpenError, TreeError, Unusable};

const BLOCKS: u64 = 1100;

#[test]
fn unwritten_space_reads_as_zeros() {
    let (_, mut rig) = Rig::new(BLOCKS);
    assert_eq!(rig.read(0, 3 * BLOCK).unwrap(), vec![0; 3 * 4096]);
}

#[test]
fn what_is_written_is_read_at_any_alignment() {
    let (_, mut rig) = Rig::new(BLOCKS);
    rig.write(511 * BLOCK - 512, &[7; 3 * 4096]).unwrap();
    let read = rig.read(511 * BLOCK - 1024, 4 * BLOCK).unwrap();
    let mut wanted = vec![0; 4 * 4096];
    wanted[512..512 + 3 * 4096].fill(7);
    assert_eq!(read, wanted);
}

#[test]
fn a_sealed_layer_shows_through_and_revert_brings_it_back() {
    let (_, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 8192]).unwrap();
    rig.seal(2).unwrap();
    rig.seal(2).unwrap_err();
    rig.write(1000, &[2; 100]).unwrap();
    rig.unmap(4096, 4096).unwrap();
    assert_eq!(rig.read(4096, 4096).unwrap(), vec![0; 4096]);
    assert_eq!(rig.read(0, 1001).unwrap()[999..], [1, 2]);
    rig.revert(layer(1), 3).unwrap();
    rig.revert(layer(1), 3).unwrap();
    assert_eq!(rig.read(0, 8192).unwrap(), vec![1; 8192]);
    assert_eq!(rig.replica.layers().len(), 2);
}

#[test]
fn an_older_epoch_is_fenced_once_a_newer_one_was_obeyed() {
    let (_, mut rig) = Rig::new(BLOCKS);
    let old = rig.epoch;
    rig.epoch = Epoch::from_raw(2);
    rig.open();
    rig.epoch = old;
    let refused = rig.write(0, &[1; 4096]).unwrap_err();
    let current = Epoch::from_raw(2);
    assert!(matches!(
        refused,
        DataError::Unusable(Unusable::Fenced { current: now }) if now == current
    ));
    let refused = rig.replica.open(&open_request(BLOCKS, 1)).unwrap_err();
    assert!(matches!(
        refused,
        OpenError::Unusable(Unusable::Fenced { .. })
    ));
}

#[test]
fn the_epoch_outlives_the_process() {
    let (disk, rig) = Rig::new(BLOCKS);
    drop(rig);
    let rig = Rig::load(&disk, BLOCKS, 5);
    drop(rig);
    let replica = crate::replica::Replica::load(&disk, super::support::directory()).unwrap();
    assert_eq!(replica.epoch(), Epoch::from_raw(5));
    assert_eq!(replica.memory(), Memory::Lost);
}

#[test]
fn closed_in_order_nothing_was_in_flight() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[3; 4096]).unwrap();
    rig.replica.close(rig.epoch).unwrap();
    assert!(rig.write(0, &[4; 4096]).is_err());
    let mut rig = Rig::load(&disk.crash(crate::disk::sim::Fate::Dropped, 1), BLOCKS, 2);
    assert_eq!(rig.read(0, 4096).unwrap(), vec![3; 4096]);
    assert_eq!(rig.open().memory, Memory::Kept);
}

#[test]
fn a_removed_layer_merges_into_the_next_newer_one() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 5 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(4096, &[2; 4096]).unwrap();
    rig.unmap(2 * 4096, 4096).unwrap();
    let before = rig.read_all();
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    assert_eq!(rig.replica.layers().len(), 1);
    assert_eq!(rig.read_all(), before);
    let mut again = Rig::load(&disk, BLOCKS, 2);
    assert_eq!(again.read_all(), before);
    assert!(matches!(
        rig.replica.remove_layer(layer(1)),
        Err(TreeError::NoSuchLayer(_))
    ));
}

#[test]
fn a_layer_with_several_children_waits_until_one_is_left() {
    let (_, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.write(4096, &[2; 4096]).unwrap();
    rig.seal(3).unwrap();
    rig.revert(layer(1), 4).unwrap();
    rig.replica.remove_layer(layer(1)).unwrap();
    rig.merge_all();
    assert_eq!(rig.replica.layers().len(), 3);
    rig.replica.remove_layer(layer(2)).unwrap();
    rig.merge_all();
    assert_eq!(rig.replica.layers().len(), 1);
    assert_eq!(rig.read(0, 4096).unwrap(), vec![1; 4096]);
    assert_eq!(rig.read(4096, 4096).unwrap(), vec![0; 4096]);
}

#[test]
fn the_255th_snapshot_is_refused() {
    let (_, mut rig) = Rig::new(8);
    for head in 2..=255 {
        rig.write(0, &[u8::try_from(head).unwrap(); 4096]).unwrap();
        rig.seal(head).unwrap();
    }
    assert!(matches!(rig.seal(256), Err(TreeError::TooManyLayers)));
    assert_eq!(rig.read(0, 4096).unwrap(), vec![255; 4096]);
    rig.revert(layer(254), 300).unwrap();
    assert_eq!(rig.read(0, 4096).unwrap(), vec![255; 4096]);
}

#[test]
fn overwriting_and_flushing_takes_one_sync() {
    let (_, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    rig.flush().unwrap();
    rig.write(0, &[2; 4096]).unwrap();
    let plan = rig.replica.plan_flush(rig.epoch).unwrap();
    assert_eq!(plan.syncs(), 1);
    let result = plan.run();
    rig.replica.finish_flush(plan, result).unwrap();
    assert!(rig.replica.plan_flush(rig.epoch).unwrap().is_empty());
}

#[test]
fn a_flush_covers_what_an_earlier_process_acknowledged() {
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    drop(rig);
    let mut rig = Rig::load(&disk, BLOCKS, 2);
    rig.flush().unwrap();
    let lost = disk.crash(crate::disk::sim::Fate::Dropped, 1);
    assert_eq!(
        Rig::load(&lost, BLOCKS, 3).read(0, 4096).unwrap(),
        vec![1; 4096]
    );
}

#[test]
fn unmapped_space_is_given_back_after_a_flush() {
    use crate::disk::Disk;
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &vec![1; 400 * 4096]).unwrap();
    rig.flush().unwrap();
    let before = disk.space().unwrap().free_bytes;
    rig.unmap(0, 400 * 4096).unwrap();
    rig.flush().unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, before + 400 * 4096);
    assert_eq!(rig.replica.used_bytes(), 0);
}

#[test]
fn on_a_full_disk_a_write_is_refused_whole_and_overwrites_go_on() {
    use crate::disk::Disk;
    use crate::replica::{Medium, State};
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(4096, &[1; 4096]).unwrap();
    rig.write(3 * 4096, &[1; 4096]).unwrap();
    let space = disk.space().unwrap();
    disk.set_capacity(space.capacity_bytes - space.free_bytes + 4096);
    let before = rig.read_all();
    let refused = rig.write(0, &[2; 6 * 4096]).unwrap_err();
    assert!(matches!(refused, DataError::Medium(Medium::NoSpace)));
    assert_eq!(rig.read_all(), before);
    assert_eq!(*rig.replica.state(), State::Ready);
    rig.write(4096, &[3; 4096]).unwrap();
    rig.unmap(3 * 4096, 4096).unwrap();
    rig.flush().unwrap();
    disk.set_capacity(space.capacity_bytes);
    rig.write(0, &[4; 6 * 4096]).unwrap();
    assert_eq!(rig.read(0, 6 * 4096).unwrap(), vec![4; 6 * 4096]);
}

#[test]
fn a_failed_sync_faults_the_replica_for_good() {
    use crate::disk::sim::Fault;
    use crate::replica::{LoadError, Replica, State};
    let (disk, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 4096]).unwrap();
    disk.fail(disk.calls(), Fault::Io);
    rig.flush().unwrap_err();
    assert!(matches!(rig.replica.state(), State::Faulted { .. }));
    assert!(rig.flush().is_err() && rig.read(0, 4096).is_err());
    assert!(rig.replica.open(&open_request(BLOCKS, 9)).is_err());
    let loaded = Replica::load(&disk, super::support::directory());
    assert!(matches!(loaded, Err(LoadError::Faulted { .. })));
}

#[test]
fn a_fault_that_the_disk_does_not_take_is_recorded_as_soon_as_it_does() {
    use crate::disk::sim::{Fate, Fault};
    use crate::replica::{LoadError, Replica, State};
    for refused in 1..=40 {
        let (disk, mut rig) = Rig::new(BLOCKS);
        rig.write(0, &[1; 4096]).unwrap();
        for call in 0..refused {
            disk.fail(disk.calls() + call, Fault::Io);
        }
        rig.flush().unwrap_err();
        assert!(matches!(rig.replica.state(), State::Faulted { .. }));
        disk.mend();
        rig.replica.settle_step(1).unwrap_err();
        drop(rig);
        for (number, disk) in [disk.crash(Fate::Dropped, 0), disk].iter().enumerate() {
            let loaded = Replica::load(disk, super::support::directory());
            let recorded = matches!(loaded, Err(LoadError::Faulted { .. }));
            assert!(recorded, "{refused} calls refused, disk {number}");
        }
    }
}

#[test]
fn only_a_restart_of_the_host_puts_what_was_acknowledged_in_doubt() {
    let (disk, rig) = Rig::new(BLOCKS);
    drop(rig);
    let told_in = |boot: &str, epoch: u64| {
        let mut replica =
            crate::replica::Replica::load(&disk, super::support::directory()).unwrap();
        replica.set_boot(boot);
        replica.open(&open_request(BLOCKS, epoch)).unwrap().memory
    };
    assert_eq!(told_in("one", 2), Memory::Lost, "opened without a boot");
    // Nobody has made the replica equal since, so restarts of the daemon change nothing.
    assert_eq!(told_in("one", 3), Memory::Lost);
    let mut replica = crate::replica::Replica::load(&disk, super::support::directory()).unwrap();
    replica.set_boot("one");
    replica.open(&open_request(BLOCKS, 4)).unwrap();
    replica.close(Epoch::from_raw(4)).unwrap();
    drop(replica);
    assert_eq!(told_in("one", 5), Memory::Clean);
    assert_eq!(told_in("one", 6), Memory::Restarted);
    assert_eq!(told_in("two", 7), Memory::Lost);
    assert_eq!(told_in("two", 8), Memory::Lost);
}
