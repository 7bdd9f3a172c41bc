//! Random sequences of every operation, compared with the model after each.

use proptest::prelude::*;

use super::cloning::{HEAD as CLONE_HEAD, clone_at, load_clone};
use super::model::{Model, SECTOR, sectors};
use super::support::{Place, Rig, cases, layer};
use crate::disk::sim::SimDisk;
use crate::replica::{ExportRequest, OnDamage, OnPartial, Progress, destroy};

/// Two chunks and a short third: every border is there, and a case is quick.
const BLOCKS: u64 = 1030;
const SECTORS: u64 = BLOCKS * 8;

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Write { first: u64, count: u64, byte: u8 },
    Unmap { first: u64, count: u64 },
    Flush,
    Writeback,
    Seal,
    Expand { blocks: u64 },
    Revert { which: usize },
    Remove { which: usize },
    MergeStep,
    MergePlan,
    Settle,
    Reopen,
    Close,
}

/// Ranges of sectors around the borders of blocks and chunks, so that they overlap often.
fn range(sectors: u64) -> impl Strategy<Value = (u64, u64)> {
    // The last lie partly in what an expansion adds.
    let near = prop_oneof![Just(0), Just(512 * 8 - 16), Just(sectors - 40)];
    (near, 0..32u64, prop_oneof![Just(8), 1..40u64])
        .prop_map(move |(near, at, count)| (near + at, count))
}

pub(super) fn operation(sectors: u64) -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (range(sectors), 1..=255u8)
            .prop_map(|((first, count), byte)| Operation::Write { first, count, byte }),
        4 => range(sectors).prop_map(|(first, count)| Operation::Unmap { first, count }),
        3 => Just(Operation::Flush),
        1 => Just(Operation::Writeback),
        2 => Just(Operation::Seal),
        1 => (0..=5u64).prop_map(|blocks| Operation::Expand { blocks }),
        1 => any::<usize>().prop_map(|which| Operation::Revert { which }),
        2 => any::<usize>().prop_map(|which| Operation::Remove { which }),
        5 => Just(Operation::MergeStep),
        2 => Just(Operation::MergePlan),
        1 => Just(Operation::Settle),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Close),
    ]
}

/// A replica, its model, and what goes on between calls.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) rig: Rig<SimDisk>,
    pub(super) model: Model,
    pub(super) next_layer: u64,
    removed: Vec<u64>,
    /// A merge's plan that ran and is not finished yet.
    pub(super) plan: Option<crate::replica::FlushPlan<SimDisk>>,
}

impl World {
    pub(super) fn new(disk: SimDisk, rig: Rig<SimDisk>) -> Self {
        let sectors = rig.blocks * 8;
        Self {
            disk,
            rig,
            model: Model::new(sectors),
            next_layer: 2,
            removed: Vec::new(),
            plan: None,
        }
    }

    /// A sealed layer that is not being removed.
    pub(super) fn choose(&self, which: usize) -> Option<u64> {
        let mut layers = self.model.sealed.keys().copied();
        let count = self.model.sealed.len();
        (count > 0).then(|| layers.nth(which % count)).flatten()
    }

    fn new_layer(&mut self) -> u64 {
        self.next_layer += 1;
        self.next_layer - 1
    }

    /// Carries the operation out; the model follows what succeeded.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        match operation {
            Operation::Write { first, count, byte } => {
                let (first, count) = self.model.inside(*first, *count);
                let data = vec![*byte; usize::try_from(count * SECTOR).unwrap()];
                self.rig
                    .write(first * SECTOR, &data)
                    .map_err(|error| text(&error))?;
                self.model.fill(first, count, *byte);
            }
            Operation::Unmap { first, count } => {
                let (first, count) = self.model.inside(*first, *count);
                self.rig
                    .unmap(first * SECTOR, count * SECTOR)
                    .map_err(|error| text(&error))?;
                self.model.fill(first, count, 0);
            }
            Operation::Flush => self.rig.flush().map_err(|error| text(&error))?,
            Operation::Writeback => {
                if let Some(plan) = self.rig.replica.plan_writeback() {
                    let result = plan.run();
                    self.rig
                        .replica
                        .finish_flush(plan, result)
                        .map_err(|error| text(&error))?;
                }
            }
            Operation::Seal => {
                let new_head = self.new_layer();
                self.rig.seal(new_head).map_err(|error| text(&error))?;
                self.model.seal(new_head);
            }
            Operation::Expand { blocks } => {
                let blocks = self.rig.blocks + blocks;
                self.rig.expand(blocks).map_err(|error| text(&error))?;
                self.model.grow(usize::try_from(blocks * 8).unwrap());
            }
            Operation::Revert { which } => {
                if let Some(to) = self.choose(*which) {
                    let new_head = self.new_layer();
                    self.rig
                        .revert(layer(to), new_head)
                        .map_err(|error| text(&error))?;
                    self.model.revert(to, new_head);
                }
            }
            Operation::Remove { which } => {
                if let Some(gone) = self.choose(*which) {
                    self.rig
                        .replica
                        .remove_layer(layer(gone))
                        .map_err(|error| text(&error))?;
                    self.model.sealed.remove(&gone);
                    self.removed.push(gone);
                }
            }
            Operation::MergeStep | Operation::MergePlan => {
                self.merge(matches!(operation, Operation::MergePlan))?;
            }
            Operation::Settle => {
                self.rig
                    .replica
                    .settle_step(4)
                    .map_err(|error| text(&error))?;
            }
            Operation::Reopen => self.reopen()?,
            Operation::Close => {
                let epoch = self.rig.epoch;
                self.rig
                    .replica
                    .close(epoch)
                    .map_err(|error| text(&error))?;
                self.reopen()?;
            }
        }
        Ok(())
    }

    /// Finishes a plan that waits, or takes a step; `hold` leaves the step's plan unfinished.
    fn merge(&mut self, hold: bool) -> Result<(), String> {
        if let Some(plan) = self.plan.take() {
            return self
                .rig
                .replica
                .finish_flush(plan, Ok(()))
                .map_err(|error| error.to_string());
        }
        let progress = self.rig.replica.merge_step(3);
        if let Progress::Sync(plan) = progress.map_err(|error| error.to_string())? {
            let result = plan.run();
            if hold && result.is_ok() {
                self.plan = Some(plan);
                return Ok(());
            }
            self.rig
                .replica
                .finish_flush(plan, result)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.plan = None;
        let epoch = self.rig.epoch.raw() + 1;
        let place = self.rig.place;
        let replica = crate::replica::Replica::load(&self.disk, place.directory())
            .map_err(|error| error.to_string())?;
        let mut rig = Rig {
            place,
            blocks: replica.size().blocks(),
            replica,
            epoch: ankole_proto::Epoch::from_raw(epoch),
            sequence: 0,
        };
        let request = place.open_request(rig.blocks, epoch);
        rig.replica
            .open(&request)
            .map_err(|error| error.to_string())?;
        self.rig = rig;
        Ok(())
    }

    /// Everything reads as the model says, in every layer that is left.
    pub(super) fn compare(&mut self) {
        assert_eq!(sectors(&self.rig.read_all()), self.model.now);
        for (sealed, wanted) in &self.model.sealed {
            let found = exported_from(&self.disk, self.rig.place, *sealed);
            assert_eq!(&found, wanted, "layer {sealed}");
        }
    }
}

/// The contents of a layer, read offline.
pub(super) fn exported(disk: &SimDisk, id: u64) -> Vec<u8> {
    exported_from(disk, Place::Original, id)
}

/// The same of either replica of the disk.
pub(super) fn exported_from(disk: &SimDisk, place: Place, id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let directory = place.directory();
    // Of a faulted replica too: what it holds is to be right.
    let request = ExportRequest {
        layer: Some(layer(id)),
        damage: OnDamage::Refuse,
        partial: OnPartial::Take,
    };
    let exported = crate::replica::salvage(disk, directory, &request, |offset, data| {
        let at = usize::try_from(offset).unwrap();
        out.resize(out.len().max(at + data.len()), 0);
        out[at..at + data.len()].copy_from_slice(data);
        Ok(())
    })
    .unwrap();
    out.resize(usize::try_from(exported.size.bytes()).unwrap(), 0);
    sectors(&out)
}

/// A step of the main test: on one of two replicas, or one that makes or removes the second.
#[derive(Debug, Clone)]
enum Step {
    Operate {
        on_clone: bool,
        operation: Operation,
    },
    Clone {
        which: usize,
    },
    DestroyClone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        16 => (any::<bool>(), operation(SECTORS))
            .prop_map(|(on_clone, operation)| Step::Operate { on_clone, operation }),
        2 => any::<usize>().prop_map(|which| Step::Clone { which }),
        1 => Just(Step::DestroyClone),
    ];
    prop::collection::vec(step, 1..60)
}

fn settle(world: &mut World) {
    while !matches!(world.rig.replica.settle_step(100).unwrap(), Progress::Idle) {}
}

/// A clone of a sealed layer, if there is one, with its model.
fn clone_of(original: &mut World, which: usize) -> Option<World> {
    let at = original.choose(which)?;
    settle(original);
    let blocks = original.rig.blocks;
    clone_at(&mut original.rig, blocks, at).unwrap();
    let mut clone = World::new(original.disk.clone(), load_clone(&original.disk, 1));
    clone.model = original.model.clone();
    clone.model.revert(at, CLONE_HEAD);
    // Of the chain alone; the rest is not shared.
    let links = clone.rig.replica.layers();
    let chain: Vec<u64> = links.iter().map(|link| link.layer.raw()).collect();
    clone.model.sealed.retain(|id, _| chain.contains(id));
    clone.next_layer = CLONE_HEAD + 1;
    Some(clone)
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn a_replica_and_its_clones_read_as_their_models_after_every_sequence(steps in steps()) {
        let (disk, rig) = Rig::new(BLOCKS);
        let mut original = World::new(disk.clone(), rig);
        let mut clone: Option<World> = None;
        for step in &steps {
            match step {
                Step::Operate { on_clone, operation } => {
                    let other = clone.as_mut().filter(|_| *on_clone);
                    other.unwrap_or(&mut original).apply(operation).unwrap();
                }
                Step::Clone { which } if clone.is_none() => {
                    clone = clone_of(&mut original, *which);
                }
                Step::Clone { .. } => {}
                Step::DestroyClone => {
                    if clone.take().is_some() {
                        destroy(&disk, Place::Clone.directory()).unwrap();
                    }
                }
            }
        }
        let mut worlds: Vec<World> = std::iter::once(original).chain(clone).collect();
        for world in &mut worlds {
            world.compare();
            world.rig.merge_all_after(world.plan.take());
        }
        for world in &mut worlds {
            world.compare();
            // A reopened replica may have lost sums; what was settled and written back has them.
            settle(world);
            world.apply(&Operation::Writeback).unwrap();
            let found = crate::replica::verify(&disk, world.rig.place.directory()).unwrap();
            prop_assert_eq!((found.damaged, found.unsettled_blocks), (0, 0));
        }
    }
}
