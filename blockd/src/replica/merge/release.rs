//! Giving back what a merge has moved, while it goes on.
//!
//! ```text
//!  target's map says so ──sync──▶ source's map is cleared ──sync──▶ source's place is punched
//! ```
//!
//! Each arrow is a sync, so whatever stops in between, one of the two layers has the block and its
//! map says so. A source that a clone has too is left alone: its space is not given back anyway.

use ankole_proto::ChunkNumber;
use ankole_proto::wire::rebuild::ChunkBitmap;

use crate::disk::{Disk, DiskFile};
use crate::layer::MapRecord;
use crate::replica::Replica;
use crate::replica::rebuild::present_runs;
use crate::replica::refusal::Medium;

/// What a merge may give back, and how far each chunk is.
#[derive(Debug)]
pub(super) struct Release {
    /// Whether the source has files of its own.
    is_alone: bool,
    /// The target's map says that it has them, in the cache.
    marked: Vec<ChunkNumber>,
    /// It says so durably.
    durable: Vec<ChunkNumber>,
    /// The source's map is cleared, in the cache; the blocks that it had.
    cleared: Vec<(ChunkNumber, ChunkBitmap)>,
    /// It is cleared durably.
    vacant: Vec<(ChunkNumber, ChunkBitmap)>,
}

impl Release {
    pub(super) const fn new(is_alone: bool) -> Self {
        Self {
            is_alone,
            marked: Vec::new(),
            durable: Vec::new(),
            cleared: Vec::new(),
            vacant: Vec::new(),
        }
    }

    /// The target's map tells of all of the chunk now.
    pub(super) fn mark(&mut self, chunk: ChunkNumber) {
        if self.is_alone {
            self.marked.push(chunk);
        }
    }

    /// The merge's sync has succeeded: what was marked and cleared when it began is durable.
    pub(super) fn synced(&mut self) {
        self.durable.append(&mut self.marked);
        self.vacant.append(&mut self.cleared);
    }

    /// Whether the next sync moves something on.
    pub(super) const fn waits_for_sync(&self) -> bool {
        !self.marked.is_empty() || !self.cleared.is_empty()
    }
}

impl<D: Disk> Replica<D> {
    /// Punches what is durably cleared, and clears what the target durably has.
    pub(super) fn give_back(&mut self) -> Result<(), Medium> {
        let Some(merge) = &mut self.merge else {
            return Ok(());
        };
        let source = merge.source;
        let vacant = std::mem::take(&mut merge.release.vacant);
        let durable = std::mem::take(&mut merge.release.durable);
        for (chunk, present) in vacant {
            let punched = match self.files.of(&self.disk, source) {
                Ok(files) => present_runs(&present, chunk.extent_in(self.size))
                    .into_iter()
                    .try_for_each(|run| files.image.punch_hole(run.byte_range())),
                Err(error) => Err(error),
            };
            punched.map_err(|error| self.failed("punching what was merged away", error))?;
        }
        for chunk in durable {
            let old = self.record(source, chunk)?;
            if old.is_empty() {
                continue;
            }
            self.put_record(source, chunk, &MapRecord::default())?;
            self.index.recount(source, &old, &MapRecord::default());
            if let Some(merge) = &mut self.merge {
                merge.release.cleared.push((chunk, old.present));
            }
        }
        Ok(())
    }

    /// The source's map, when the next sync has to cover it.
    pub(super) fn cleared_map(&mut self) -> Result<Option<D::File>, Medium> {
        let Some(source) = self
            .merge
            .as_ref()
            .filter(|merge| !merge.release.cleared.is_empty())
            .map(|merge| merge.source)
        else {
            return Ok(None);
        };
        match self.files.of(&self.disk, source) {
            Ok(files) => Ok(Some(files.map.clone())),
            Err(error) => Err(self.failed("opening a layer", error)),
        }
    }
}
