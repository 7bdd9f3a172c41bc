//! The SANITIZE command (SBC-4 5.36).

use ankole_proto::SECTOR_BYTES;

use super::{Method, Order, Overwrite, Sanitize};
use crate::scsi::cdb::Cdb;
use crate::scsi::handle::{Change, Handled, Refusal, Step, Task};
use crate::scsi::sense::{AdditionalSense, Sense};
use crate::scsi::unit::LogicalUnit;

const IMMEDIATE_BIT: u8 = 7;
const UNRESTRICTED_BIT: u8 = 5;

/// BLOCK ERASE.
pub(in crate::scsi) fn block_erase(unit: &mut LogicalUnit, task: &Task) -> Handled {
    begin(unit, &task.cdb, Method::BlockErase)
}

/// OVERWRITE.
pub(in crate::scsi) fn overwrite(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let overwrite = Overwrite::of(task)?;
    begin(unit, &task.cdb, Method::Overwrite(overwrite))
}

/// EXIT FAILURE MODE: only after a failure whose command allowed it.
pub(in crate::scsi) fn exit_failure_mode(unit: &mut LogicalUnit, _: &Task) -> Handled {
    const SERVICE_ACTION_AT: u16 = 1;
    match unit.sanitize {
        Sanitize::Failed { unrestricted: true } => Ok(Step::Keep(Change::Sanitize(None))),
        Sanitize::Failed { .. } => Err(Sense::invalid_cdb_bit(SERVICE_ACTION_AT, 4).into()),
        Sanitize::Idle | Sanitize::Running(_) => Ok(Step::Good),
    }
}

/// In the restricted mode (AUSE=0) a failure stays until a sanitize operation succeeds, so that the
/// next one may not ask for the unrestricted mode either (SBC-4 4.11.3).
fn begin(unit: &LogicalUnit, cdb: &Cdb, method: Method) -> Handled {
    let unrestricted = cdb.bit(1, UNRESTRICTED_BIT);
    let restricted = matches!(
        unit.sanitize,
        Sanitize::Failed {
            unrestricted: false
        }
    );
    if restricted && unrestricted {
        return Err(Sense::invalid_cdb_bit(1, UNRESTRICTED_BIT).into());
    }
    let order = Order {
        method,
        unrestricted,
        immediate: cdb.bit(1, IMMEDIATE_BIT),
    };
    Ok(Step::Keep(Change::Sanitize(Some(order))))
}

impl Overwrite {
    /// ```text
    /// 0  INVERT, TEST (2 bits), OVERWRITE COUNT (5 bits)    2  u16 length of the pattern
    /// 1  reserved                                           4  the pattern
    /// ```
    fn of(task: &Task) -> Result<Self, Refusal> {
        const LENGTH_AT: u16 = 7;
        const HEADER_BYTES: usize = 4;
        const INVERT: u8 = 0x80;
        const TEST: u8 = 0x60;
        const COUNT: u8 = 0x1f;
        let told = usize::from(task.cdb.u16(7));
        let patterns = HEADER_BYTES + 1..=HEADER_BYTES + usize::from(SECTOR_BYTES_16);
        if !patterns.contains(&told) {
            return Err(Sense::invalid_cdb(LENGTH_AT).into());
        }
        let list = task.parameters(told)?;
        let Some((header, pattern)) = list.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR).into());
        };
        let passes = header[0] & COUNT;
        if passes == 0 || header[0] & TEST != 0 {
            return Err(Sense::invalid_parameter(0).into());
        }
        if header[1] != 0 {
            return Err(Sense::invalid_parameter(1).into());
        }
        let length = u16::from_be_bytes([header[2], header[3]]);
        if length == 0 || length > SECTOR_BYTES_16 {
            return Err(Sense::invalid_parameter(2).into());
        }
        if pattern.len() != usize::from(length) {
            return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR).into());
        }
        Ok(Self {
            pattern: list.slice(HEADER_BYTES..),
            passes,
            inverts: header[0] & INVERT != 0,
        })
    }
}

/// The longest pattern: a logical block.
#[expect(clippy::cast_possible_truncation, reason = "512")]
pub(super) const SECTOR_BYTES_16: u16 = SECTOR_BYTES as u16;
