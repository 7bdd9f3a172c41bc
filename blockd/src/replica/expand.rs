//! Growing: the head becomes longer, sealed layers stay as they are. Nothing ever shrinks.

use ankole_proto::wire::body::Expand;
use ankole_proto::{Epoch, VolumeSize};

use super::Replica;
use super::refusal::{Medium, TreeError};
use crate::disk::Disk;

impl<D: Disk> Replica<D> {
    /// Makes the replica at least as large as asked, durably; what is new reads as zeros. Asked of
    /// a larger one it changes nothing.
    ///
    /// # Errors
    ///
    /// [`TreeError`]; the replica is as large as before then.
    pub fn expand(&mut self, epoch: Epoch, expand: Expand) -> Result<(), TreeError> {
        self.admit(epoch)?;
        Ok(self.grow(expand.size)?)
    }

    /// Grows the head's files, then says so. A stop or a refusal between the two leaves files that
    /// are too long, which loading cuts, or the next sync of all of the head.
    pub(super) fn grow(&mut self, size: VolumeSize) -> Result<(), Medium> {
        if size <= self.size {
            return Ok(());
        }
        if let Err(error) = self.files.grow_head(size) {
            return Err(self.failed("growing the head", error));
        }
        let mut next = self.descriptor.clone();
        next.size = size;
        if let Some(head) = next.layer_mut(next.head) {
            head.size = size;
        }
        self.commit(next)?;
        self.size = size;
        self.index.grow(size);
        self.chunks.grow(size);
        Ok(())
    }
}
