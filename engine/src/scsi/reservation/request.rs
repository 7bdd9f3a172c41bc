//! PERSISTENT RESERVE OUT (SPC-4 6.16).

use bytes::Bytes;

use super::change::ReservationChange;
use super::state::{Held, Kind, Reservations};
use super::transport::TransportId;
use crate::scsi::handle::{Change, Handled, Refusal, Step, Task};
use crate::scsi::nexus::{InitiatorPort, NexusId};
use crate::scsi::sense::{AdditionalSense, Sense};
use crate::scsi::unit::LogicalUnit;

/// The parameter list.
///
/// ```text
/// 0  u64  reservation key              20  SPEC_I_PT, ALL_TG_PT, APTPL
/// 8  u64  service action key           24  with SPEC_I_PT: u32 bytes of TransportIDs, and they
/// ```
pub(super) struct Parameters {
    pub(super) port: InitiatorPort,
    pub(super) key: u64,
    pub(super) action_key: u64,
    pub(super) keep_through_power_loss: bool,
}

const FLAGS_AT: usize = 20;
const SPECIFY_INITIATOR_PORTS: u8 = 0x08;

fn length_error() -> Sense {
    Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)
}

impl Parameters {
    pub(super) const ACTION_KEY_AT: usize = 8;
    const BYTES: usize = 24;

    /// What all lists have; APTPL is the last bit of the flags at this byte. And the whole list.
    pub(super) fn read(
        unit: &LogicalUnit,
        task: &Task,
        flags_at: usize,
    ) -> Result<(Self, Bytes), Refusal> {
        const ACTIVATE_PERSIST: u8 = 0x01;
        if unit.reservations.legacy.is_some() {
            return Err(Refusal::CONFLICT);
        }
        let told = task.cdb.u32(5) as usize;
        let list = task.parameters(told)?;
        let flags = *list.get(flags_at).ok_or_else(length_error)?;
        let number = |at: usize| {
            list.iter()
                .skip(at)
                .take(8)
                .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))
        };
        let port = unit
            .nexuses
            .get(&task.nexus)
            .map(|nexus| nexus.port.clone())
            .ok_or(Refusal::CONFLICT)?;
        let parameters = Self {
            port,
            key: number(0),
            action_key: number(Self::ACTION_KEY_AT),
            keep_through_power_loss: flags & ACTIVATE_PERSIST != 0,
        };
        Ok((parameters, list))
    }

    /// For what concerns nobody but the port that asks.
    fn of(unit: &LogicalUnit, task: &Task) -> Result<Self, Refusal> {
        let (parameters, list) = Self::read(unit, task, FLAGS_AT)?;
        if list[FLAGS_AT] & SPECIFY_INITIATOR_PORTS != 0 {
            return Err(Sense::invalid_parameter(FLAGS_AT).into());
        }
        if list.len() != Self::BYTES {
            return Err(length_error().into());
        }
        Ok(parameters)
    }

    /// And with SPEC_I_PT the others that are to be registered, as they are named.
    fn with_others(
        unit: &LogicalUnit,
        task: &Task,
    ) -> Result<(Self, Option<Vec<TransportId>>), Refusal> {
        let (parameters, list) = Self::read(unit, task, FLAGS_AT)?;
        if list[FLAGS_AT] & SPECIFY_INITIATOR_PORTS == 0 {
            return Ok((Self::of(unit, task)?, None));
        }
        let others = list.get(Self::BYTES..).ok_or_else(length_error)?;
        Ok((parameters, Some(read_others(others)?)))
    }

    /// For what only a registrant who knows its key may do.
    fn of_registrant(unit: &LogicalUnit, task: &Task) -> Result<Self, Refusal> {
        Self::of(unit, task)?.by_registrant(unit)
    }

    /// When the port is registered with the key that it gave.
    pub(super) fn by_registrant(self, unit: &LogicalUnit) -> Result<Self, Refusal> {
        let registered = unit.reservations.registration(&self.port);
        if registered.is_some_and(|entry| entry.key == self.key) {
            Ok(self)
        } else {
            Err(Refusal::CONFLICT)
        }
    }
}

/// The TransportIDs and their length before them. No more are read than could be registered.
fn read_others(list: &[u8]) -> Result<Vec<TransportId>, Refusal> {
    const BYTES_BEFORE: usize = 4;
    let (told, mut rest) = list.split_first_chunk().ok_or_else(length_error)?;
    if usize::try_from(u32::from_be_bytes(*told)) != Ok(rest.len()) {
        return Err(length_error().into());
    }
    let mut others = Vec::new();
    let whole = rest.len();
    while !rest.is_empty() {
        let at = Parameters::BYTES + BYTES_BEFORE + whole - rest.len();
        let (other, after) = TransportId::decode(rest, at)?;
        others.push(other);
        if others.len() > Reservations::REGISTRATIONS_MAX {
            return Err(no_room().into());
        }
        rest = after;
    }
    Ok(others)
}

fn no_room() -> Sense {
    Sense::illegal(AdditionalSense::INSUFFICIENT_REGISTRATION_RESOURCES)
}

/// The type in byte 2; only the whole unit can be reserved (scope 0).
fn kind(task: &Task) -> Result<Kind, Refusal> {
    let scope_and_type = task.cdb.u8(2);
    if scope_and_type >> 4 != 0 {
        return Err(Sense::invalid_cdb(2).into());
    }
    Kind::from_code(scope_and_type).ok_or(Sense::invalid_cdb(2).into())
}

pub(super) fn changed(change: ReservationChange) -> Handled {
    Ok(Step::Keep(Change::Reservations(Box::new(change))))
}

impl Reservations {
    fn ports(&self) -> Vec<InitiatorPort> {
        self.registrations
            .iter()
            .map(|entry| entry.port.clone())
            .collect()
    }

    pub(super) fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Removes the registrations of the key, or of any key; never the one of `but`.
    fn remove(&mut self, key: Option<u64>, but: &InitiatorPort) -> Vec<InitiatorPort> {
        let mut removed = Vec::new();
        self.registrations.retain(|entry| {
            let goes = entry.port != *but && key.is_none_or(|key| key == entry.key);
            if goes {
                removed.push(entry.port.clone());
            }
            !goes
        });
        removed
    }
}

/// REGISTER. With SPEC_I_PT the others that are named and not registered get the same key, all of
/// them or none (SPC-4 table 67).
pub(in crate::scsi) fn register(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let (parameters, others) = Parameters::with_others(unit, task)?;
    let registered = unit
        .reservations
        .registration(&parameters.port)
        .map(|entry| entry.key);
    if registered.unwrap_or(0) != parameters.key {
        return Err(Refusal::CONFLICT);
    }
    if registered.is_some() && others.is_some() {
        return Err(Sense::invalid_cdb(1).into());
    }
    set_key(unit, task.nexus, parameters, &others.unwrap_or_default())
}

/// REGISTER AND IGNORE EXISTING KEY.
pub(in crate::scsi) fn register_and_ignore(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let parameters = Parameters::of(unit, task)?;
    set_key(unit, task.nexus, parameters, &[])
}

fn set_key(
    unit: &LogicalUnit,
    asking: NexusId,
    parameters: Parameters,
    others: &[TransportId],
) -> Handled {
    let Parameters {
        port, action_key, ..
    } = parameters;
    let mut change = ReservationChange::of(unit);
    let registrations = &change.reservations.registrations;
    let place = registrations.iter().position(|entry| entry.port == port);
    match (place, action_key) {
        (None, 0) => return Ok(Step::Good),
        (Some(place), 0) => unregister(&mut change, unit, asking, place),
        (_, key) => {
            change.reservations.register(&port, key);
            for port in others.iter().flat_map(|other| unit.ports_named(other)) {
                if unit.reservations.registration(&port).is_none() {
                    change.reservations.register(&port, key);
                }
            }
            if !change.reservations.fits() {
                return Err(no_room().into());
            }
        }
    }
    change.reservations.kept_through_power_loss = parameters.keep_through_power_loss;
    change.reservations.next_generation();
    changed(change)
}

/// A registrant leaves; what it alone held is released (SPC-4 5.13.11.2).
fn unregister(change: &mut ReservationChange, unit: &LogicalUnit, asking: NexusId, place: usize) {
    let reservations = &mut change.reservations;
    let gone = reservations.registrations.remove(place);
    let Some(held) = &reservations.held else {
        return;
    };
    let kind = held.kind;
    let released = if kind.is_of_all() {
        reservations.registrations.is_empty()
    } else {
        held.port == gone.port
    };
    if released {
        reservations.held = None;
        if kind.admits_registrants() {
            let ports = reservations.ports();
            change.attend(unit, asking, &ports, AdditionalSense::RESERVATIONS_RELEASED);
        }
    }
}

/// RESERVE.
pub(in crate::scsi) fn reserve(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let Parameters { port, .. } = Parameters::of_registrant(unit, task)?;
    let kind = kind(task)?;
    match &unit.reservations.held {
        None => {
            let mut change = ReservationChange::of(unit);
            change.reservations.held = Some(Held { kind, port });
            changed(change)
        }
        Some(held) if held.kind == kind && unit.reservations.is_holder(&port) => Ok(Step::Good),
        Some(_) => Err(Refusal::CONFLICT),
    }
}

/// RELEASE.
pub(in crate::scsi) fn release(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let Parameters { port, .. } = Parameters::of_registrant(unit, task)?;
    let Some(held) = &unit.reservations.held else {
        return Ok(Step::Good);
    };
    if !unit.reservations.is_holder(&port) {
        return Ok(Step::Good);
    }
    let held_kind = held.kind;
    if task.cdb.u8(2) != held_kind as u8 {
        return Err(Sense::illegal(AdditionalSense::INVALID_RELEASE).into());
    }
    let mut change = ReservationChange::of(unit);
    change.reservations.held = None;
    if held_kind.admits_registrants() {
        let ports = change.reservations.ports();
        let released = AdditionalSense::RESERVATIONS_RELEASED;
        change.attend(unit, task.nexus, &ports, released);
    }
    changed(change)
}

/// CLEAR.
pub(in crate::scsi) fn clear(unit: &mut LogicalUnit, task: &Task) -> Handled {
    Parameters::of_registrant(unit, task)?;
    let mut change = ReservationChange::of(unit);
    let ports = change.reservations.ports();
    let preempted = AdditionalSense::RESERVATIONS_PREEMPTED;
    change.attend(unit, task.nexus, &ports, preempted);
    change.reservations.held = None;
    change.reservations.registrations.clear();
    change.reservations.next_generation();
    changed(change)
}

/// PREEMPT.
pub(in crate::scsi) fn preempt(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let (change, _) = take_over(unit, task)?;
    changed(change)
}

/// PREEMPT AND ABORT: and the commands of those preempted are aborted.
pub(in crate::scsi) fn preempt_and_abort(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let (mut change, removed) = take_over(unit, task)?;
    change.abort = unit
        .nexuses
        .iter()
        .filter(|(id, nexus)| **id != task.nexus && removed.contains(&nexus.port))
        .map(|(id, _)| *id)
        .collect();
    changed(change)
}

/// Removes the registrations of the service action key and, when that was the holder's, takes the
/// reservation over (SPC-4 5.13.11.4). Tells who was removed.
fn take_over(
    unit: &LogicalUnit,
    task: &Task,
) -> Result<(ReservationChange, Vec<InitiatorPort>), Refusal> {
    let parameters = Parameters::of_registrant(unit, task)?;
    let (port, key) = (parameters.port, parameters.action_key);
    let mut change = ReservationChange::of(unit);
    let reservations = &mut change.reservations;
    let held = reservations.held.clone();
    let of_all = held.as_ref().is_some_and(|held| held.kind.is_of_all());
    if key == 0 && !of_all {
        return Err(Sense::invalid_parameter(8).into());
    }
    let takes = held.as_ref().is_some_and(|held| {
        if of_all {
            key == 0
        } else {
            reservations
                .registration(&held.port)
                .is_some_and(|entry| entry.key == key)
        }
    });
    let taken = if takes { Some(kind(task)?) } else { None };
    let removed = reservations.remove((key != 0).then_some(key), &port);
    if removed.is_empty() && !takes {
        return Err(Refusal::CONFLICT);
    }
    reservations.next_generation();
    let left = reservations.ports();
    if let Some(kind) = taken {
        reservations.held = Some(Held { kind, port });
    }
    let preempted = AdditionalSense::REGISTRATIONS_PREEMPTED;
    change.attend(unit, task.nexus, &removed, preempted);
    if taken.is_some_and(|kind| held.is_some_and(|held| held.kind != kind)) {
        let released = AdditionalSense::RESERVATIONS_RELEASED;
        change.attend(unit, task.nexus, &left, released);
    }
    Ok((change, removed))
}
