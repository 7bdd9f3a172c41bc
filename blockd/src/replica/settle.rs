//! After an unclean stop: comparing the blocks of the layer that was the head with their sums, and
//! making those sums anew that the stop left behind. From then on a difference is damage.

use ankole_proto::{ChunkNumber, LayerId};

use super::refusal::WorkError;
use super::{Progress, Replica, State};
use crate::disk::Disk;
use crate::layer::BLOCK;

/// The most chunks that one step looks at.
const CHUNKS_PER_STEP_MAX: u64 = 1024;

/// How far the comparison is.
#[derive(Debug)]
pub(super) struct Settle {
    layer: LayerId,
    next_chunk: u64,
}

impl<D: Disk> Replica<D> {
    /// Compares at most about `budget_blocks` blocks of layers that an unclean stop left in doubt
    /// with their sums, and sums anew those that differ.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn settle_step(&mut self, budget_blocks: u64) -> Result<Progress<D>, WorkError> {
        self.record_fault();
        self.check_sound()?;
        if self.state == State::Rebuilding {
            return Ok(Progress::Idle);
        }
        let in_doubt = self.descriptor.layers.iter().find(|layer| layer.unsettled);
        let Some(layer) = in_doubt.map(|layer| layer.id) else {
            return Ok(Progress::Idle);
        };
        let mut at = match &self.settle {
            Some(settle) if settle.layer == layer => settle.next_chunk,
            _ => 0,
        };
        let (mut blocks, mut looked_at) = (0, 0);
        while at < self.size.chunks() && blocks < budget_blocks && looked_at < CHUNKS_PER_STEP_MAX {
            let chunk = ChunkNumber::from_raw(at);
            let record = self.record(layer, chunk)?;
            let mut data = vec![0; record.present.count() * BLOCK];
            self.read_present(layer, &record, chunk.extent_in(self.size), &mut data)?;
            blocks += record.present.count() as u64;
            looked_at += 1;
            at += 1;
        }
        if at < self.size.chunks() {
            self.settle = Some(Settle {
                layer,
                next_chunk: at,
            });
            return Ok(Progress::Working { blocks });
        }
        self.settle = None;
        if layer == self.tree.head() {
            self.sync_head()?;
        } else {
            self.sync_sealed(layer)?;
        }
        let mut next = self.descriptor.clone();
        if let Some(entry) = next.layer_mut(layer) {
            entry.unsettled = false;
        }
        self.commit(next)?;
        self.tell_settled(layer);
        Ok(Progress::Working { blocks })
    }

    fn tell_settled(&self, layer: LayerId) {
        let (replica, summed_anew) = (self.id(), self.resummed_blocks);
        let text = "checksums left in doubt by an unclean stop are settled";
        if summed_anew == 0 {
            tracing::info!(%replica, %layer, "{text}");
        } else {
            tracing::warn!(%replica, %layer, summed_anew,
                "{text}: a block that was not written just before the stop may be damaged");
        }
    }
}
