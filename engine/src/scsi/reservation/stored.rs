//! The persistent state as bytes.
//!
//! ```text
//! 0  u8   version 1                    2  u32  generation
//! 1  u8   APTPL                        6  u16  registrations R
//! 8  R × { u64 key, 6 ISID, u8 name bytes N, N name }
//! .  u8   type of the reservation, 0: none; then u16 which registration made it
//! .  u32  CRC32C of everything before
//! ```
//!
//! Little-endian. A reservation that all registrants hold and whose maker has left names the first.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::state::{Held, Kind, Registration, Reservations};
use crate::scsi::nexus::InitiatorPort;

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// Bytes that are no reservation state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Cut short, or changed since.
    #[error("the stored reservations are damaged")]
    Damaged,
    /// Written by newer software.
    #[error("the stored reservations have format version {0}, this engine reads version 1")]
    Version(u8),
}

impl Reservations {
    /// As bytes; the old RESERVE is not part of it, for it ends with its session.
    pub(in crate::scsi) fn export(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u8(u8::from(self.kept_through_power_loss));
        out.put_u32_le(self.generation);
        out.put_u16_le(u16::try_from(self.registrations.len()).unwrap_or(u16::MAX));
        for registration in &self.registrations {
            let name = registration.port.name.as_bytes();
            out.put_u64_le(registration.key);
            out.put_slice(&registration.port.isid);
            out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.put_slice(name);
        }
        match &self.held {
            None => out.put_slice(&[0, 0, 0]),
            Some(held) => {
                let maker = self
                    .registrations
                    .iter()
                    .position(|registration| registration.port == held.port)
                    .unwrap_or(0);
                out.put_u8(held.kind as u8);
                out.put_u16_le(u16::try_from(maker).unwrap_or(0));
            }
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out.freeze()
    }

    /// Takes up a state; nothing changes when it is none.
    pub(in crate::scsi) fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        let body_bytes = state
            .len()
            .checked_sub(CRC_BYTES)
            .ok_or(RestoreError::Damaged)?;
        let (mut body, mut crc) = state.split_at(body_bytes);
        if crc32c::crc32c(body) != crc.get_u32_le() {
            return Err(RestoreError::Damaged);
        }
        match body.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(RestoreError::Version(*version)),
            None => return Err(RestoreError::Damaged),
        }
        let read = read(&mut body).ok_or(RestoreError::Damaged)?;
        if !body.is_empty() {
            return Err(RestoreError::Damaged);
        }
        let legacy = self.legacy;
        *self = Self { legacy, ..read };
        Ok(())
    }
}

fn read(body: &mut &[u8]) -> Option<Reservations> {
    let mut reservations = Reservations::default();
    body.try_get_u8().ok()?;
    reservations.kept_through_power_loss = body.try_get_u8().ok()? != 0;
    reservations.generation = body.try_get_u32_le().ok()?;
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
