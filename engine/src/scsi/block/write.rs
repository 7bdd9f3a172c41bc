//! WRITE 6, 10, 12, 16 (SBC-3 5.32 to 5.36) and WRITE AND VERIFY 10, 12, 16 (5.40 to 5.42).
//!
//! An initiator that announces less data than its CDB names gets the whole blocks written that it
//! sent, GOOD and the residual (RFC 7143 11.4.5.1: a transfer is bounded by the expected length).

use ankole_proto::{Extent, SECTOR_BYTES};
use bytes::Bytes;

use super::{is_fua, transfer_in};
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// The part of the extent for which whole blocks came, and those.
fn sent(extent: Extent, task: &Task) -> (Extent, Bytes) {
    let whole = task.data_out.len() as u64 / SECTOR_BYTES * SECTOR_BYTES;
    let length = extent.length().min(whole);
    let extent = Extent::new(extent.offset(), length).unwrap_or(extent);
    // Not more than the data-out is long.
    let bytes = usize::try_from(length).unwrap_or(task.data_out.len());
    (extent, task.data_out.slice(..bytes))
}

/// WRITE. Durable when answered with FUA, and always when the write cache is off (INV-5).
pub(in crate::scsi) fn write(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let (extent, data) = sent(transfer_in(unit.size, &task.cdb)?, task);
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let fua = unit.mode.writes_through() || is_fua(&task.cdb);
    Ok(Step::Run(
        vec![Operation::Write { extent, data, fua }],
        After::Good,
    ))
}

/// WRITE AND VERIFY: written to the media, read back, and with BYTCHK compared.
pub(in crate::scsi) fn write_and_verify(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let (extent, data) = sent(transfer_in(unit.size, &task.cdb)?, task);
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let expected = super::verify::byte_check(&task.cdb).then(|| data.clone());
    Ok(Step::Run(
        vec![Operation::Write {
            extent,
            data,
            fua: true,
        }],
        After::ReadBack { extent, expected },
    ))
}
