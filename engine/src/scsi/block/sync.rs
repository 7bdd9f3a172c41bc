//! SYNCHRONIZE CACHE 10, 16 (SBC-3 5.22, 5.23).

use super::extent_in;
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// SYNCHRONIZE CACHE: everything acknowledged before is on the media of every in-sync replica
/// (INV-5), whatever range is named. IMMED would let us answer earlier; nobody is better off then.
pub(in crate::scsi) fn synchronize_cache(unit: &mut LogicalUnit, task: &Task) -> Handled {
    extent_in(unit.size, task.cdb.blocks())?;
    Ok(Step::Run(vec![Operation::Flush], After::Good))
}
