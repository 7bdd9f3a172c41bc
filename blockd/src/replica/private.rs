//! Files of one's own: before a replica changes a sealed layer whose files another replica shares
//! (they have more than one name), it copies them aside, syncs the copies and puts them in the
//! place of the shared ones.
//!
//! The copies say the same as the files they replace, so a stop between two renames leaves a layer
//! of old and new files that is whole. A shared file keeps a second name here (`.old`) until its
//! replacement is durable: only then may the other replica see that it is alone and change the
//! file. Else a crash could bring the old name back, over a file that has changed meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ankole_proto::{BLOCK_BYTES, BlockNumber, LayerId};

use super::refusal::{BlockError, ChecksumMismatch, Medium, WorkError};
use super::{Allocation, Progress, Replica, State};
use crate::disk::Disk;
use crate::layer::{Flaw, Part, file_path};

use parts::{
    COPY_BYTES_MAX, COPY_SUFFIX, CopiedPart, CopyError, beside, create_copies, replace_all,
    shared_parts,
};

pub(super) use parts::is_left_behind;

mod parts;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    /// Waits for the sync with this number.
    Syncing(u64),
    Synced,
}

/// A layer whose files are being copied.
#[derive(Debug)]
struct LayerCopy<D: Disk> {
    layer: LayerId,
    parts: Vec<CopiedPart<D>>,
    stage: Stage,
}

/// Which layers are to have files of their own.
#[derive(Debug)]
pub(super) struct Privacy<D: Disk> {
    copy: Option<LayerCopy<D>>,
    /// A repair waits for these.
    wanted: BTreeSet<LayerId>,
}

impl<D: Disk> Privacy<D> {
    pub(super) const fn new() -> Self {
        Self {
            copy: None,
            wanted: BTreeSet::new(),
        }
    }

    /// A sync has succeeded.
    pub(super) fn synced(&mut self, number: u64) {
        if let Some(copy) = &mut self.copy
            && copy.stage == Stage::Syncing(number)
        {
            copy.stage = Stage::Synced;
        }
    }

    /// Whether a copy waits for the sync with this number.
    pub(super) fn waits_for(&self, number: u64) -> bool {
        let copy = self.copy.as_ref();
        copy.is_some_and(|copy| copy.stage == Stage::Syncing(number))
    }

    /// Gives a copy up: what it was made of has changed, or is not needed.
    pub(super) fn abandon(&mut self) {
        self.copy = None;
    }
}

impl<D: Disk> Replica<D> {
    /// Whether another replica has the layer's files too.
    pub(super) fn is_shared(&mut self, layer: LayerId) -> Result<bool, Medium> {
        let shared = match self.files.of(&self.disk, layer) {
            Ok(files) => shared_parts(files).map(|parts| !parts.is_empty()),
            Err(error) => Err(error),
        };
        shared.map_err(|error| self.failed("looking at a layer", error))
    }

    /// The layer is not in the tree any more.
    pub(super) fn forget_private(&mut self, layer: LayerId) {
        self.privacy.wanted.remove(&layer);
        let copy = self.privacy.copy.as_ref();
        if copy.is_some_and(|copy| copy.layer == layer) {
            self.drop_copies();
        }
    }

    /// Has the background work give the layer files of its own.
    pub(super) fn want_private(&mut self, layer: LayerId) {
        self.privacy.wanted.insert(layer);
    }

    /// Copies at most about `budget_blocks` blocks of a layer that a repair waits for.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn private_step(&mut self, budget_blocks: u64) -> Result<Progress<D>, WorkError> {
        self.check_sound()?;
        let Some(layer) = self.privacy.wanted.first().copied() else {
            return Ok(Progress::Idle);
        };
        if self.state == State::Rebuilding {
            return Ok(Progress::Idle);
        }
        if let Some(progress) = self.make_private_step(layer, budget_blocks)? {
            return Ok(progress);
        }
        self.privacy.wanted.remove(&layer);
        Ok(Progress::Working { blocks: 0 })
    }

    /// A step towards files of the layer's own; `None`: it has them. Call again after the sync.
    pub(super) fn make_private_step(
        &mut self,
        layer: LayerId,
        budget_blocks: u64,
    ) -> Result<Option<Progress<D>>, BlockError> {
        if layer == self.tree.head() {
            // A head is made by its replica alone.
            return Ok(None);
        }
        // Another layer's first: two that put each other aside would never end. One that cannot go
        // on now makes way.
        let copied = self.privacy.copy.as_ref().map(|copy| copy.layer);
        if let Some(other) = copied.filter(|copied| *copied != layer)
            && let Ok(progress) = self.copy_step(other, budget_blocks)
        {
            return Ok(Some(progress.unwrap_or(Progress::Working { blocks: 0 })));
        }
        self.copy_step(layer, budget_blocks)
    }

    fn copy_step(
        &mut self,
        layer: LayerId,
        budget_blocks: u64,
    ) -> Result<Option<Progress<D>>, BlockError> {
        let stage = match &self.privacy.copy {
            Some(copy) if copy.layer == layer => copy.stage,
            _ => {
                let begun = self.begin_copy(layer)?;
                return Ok(begun.then_some(Progress::Working { blocks: 0 }));
            }
        };
        match stage {
            Stage::Copying => Ok(Some(self.copy_parts(budget_blocks)?)),
            Stage::Syncing(_) => Ok(Some(self.sync_copy())),
            Stage::Synced => {
                self.enter_copy()?;
                Ok(None)
            }
        }
    }

    /// Whether the layer's files have to be copied before [`Self::write_layer`], or
    /// [`Self::begin_rebuild`] with this head, can change them.
    ///
    /// # Errors
    ///
    /// [`Medium`].
    pub fn needs_copy(&mut self, layer: LayerId) -> Result<bool, Medium> {
        if !self.tree.contains(layer) || layer == self.tree.head() {
            return Ok(false);
        }
        let is_shared = self.is_shared(layer)?;
        let copied = self.privacy.copy.as_ref().map(|copy| copy.layer);
        if !is_shared && copied == Some(layer) {
            // The other replica has gone meanwhile.
            self.drop_copies();
        }
        Ok(is_shared)
    }

    /// Copies at most about `budget_blocks` blocks of a layer that is to be written to and whose
    /// files are shared. `Idle`: it may be written to. What was copied stays when the caller gives
    /// up, for the next.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn prepare_step(
        &mut self,
        layer: LayerId,
        budget_blocks: u64,
    ) -> Result<Progress<D>, WorkError> {
        self.check_sound()?;
        if !self.needs_copy(layer)? {
            return Ok(Progress::Idle);
        }
        let progress = self.make_private_step(layer, budget_blocks)?;
        Ok(progress.unwrap_or(Progress::Working { blocks: 0 }))
    }

    /// Gives the layer files of its own, at once. Nothing is left to do when the caller has taken
    /// [`Self::prepare_step`] to its end before, which holds the replica for moments only.
    pub(super) fn make_private(&mut self, layer: LayerId) -> Result<(), BlockError> {
        while let Some(progress) = self.make_private_step(layer, COPY_BYTES_MAX / BLOCK_BYTES)? {
            if let Progress::Sync(plan) = progress {
                let result = plan.run();
                self.finish_copy(plan.number(), result)?;
            }
        }
        Ok(())
    }

    /// Creates the copies, empty; `false` when nothing is shared.
    fn begin_copy(&mut self, layer: LayerId) -> Result<bool, Medium> {
        self.drop_copies();
        if !self.is_shared(layer)? {
            return Ok(false);
        }
        let bytes = self.index.present_blocks(layer) * BLOCK_BYTES;
        let fits = self.disk.space().is_ok_and(|space| {
            // And what its map and sums take.
            space.free_bytes > bytes + bytes / 8 + space.reserve_bytes()
        });
        if self.allocation == Allocation::Refused || !fits {
            return Err(Medium::NoSpace);
        }
        let begun = match self.files.of(&self.disk, layer) {
            Ok(files) => create_copies(&self.disk, &self.directory, files),
            Err(error) => Err(error),
        };
        let parts = begun.map_err(|error| self.failed("copying a shared layer", error))?;
        self.privacy.copy = Some(LayerCopy {
            layer,
            parts,
            stage: Stage::Copying,
        });
        Ok(true)
    }

    fn copy_parts(&mut self, budget_blocks: u64) -> Result<Progress<D>, BlockError> {
        let mut left = budget_blocks.max(1).saturating_mul(BLOCK_BYTES);
        let Some(copy) = &mut self.privacy.copy else {
            return Ok(Progress::Working { blocks: 0 });
        };
        let mut copied: Result<(), CopyError> = Ok(());
        for part in &mut copy.parts {
            while left > 0 && copied.is_ok() {
                match part.copy_some(left) {
                    Ok(0) => break,
                    Ok(bytes) => left = left.saturating_sub(bytes),
                    Err(error) => copied = Err(error),
                }
            }
        }
        match copied {
            Ok(()) => {}
            // It stays as it is until the block is repaired.
            Err(CopyError::Unreadable(block)) => return Err(self.unreadable_copy(block)),
            Err(CopyError::Io(error)) => {
                self.drop_copies();
                return Err(self.failed("copying a shared layer", error).into());
            }
        }
        if left == 0 {
            return Ok(Progress::Working {
                blocks: budget_blocks,
            });
        }
        Ok(self.sync_copy())
    }

    fn sync_copy(&mut self) -> Progress<D> {
        let parts = self.privacy.copy.iter().flat_map(|copy| &copy.parts);
        let files = parts.map(|part| part.to.clone()).collect();
        let plan = self.plan_copy(files);
        if let Some(copy) = &mut self.privacy.copy {
            copy.stage = Stage::Syncing(plan.number());
        }
        Progress::Sync(plan)
    }

    fn unreadable_copy(&mut self, block: BlockNumber) -> BlockError {
        let layer = self.privacy.copy.as_ref().map(|copy| copy.layer);
        let damage = ChecksumMismatch {
            layer: layer.unwrap_or(self.tree.head()),
            block,
        };
        self.damages.find(damage, Flaw::Unreadable);
        damage.into()
    }

    /// Gives a copy up and its space back.
    pub(super) fn drop_copies(&mut self) {
        let Some(copy) = self.privacy.copy.take() else {
            return;
        };
        for part in copy.parts {
            let path = file_path(&self.directory, copy.layer, part.part);
            // What stays is removed when the replica is loaded, or overwritten by the next copy.
            let _left = self.disk.remove_file(&beside(&path, COPY_SUFFIX));
        }
    }

    /// Puts the copies, which are durable, in the place of the shared files.
    fn enter_copy(&mut self) -> Result<(), Medium> {
        let Some(copy) = self.privacy.copy.take() else {
            return Ok(());
        };
        self.files.close(copy.layer);
        let paths: Vec<PathBuf> = copy
            .parts
            .iter()
            .map(|part| file_path(&self.directory, copy.layer, part.part))
            .collect();
        let every = Part::ALL.map(|part| file_path(&self.directory, copy.layer, part));
        let entered = replace_all(&self.disk, &self.directory.join("layers"), &paths, &every);
        entered.map_err(|error| self.failed("replacing a shared layer", error))
    }
}
