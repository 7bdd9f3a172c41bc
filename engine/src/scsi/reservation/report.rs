//! PERSISTENT RESERVE IN (SPC-4 6.15).

use bytes::{BufMut, BytesMut};

use super::state::{Held, Kind, Reservations};
use super::transport::TransportId;
use crate::scsi::handle::{Handled, Refusal, Task};
use crate::scsi::primary::cut;
use crate::scsi::unit::LogicalUnit;

fn put_u32_length(out: &mut BytesMut, length: usize) {
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// The state, unless an old RESERVE stands in the way.
fn open(unit: &LogicalUnit) -> Result<&Reservations, Refusal> {
    if unit.reservations.legacy.is_some() {
        return Err(Refusal::CONFLICT);
    }
    Ok(&unit.reservations)
}

fn answer(task: &Task, data: BytesMut) -> Handled {
    cut(data, usize::from(task.cdb.u16(7)))
}

/// READ KEYS.
pub(in crate::scsi) fn read_keys(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let reservations = open(unit)?;
    let mut out = BytesMut::new();
    out.put_u32(reservations.generation);
    put_u32_length(&mut out, 8 * reservations.registrations.len());
    for registration in &reservations.registrations {
        out.put_u64(registration.key);
    }
    answer(task, out)
}

/// READ RESERVATION. Of the types that all registrants hold the key is told as 0.
pub(in crate::scsi) fn read_reservation(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const DESCRIPTOR_BYTES: usize = 16;
    let reservations = open(unit)?;
    let mut out = BytesMut::new();
    out.put_u32(reservations.generation);
    match &reservations.held {
        None => out.put_u32(0),
        Some(held) => {
            put_u32_length(&mut out, DESCRIPTOR_BYTES);
            out.put_u64(holder_key(reservations, held));
            out.put_slice(&[0, 0, 0, 0, 0, held.kind as u8, 0, 0]);
        }
    }
    answer(task, out)
}

fn holder_key(reservations: &Reservations, held: &Held) -> u64 {
    if held.kind.is_of_all() {
        return 0;
    }
    reservations
        .registration(&held.port)
        .map_or(0, |registration| registration.key)
}

/// REPORT CAPABILITIES: all types, other initiator ports can be named, all target ports at once
/// (there is one), kept through power loss.
pub(in crate::scsi) fn capabilities(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const LENGTH: u16 = 8;
    const SPECIFY_INITIATOR_PORTS: u8 = 0x08;
    const ALL_TARGET_PORTS: u8 = 0x04;
    const PERSIST_CAPABLE: u8 = 0x01;
    const TYPE_MASK_VALID: u8 = 0x80;
    let reservations = open(unit)?;
    // Bit n of the little-endian mask stands for type n.
    let types = Kind::ALL
        .into_iter()
        .fold(0_u16, |mask, kind| mask | (1 << kind as u8));
    let mut out = BytesMut::with_capacity(usize::from(LENGTH));
    out.put_u16(LENGTH);
    out.put_u8(SPECIFY_INITIATOR_PORTS | ALL_TARGET_PORTS | PERSIST_CAPABLE);
    out.put_u8(TYPE_MASK_VALID | u8::from(reservations.kept_through_power_loss));
    out.put_u16_le(types);
    out.put_u16(0);
    answer(task, out)
}

/// READ FULL STATUS.
///
/// ```text
/// 0  u64 key    12  ALL_TG_PT, R_HOLDER    18  u16 relative target port    24  TransportID
/// 8  zero       13  scope and type         20  u32 bytes of the TransportID
/// ```
pub(in crate::scsi) fn full_status(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const ALL_TARGET_PORTS: u8 = 0x02;
    const HOLDER: u8 = 0x01;
    const PORT: u16 = 1;
    let reservations = open(unit)?;
    let mut descriptors = BytesMut::new();
    for registration in &reservations.registrations {
        let holds = reservations.is_holder(&registration.port);
        let kind = reservations
            .held
            .as_ref()
            .filter(|_| holds)
            .map_or(0, |held| held.kind as u8);
        let transport_id = TransportId::Port(registration.port.clone()).encode();
        descriptors.put_u64(registration.key);
        descriptors.put_u32(0);
        descriptors.put_u8(ALL_TARGET_PORTS | if holds { HOLDER } else { 0 });
        descriptors.put_u8(kind);
        descriptors.put_u32(0);
        descriptors.put_u16(PORT);
        put_u32_length(&mut descriptors, transport_id.len());
        descriptors.put_slice(&transport_id);
    }
    let mut out = BytesMut::with_capacity(8 + descriptors.len());
    out.put_u32(reservations.generation);
    put_u32_length(&mut out, descriptors.len());
    out.put_slice(&descriptors);
    answer(task, out)
}
