//! READ CAPACITY 10, 16 (SBC-3 5.16, 5.17) and READ DEFECT DATA 10, 12 (5.18, 5.19).

use ankole_proto::{BLOCK_BYTES, SECTOR_BYTES};
use bytes::{BufMut, BytesMut};

use crate::scsi::handle::{Handled, Task};
use crate::scsi::primary::cut;
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;

/// 2^n logical blocks make one physical block.
pub(in crate::scsi) const PHYSICAL_EXPONENT: u8 = {
    let exponent = (BLOCK_BYTES / SECTOR_BYTES).ilog2();
    assert!(exponent == 3);
    3
};
/// A logical block, as wide as the fields that tell it.
#[expect(clippy::cast_possible_truncation, reason = "512")]
pub(in crate::scsi) const SECTOR_BYTES_32: u32 = SECTOR_BYTES as u32;

/// READ CAPACITY (10): the last LBA, all ones when it needs more than 32 bits.
pub(in crate::scsi) fn read_capacity_10(unit: &mut LogicalUnit, _: &Task) -> Handled {
    let last = unit.size.sectors() - 1;
    let mut out = BytesMut::with_capacity(8);
    out.put_u32(u32::try_from(last).unwrap_or(u32::MAX));
    out.put_u32(SECTOR_BYTES_32);
    cut(out, 8)
}

/// READ CAPACITY (16).
///
/// ```text
/// 0  u64  last LBA          13  physical exponent in the low 4 bits
/// 8  u32  block bytes       14  LBPME, LBPRZ, lowest aligned LBA 0
/// 12 P_TYPE, PROT_EN = 0    16  16 bytes, zero
/// ```
pub(in crate::scsi) fn read_capacity_16(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const LBPME: u8 = 0x80;
    const LBPRZ: u8 = 0x40;
    let mut out = BytesMut::with_capacity(32);
    out.put_u64(unit.size.sectors() - 1);
    out.put_u32(SECTOR_BYTES_32);
    out.put_slice(&[0, PHYSICAL_EXPONENT, LBPME | LBPRZ, 0]);
    out.put_bytes(0, 16);
    cut(out, task.cdb.u32(10) as usize)
}

/// READ DEFECT DATA (10): no defects, in whatever format was asked for.
pub(in crate::scsi) fn read_defect_data_10(_: &mut LogicalUnit, task: &Task) -> Handled {
    let mut out = BytesMut::with_capacity(4);
    out.put_slice(&[0, list_flags(task.cdb.u8(2))?, 0, 0]);
    cut(out, usize::from(task.cdb.u16(7)))
}

/// READ DEFECT DATA (12): no defects, in whatever format was asked for.
pub(in crate::scsi) fn read_defect_data_12(_: &mut LogicalUnit, task: &Task) -> Handled {
    let mut out = BytesMut::with_capacity(8);
    out.put_slice(&[0, list_flags(task.cdb.u8(1))?, 0, 0]);
    out.put_u32(0);
    cut(out, task.cdb.u32(6) as usize)
}

/// REQ_PLIST, REQ_GLIST and the format, told back: the lists that were asked for are complete.
fn list_flags(asked: u8) -> Result<u8, Sense> {
    const RESERVED_FORMAT: u8 = 7;
    if asked & 7 == RESERVED_FORMAT {
        return Err(Sense::invalid_cdb_bit(2, 2));
    }
    Ok(asked & 0x1f)
}
