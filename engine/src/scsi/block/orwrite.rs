//! ORWRITE (16) (SBC-3 5.7).

use super::{is_fua, transfer_in};
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// ORWRITE: one atomic operation of the volume.
pub(in crate::scsi) fn orwrite(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let extent = transfer_in(unit.size, &task.cdb)?;
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    Ok(Step::Run(
        vec![Operation::Or {
            extent,
            data: task.data(extent.length())?,
            fua: unit.mode.writes_through() || is_fua(&task.cdb),
        }],
        After::Good,
    ))
}
