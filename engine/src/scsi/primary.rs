//! The small commands of every device: TEST UNIT READY, REQUEST SENSE, REPORT LUNS, START STOP UNIT,
//! PREVENT ALLOW MEDIUM REMOVAL (SPC-4 clause 6, SBC-3 5.25).

use bytes::{BufMut, Bytes, BytesMut};

use super::cdb::Cdb;
use super::handle::{After, Handled, Step, Task};
use super::sense::{AdditionalSense, Sense, SenseFormat, SenseKey};
use super::unit::LogicalUnit;
use crate::volume::Operation;

pub(super) const REQUEST_SENSE: u8 = 0x03;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const REPORT_LUNS: u8 = 0xa0;
pub(super) const SANITIZE: u8 = 0x48;

/// Commands that are carried out without telling a unit attention first (SAM-5 5.14.2).
pub(super) fn is_exempt_from_attention(cdb: &Cdb) -> bool {
    matches!(cdb.opcode(), REQUEST_SENSE | INQUIRY | REPORT_LUNS)
}

pub(super) fn test_unit_ready(_: &mut LogicalUnit, _: &Task) -> Handled {
    Ok(Step::Good)
}

/// The data cut to the allocation length.
pub(super) fn cut(data: impl Into<Bytes>, allocation_bytes: usize) -> Handled {
    let mut data = data.into();
    data.truncate(allocation_bytes);
    Ok(Step::Data(data))
}

fn sense_format(cdb: &Cdb) -> SenseFormat {
    if cdb.bit(1, 0) {
        SenseFormat::Descriptor
    } else {
        SenseFormat::Fixed
    }
}

/// REQUEST SENSE (SPC-4 6.39): a unit attention that waits, how far a sanitize operation is, or
/// nothing.
pub(super) fn request_sense(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let attention = unit
        .nexuses
        .get_mut(&task.nexus)
        .and_then(super::nexus::Nexus::take_attention);
    let sanitizing = || unit.sanitize.sense(unit.size.bytes());
    let sense = match attention {
        Some(attention) => Sense::unit_attention(attention),
        None => sanitizing().unwrap_or(Sense::new(SenseKey::NoSense, AdditionalSense::NONE)),
    };
    cut(
        sense.encode(sense_format(&task.cdb)),
        usize::from(task.cdb.u8(4)),
    )
}

/// REQUEST SENSE to a LUN that does not exist: GOOD, and the data says so.
pub(super) fn request_sense_absent(task: &Task) -> Handled {
    let sense = Sense::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED);
    cut(
        sense.encode(sense_format(&task.cdb)),
        usize::from(task.cdb.u8(4)),
    )
}

/// REPORT LUNS (SPC-4 6.33): LUN 0, and no well-known one.
pub(super) fn report_luns(_: &mut LogicalUnit, task: &Task) -> Handled {
    const ALL_BUT_WELL_KNOWN: u8 = 0;
    const WELL_KNOWN: u8 = 1;
    const ALL: u8 = 2;
    const LUN_BYTES: u32 = 8;
    let luns = match task.cdb.u8(2) {
        ALL_BUT_WELL_KNOWN | ALL => 1,
        WELL_KNOWN => 0,
        _ => return Err(Sense::invalid_cdb(2).into()),
    };
    let mut out = BytesMut::with_capacity(16);
    out.put_u32(luns * LUN_BYTES);
    out.put_u32(0);
    out.put_bytes(0, (luns * LUN_BYTES) as usize);
    cut(out, task.cdb.u32(6) as usize)
}

/// START STOP UNIT (SBC-3 5.25). The volume has nothing to start or stop; stopping makes what was
/// written durable, unless NO_FLUSH. The medium cannot be ejected.
pub(super) fn start_stop_unit(_: &mut LogicalUnit, task: &Task) -> Handled {
    let power_condition = task.cdb.u8(4) >> 4;
    let no_flush = task.cdb.bit(4, 2);
    let eject = task.cdb.bit(4, 1);
    let start = task.cdb.bit(4, 0);
    if power_condition != 0 {
        return Err(Sense::invalid_cdb_bit(4, 7).into());
    }
    if eject && !start {
        return Err(Sense::invalid_cdb_bit(4, 1).into());
    }
    if start || no_flush {
        return Ok(Step::Good);
    }
    Ok(Step::Run(vec![Operation::Flush], After::Good))
}

/// PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.17): remembered per session; nothing here can be removed.
pub(super) fn prevent_allow(unit: &mut LogicalUnit, task: &Task) -> Handled {
    if task.cdb.bit(4, 0) {
        unit.preventing.insert(task.nexus);
    } else {
        unit.preventing.remove(&task.nexus);
    }
    Ok(Step::Good)
}
