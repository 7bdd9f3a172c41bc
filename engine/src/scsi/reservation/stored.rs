//! The persistent reservations as bytes; `scsi/stored.rs` says what goes around them.
//!
//! ```text
//! 0  u8   APTPL            1  u32  generation       5  u16  registrations R
//! 7  R × { u64 key, 6 ISID, u8 name bytes N, N name }
//! .  u8   type of the reservation, 0: none; then u16 which registration made it
//! ```
//!
//! Little-endian. A reservation that all registrants hold and whose maker has left names the first.

use bytes::{Buf, BufMut, BytesMut};

use super::state::{Held, Kind, Registration, Reservations};
use crate::scsi::nexus::InitiatorPort;

/// How many bytes [`write`] adds.
pub(super) fn bytes(reservations: &Reservations) -> usize {
    const AROUND: usize = 7 + 3;
    const BESIDE_NAME: usize = 8 + 6 + 1;
    let names = reservations.registrations.iter();
    AROUND
        + names
            .map(|entry| BESIDE_NAME + entry.port.name.len())
            .sum::<usize>()
}

/// Adds them; the old RESERVE is not among them, for it ends with its session.
pub(in crate::scsi) fn write(reservations: &Reservations, out: &mut BytesMut) {
    out.put_u8(u8::from(reservations.kept_through_power_loss));
    out.put_u32_le(reservations.generation);
    out.put_u16_le(u16::try_from(reservations.registrations.len()).unwrap_or(u16::MAX));
    for registration in &reservations.registrations {
        let name = registration.port.name.as_bytes();
        out.put_u64_le(registration.key);
        out.put_slice(&registration.port.isid);
        out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.put_slice(name);
    }
    match &reservations.held {
        None => out.put_slice(&[0, 0, 0]),
        Some(held) => {
            let maker = reservations
                .registrations
                .iter()
                .position(|registration| registration.port == held.port)
                .unwrap_or(0);
            out.put_u8(held.kind as u8);
            out.put_u16_le(u16::try_from(maker).unwrap_or(0));
        }
    }
}

/// Reads them off the front. `None` when they are not such.
pub(in crate::scsi) fn read(body: &mut &[u8]) -> Option<Reservations> {
    let mut reservations = Reservations {
        kept_through_power_loss: body.try_get_u8().ok()? != 0,
        generation: body.try_get_u32_le().ok()?,
        ..Reservations::default()
    };
    let count = usize::from(body.try_get_u16_le().ok()?);
    if count > Reservations::REGISTRATIONS_MAX {
        return None;
    }
    for _ in 0..count {
        reservations.registrations.push(read_registration(body)?);
    }
    let kind = body.try_get_u8().ok()?;
    let maker = usize::from(body.try_get_u16_le().ok()?);
    if kind != 0 {
        reservations.held = Some(Held {
            kind: Kind::from_code(kind)?,
            port: reservations.registrations.get(maker)?.port.clone(),
        });
    }
    Some(reservations)
}

fn read_registration(body: &mut &[u8]) -> Option<Registration> {
    let key = body.try_get_u64_le().ok()?;
    let mut isid = [0; 6];
    body.try_copy_to_slice(&mut isid).ok()?;
    let name_bytes = usize::from(body.try_get_u8().ok()?);
    let (name, rest) = body.split_at_checked(name_bytes)?;
    *body = rest;
    let name = std::str::from_utf8(name).ok()?.to_owned();
    Some(Registration {
        port: InitiatorPort { name, isid },
        key,
    })
}
