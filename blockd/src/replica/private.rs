//! Files of one's own: before a replica changes a sealed layer whose files another replica shares
//! (they have more than one name), it copies them aside, syncs the copies and puts them in the
//! place of the shared ones.
//!
//! The copies say the same as the files they replace, so a stop between two renames leaves a layer
//! of old and new files that is whole. A shared file keeps a second name here (`.old`) until its
//! replacement is durable: only then may the other replica see that it is alone and change the
//! file. Else a crash could bring the old name back, over a file that has changed meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::{BLOCK_BYTES, BlockNumber, LayerId};

use super::refusal::{BlockError, ChecksumMismatch, Medium, WorkError};
use super::{Allocation, Progress, Replica, State};
use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::layer::{BLOCK, LayerFiles, Lengths, Part, file_path};

/// What is copied with one pair of calls at most.
const COPY_BYTES_MAX: u64 = 1 << 20;
/// The end of the name of a copy that is being made.
pub(super) const COPY_SUFFIX: &str = "new";
/// The end of the second name of a file that is being replaced.
pub(super) const OLD_SUFFIX: &str = "old";

/// A part of a layer on its way.
#[derive(Debug)]
struct CopiedPart<D: Disk> {
    part: Part,
    from: D::File,
    to: D::File,
    /// Everything before is copied.
    at: u64,
}

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

    /// Gives a copy up: what it was made of has changed, or is not needed.
    pub(super) fn abandon(&mut self) {
        self.copy = None;
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a name in the directory of layers is one that only the making of copies gives.
pub(super) fn is_left_behind(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(rest, end)| {
        let of_layer = rest.split_once('.').is_some_and(|(id, part)| {
            id.parse::<LayerId>().is_ok() && Part::ALL.iter().any(|one| one.extension() == part)
        });
        of_layer && (end == COPY_SUFFIX || end == OLD_SUFFIX)
    })
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

    /// Gives the layer files of its own, at once: for a replica that is being rebuilt, which nobody
    /// waits for.
    pub(super) fn make_private(&mut self, layer: LayerId) -> Result<(), BlockError> {
        while let Some(progress) = self.make_private_step(layer, COPY_BYTES_MAX / BLOCK_BYTES)? {
            if let Progress::Sync(plan) = progress {
                if let Err(error) = plan.run() {
                    return Err(self.failed_for_good("a sync", error).into());
                }
                self.privacy.synced(plan.number());
            }
        }
        Ok(())
    }

    /// Creates the copies, empty; `false` when nothing is shared.
    fn begin_copy(&mut self, layer: LayerId) -> Result<bool, Medium> {
        self.privacy.copy = None;
        if !self.is_shared(layer)? {
            return Ok(false);
        }
        let bytes = self.index.present_blocks(layer) * BLOCK_BYTES;
        let free = self.disk.space().map(|space| space.free_bytes);
        let fits = free.is_ok_and(|free| free > bytes + bytes / 8);
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
        let plan = self.plan_merge(files);
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
        self.damages.find(damage);
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
        let entered = replace_all(&self.disk, &self.directory.join("layers"), &paths);
        entered.map_err(|error| self.failed("replacing a shared layer", error))
    }
}

/// Renames the copies over the shared files. The other replica sees that it is alone only after that
/// is durable.
fn replace_all<D: Disk>(disk: &D, directory: &Path, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        let old = beside(path, OLD_SUFFIX);
        match disk.hard_link(path, &old) {
            // Left by an earlier attempt.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => linked?,
        }
    }
    disk.sync_dir(directory)?;
    for path in paths {
        disk.rename(&beside(path, COPY_SUFFIX), path)?;
    }
    disk.sync_dir(directory)?;
    for path in paths {
        disk.remove_file(&beside(path, OLD_SUFFIX))?;
    }
    Ok(())
}

fn shared_parts<F: DiskFile>(files: &LayerFiles<F>) -> io::Result<Vec<Part>> {
    let mut shared = Vec::new();
    for part in Part::ALL {
        if files.part(part).links()? > 1 {
            shared.push(part);
        }
    }
    Ok(shared)
}

fn create_copies<D: Disk>(
    disk: &D,
    directory: &Path,
    files: &LayerFiles<D::File>,
) -> io::Result<Vec<CopiedPart<D>>> {
    let mut parts = Vec::new();
    for part in shared_parts(files)? {
        let path = file_path(directory, files.layer, part);
        let to = disk.create(&beside(&path, COPY_SUFFIX))?;
        to.set_len(Lengths::of(files.size).bytes(part))?;
        parts.push(CopiedPart {
            part,
            from: files.part(part).clone(),
            to,
            at: 0,
        });
    }
    Ok(parts)
}

/// Why a part was not copied.
#[derive(Debug)]
enum CopyError {
    /// The disk does not give this block.
    Unreadable(BlockNumber),
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<D: Disk> CopiedPart<D> {
    /// Copies the next at most so many bytes; holes stay holes. How many; 0 at the end.
    fn copy_some(&mut self, bytes_max: u64) -> Result<u64, CopyError> {
        let Some(data) = self.from.next_data(self.at)? else {
            self.at = u64::MAX;
            return Ok(0);
        };
        let bytes = (data.end - data.start).min(bytes_max).min(COPY_BYTES_MAX);
        let range = data.start..data.start + bytes;
        if let Err(error) = self.from.copy_range(range, &self.to) {
            return Err(self.unreadable(data.start, bytes, error));
        }
        self.at = data.start + bytes;
        Ok(bytes)
    }

    /// Which block of the image cannot be read, or that the file cannot.
    fn unreadable(&self, start: u64, bytes: u64, error: io::Error) -> CopyError {
        let mut block = [0; BLOCK];
        (start..start + bytes)
            .step_by(BLOCK)
            .find(|offset| {
                self.part == Part::Image && read_exact_at(&self.from, &mut block, *offset).is_err()
            })
            .map_or(CopyError::Io(error), |offset| {
                CopyError::Unreadable(BlockNumber::at(offset))
            })
    }
}
