//! READ 6, 10, 12, 16 (SBC-3 5.11 to 5.15) and PRE-FETCH 10, 16 (5.8, 5.9).

use super::{extent_in, is_fua, transfer_in};
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// READ. With FUA what is read must be on the media: a flush goes along, when the cache is on.
pub(in crate::scsi) fn read(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let extent = transfer_in(unit.size, &task.cdb)?;
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let mut operations = vec![Operation::Read { extent }];
    if is_fua(&task.cdb) && !unit.mode.writes_through() {
        operations.push(Operation::Flush);
    }
    Ok(Step::Run(operations, After::Data))
}

/// PRE-FETCH: the page caches of the replicas are no cache of ours, so there is nothing to do but
/// to check the range. GOOD rather than CONDITION MET: not everything is known to be in a cache.
pub(in crate::scsi) fn prefetch(unit: &mut LogicalUnit, task: &Task) -> Handled {
    extent_in(unit.size, task.cdb.blocks())?;
    Ok(Step::Good)
}
