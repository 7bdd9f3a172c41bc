//! A change of the persistent reservations: worked out on a copy, in effect once it is durable.

use super::state::Reservations;
use crate::scsi::nexus::{InitiatorPort, NexusId};
use crate::scsi::sense::AdditionalSense;
use crate::scsi::unit::LogicalUnit;

/// What a PERSISTENT RESERVE OUT leads to.
#[derive(Debug)]
pub(in crate::scsi) struct ReservationChange {
    pub(in crate::scsi) reservations: Reservations,
    /// Who is told what, once it is so.
    told: Vec<(NexusId, AdditionalSense)>,
    /// The sessions whose other commands are to be aborted.
    pub(super) abort: Vec<NexusId>,
}

impl ReservationChange {
    /// To be worked out from what is.
    pub(super) fn of(unit: &LogicalUnit) -> Self {
        Self {
            reservations: unit.reservations.clone(),
            told: Vec::new(),
            abort: Vec::new(),
        }
    }

    /// Tells the sessions of these ports, but not the one that asked.
    pub(super) fn attend(
        &mut self,
        unit: &LogicalUnit,
        asking: NexusId,
        ports: &[InitiatorPort],
        attention: AdditionalSense,
    ) {
        for (id, nexus) in &unit.nexuses {
            if *id != asking && ports.contains(&nexus.port) {
                self.told.push((*id, attention));
            }
        }
    }

    /// It is durable. Tells whose commands are to be aborted.
    pub(in crate::scsi) fn apply(self, unit: &mut LogicalUnit) -> Vec<NexusId> {
        unit.reservations.take_up(self.reservations);
        for (id, attention) in self.told {
            unit.attend(id, attention);
        }
        self.abort
    }
}
