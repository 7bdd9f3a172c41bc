//! VERIFY 10, 12, 16 (SBC-3 5.27 to 5.30), and what comparing leads to.

use ankole_proto::Extent;
use bytes::Bytes;

use super::transfer_in;
use crate::scsi::cdb::Cdb;
use crate::scsi::handle::{After, Handled, Refusal, Step, Task};
use crate::scsi::sense::{AdditionalSense, Sense, SenseKey};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// VERIFY: the blocks are read (each is checked against its checksum on the way), and with BYTCHK
/// compared with the data-out.
pub(in crate::scsi) fn verify(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let extent = transfer_in(unit.size, &task.cdb)?;
    if extent.is_empty() {
        return Ok(Step::Good);
    }
    let expected = if byte_check(&task.cdb) {
        Some(task.data(extent.length())?)
    } else {
        None
    };
    Ok(read_back(extent, expected))
}

/// Whether BYTCHK asks to compare all blocks. Of its two bits the usage map admits the lower: 10b is
/// reserved, and 11b (one block compared with each) is not supported.
pub(super) fn byte_check(cdb: &Cdb) -> bool {
    cdb.bit(1, 1)
}

/// Reads the extent, and compares when there is something to compare with.
pub(super) fn read_back(extent: Extent, expected: Option<Bytes>) -> Step {
    let after = match expected {
        Some(expected) => After::Compare(expected),
        None => After::Readable,
    };
    Step::Run(vec![Operation::Read { extent }], after)
}

/// GOOD when equal.
pub(super) fn compare(expected: &[u8], found: &[u8]) -> Handled {
    if expected == found {
        return Ok(Step::Good);
    }
    let first_difference = expected
        .iter()
        .zip(found)
        .position(|(expected, found)| expected != found)
        .unwrap_or(expected.len().min(found.len()));
    Err(miscompare(first_difference as u64))
}

/// MISCOMPARE, with the offset of the first byte that differs (SBC-3 4.18.1).
pub(super) fn miscompare(first_difference: u64) -> Refusal {
    Sense::new(
        SenseKey::Miscompare,
        AdditionalSense::MISCOMPARE_DURING_VERIFY,
    )
    .with_information(first_difference)
    .into()
}
