//! What the unit remembers when its engine is gone: the persistent reservations, and a sanitize
//! operation that has not ended well.
//!
//! ```text
//! 0  u8   version 2
//! 1  the reservations, see `reservation/stored.rs`
//! .  the sanitize operation, see `sanitize/stored.rs`; version 1 has none
//! .  u32  CRC32C of everything before
//! ```
//!
//! Little-endian. Version 1, which earlier engines wrote, is read; its reservations are laid out
//! alike.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::reservation::{self, Reservations};
use super::sanitize::{self, Sanitize};

/// The most bytes of the state: what the managers keep for a volume.
pub const STATE_BYTES_MAX: usize = 16 << 10;

const VERSION: u8 = 2;
const VERSION_WITHOUT_SANITIZE: u8 = 1;
const CRC_BYTES: usize = 4;

/// Bytes that are no state of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Cut short, or changed since.
    #[error("the stored reservations are damaged")]
    Damaged,
    /// Written by newer software.
    #[error("the stored reservations have format version {0}, this engine reads up to version 2")]
    Version(u8),
}

/// As bytes.
pub(super) fn write(reservations: &Reservations, sanitize: &Sanitize) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    reservation::write(reservations, &mut out);
    sanitize::write(sanitize, &mut out);
    let crc = ankole_proto::crc32c(&out);
    out.put_u32_le(crc);
    debug_assert!(out.len() <= STATE_BYTES_MAX, "{} bytes", out.len());
    out.freeze()
}

/// From bytes.
pub(super) fn read(state: &[u8]) -> Result<(Reservations, Sanitize), RestoreError> {
    let body_bytes = state
        .len()
        .checked_sub(CRC_BYTES)
        .ok_or(RestoreError::Damaged)?;
    let (mut body, mut crc) = state.split_at(body_bytes);
    if ankole_proto::crc32c(body) != crc.get_u32_le() {
        return Err(RestoreError::Damaged);
    }
    let version = body.try_get_u8().map_err(|_| RestoreError::Damaged)?;
    let read = match version {
        VERSION_WITHOUT_SANITIZE => {
            reservation::read(&mut body).map(|reservations| (reservations, Sanitize::default()))
        }
        VERSION => read_both(&mut body),
        newer => return Err(RestoreError::Version(newer)),
    };
    read.filter(|_| body.is_empty())
        .ok_or(RestoreError::Damaged)
}

fn read_both(body: &mut &[u8]) -> Option<(Reservations, Sanitize)> {
    let reservations = reservation::read(body)?;
    Some((reservations, sanitize::read(body)?))
}
