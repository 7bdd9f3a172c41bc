//! A replica and the model that it has to read as, one operation at a time.

use std::collections::BTreeMap;
use std::io;

use ankole_proto::Epoch;

use super::model::{Attempt, Contents, Model, SECTOR, sectors};
use super::refused::Refused;
use super::steps::{Operation, Work};
use super::support::{BLOCK, Place, Rig, layer};
use crate::disk::DiskFile;
use crate::disk::sim::SimDisk;
use crate::replica::{
    DataError, ExportRequest, FlushPlan, LoadError, OnDamage, OnPartial, Progress, Replica, State,
};

/// Work that is under way.
#[derive(Debug)]
struct Held {
    plan: FlushPlan<SimDisk>,
    /// What it makes durable for an engine.
    covers: Option<usize>,
    next: usize,
    result: io::Result<()>,
}

impl Held {
    /// The next of its syncs; after one that failed there is none.
    fn sync(&mut self) {
        if let (Ok(()), Some(file)) = (&self.result, self.plan.files.get(self.next)) {
            self.result = file.sync();
            self.next += 1;
        }
    }
}

/// A replica and its model.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) rig: Rig<SimDisk>,
    pub(super) model: Model,
    next_layer: u64,
    /// Else the process that had it is gone, and loading it failed.
    is_loaded: bool,
    is_open: bool,
    /// By the threads that do it.
    held: BTreeMap<Work, Held>,
}

impl World {
    /// Of a replica that an engine has opened.
    pub(super) fn new(disk: SimDisk, rig: Rig<SimDisk>) -> Self {
        let mut model = Model::new(rig.blocks * 8);
        model.epoch = rig.epoch.raw();
        Self {
            is_open: true,
            ..Self::loaded(disk, rig, model)
        }
    }

    /// Of a replica that nobody has opened.
    pub(super) fn loaded(disk: SimDisk, rig: Rig<SimDisk>, model: Model) -> Self {
        Self {
            disk,
            rig,
            next_layer: model.head + 1,
            model,
            is_loaded: true,
            is_open: false,
            held: BTreeMap::new(),
        }
    }

    /// Carries the operation out; the model follows what succeeded.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<(), Refused> {
        if !self.is_loaded {
            self.reload()?;
        }
        match *operation {
            Operation::Write { first, count, byte } => self.write(first, count, byte),
            Operation::Unmap { first, count } => self.unmap(first, count),
            Operation::Read { first, count } => self.read(first, count),
            Operation::Do(work) => self.work(work),
            Operation::Begin(work) => self.begin(work),
            Operation::Sync(work) => {
                self.held.get_mut(&work).into_iter().for_each(Held::sync);
                Ok(())
            }
            Operation::Seal => self.seal(),
            Operation::Expand { blocks } => self.expand(blocks),
            Operation::Revert { which } => self.revert(which),
            Operation::Remove { which } => self.remove(which),
            Operation::Settle => {
                // The thread that settles is the one that merges.
                self.end(Work::Merge)?;
                self.rig.replica.settle_step(4)?;
                Ok(())
            }
            Operation::Open => {
                self.is_open = false;
                self.open()
            }
            Operation::Close => self.close(),
            Operation::Reload => self.reload(),
        }
    }

    fn open(&mut self) -> Result<(), Refused> {
        if self.is_open {
            return Ok(());
        }
        self.rig.epoch = Epoch::from_raw(self.rig.epoch.raw() + 1);
        self.rig.sequence = 0;
        let request = self
            .rig
            .place
            .open_request(self.rig.blocks, self.rig.epoch.raw());
        self.rig.replica.open(&request)?;
        self.model.epoch = self.rig.epoch.raw();
        self.is_open = true;
        Ok(())
    }

    fn write(&mut self, first: u64, count: u64, byte: u8) -> Result<(), Refused> {
        self.open()?;
        let (first, count) = self.model.inside(first, count);
        let data = vec![byte; usize::try_from(count * SECTOR).unwrap()];
        self.model.attempt = Attempt::Parts(self.model.filled(first, count, byte));
        self.rig.write(first * SECTOR, &data)?;
        self.model.succeed();
        Ok(())
    }

    fn unmap(&mut self, first: u64, count: u64) -> Result<(), Refused> {
        self.open()?;
        let (first, count) = self.model.inside(first, count);
        self.model.attempt = Attempt::Parts(self.model.filled(first, count, 0));
        self.rig.unmap(first * SECTOR, count * SECTOR)?;
        self.model.succeed();
        Ok(())
    }

    fn read(&mut self, first: u64, count: u64) -> Result<(), Refused> {
        self.open()?;
        let (first, count) = self.model.inside(first, count);
        let found = sectors(&self.rig.read(first * SECTOR, count * SECTOR)?);
        let first = usize::try_from(first).unwrap();
        assert_eq!(found, self.model.now[first..first + found.len()], "read");
        Ok(())
    }

    /// Does the rest of what is under way, or all.
    fn work(&mut self, work: Work) -> Result<(), Refused> {
        self.begin(work)?;
        self.end(work)
    }

    fn begin(&mut self, work: Work) -> Result<(), Refused> {
        if self.held.contains_key(&work) {
            return Ok(());
        }
        let plan = match work {
            Work::Flush => {
                self.open()?;
                let planned = self.rig.replica.plan_flush(self.rig.epoch);
                Some(planned.map_err(DataError::from)?)
            }
            Work::Writeback => self.rig.replica.plan_writeback(),
            Work::Merge => match self.rig.replica.merge_step(3)? {
                Progress::Sync(plan) => Some(plan),
                Progress::Idle | Progress::Working { .. } => None,
            },
        };
        if let Some(plan) = plan {
            let held = Held {
                plan,
                covers: (work == Work::Flush).then(|| self.model.moment()),
                next: 0,
                result: Ok(()),
            };
            self.held.insert(work, held);
        }
        Ok(())
    }

    /// Does the rest of what is under way.
    fn end(&mut self, work: Work) -> Result<(), Refused> {
        let Some(mut held) = self.held.remove(&work) else {
            return Ok(());
        };
        while held.result.is_ok() && held.next < held.plan.files.len() {
            held.sync();
        }
        self.rig.replica.finish_flush(held.plan, held.result)?;
        if let Some(moment) = held.covers {
            self.model.is_durable(moment);
        }
        Ok(())
    }

    /// Does the rest of all that is under way.
    pub(super) fn end_all(&mut self) -> Result<(), Refused> {
        [Work::Flush, Work::Writeback, Work::Merge]
            .into_iter()
            .try_for_each(|work| self.end(work))
    }

    fn new_layer(&mut self) -> u64 {
        self.next_layer += 1;
        self.next_layer - 1
    }

    fn seal(&mut self) -> Result<(), Refused> {
        self.open()?;
        let new_head = self.new_layer();
        self.rig.seal(new_head)?;
        self.model.seal(new_head);
        Ok(())
    }

    fn expand(&mut self, blocks: u64) -> Result<(), Refused> {
        self.open()?;
        let blocks = self.rig.blocks + blocks;
        self.model.attempt = Attempt::Parts(self.model.grown(blocks));
        self.rig.expand(blocks)?;
        self.model.succeed();
        Ok(())
    }

    fn revert(&mut self, which: usize) -> Result<(), Refused> {
        let Some(to) = self.model.choose(which) else {
            return Ok(());
        };
        self.open()?;
        let new_head = self.new_layer();
        self.model.attempt = Attempt::Whole(self.model.reverted(to));
        self.rig.revert(layer(to), new_head)?;
        self.model.revert(new_head);
        Ok(())
    }

    fn remove(&mut self, which: usize) -> Result<(), Refused> {
        if let Some(gone) = self.model.choose(which) {
            self.rig.replica.remove_layer(layer(gone))?;
            self.model.sealed.remove(&gone);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.open()?;
        self.rig.replica.close(self.rig.epoch)?;
        self.is_open = false;
        self.model.is_durable(self.model.moment());
        Ok(())
    }

    fn reload(&mut self) -> Result<(), Refused> {
        // A process that is killed after a sync has failed, and before the fault is on record, is the one
        // thing that the next cannot know.
        for (_, held) in std::mem::take(&mut self.held) {
            if held.result.is_err() {
                self.rig.replica.finish_flush(held.plan, held.result)?;
            }
        }
        (self.is_loaded, self.is_open) = (false, false);
        let replica = Replica::load(&self.disk, self.rig.place.directory())?;
        self.is_loaded = true;
        self.rig.blocks = replica.size().blocks();
        self.rig.replica = replica;
        Ok(())
    }

    /// Has every layer's sums made sure.
    pub(super) fn settle(&mut self) -> Result<(), Refused> {
        self.end(Work::Merge)?;
        while !matches!(self.rig.replica.settle_step(100)?, Progress::Idle) {}
        Ok(())
    }

    /// Merges all that is to be merged.
    pub(super) fn merge_all(&mut self) -> Result<(), Refused> {
        self.end(Work::Merge)?;
        self.rig.merge_all();
        Ok(())
    }

    /// Whether it has failed for good, loaded or not, while the machine ran.
    pub(super) fn is_faulted(&self) -> bool {
        if self.disk.is_stopped() {
            return false;
        }
        if self.is_loaded {
            return matches!(self.rig.replica.state(), State::Faulted { .. });
        }
        is_faulted(&self.disk, self.rig.place)
    }

    /// After a refusal the volume reads as before or, where sectors were to be changed, as after.
    pub(super) fn take_refusal(&mut self) {
        // Nobody changes what nobody has open.
        if self.is_loaded && self.is_open {
            let found = contents(&mut self.rig);
            self.model.refuse(&found);
        }
    }

    /// Everything reads as the model says, in every layer that is left.
    pub(super) fn compare(&mut self) {
        self.open().unwrap();
        assert!(
            sectors(&self.rig.read_all()) == self.model.now,
            "{:?} does not read as its model",
            self.rig.place
        );
        check_sealed(&self.disk, self.rig.place, &self.model);
    }
}

/// Whether a replica is faulted on the disk.
pub(super) fn is_faulted(disk: &SimDisk, place: Place) -> bool {
    matches!(
        Replica::load(&disk.kill(), place.directory()),
        Err(LoadError::Faulted { .. })
    )
}

/// Every sealed layer of the model is there and holds what it says.
pub(super) fn check_sealed(disk: &SimDisk, place: Place, model: &Model) {
    for (sealed, wanted) in &model.sealed {
        let found = exported_from(disk, place, *sealed);
        assert!(found == *wanted, "layer {sealed} of {place:?}");
    }
}

/// The contents of a layer, read offline.
pub(super) fn exported(disk: &SimDisk, id: u64) -> Contents {
    exported_from(disk, Place::Original, id)
}

/// The same of either replica of the disk.
pub(super) fn exported_from(disk: &SimDisk, place: Place, id: u64) -> Contents {
    let mut out = Vec::new();
    // Of a faulted replica too: what it holds is to be right.
    let request = ExportRequest {
        layer: Some(layer(id)),
        damage: OnDamage::Refuse,
        partial: OnPartial::Take,
    };
    let exported = crate::replica::salvage(disk, place.directory(), &request, |offset, data| {
        let at = usize::try_from(offset / SECTOR).unwrap();
        let data = sectors(data);
        out.resize(out.len().max(at + data.len()), 0);
        out[at..at + data.len()].copy_from_slice(&data);
        Ok(())
    })
    .unwrap();
    out.resize(usize::try_from(exported.size.bytes() / SECTOR).unwrap(), 0);
    out
}

/// All of a replica's sectors.
pub(super) fn contents(rig: &mut Rig<SimDisk>) -> Contents {
    let mut found = Vec::new();
    for first in (0..rig.blocks).step_by(512) {
        let bytes = (rig.blocks - first).min(512) * BLOCK;
        found.extend(sectors(&rig.read(first * BLOCK, bytes).unwrap()));
    }
    found
}
