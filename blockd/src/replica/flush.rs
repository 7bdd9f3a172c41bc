//! Making things durable. A flush is planned and finished under the caller's lock and runs without
//! it; what it covers is what was done before it was planned (INV-5).

use std::io;

use ankole_proto::{BLOCK_BYTES, Epoch, LayerId};

use super::Replica;
use super::fault::is_full;
use super::refusal::{DataError, Medium, Unusable};
use crate::disk::{Disk, DiskFile};

/// The most chunks whose sums are written with the replica held, when writeback begins.
pub const WRITEBACK_CHUNKS_MAX: usize = 64;

/// What of the head has changed and what of that is durable.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Counts changes of the image.
    pub(super) data_changes: u64,
    data_synced: u64,
    /// Counts bytes written to the image.
    data_bytes: u64,
    bytes_synced: u64,
    /// Counts changes of the map.
    pub(super) map_changes: u64,
    pub(super) map_synced: u64,
    /// The map change that the last plan of a flush covers.
    pub(super) map_planned: u64,
    /// Counts plans.
    pub(super) plans: u64,
    /// Counts changes of the sums.
    pub(super) sum_changes: u64,
    sums_synced: u64,
}

impl Dirty {
    /// Of another head, after this many plans.
    pub(super) fn after(plans: u64) -> Self {
        Self {
            plans,
            ..Self::default()
        }
    }

    /// Of a head that a process left without closing it: what it wrote may be in the page cache
    /// only, and the next flush has to cover it (INV-5).
    pub(super) fn left_behind() -> Self {
        Self {
            data_changes: 1,
            map_changes: 1,
            sum_changes: 1,
            ..Self::default()
        }
    }

    /// The last map change that a flush covers, done or under way.
    pub(super) fn map_covered(&self) -> u64 {
        self.map_planned.max(self.map_synced)
    }

    /// So many bytes are to be written to the image.
    pub(super) fn data_changes(&mut self, bytes: u64) {
        self.data_changes += 1;
        self.data_bytes += bytes;
    }

    /// Bytes written to the image that a sync may have to write out.
    pub(super) const fn data_unsynced(&self) -> u64 {
        self.data_bytes - self.bytes_synced
    }

    /// Everything is durable.
    fn all_synced(&mut self) {
        self.data_synced = self.data_changes;
        self.bytes_synced = self.data_bytes;
        self.map_synced = self.map_changes;
        self.sums_synced = self.sum_changes;
    }
}

/// What a plan's end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Flush,
    /// What a merge has copied.
    Merge,
    /// A copy of a shared layer, which nothing counts on yet.
    Copy,
}

/// Files to be synced, and what that covers. Owns handles only: run it without the replica.
#[derive(Debug)]
pub struct FlushPlan<D: Disk> {
    purpose: Purpose,
    number: u64,
    head: LayerId,
    pub(super) files: Vec<D::File>,
    data_changes: u64,
    data_bytes: u64,
    map_changes: u64,
    sum_changes: Option<u64>,
}

impl<D: Disk> FlushPlan<D> {
    /// Syncs. Takes milliseconds: not under the replica's lock.
    ///
    /// # Errors
    ///
    /// What the system said; pass it to [`Replica::finish_flush`] either way.
    pub fn run(&self) -> io::Result<()> {
        self.files.iter().try_for_each(DiskFile::sync)
    }

    /// Its number in the order of plans.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// How many files it syncs.
    pub fn syncs(&self) -> usize {
        self.files.len()
    }

    /// Whether there is nothing to sync: it may be finished at once.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl<D: Disk> Replica<D> {
    /// What has to be synced for a flush of everything done until now.
    ///
    /// # Errors
    ///
    /// [`Unusable`].
    pub fn plan_flush(&mut self, epoch: Epoch) -> Result<FlushPlan<D>, Unusable> {
        self.admit(epoch)?;
        Ok(self.plan())
    }

    fn plan(&mut self) -> FlushPlan<D> {
        let dirty = &mut self.dirty;
        let files = self.files.head();
        dirty.plans += 1;
        dirty.map_planned = dirty.map_changes;
        let mut plan = FlushPlan {
            purpose: Purpose::Flush,
            number: dirty.plans,
            head: files.layer,
            files: Vec::with_capacity(2),
            data_changes: dirty.data_changes,
            data_bytes: dirty.data_bytes,
            map_changes: dirty.map_changes,
            sum_changes: None,
        };
        if dirty.data_changes > dirty.data_synced {
            plan.files.push(files.image.clone());
        }
        if dirty.map_changes > dirty.map_synced {
            plan.files.push(files.map.clone());
        }
        plan
    }

    /// What background writeback should sync, checksums included; `None` when nothing is dirty.
    pub fn plan_writeback(&mut self) -> Option<FlushPlan<D>> {
        self.check_sound().ok()?;
        // What does not get there now goes with the next.
        let more = self.write_sums(WRITEBACK_CHUNKS_MAX).ok()?;
        let mut plan = self.plan();
        if self.dirty.sum_changes > self.dirty.sums_synced && !more {
            plan.files.push(self.files.head().sums.clone());
            plan.sum_changes = Some(self.dirty.sum_changes);
        }
        (!plan.files.is_empty()).then_some(plan)
    }

    /// The sync that a merge waits for.
    pub(super) fn plan_merge(&mut self, files: Vec<D::File>) -> FlushPlan<D> {
        self.plan_of(Purpose::Merge, files)
    }

    /// The sync that a copy of a shared layer waits for.
    pub(super) fn plan_copy(&mut self, files: Vec<D::File>) -> FlushPlan<D> {
        self.plan_of(Purpose::Copy, files)
    }

    fn plan_of(&mut self, purpose: Purpose, files: Vec<D::File>) -> FlushPlan<D> {
        self.dirty.plans += 1;
        FlushPlan {
            purpose,
            number: self.dirty.plans,
            head: self.tree.head(),
            files,
            data_changes: 0,
            data_bytes: 0,
            map_changes: 0,
            sum_changes: None,
        }
    }

    /// Takes the result of a plan's run. A failed sync faults the replica for good (INV-10).
    ///
    /// # Errors
    ///
    /// [`DataError`]: the flush must not be acknowledged.
    pub fn finish_flush(
        &mut self,
        plan: FlushPlan<D>,
        result: io::Result<()>,
    ) -> Result<(), DataError> {
        self.check_sound()?;
        if plan.purpose == Purpose::Copy {
            return Ok(self.finish_copy(plan.number, result)?);
        }
        if let Err(error) = result {
            return Err(self.failed_for_good("a sync", error).into());
        }
        if plan.purpose == Purpose::Merge {
            if let Some(merge) = &mut self.merge {
                merge.synced(plan.number);
            }
            return Ok(());
        }
        if plan.head != self.tree.head() {
            // It was sealed meanwhile, and synced for that.
            return Ok(());
        }
        let dirty = &mut self.dirty;
        if plan.data_changes > dirty.data_synced {
            dirty.data_synced = plan.data_changes;
            dirty.bytes_synced = plan.data_bytes;
            self.vacated.image_synced(plan.number);
        }
        dirty.map_synced = dirty.map_synced.max(plan.map_changes);
        if let Some(changes) = plan.sum_changes {
            dirty.sums_synced = dirty.sums_synced.max(changes);
        }
        Ok(self.punch_hidden()?)
    }

    /// Takes the result of the sync of a copy. Nothing counts on it yet, so a full disk refuses it, also
    /// one that was given up meanwhile; the next attempt begins with other files.
    pub(super) fn finish_copy(
        &mut self,
        number: u64,
        result: io::Result<()>,
    ) -> Result<(), Medium> {
        match result {
            Err(error) if is_full(&error) => {
                if self.privacy.waits_for(number) {
                    self.drop_copies();
                }
                Err(Medium::NoSpace)
            }
            Err(error) => Err(self.failed_for_good("a sync", error)),
            Ok(()) => {
                self.privacy.synced(number);
                Ok(())
            }
        }
    }

    /// Flushes under the lock.
    pub(super) fn flush_now(&mut self) -> Result<(), DataError> {
        let plan = self.plan();
        let result = plan.run();
        self.finish_flush(plan, result)
    }

    /// Gives back the space of what is durably hidden.
    fn punch_hidden(&mut self) -> Result<(), Medium> {
        if !self.vacated.has_hidden() {
            return Ok(());
        }
        for range in self.vacated.punchable(self.dirty.map_synced) {
            let bytes = range.start * BLOCK_BYTES..range.end * BLOCK_BYTES;
            match self.files.head().image.punch_hole(bytes) {
                Ok(()) => self.vacated.punched(range, self.dirty.plans),
                // Splitting an extent takes space too: it is tried again after the next flush.
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(self.failed("punching a hole", error)),
            }
        }
        Ok(())
    }

    /// Makes vacated places safe to be written: what is hidden is hidden durably, punched, and that
    /// durably. What a full disk does not let be punched stays hidden.
    pub(super) fn settle_places(&mut self) -> Result<(), Medium> {
        if self.dirty.map_changes > self.dirty.map_synced {
            if let Err(error) = self.files.head().map.sync() {
                return Err(self.failed_for_good("a sync", error));
            }
            self.dirty.map_synced = self.dirty.map_changes;
        }
        self.punch_hidden()?;
        self.dirty.plans += 1;
        let number = self.dirty.plans;
        if let Err(error) = self.files.head().image.sync() {
            return Err(self.failed_for_good("a sync", error));
        }
        self.dirty.data_synced = self.dirty.data_changes;
        self.dirty.bytes_synced = self.dirty.data_bytes;
        self.vacated.image_synced(number);
        Ok(())
    }

    /// Bytes written to the head that a flush may have to wait for.
    pub const fn unsynced_bytes(&self) -> u64 {
        self.dirty.data_unsynced()
    }

    /// Makes all of the head durable, sums and holes too.
    pub(super) fn sync_head(&mut self) -> Result<(), Medium> {
        if self.files.head().size != self.size
            && let Err(error) = self.files.grow_head(self.size)
        {
            // An expansion did not come to its end; a sealed layer's files must have their length.
            return Err(self.failed_for_good("cutting the head", error));
        }
        self.write_all_sums()?;
        let files = self.files.head().clone();
        let sync = |files: &[&D::File]| files.iter().try_for_each(|file| file.sync());
        if let Err(error) = sync(&[&files.sums, &files.image, &files.map]) {
            return Err(self.failed_for_good("a sync", error));
        }
        self.dirty.all_synced();
        if !self.vacated.is_empty() {
            self.settle_places()?;
        }
        Ok(())
    }

    /// Makes all of a sealed layer durable.
    pub(super) fn sync_sealed(&mut self, layer: LayerId) -> Result<(), Medium> {
        let synced = match self.files.of(&self.disk, layer) {
            Ok(files) => [&files.sums, &files.image, &files.map]
                .into_iter()
                .try_for_each(DiskFile::sync),
            Err(error) => Err(error),
        };
        synced.map_err(|error| self.failed_for_good("a sync", error))
    }
}
