//! Who is registered, who holds, and what that lets others do.

use crate::scsi::cdb::Cdb;
use crate::scsi::command::{Access, Command};
use crate::scsi::nexus::{InitiatorPort, NexusId};

/// The type of a persistent reservation (SPC-4 table 60).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrants = 5,
    ExclusiveAccessRegistrants = 6,
    WriteExclusiveAll = 7,
    ExclusiveAccessAll = 8,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrants,
        Self::ExclusiveAccessRegistrants,
        Self::WriteExclusiveAll,
        Self::ExclusiveAccessAll,
    ];

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// Whether every registrant holds it.
    pub(super) const fn is_of_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }

    /// Whether every registrant may do what the holder may.
    pub(super) const fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    const fn admits_readers(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive | Self::WriteExclusiveRegistrants | Self::WriteExclusiveAll
        )
    }
}

/// An initiator port and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) port: InitiatorPort,
    pub(super) key: u64,
}

/// A persistent reservation of the logical unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) kind: Kind,
    /// Who made it. Of the types that all registrants hold: for the record only.
    pub(super) port: InitiatorPort,
}

/// All reservations of the logical unit.
#[derive(Debug, Clone, Default)]
pub(in crate::scsi) struct Reservations {
    pub(super) registrations: Vec<Registration>,
    pub(super) held: Option<Held>,
    /// PRGENERATION: counts the changes of registrations.
    pub(super) generation: u32,
    /// APTPL as last registered; told back. The state is kept either way.
    pub(super) kept_through_power_loss: bool,
    pub(super) legacy: Option<NexusId>,
}

impl Reservations {
    /// The most registrations (INV-12).
    pub(super) const REGISTRATIONS_MAX: usize = 128;

    /// The most bytes of the registrations when they are stored: with what else is kept they stay
    /// below [`crate::scsi::STATE_BYTES_MAX`].
    const STORED_BYTES_MAX: usize = 15 << 10;

    /// Whether there are no more registrations than are kept.
    pub(super) fn fits(&self) -> bool {
        self.registrations.len() <= Self::REGISTRATIONS_MAX
            && super::stored::bytes(self) <= Self::STORED_BYTES_MAX
    }

    /// Another persistent state; an old RESERVE goes on.
    pub(in crate::scsi) fn take_up(&mut self, state: Self) {
        let legacy = self.legacy;
        *self = Self { legacy, ..state };
    }

    /// Whether nobody can be refused.
    pub(in crate::scsi) const fn is_idle(&self) -> bool {
        self.held.is_none() && self.legacy.is_none()
    }

    /// The registration of this port.
    pub(super) fn registration(&self, port: &InitiatorPort) -> Option<&Registration> {
        self.registrations.iter().find(|entry| entry.port == *port)
    }

    /// Whether the port holds the reservation, alone or with all registrants.
    pub(super) fn is_holder(&self, port: &InitiatorPort) -> bool {
        self.held.as_ref().is_some_and(|held| {
            if held.kind.is_of_all() {
                self.registration(port).is_some()
            } else {
                held.port == *port
            }
        })
    }

    /// Whether the command may be carried out for this session.
    pub(in crate::scsi) fn permit(
        &self,
        nexus: NexusId,
        port: Option<&InitiatorPort>,
        command: &Command,
        cdb: &Cdb,
    ) -> bool {
        if self.legacy.is_some_and(|holder| holder != nexus)
            && !super::legacy::is_exempt(command.opcode())
        {
            return false;
        }
        let Some(held) = &self.held else { return true };
        match effective_access(command, cdb) {
            Access::Always | Access::Reserving => return true,
            Access::Reading if held.kind.admits_readers() => return true,
            Access::Reading | Access::Changing | Access::Writing => {}
        }
        port.is_some_and(|port| {
            self.is_holder(port)
                || (held.kind.admits_registrants() && self.registration(port).is_some())
        })
    }
}

/// Starting the unit and allowing removal are open to all, stopping and preventing are not
/// (SPC-4 table 66, SBC-3 table 13).
fn effective_access(command: &Command, cdb: &Cdb) -> Access {
    const START_STOP_UNIT: u8 = 0x1b;
    const PREVENT_ALLOW: u8 = 0x1e;
    let harmless = match command.opcode() {
        START_STOP_UNIT => cdb.bit(4, 0) && cdb.u8(4) >> 4 == 0,
        PREVENT_ALLOW => cdb.u8(4) & 3 == 0,
        _ => false,
    };
    if harmless {
        Access::Always
    } else {
        command.access
    }
}
