//! What seal, revert, merge and rebuild share: one tree of layers takes another's place.

use ankole_proto::{LayerId, VolumeSize};

use super::Replica;
use super::flush::Dirty;
use super::load::{ScanError, scan_layer};
use super::refusal::Medium;
use crate::disk::Disk;
use crate::layer::{LayerFiles, Lengths, Part, Tree, file_path};

/// The most removed layers whose files are kept open (INV-12); a caller that takes them in time
/// never has more than a few.
const REMOVED_MAX: usize = 16;

/// Files that have no name any more. The system gives their space back when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it takes time: not under the replica's lock"]
pub struct Removed<D: Disk>(Vec<LayerFiles<D::File>>);

impl<D: Disk> Removed<D> {
    /// Of how many layers.
    pub fn layers(&self) -> usize {
        self.0.len()
    }
}

impl<D: Disk> Replica<D> {
    /// Creates the files of an empty layer, durably. It is not in the tree yet: should a stop fall
    /// here, loading removes them.
    pub(super) fn create_layer(
        &mut self,
        layer: LayerId,
        size: VolumeSize,
    ) -> Result<LayerFiles<D::File>, Medium> {
        let lengths = Lengths::of(size);
        let created =
            LayerFiles::create(&self.disk, &self.directory, layer, lengths).and_then(|files| {
                self.disk.sync_dir(&self.directory.join("layers"))?;
                Ok(files)
            });
        if created.is_ok() {
            self.files.add(layer, size);
        }
        created.map_err(|error| self.failed("creating a layer", error))
    }

    /// Makes the tree durable and obeys it; `state` too, when it is given.
    pub(super) fn commit_tree(&mut self, tree: Tree) -> Result<(), Medium> {
        let mut next = self.descriptor.clone();
        next.set_tree(&tree);
        self.commit(next)?;
        self.tree = tree;
        Ok(())
    }

    /// Begins to write to another head, whose files are empty or synced.
    pub(super) fn enter_head(&mut self, files: LayerFiles<D::File>) {
        self.census.forget(self.files.head().layer);
        self.files.replace_head(files);
        self.chunks.next_head();
        self.vacated.clear();
        // Plans go on counting, so that one made before is not taken for one of this head.
        self.dirty = Dirty::after(self.dirty.plans);
        self.merge = None;
        self.settle = None;
    }

    /// Removes the files of a layer that is not in the tree any more. One that cannot be removed
    /// now is removed when the replica is loaded. Their space comes back when [`Self::take_removed`]
    /// is dropped: that takes the system half a second for a GiB.
    pub(super) fn remove_files(&mut self, layer: LayerId) {
        if let Ok(files) = self.files.of(&self.disk, layer) {
            let files = files.clone();
            if self.removed.len() >= REMOVED_MAX {
                self.removed.clear();
            }
            self.removed.push(files);
        }
        self.files.remove(layer);
        self.forget_private(layer);
        self.damages.forget_layer(layer);
        self.census.forget(layer);
        self.index.remove_layer(layer);
        for part in Part::ALL {
            let _ = self
                .disk
                .remove_file(&file_path(&self.directory, layer, part));
        }
    }

    /// The files without names that are still open. Drop them without holding the replica.
    pub fn take_removed(&mut self) -> Removed<D> {
        Removed(std::mem::take(&mut self.removed))
    }

    /// Reads the maps of the chain anew.
    pub(super) fn rebuild_index(&mut self) -> Result<(), Medium> {
        self.index.clear_blocks();
        self.chunks.clear();
        let chain = self.tree.chain();
        let branches: Vec<LayerId> = self
            .tree
            .layers()
            .filter(|layer| !chain.contains(layer))
            .collect();
        for layer in branches.into_iter().chain(chain.iter().rev().copied()) {
            let scanned = match self.files.of(&self.disk, layer) {
                Ok(files) => scan_layer(files, &mut self.index, chain.contains(&layer)),
                Err(error) => Err(ScanError::Io(error)),
            };
            match scanned {
                Ok(()) => {}
                Err(ScanError::Io(error)) => {
                    return Err(self.failed_for_good("reading a map", error));
                }
                Err(ScanError::Record(chunk, error)) => {
                    return Err(self.map_damaged(layer, chunk, error));
                }
            }
        }
        Ok(())
    }
}
