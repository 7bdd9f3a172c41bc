//! WRITE ATOMIC (16) (SBC-4 4.29, 5.48).

use ankole_proto::{BLOCK_BYTES, SECTOR_BYTES};

use super::{extent_in, is_fua};
use crate::scsi::cdb::Blocks;
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY of VPD page
/// B0: one block of the store. What a power cut leaves of a longer write may be some of its blocks, but
/// of one block it is the old or the new contents.
#[expect(clippy::cast_possible_truncation, reason = "8")]
pub(in crate::scsi) const ATOMIC_BLOCKS: u32 = (BLOCK_BYTES / SECTOR_BYTES) as u32;

/// WRITE ATOMIC: all of it or nothing, whatever happens. Bounds smaller than the transfer (ATOMIC
/// BOUNDARY) are not supported, as VPD page B0 tells.
pub(in crate::scsi) fn write_atomic(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const LBA_AT: u16 = 2;
    const LENGTH_AT: u16 = 12;
    let each = u64::from(ATOMIC_BLOCKS);
    let blocks = Blocks {
        lba: task.cdb.u64(2),
        count: u64::from(task.cdb.u16(12)),
    };
    let extent = extent_in(unit.size, blocks)?;
    if blocks.count > each || !blocks.count.is_multiple_of(each) {
        return Err(Sense::invalid_cdb(LENGTH_AT).into());
    }
    if !blocks.lba.is_multiple_of(each) {
        return Err(Sense::invalid_cdb(LBA_AT).into());
    }
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    // Less data than announced would be less than the whole.
    let data = task.exact_data(extent.length())?;
    let fua = unit.mode.writes_through() || is_fua(&task.cdb);
    Ok(Step::Run(
        vec![Operation::Write { extent, data, fua }],
        After::Good,
    ))
}
