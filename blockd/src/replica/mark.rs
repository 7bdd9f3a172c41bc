//! How far a rebuild is, durably, so that a later one need not compare everything again.
//!
//! Of the sealed layers only: nobody but the rebuild writes to them, so what was equal stays so,
//! whatever the replica misses while it is away. Of the head that cannot be said.

use std::io;

use ankole_proto::wire::cursor::{MARK_LAYERS_MAX, RebuildCursor};
use ankole_proto::{Epoch, LayerId, ReplicaId};

use super::descriptor::StoredCursor;
use super::refusal::TreeError;
use super::{Replica, State};
use crate::disk::{Disk, DiskFile};
use crate::layer::Tree;

/// What a rebuild has made equal, and the files that have to be synced before that is noted. Owns
/// handles only: run it without the replica.
#[derive(Debug)]
pub struct MarkPlan<D: Disk> {
    cursor: RebuildCursor,
    /// Which rebuild it belongs to.
    rebuild: u64,
    files: Vec<D::File>,
}

impl<D: Disk> MarkPlan<D> {
    /// Syncs. Takes long after much was copied: not under the replica's lock.
    ///
    /// # Errors
    ///
    /// What the system said; pass it to [`Replica::finish_mark`] either way.
    pub fn run(&self) -> io::Result<()> {
        self.files.iter().try_for_each(DiskFile::sync)
    }
}

impl<D: Disk> Replica<D> {
    /// What an earlier rebuild has made equal, as far as that counts with this tree.
    pub(super) fn rebuilt_before(&self, tree: &Tree) -> RebuildCursor {
        let before = self.descriptor.rebuilt.as_ref();
        match before.filter(|_| self.state == State::Rebuilding) {
            Some(before) => {
                let (old, new) = (self.tree.links(), tree.links());
                before.told().after(&old, &new, tree.head())
            }
            None => RebuildCursor::nothing(ReplicaId::from_bits(0)),
        }
    }

    /// What has to be synced before this much counts as equal: the layers that did not before.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn plan_mark(
        &mut self,
        epoch: Epoch,
        cursor: RebuildCursor,
    ) -> Result<MarkPlan<D>, TreeError> {
        self.admit(epoch)?;
        if self.state != State::Rebuilding {
            return Err(TreeError::Conflict("the replica is not being rebuilt"));
        }
        let links = self.tree.links();
        let fits = cursor.after(&links, &links, self.tree.head());
        if fits.equal.len() != cursor.equal.len() || fits.part != cursor.part {
            return Err(TreeError::Conflict(
                "the layers are not sealed ones, each with what it stands on, parents first",
            ));
        }
        let known = self.descriptor.rebuilt.as_ref().map(StoredCursor::told);
        let known = known.map(|known| known.equal).unwrap_or_default();
        let news: Vec<LayerId> = cursor.layers().filter(|one| !known.contains(one)).collect();
        if news.len() > MARK_LAYERS_MAX {
            return Err(TreeError::Conflict("too many layers became equal at once"));
        }
        let mut files = Vec::with_capacity(3 * news.len());
        for layer in news {
            match self.files.of(&self.disk, layer) {
                Ok(of) => files.extend([&of.sums, &of.image, &of.map].map(Clone::clone)),
                Err(error) => return Err(self.failed("opening a layer", error).into()),
            }
        }
        Ok(MarkPlan {
            cursor,
            rebuild: self.rebuilds_begun,
            files,
        })
    }

    /// Notes it, durably, when the syncs have succeeded.
    ///
    /// # Errors
    ///
    /// [`TreeError`]; after a failed sync the replica is faulted (INV-10).
    pub fn finish_mark(
        &mut self,
        epoch: Epoch,
        plan: MarkPlan<D>,
        synced: io::Result<()>,
    ) -> Result<(), TreeError> {
        if let Err(error) = synced {
            return Err(self.failed_for_good("a sync", error).into());
        }
        self.admit(epoch)?;
        if self.state != State::Rebuilding || plan.rebuild != self.rebuilds_begun {
            return Err(TreeError::Conflict("another rebuild has begun meanwhile"));
        }
        let mut next = self.descriptor.clone();
        next.rebuilt = StoredCursor::of(&plan.cursor);
        self.commit(next)?;
        Ok(())
    }
}
