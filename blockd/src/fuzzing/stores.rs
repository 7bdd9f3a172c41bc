//! A store with up to three flipped bits anywhere, and files cut, lengthened or removed: loading,
//! reading, verifying and exporting give an error, or exactly what was written (INV-13). Where it was
//! not closed, what the head was given is one of the values since the last flush, unless the head's
//! own files are damaged: then a stop may have left them so (decision 0009). What was read once after
//! recovery stays.

use std::collections::BTreeMap;

use ankole_proto::wire::body::Seal;
use ankole_proto::{Epoch, LayerId};
use bytes::BytesMut;

use super::damage::{Damaged, damage};
use super::specimen::{BLOCK, Specimen, closed, extent, golden, layer, mutation, renewed, unclean};
use crate::disk::sim::{Fate, SimDisk};
use crate::golden::STORES;
use crate::replica::{self, ExportRequest, OnDamage, OnPartial, Progress, Replica};

/// The first epoch of the engines here; the stores have lower ones.
const EPOCH: u64 = 10;
/// Written to in a store that goes on; no specimen has it.
const FREE_BLOCK: u64 = 300;

thread_local! {
    static CLOSED: Specimen = closed();
    static UNCLEAN: Specimen = unclean();
    static GOLDEN: Vec<Specimen> = STORES
        .iter()
        .flat_map(|store| [1, 2].map(|replica| (store, replica)))
        .flat_map(|(store, replica)| [golden(store, replica), renewed(store, replica)])
        .collect();
}

/// Damage to a store that was closed.
pub fn stores(data: &[u8]) {
    CLOSED.with(|store| run(store, Fate::Kept, 0, data));
}

/// Damage to a store that a kill or a power cut stopped: how, a seed, and then the damage.
pub fn unclean_stores(data: &[u8]) {
    let [fate, seed, rest @ ..] = data else {
        return;
    };
    let fate = Fate::ALL[usize::from(*fate) % Fate::ALL.len()];
    UNCLEAN.with(|store| run(store, fate, u64::from(*seed), rest));
}

/// Damage to a golden store as it was written, or closed since by the present code: which, and then
/// the damage.
pub fn golden_stores(data: &[u8]) {
    let [which, rest @ ..] = data else {
        return;
    };
    GOLDEN.with(|stores| {
        let store = &stores[usize::from(*which) % stores.len()];
        run(store, Fate::Kept, 0, rest);
    });
}

/// A damaged store.
struct Patient<'a> {
    store: &'a Specimen,
    fate: Fate,
    damaged: Damaged,
}

impl Patient<'_> {
    /// Whether what the layer shows of the block must be right.
    fn must_hold(&self, layer: LayerId, block: u64) -> bool {
        let head_in_doubt = self.damaged.head && layer == self.store.head();
        let lost = self.damaged.cut_map && !self.store.counts_records;
        !(lost || head_in_doubt && self.store.in_doubt.contains(&block))
    }

    fn check(&self, layer: LayerId, block: u64, data: &[u8]) {
        if self.must_hold(layer, block) {
            assert!(
                self.store.admits(layer, block, data, self.fate),
                "layer {}: block {block}",
                layer.raw()
            );
        }
    }

    /// What an export shows that ends well: all of it, and of blocks that it leaves out that they may be
    /// zeros. One that fails has given nothing, whatever it handed on before.
    fn check_export(&self, disk: &SimDisk, layer: LayerId, named: Option<LayerId>) {
        let mut found = BTreeMap::new();
        let exported = replica::export(disk, &self.store.directory, named, |offset, data| {
            found.insert(offset / BLOCK, data.to_vec());
            Ok(())
        });
        if exported.is_err() {
            return;
        }
        for block in self.store.contents[&layer].keys() {
            found.entry(*block).or_insert_with(|| vec![0; 4096]);
        }
        for (block, data) in found {
            self.check(layer, block, &data);
        }
    }

    /// What an export shows that skips damage: the same, but for what it lists.
    fn check_salvage(&self, disk: &SimDisk, layer: LayerId, named: Option<LayerId>) {
        let request = ExportRequest {
            layer: named,
            damage: OnDamage::Skip,
            partial: OnPartial::Take,
        };
        let mut given = BTreeMap::new();
        let exported = replica::salvage(disk, &self.store.directory, &request, |offset, data| {
            given.insert(offset / BLOCK, data.to_vec());
            Ok(())
        });
        let Ok(exported) = exported else {
            return;
        };
        let unreadable = &exported.unreadable;
        // When records are gone beside one that is damaged, that one may account for them all.
        if self.damaged.cut_map || unreadable.ranges != unreadable.told.len() as u64 {
            return;
        }
        let is_told = |block: u64| {
            let mut ranges = unreadable.told.iter();
            ranges
                .any(|range| (range.offset..range.offset + range.length).contains(&(block * BLOCK)))
        };
        for block in self.store.contents[&layer].keys().copied() {
            match given.get(&block) {
                Some(data) => {
                    assert!(!is_told(block), "block {block} is given and listed");
                    self.check(layer, block, data);
                }
                None if is_told(block) => {}
                None => self.check(layer, block, &[0; 4096]),
            }
        }
    }

    /// The blocks that something may be written in, and some beside them.
    fn read(&self, replica: &mut Replica<SimDisk>) -> BTreeMap<u64, Vec<u8>> {
        let head = &self.store.contents[&self.store.head()];
        let listed = head
            .keys()
            .copied()
            .chain(self.store.in_doubt.iter().copied());
        let places = listed.chain([8, 10, 22, 599, self.store.blocks - 1]);
        let mut found = BTreeMap::new();
        for block in places {
            let mut out = BytesMut::new();
            let epoch = replica.epoch();
            if replica.read(epoch, extent(block, 1), &mut out).is_ok() {
                found.insert(block, out.to_vec());
            } else {
                assert!(out.is_empty());
            }
        }
        found
    }

    /// Loads, reads and goes on, over a power cut and a close.
    fn use_it(&self, disk: &SimDisk) {
        let Some(mut replica) = self.store.open(disk, EPOCH) else {
            return;
        };
        let found = self.read(&mut replica);
        for (block, data) in &found {
            self.check(self.store.head(), *block, data);
        }
        scrub(&mut replica);
        if write_and_flush(&mut replica).is_none() {
            return;
        }
        let disk = disk.crash(Fate::Torn, 1);
        let Some(mut replica) = self.stays(&disk, &found, EPOCH + 1) else {
            return;
        };
        let seal = Seal {
            head: replica.head(),
            new_head: layer(100),
        };
        let sealed = replica.seal(replica.epoch(), seal).is_ok();
        if sealed && replica.close(replica.epoch()).is_ok() {
            drop(self.stays(&disk.crash(Fate::Dropped, 0), &found, EPOCH + 2));
        }
    }

    /// What could be read before reads the same.
    fn stays(
        &self,
        disk: &SimDisk,
        found: &BTreeMap<u64, Vec<u8>>,
        epoch: u64,
    ) -> Option<Replica<SimDisk>> {
        let replica = self.store.open(disk, epoch);
        assert!(replica.is_some(), "it does not load any more");
        let mut replica = replica?;
        let again = self.read(&mut replica);
        for (block, data) in found {
            assert!(again.get(block) == Some(data), "block {block} has changed");
        }
        Some(replica)
    }
}

fn scrub(replica: &mut Replica<SimDisk>) {
    while matches!(replica.settle_step(1000), Ok(Progress::Working { .. })) {}
    replica.begin_scrub(0, 5);
    while matches!(replica.scrub_step(1000, 6), Ok(Progress::Working { .. })) {}
    let _ = replica.damages();
}

fn write_and_flush(replica: &mut Replica<SimDisk>) -> Option<()> {
    let epoch: Epoch = replica.epoch();
    let data = [9; 4096];
    replica
        .write(epoch, extent(FREE_BLOCK, 1), &data, mutation(1), false)
        .ok()?;
    let plan = replica.plan_flush(epoch).ok()?;
    let result = plan.run();
    replica.finish_flush(plan, result).ok()
}

fn run(store: &Specimen, fate: Fate, seed: u64, commands: &[u8]) {
    let disk = store.disk.crash(fate, seed);
    let damaged = damage(&disk, store, commands);
    // No later stop takes the damage back.
    let disk = disk.crash(Fate::Kept, 0);
    let patient = Patient {
        store,
        fate,
        damaged,
    };
    let _ = replica::inspect(&disk, &store.directory);
    let _ = replica::verify(&disk, &store.directory);
    for layer in &store.layers {
        let named = Some(*layer).filter(|layer| *layer != store.head());
        patient.check_export(&disk, *layer, named);
        patient.check_salvage(&disk, *layer, named);
    }
    patient.use_it(&disk);
}
