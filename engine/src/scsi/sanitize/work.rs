//! A sanitize operation on its way, a bounded batch at a time.

use ankole_proto::{Extent, SECTOR_BYTES, VolumeSize};
use bytes::{Bytes, BytesMut};

use super::{Method, Order, Overwrite, Sanitize, SanitizeProgress, SanitizeStep};
use crate::scsi::unit::LogicalUnit;
use crate::volume::{Failure, Operation, Outcome};

/// What one operation unmaps.
const ERASE_BYTES: u64 = 512 << 20;
/// What one operation writes.
const WRITE_BYTES: u64 = 1 << 20;
/// Writes of one batch.
const BATCH_WRITES: u64 = 4;

/// How far it is.
#[derive(Debug, Clone)]
pub(in crate::scsi) struct Work {
    order: Order,
    pass: u8,
    stage: Stage,
}

#[derive(Debug, Clone)]
enum Stage {
    /// Up to here the pass has come.
    Covering { at: u64, pattern: Bytes },
    /// The pass is to reach the media.
    Flushing,
    /// Only to be kept.
    Ended { failed: bool },
}

impl Work {
    pub(in crate::scsi) fn begin(order: Order) -> Self {
        let stage = Stage::covering(&order, 0);
        Self {
            order,
            pass: 0,
            stage,
        }
    }

    pub(super) const fn order(&self) -> &Order {
        &self.order
    }

    fn passes(&self) -> u8 {
        match &self.order.method {
            Method::BlockErase => 1,
            Method::Overwrite(overwrite) => overwrite.passes,
        }
    }

    /// In 65536ths.
    pub(super) fn progress(&self, volume_bytes: u64) -> u16 {
        let pass = u128::from(volume_bytes.max(1));
        let at = match &self.stage {
            Stage::Covering { at, .. } => u128::from(*at),
            Stage::Flushing | Stage::Ended { .. } => pass,
        };
        let done = u128::from(self.pass) * pass + at;
        u16::try_from((done << 16) / (u128::from(self.passes()) * pass)).unwrap_or(u16::MAX)
    }

    fn step(&self, size: VolumeSize) -> Option<Vec<Operation>> {
        match &self.stage {
            Stage::Covering { at, pattern } => Some(batch(*at, pattern, size)),
            Stage::Flushing => Some(vec![Operation::Flush]),
            Stage::Ended { .. } => None,
        }
    }

    /// What was asked for is done.
    fn advance(&mut self, size: VolumeSize) {
        let next = match &self.stage {
            Stage::Covering { at, pattern } => {
                let at = at.saturating_add(batch_bytes(pattern));
                let pattern = pattern.clone();
                if at < size.bytes() {
                    Stage::Covering { at, pattern }
                } else {
                    Stage::Flushing
                }
            }
            Stage::Flushing if self.pass + 1 < self.passes() => {
                self.pass += 1;
                Stage::covering(&self.order, self.pass)
            }
            Stage::Flushing | Stage::Ended { .. } => Stage::Ended { failed: false },
        };
        self.stage = next;
    }
}

impl Stage {
    fn covering(order: &Order, pass: u8) -> Self {
        let pattern = match &order.method {
            Method::BlockErase => Bytes::new(),
            Method::Overwrite(overwrite) => overwrite.filled(pass),
        };
        Self::Covering { at: 0, pattern }
    }
}

impl Overwrite {
    /// What one write of this pass holds. The last pass writes the pattern as it is.
    fn filled(&self, pass: u8) -> Bytes {
        let inverted = self.inverts && (self.passes - 1 - pass) % 2 == 1;
        let block: Vec<u8> = self
            .pattern
            .iter()
            .map(|byte| if inverted { !byte } else { *byte })
            .cycle()
            .take(usize::try_from(SECTOR_BYTES).unwrap_or(0))
            .collect();
        let bytes = usize::try_from(WRITE_BYTES).unwrap_or(0);
        let mut filled = BytesMut::with_capacity(bytes);
        while !block.is_empty() && filled.len() < bytes {
            filled.extend_from_slice(&block);
        }
        filled.freeze()
    }
}

const fn batch_bytes(pattern: &Bytes) -> u64 {
    if pattern.is_empty() {
        ERASE_BYTES
    } else {
        WRITE_BYTES * BATCH_WRITES
    }
}

fn batch(at: u64, pattern: &Bytes, size: VolumeSize) -> Vec<Operation> {
    let end = size.bytes().min(at.saturating_add(batch_bytes(pattern)));
    let each = if pattern.is_empty() {
        ERASE_BYTES
    } else {
        WRITE_BYTES
    };
    let mut operations = Vec::new();
    let mut at = at;
    while at < end {
        let length = each.min(end - at);
        let Some(extent) = Extent::new(at, length) else {
            break;
        };
        operations.push(if pattern.is_empty() {
            Operation::Unmap { extent }
        } else {
            let bytes = usize::try_from(length).unwrap_or(pattern.len());
            Operation::Write {
                extent,
                data: pattern.slice(..bytes.min(pattern.len())),
                fua: false,
            }
        });
        at += length;
    }
    operations
}

impl LogicalUnit {
    /// Whether a sanitize operation is under way: somebody has to drive it, see
    /// [`Self::sanitize_step`].
    pub const fn is_sanitizing(&self) -> bool {
        self.sanitize.is_running()
    }

    /// What the sanitize operation wants done next.
    pub fn sanitize_step(&self) -> SanitizeStep {
        let Sanitize::Running(work) = &self.sanitize else {
            return SanitizeStep::Idle;
        };
        match work.step(self.size) {
            Some(operations) => SanitizeStep::Run(operations),
            None => SanitizeStep::Keep(self.state_with(&self.reservations, &self.sanitized())),
        }
    }

    /// What became of the operations that [`Self::sanitize_step`] asked for.
    pub fn sanitize_outcomes(&mut self, outcomes: &[Outcome]) -> SanitizeProgress {
        let Sanitize::Running(work) = &mut self.sanitize else {
            return SanitizeProgress::Advanced;
        };
        let failure = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Failed(failure) => Some(*failure),
            Outcome::Done(_) | Outcome::Miscompare { .. } => None,
        });
        match failure {
            None => work.advance(self.size),
            Some(Failure::Busy | Failure::Unavailable) => return SanitizeProgress::Retry,
            Some(Failure::Stopping) => return SanitizeProgress::Stopped,
            Some(Failure::Unreadable | Failure::NoSpace | Failure::Lost) => {
                work.stage = Stage::Ended { failed: true };
            }
        }
        SanitizeProgress::Advanced
    }

    /// The state of a [`SanitizeStep::Keep`] is durable: the operation has ended.
    pub fn sanitize_kept(&mut self) {
        self.sanitize = self.sanitized();
        self.sanitize_failed = matches!(self.sanitize, Sanitize::Failed { .. });
    }

    /// What the operation that has ended leads to.
    fn sanitized(&self) -> Sanitize {
        match &self.sanitize {
            Sanitize::Running(Work {
                stage: Stage::Ended { failed: true },
                order,
                ..
            }) => Sanitize::Failed {
                unrestricted: order.unrestricted,
            },
            Sanitize::Running(Work {
                stage: Stage::Ended { failed: false },
                ..
            }) => Sanitize::Idle,
            other => other.clone(),
        }
    }
}
