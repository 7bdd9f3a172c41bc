//! RECEIVE COPY RESULTS: COPY STATUS and OPERATING PARAMETERS (SPC-4 6.19, 6.20).

use bytes::{BufMut, BytesMut};

use super::parameters::{
    BLOCK_TO_BLOCK, DESCRIPTOR_BYTES_MAX, IDENTIFICATION, SEGMENT_BLOCKS_MAX, SEGMENTS_MAX,
    TARGETS_MAX,
};
use crate::scsi::handle::{Handled, Task};
use crate::scsi::primary::cut;
use crate::scsi::sense::Sense;
use crate::scsi::unit::LogicalUnit;
use ankole_proto::SECTOR_BYTES;

/// COPY STATUS: of a copy of this session that ended; told once.
///
/// ```text
/// 0  u32  length, 8       5  u16 segments ended     8  u32 transferred
/// 4  1 ended, 2 failed    7  units: 1, KiB
/// ```
pub(in crate::scsi) fn copy_status(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const ENDED_WELL: u8 = 1;
    const FAILED: u8 = 2;
    const KIBIBYTES: u8 = 1;
    let ended = unit
        .copies
        .take(task.nexus, task.cdb.u8(2))
        .ok_or(Sense::invalid_cdb(2))?;
    let mut out = BytesMut::with_capacity(12);
    out.put_u32(8);
    out.put_u8(if ended.failed { FAILED } else { ENDED_WELL });
    out.put_u16(ended.segments);
    out.put_u8(KIBIBYTES);
    out.put_u32(u32::try_from(ended.bytes / 1024).unwrap_or(u32::MAX));
    cut(out, task.cdb.u32(10) as usize)
}

/// OPERATING PARAMETERS: what EXTENDED COPY accepts.
///
/// ```text
///  0  u32 length           12  u32 descriptor bytes       36  concurrent copies
///  4  SNLID                16  u32 segment bytes          37  data segment granularity, 2^n
///  8  u16 targets          20  u32 inline data, 0         40  held data 0; descriptor types
/// 10  u16 segments         24  held data, stream: zero    43  number of them, then themselves
/// ```
pub(in crate::scsi) fn operating_parameters(_: &mut LogicalUnit, task: &Task) -> Handled {
    const FIXED_BYTES: usize = 44;
    const NO_LIST_ID_SUPPORTED: u8 = 1;
    const SEGMENT_BYTES_MAX: u64 = SEGMENT_BLOCKS_MAX as u64 * SECTOR_BYTES;
    let types = [BLOCK_TO_BLOCK, IDENTIFICATION];
    let total = FIXED_BYTES + types.len();
    let mut out = BytesMut::with_capacity(total);
    out.put_u32(u32::try_from(total - 4).unwrap_or(u32::MAX));
    out.put_slice(&[NO_LIST_ID_SUPPORTED, 0, 0, 0]);
    out.put_u16(TARGETS_MAX);
    out.put_u16(SEGMENTS_MAX);
    out.put_u32(DESCRIPTOR_BYTES_MAX);
    out.put_u32(u32::try_from(SEGMENT_BYTES_MAX).unwrap_or(u32::MAX));
    out.put_bytes(0, 16);
    let granularity = u8::try_from(SECTOR_BYTES.ilog2()).unwrap_or(0);
    // Total and simultaneous copies: one per command that may be in flight; not counted here.
    out.put_slice(&[0xff, granularity, 0, 0, 0, 0, 0]);
    out.put_u8(u8::try_from(types.len()).unwrap_or(u8::MAX));
    out.put_slice(&types);
    cut(out, task.cdb.u32(10) as usize)
}
