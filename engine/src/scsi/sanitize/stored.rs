//! A sanitize operation as bytes.
//!
//! ```text
//! 0  u8   0 none, 1 overwrite, 2 block erase, 3 failed
//! 1  u8   AUSE                                              of 1, 2 and 3
//! 2  u8   passes, 3 u8 INVERT, 4 u16 bytes P, 6 P pattern   of 1
//! ```
//!
//! Little-endian. How far it was is not kept: it begins anew.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::request::SECTOR_BYTES_16;
use super::{Method, Order, Overwrite, Sanitize, Work};

const NONE: u8 = 0;
const OVERWRITE: u8 = 1;
const BLOCK_ERASE: u8 = 2;
const FAILED: u8 = 3;
const PASSES_MAX: u8 = 31;

/// Adds it.
pub(in crate::scsi) fn write(sanitize: &Sanitize, out: &mut BytesMut) {
    match sanitize {
        Sanitize::Idle => out.put_u8(NONE),
        Sanitize::Failed { unrestricted } => out.put_slice(&[FAILED, u8::from(*unrestricted)]),
        Sanitize::Running(work) => {
            let order = work.order();
            let unrestricted = u8::from(order.unrestricted);
            match &order.method {
                Method::BlockErase => out.put_slice(&[BLOCK_ERASE, unrestricted]),
                Method::Overwrite(overwrite) => {
                    let inverts = u8::from(overwrite.inverts);
                    out.put_slice(&[OVERWRITE, unrestricted, overwrite.passes, inverts]);
                    out.put_u16_le(u16::try_from(overwrite.pattern.len()).unwrap_or(u16::MAX));
                    out.put_slice(&overwrite.pattern);
                }
            }
        }
    }
}

/// Reads it off the front. `None` when it is not such.
pub(in crate::scsi) fn read(body: &mut &[u8]) -> Option<Sanitize> {
    let kind = body.try_get_u8().ok()?;
    if kind == NONE {
        return Some(Sanitize::Idle);
    }
    let unrestricted = body.try_get_u8().ok()? != 0;
    let method = match kind {
        OVERWRITE => Method::Overwrite(read_overwrite(body)?),
        BLOCK_ERASE => Method::BlockErase,
        FAILED => return Some(Sanitize::Failed { unrestricted }),
        _ => return None,
    };
    let order = Order {
        method,
        unrestricted,
        immediate: true,
    };
    Some(Sanitize::Running(Work::begin(order)))
}

fn read_overwrite(body: &mut &[u8]) -> Option<Overwrite> {
    let passes = body.try_get_u8().ok()?;
    let inverts = body.try_get_u8().ok()? != 0;
    let bytes = body.try_get_u16_le().ok()?;
    let (pattern, rest) = body.split_at_checked(usize::from(bytes))?;
    *body = rest;
    let sound = (1..=PASSES_MAX).contains(&passes) && (1..=SECTOR_BYTES_16).contains(&bytes);
    sound.then(|| Overwrite {
        pattern: Bytes::copy_from_slice(pattern),
        passes,
        inverts,
    })
}
