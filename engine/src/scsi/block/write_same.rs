//! WRITE SAME 10, 16 (SBC-3 5.43, 5.44).

use ankole_proto::SECTOR_BYTES;

use super::extent_in;
use super::repeat::Repeat;
use crate::scsi::cdb::Cdb;
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// MAXIMUM WRITE SAME LENGTH of VPD page B0: 16 MiB, so that also a pattern that has to be written is
/// on its way for no longer than a few large writes.
pub(in crate::scsi) const WRITE_SAME_BLOCKS_MAX: u32 = 1 << 15;

const UNMAP_BIT: u8 = 3;
const NDOB_BIT: u8 = 0;

/// WRITE SAME. Zeros become one operation of the volume: an unmap with UNMAP set, for what is
/// unmapped reads as zeros (LBPRZ=1), else a zeroing. Any other pattern is written; UNMAP is only
/// leave to unmap, and a pattern other than zero could not be read back then.
///
/// No blocks at all mean "to the end" (WSNZ=0 in VPD page B0), which must not be too far, either.
pub(in crate::scsi) fn write_same(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let mut blocks = task.cdb.blocks();
    extent_in(unit.size, blocks)?;
    if blocks.count == 0 {
        blocks.count = unit.size.sectors() - blocks.lba;
    }
    if blocks.count > u64::from(WRITE_SAME_BLOCKS_MAX) {
        return Err(Sense::invalid_cdb(task.cdb.count_at()).into());
    }
    let extent = extent_in(unit.size, blocks)?;
    let fua = unit.mode.writes_through();
    let block = if has_no_data(&task.cdb) {
        None
    } else {
        let block = task.exact_data(SECTOR_BYTES)?;
        block.iter().any(|byte| *byte != 0).then_some(block)
    };
    let operation = match block {
        Some(block) => return Ok(Repeat::new(extent, &block, fua).next()),
        None if task.cdb.bit(1, UNMAP_BIT) => Operation::Unmap { extent },
        None => Operation::WriteZeroes { extent, fua },
    };
    Ok(Step::Run(vec![operation], After::Good))
}

fn has_no_data(cdb: &Cdb) -> bool {
    Cdb::length(cdb.opcode()) == 16 && cdb.bit(1, NDOB_BIT)
}
