//! REGISTER AND MOVE (SPC-4 5.13.8): the holder hands its reservation to another initiator port.

use super::change::ReservationChange;
use super::request::{Parameters, changed};
use super::state::{Held, Registration, Reservations};
use super::transport::TransportId;
use crate::scsi::handle::{Handled, Refusal, Task};
use crate::scsi::nexus::InitiatorPort;
use crate::scsi::sense::{AdditionalSense, Sense};
use crate::scsi::unit::LogicalUnit;

/// After the two keys:
///
/// ```text
/// 17  UNREG, APTPL    18  u16 relative target port    20  u32 bytes of the TransportID    24  it
/// ```
const FLAGS_AT: usize = 17;
const UNREGISTER: u8 = 0x02;
const TARGET_PORT_AT: usize = 18;
const TARGET_PORT: [u8; 2] = [0, 1];
const LENGTH_AT: usize = 20;
const TRANSPORT_ID_AT: usize = 24;

/// REGISTER AND MOVE.
pub(in crate::scsi) fn register_and_move(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let (parameters, list) = Parameters::read(unit, task, FLAGS_AT)?;
    let destination = destination(&list)?;
    let parameters = parameters.by_registrant(unit)?;
    let Some(held) = &unit.reservations.held else {
        return Err(Sense::invalid_cdb(1).into());
    };
    let kind = held.kind;
    if kind.is_of_all() || !unit.reservations.is_holder(&parameters.port) {
        return Err(Refusal::CONFLICT);
    }
    let key = parameters.action_key;
    if key == 0 {
        return Err(Sense::invalid_parameter(Parameters::ACTION_KEY_AT).into());
    }
    let port = match &unit.ports_named(&destination)[..] {
        [port] if *port != parameters.port => port.clone(),
        _ => return Err(Sense::invalid_parameter(TRANSPORT_ID_AT).into()),
    };
    let mut change = ReservationChange::of(unit);
    let reservations = &mut change.reservations;
    reservations.register(&port, key);
    if list[FLAGS_AT] & UNREGISTER != 0 {
        reservations.unregister(&parameters.port);
    }
    if !reservations.fits() {
        let full = AdditionalSense::INSUFFICIENT_REGISTRATION_RESOURCES;
        return Err(Sense::illegal(full).into());
    }
    reservations.held = Some(Held { kind, port });
    reservations.kept_through_power_loss = parameters.keep_through_power_loss;
    reservations.next_generation();
    changed(change)
}

/// To whom, by the list alone.
fn destination(list: &[u8]) -> Result<TransportId, Refusal> {
    let length_error = || Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let (head, rest) = list
        .split_at_checked(TRANSPORT_ID_AT)
        .ok_or_else(length_error)?;
    let length = head
        .last_chunk()
        .map_or(0, |told| u32::from_be_bytes(*told));
    if usize::try_from(length) != Ok(rest.len()) {
        return Err(length_error().into());
    }
    if head[TARGET_PORT_AT..LENGTH_AT] != TARGET_PORT {
        return Err(Sense::invalid_parameter(TARGET_PORT_AT).into());
    }
    match TransportId::decode(rest, TRANSPORT_ID_AT)? {
        (destination, []) => Ok(destination),
        _ => Err(length_error().into()),
    }
}

impl Reservations {
    /// Registers the port, or changes its key.
    pub(super) fn register(&mut self, port: &InitiatorPort, key: u64) {
        match self
            .registrations
            .iter_mut()
            .find(|entry| entry.port == *port)
        {
            Some(entry) => entry.key = key,
            None => self.registrations.push(Registration {
                port: port.clone(),
                key,
            }),
        }
    }

    fn unregister(&mut self, port: &InitiatorPort) {
        self.registrations.retain(|entry| entry.port != *port);
    }
}

impl LogicalUnit {
    /// The ports that a TransportID names: the one, or of an initiator device all that are logged
    /// in or registered.
    pub(super) fn ports_named(&self, id: &TransportId) -> Vec<InitiatorPort> {
        let name = match id {
            TransportId::Port(port) => return vec![port.clone()],
            TransportId::Device(name) => name,
        };
        let sessions = self.nexuses.values().map(|nexus| &nexus.port);
        let registered = self.reservations.registrations.iter().map(|r| &r.port);
        let mut ports: Vec<InitiatorPort> = sessions
            .chain(registered)
            .filter(|port| port.name == *name)
            .cloned()
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
