//! INQUIRY (SPC-4 6.6): the standard data and the vital product data pages 00, 80, 83, 86, 8F, B0,
//! B1, B2.

mod vpd;

use bytes::{BufMut, BytesMut};

use super::handle::{Handled, Task};
use super::identity::Identity;
use super::primary::cut;
use super::sense::Sense;
use super::unit::LogicalUnit;

/// A direct access block device that is there.
const CONNECTED: u8 = 0x00;
/// No device can be at this LUN (qualifier 011b, type 1Fh).
const ABSENT: u8 = 0x7f;

/// INQUIRY to LUN 0.
pub(super) fn inquiry(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const EVPD_BIT: u8 = 0;
    let allocation_bytes = usize::from(task.cdb.u16(3));
    let page = task.cdb.u8(2);
    if task.cdb.bit(1, EVPD_BIT) {
        let data = vpd::page(&unit.identity, page).ok_or(Sense::invalid_cdb(2))?;
        return cut(data, allocation_bytes);
    }
    if page != 0 {
        return Err(Sense::invalid_cdb(2).into());
    }
    cut(standard(&unit.identity, CONNECTED), allocation_bytes)
}

/// INQUIRY to a LUN that does not exist: the standard data say so, there are no pages.
pub(super) fn inquiry_absent(unit: &mut LogicalUnit, task: &Task) -> Handled {
    if task.cdb.u8(1) != 0 || task.cdb.u8(2) != 0 {
        return Err(Sense::invalid_cdb(2).into());
    }
    let allocation_bytes = usize::from(task.cdb.u16(3));
    cut(standard(&unit.identity, ABSENT), allocation_bytes)
}

/// ```text
///  0  qualifier, type        6  0                          32  revision
///  1  RMB = 0                7  CMDQUE                     36  zero
///  2  06h: SPC-4             8  vendor                     58  version descriptors
///  3  response format 2     16  product                    96
///  4  length that follows
///  5  3PC (EXTENDED COPY); no TPGS, no PROTECT
/// ```
fn standard(identity: &Identity, peripheral: u8) -> BytesMut {
    const BYTES: usize = 96;
    const SPC_4: u8 = 0x06;
    const RESPONSE_FORMAT: u8 = 0x02;
    const THIRD_PARTY_COPY: u8 = 0x08;
    const COMMAND_QUEUEING: u8 = 0x02;
    /// SAM-5, SPC-4, SBC-3, iSCSI, each without a claim to a revision.
    const VERSION_DESCRIPTORS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];
    const VERSION_DESCRIPTORS_AT: usize = 58;
    let mut out = BytesMut::with_capacity(BYTES);
    #[expect(clippy::cast_possible_truncation, reason = "91")]
    out.put_slice(&[
        peripheral,
        0,
        SPC_4,
        RESPONSE_FORMAT,
        (BYTES - 5) as u8,
        THIRD_PARTY_COPY,
        0,
        COMMAND_QUEUEING,
    ]);
    out.put_slice(&Identity::VENDOR);
    out.put_slice(&Identity::PRODUCT);
    out.put_slice(&identity.revision());
    out.put_bytes(0, VERSION_DESCRIPTORS_AT - out.len());
    for descriptor in VERSION_DESCRIPTORS {
        out.put_u16(descriptor);
    }
    out.put_bytes(0, BYTES - out.len());
    out
}
