//! COMPARE AND WRITE (SBC-3 5.2).

use super::{extent_in, is_fua};
use crate::scsi::cdb::Blocks;
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// MAXIMUM COMPARE AND WRITE LENGTH of VPD page B0, in blocks: all that the CDB can name.
pub(in crate::scsi) const COMPARE_BLOCKS_MAX: u8 = 255;

/// COMPARE AND WRITE: one atomic operation of the volume. The first half of the data-out is
/// compared, the second written.
pub(in crate::scsi) fn compare_and_write(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let blocks = Blocks {
        lba: task.cdb.u64(2),
        count: u64::from(task.cdb.u8(13)),
    };
    let extent = extent_in(unit.size, blocks)?;
    // 256 blocks look like none in the CDB's one byte; the length of the data gives them away.
    if u64::from(task.expected_bytes) != 2 * extent.length() {
        return Err(Sense::invalid_cdb(13).into());
    }
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let both = task.data(2 * extent.length())?;
    let half = both.len() / 2;
    Ok(Step::Run(
        vec![Operation::CompareAndWrite {
            extent,
            expected: both.slice(..half),
            data: both.slice(half..),
            fua: unit.mode.writes_through() || is_fua(&task.cdb),
        }],
        After::Good,
    ))
}
