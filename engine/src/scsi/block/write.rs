//! WRITE 6, 10, 12, 16 (SBC-3 5.32 to 5.36) and WRITE AND VERIFY 10, 12, 16 (5.40 to 5.42).

use super::{is_fua, transfer_in};
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// WRITE. Durable when answered with FUA, and always when the write cache is off (INV-5).
pub(in crate::scsi) fn write(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let extent = transfer_in(unit.size, &task.cdb)?;
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let data = task.data(extent.length())?;
    let fua = unit.mode.writes_through() || is_fua(&task.cdb);
    Ok(Step::Run(
        vec![Operation::Write { extent, data, fua }],
        After::Good,
    ))
}

/// WRITE AND VERIFY: written to the media, read back, and with BYTCHK compared.
pub(in crate::scsi) fn write_and_verify(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let extent = transfer_in(unit.size, &task.cdb)?;
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let data = task.data(extent.length())?;
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
