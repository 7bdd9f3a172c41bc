//! Seal, revert, and the wish to remove a layer.

use ankole_proto::wire::body::{Revert, SEALED_LAYERS_MAX, Seal};
use ankole_proto::{Epoch, LayerId};

use super::refusal::TreeError;
use super::{Replica, State};
use crate::disk::Disk;

impl<D: Disk> Replica<D> {
    /// Syncs and seals the head and puts an empty one on it. Idempotent.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn seal(&mut self, epoch: Epoch, seal: Seal) -> Result<(), TreeError> {
        self.admit(epoch)?;
        if self.tree.head() == seal.new_head && self.tree.parent(seal.new_head) == Some(seal.head) {
            return Ok(());
        }
        if self.tree.head() != seal.head {
            return Err(TreeError::Conflict("the head is another layer"));
        }
        if self.tree.contains(seal.new_head) {
            return Err(TreeError::Conflict("the new head exists already"));
        }
        if self.tree.sealed_count() >= SEALED_LAYERS_MAX {
            return Err(TreeError::TooManyLayers);
        }
        self.sync_head()?;
        let files = self.create_layer(seal.new_head, self.size)?;
        self.commit_tree(self.tree.with_sealed_head(seal.new_head))?;
        self.index.add_layer(seal.new_head);
        self.enter_head(files);
        Ok(())
    }

    /// Puts an empty head on a sealed layer and drops the old head. Idempotent.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn revert(&mut self, epoch: Epoch, revert: Revert) -> Result<(), TreeError> {
        self.admit(epoch)?;
        let old_head = self.tree.head();
        if old_head == revert.new_head && self.tree.parent(old_head) == Some(revert.to) {
            return Ok(());
        }
        if self.state == State::Rebuilding {
            return Err(TreeError::Conflict("the replica is being rebuilt"));
        }
        if !self.tree.contains(revert.to) {
            return Err(TreeError::NoSuchLayer(revert.to));
        }
        if revert.to == old_head {
            return Err(TreeError::Conflict("the layer is not sealed"));
        }
        let is_removing = |layer| {
            self.descriptor
                .layer(layer)
                .is_some_and(|layer| layer.removing)
        };
        if is_removing(revert.to) {
            return Err(TreeError::Conflict("the layer is being removed"));
        }
        if self.tree.contains(revert.new_head) {
            return Err(TreeError::Conflict("the new head exists already"));
        }
        let files = self.create_layer(revert.new_head, self.size)?;
        self.commit_tree(self.tree.with_head_on(revert.to, revert.new_head))?;
        self.enter_head(files);
        self.remove_files(old_head);
        self.rebuild_index()?;
        Ok(())
    }

    /// Wishes a sealed layer away, durably; [`Self::merge_step`] does it. A layer that is gone
    /// already is `NoSuchLayer`.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn remove_layer(&mut self, layer: LayerId) -> Result<(), TreeError> {
        self.check_sound()?;
        if layer == self.tree.head() {
            return Err(TreeError::Conflict("the layer is the head"));
        }
        let mut next = self.descriptor.clone();
        let entry = next.layer_mut(layer).ok_or(TreeError::NoSuchLayer(layer))?;
        entry.removing = true;
        Ok(self.commit(next)?)
    }
}
