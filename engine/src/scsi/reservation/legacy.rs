//! RESERVE and RELEASE 6, 10 (SPC-2 7.21 to 7.24): of the whole unit, by and for one session.

use super::state::Reservations;
use crate::scsi::handle::{Handled, Refusal, Step, Task};
use crate::scsi::nexus::NexusId;
use crate::scsi::primary;
use crate::scsi::unit::LogicalUnit;

const RELEASE_6: u8 = 0x17;
const RELEASE_10: u8 = 0x57;

/// Commands that another's RESERVE does not refuse (SPC-2 5.5.1).
pub(super) const fn is_exempt(opcode: u8) -> bool {
    matches!(
        opcode,
        primary::INQUIRY | primary::REQUEST_SENSE | primary::REPORT_LUNS | RELEASE_6 | RELEASE_10
    )
}

impl Reservations {
    /// Ends a RESERVE.
    pub(in crate::scsi) fn release_legacy(&mut self) {
        self.legacy = None;
    }

    /// Ends a RESERVE of this session.
    pub(in crate::scsi) fn release_legacy_of(&mut self, nexus: NexusId) {
        if self.legacy == Some(nexus) {
            self.legacy = None;
        }
    }
}

/// RESERVE. The two kinds of reservation exclude each other (CRH=0).
pub(in crate::scsi) fn reserve(unit: &mut LogicalUnit, task: &Task) -> Handled {
    if !unit.reservations.registrations.is_empty() {
        return Err(Refusal::CONFLICT);
    }
    unit.reservations.legacy = Some(task.nexus);
    Ok(Step::Good)
}

/// RELEASE: of nothing, or of another's reservation, does nothing.
pub(in crate::scsi) fn release(unit: &mut LogicalUnit, task: &Task) -> Handled {
    if !unit.reservations.registrations.is_empty() {
        return Err(Refusal::CONFLICT);
    }
    unit.reservations.release_legacy_of(task.nexus);
    Ok(Step::Good)
}
