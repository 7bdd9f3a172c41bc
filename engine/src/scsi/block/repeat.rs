//! One pattern over a long extent, in bounded batches.

use ankole_proto::Extent;
use bytes::{Bytes, BytesMut};

use crate::scsi::handle::{After, Step};
use crate::volume::Operation;

/// What is left to be written of a WRITE SAME whose pattern is not zero.
#[derive(Debug)]
pub(in crate::scsi) struct Repeat {
    left: Extent,
    /// The block repeated, as long as one operation writes. All operations share it.
    pattern: Bytes,
    fua: bool,
}

impl Repeat {
    /// What one operation writes: 1 MiB.
    const OPERATION_BYTES: u64 = 1 << 20;
    /// Operations of one batch.
    const BATCH_OPERATIONS: usize = 8;

    /// To fill the extent with copies of the block.
    pub(in crate::scsi) fn new(extent: Extent, block: &[u8], fua: bool) -> Self {
        let bytes = extent.length().min(Self::OPERATION_BYTES);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut pattern = BytesMut::with_capacity(bytes);
        while !block.is_empty() && pattern.len() < bytes {
            pattern.extend_from_slice(block);
        }
        Self {
            left: extent,
            pattern: pattern.freeze(),
            fua,
        }
    }

    /// The next batch, or GOOD when nothing is left.
    pub(in crate::scsi) fn next(mut self) -> Step {
        let mut operations = Vec::new();
        while operations.len() < Self::BATCH_OPERATIONS && !self.left.is_empty() {
            let bytes = self.left.length().min(self.pattern.len() as u64);
            let extent = Extent::new(self.left.offset(), bytes);
            let left = Extent::new(
                self.left.offset() + bytes,
                self.left.length().saturating_sub(bytes),
            );
            let (Some(extent), Some(left), true) = (extent, left, bytes > 0) else {
                break;
            };
            self.left = left;
            operations.push(Operation::Write {
                extent,
                data: self
                    .pattern
                    .slice(..usize::try_from(bytes).unwrap_or(self.pattern.len())),
                fua: self.fua,
            });
        }
        if operations.is_empty() {
            return Step::Good;
        }
        Step::Run(operations, After::Repeat(self))
    }
}
