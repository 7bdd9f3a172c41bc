//! A replica that is made equal to another one through digests and layer copies.

use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::{BeginRebuild, WriteLayer};
use ankole_proto::{ChunkNumber, Epoch, Extent, LayerId, ReplicaId};

use super::support::{BLOCK, Rig, layer};
use crate::disk::sim::{Fate, SimDisk};
use crate::replica::{DataError, LayerError, Replica, State, TreeError};

const BLOCKS: u64 = 520;
const CHUNK: u64 = 512 * BLOCK;

fn chunks() -> [Extent; 2] {
    let end = BLOCKS * BLOCK;
    [
        Extent::new(0, CHUNK).unwrap(),
        Extent::new(CHUNK, end - CHUNK).unwrap(),
    ]
}

fn begin(source: &Rig<SimDisk>, target: &mut Rig<SimDisk>) -> RebuildCursor {
    let body = BeginRebuild {
        head: source.replica.head(),
        size: source.replica.size(),
        layers: source.replica.layers(),
    };
    target.replica.begin_rebuild(target.epoch, &body).unwrap()
}

fn mark(target: &mut Rig<SimDisk>, cursor: &RebuildCursor) -> Result<(), TreeError> {
    let plan = target.replica.plan_mark(target.epoch, cursor.clone())?;
    let synced = plan.run();
    target.replica.finish_mark(target.epoch, plan, synced)
}

fn cursor(equal: &[u64], part: Option<(u64, u64)>) -> RebuildCursor {
    RebuildCursor {
        source: ReplicaId::from_bits(7),
        equal: equal.iter().map(|raw| layer(*raw)).collect(),
        part: part.map(|(raw, chunks)| (layer(raw), ChunkNumber::from_raw(chunks))),
    }
}

/// Copies what differs; how many chunks did.
fn copy(source: &mut Rig<SimDisk>, target: &mut Rig<SimDisk>) -> u64 {
    let layers: Vec<LayerId> = source.replica.layers().iter().map(|l| l.layer).collect();
    let (from, to) = (source.epoch, target.epoch);
    let mut copied = 0;
    for layer in layers {
        for extent in chunks() {
            let wanted = source.replica.digest(from, layer, extent).unwrap();
            if target.replica.digest(to, layer, extent).unwrap() == wanted {
                continue;
            }
            copied += 1;
            let blocks = source.replica.read_layer(from, layer, extent).unwrap();
            let body = WriteLayer { layer, blocks };
            target.replica.write_layer(to, extent, &body).unwrap();
            assert_eq!(target.replica.digest(to, layer, extent).unwrap(), wanted);
        }
    }
    copied
}

fn source() -> Rig<SimDisk> {
    let (_, mut rig) = Rig::new(BLOCKS);
    rig.write(0, &[1; 8 * 4096]).unwrap();
    rig.seal(2).unwrap();
    rig.unmap(BLOCK, BLOCK).unwrap();
    rig.write(515 * BLOCK, &[2; 4096]).unwrap();
    rig.seal(3).unwrap();
    rig.write(100, &[3; 100]).unwrap();
    rig
}

#[test]
fn a_rebuilt_replica_reads_as_its_source_in_every_layer() {
    let mut source = source();
    let (disk, mut target) = Rig::new(BLOCKS);
    target.write(2 * BLOCK, &[9; 4096]).unwrap();
    begin(&source, &mut target);
    assert!(matches!(target.read(0, 512), Err(DataError::Rebuilding)));
    assert_eq!(copy(&mut source, &mut target), 4);
    target.replica.finish_rebuild(target.epoch).unwrap();
    assert_eq!(target.read_all(), source.read_all());
    let mut found = Rig::load(&disk.crash(Fate::Dropped, 1), BLOCKS, 2);
    assert_eq!(*found.replica.state(), State::Ready);
    assert_eq!(found.read_all(), source.read_all());
    found.revert(layer(1), 9).unwrap();
    source.revert(layer(1), 9).unwrap();
    assert_eq!(found.read_all(), source.read_all());
}

#[test]
fn writes_and_unmaps_during_a_rebuild_are_not_lost() {
    let mut source = source();
    let (_, mut target) = Rig::new(BLOCKS);
    begin(&source, &mut target);
    for rig in [&mut source, &mut target] {
        rig.write(5 * BLOCK + 10, &[7; 3000]).unwrap();
        rig.unmap(6 * BLOCK, BLOCK).unwrap();
    }
    copy(&mut source, &mut target);
    for rig in [&mut source, &mut target] {
        rig.write(7 * BLOCK + 10, &[8; 10_000]).unwrap();
        rig.unmap(3 * BLOCK, 2 * BLOCK).unwrap();
    }
    target.replica.finish_rebuild(target.epoch).unwrap();
    assert_eq!(target.read_all(), source.read_all());
}

#[test]
fn an_interrupted_rebuild_goes_on_and_copies_only_what_differs() {
    let mut source = source();
    let (disk, mut target) = Rig::new(BLOCKS);
    begin(&source, &mut target);
    copy(&mut source, &mut target);
    for fate in Fate::ALL {
        let found = disk.crash(fate, 3);
        let mut again = Rig::load(&found, BLOCKS, 2);
        assert_eq!(*again.replica.state(), State::Rebuilding, "{fate:?}");
        begin(&source, &mut again);
        let copied = copy(&mut source, &mut again);
        assert!(fate != Fate::Kept || copied == 0, "{copied} chunks");
        again.replica.finish_rebuild(again.epoch).unwrap();
        assert_eq!(again.read_all(), source.read_all(), "{fate:?}");
    }
}

#[test]
fn what_was_marked_is_there_after_any_stop() {
    let mut source = source();
    let (disk, mut target) = Rig::new(BLOCKS);
    assert!(begin(&source, &mut target).is_nothing());
    copy(&mut source, &mut target);
    let marked = cursor(&[1], Some((2, 1)));
    mark(&mut target, &marked).unwrap();
    for fate in Fate::ALL {
        let mut again = Rig::load(&disk.crash(fate, 3), BLOCKS, 2);
        assert_eq!(begin(&source, &mut again), marked, "{fate:?}");
        for (layer, extent) in [(1, 0), (1, 1), (2, 0)].map(|(l, at)| (layer(l), chunks()[at])) {
            let here = again.replica.digest(again.epoch, layer, extent).unwrap();
            let there = source.replica.digest(source.epoch, layer, extent).unwrap();
            assert_eq!(here, there, "{fate:?}");
        }
        copy(&mut source, &mut again);
        again.replica.finish_rebuild(again.epoch).unwrap();
        assert!(begin(&source, &mut again).is_nothing(), "it was complete");
    }
}

#[test]
fn what_is_marked_and_does_not_fit_the_tree_is_refused() {
    let source = source();
    let (_, mut target) = Rig::new(BLOCKS);
    let early = mark(&mut target, &cursor(&[1], None));
    assert!(matches!(early, Err(TreeError::Conflict(_))), "{early:?}");
    begin(&source, &mut target);
    for wrong in [
        cursor(&[2], None),
        cursor(&[1, 2, 3], None),
        cursor(&[1], Some((9, 0))),
        cursor(&[1, 1], None),
    ] {
        let refused = mark(&mut target, &wrong);
        assert!(matches!(refused, Err(TreeError::Conflict(_))), "{wrong:?}");
    }
    let marked = cursor(&[1, 2], None);
    mark(&mut target, &marked).unwrap();
    let late = target.replica.plan_mark(target.epoch, cursor(&[1], None));
    assert_eq!(begin(&source, &mut target), marked);
    let late = target
        .replica
        .finish_mark(target.epoch, late.unwrap(), Ok(()));
    assert!(
        matches!(late, Err(TreeError::Conflict(_))),
        "of the rebuild before: {late:?}"
    );
    mark(&mut target, &cursor(&[], None)).unwrap();
    assert!(begin(&source, &mut target).is_nothing(), "taken back");
}

#[test]
fn a_mark_whose_sync_failed_faults_the_replica() {
    let source = source();
    let (_, mut target) = Rig::new(BLOCKS);
    begin(&source, &mut target);
    let plan = target.replica.plan_mark(target.epoch, cursor(&[1], None));
    let failed = Err(std::io::Error::other("no medium"));
    let marked = target
        .replica
        .finish_mark(target.epoch, plan.unwrap(), failed);
    assert!(matches!(marked, Err(TreeError::Medium(_))), "{marked:?}");
    assert!(matches!(target.replica.state(), State::Faulted { .. }));
}

#[test]
fn layers_are_written_on_a_rebuilding_replica_only() {
    let mut source = source();
    let extent = chunks()[0];
    let layer = source.replica.head();
    let blocks = source
        .replica
        .read_layer(source.epoch, layer, extent)
        .unwrap();
    let body = WriteLayer { layer, blocks };
    let refused = source.replica.write_layer(source.epoch, extent, &body);
    assert!(matches!(refused, Err(LayerError::NotRebuilding)));
    let stale = source.replica.digest(Epoch::ZERO, layer, extent);
    assert!(matches!(stale, Err(LayerError::Unusable(_))));
}

#[test]
fn a_replica_is_send() {
    fn send<T: Send>() {}
    send::<Replica<SimDisk>>();
    send::<Replica<crate::disk::LocalDisk>>();
}
