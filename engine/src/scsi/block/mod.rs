//! The commands of a disk (SBC-3): each becomes one batch of volume operations, or a few in turn.

pub(super) mod capacity;
pub(super) mod compare;
pub(super) mod orwrite;
pub(super) mod provisioning;
pub(super) mod read;
pub(super) mod repeat;
pub(super) mod sync;
pub(super) mod unmap;
pub(super) mod verify;
pub(super) mod write;
pub(super) mod write_atomic;
pub(super) mod write_same;

use ankole_proto::{Extent, VolumeSize};
use bytes::Bytes;

use super::cdb::{Blocks, Cdb};
use super::handle::{After, Handled, Refusal, Step};
use super::sense::Sense;
use crate::volume::Outcome;

/// Whether the command has FUA set; the six-byte ones have none.
fn is_fua(cdb: &Cdb) -> bool {
    const FUA_BIT: u8 = 3;
    Cdb::length(cdb.opcode()) > 6 && cdb.bit(1, FUA_BIT)
}

/// The blocks as an extent of the volume, which may be empty.
///
/// A start beyond the last block is out of range even when no block is named (SBC-3 4.5.1).
fn extent_in(size: VolumeSize, blocks: Blocks) -> Result<Extent, Refusal> {
    if blocks.lba >= size.sectors() {
        return Err(Sense::lba_out_of_range(blocks.lba).into());
    }
    match blocks.extent() {
        Some(extent) if size.contains(extent) => Ok(extent),
        _ => Err(Sense::lba_out_of_range(size.sectors()).into()),
    }
}

/// The extent of a command that moves the data of its blocks: not more than a transfer.
fn transfer_in(size: VolumeSize, cdb: &Cdb) -> Result<Extent, Refusal> {
    let blocks = cdb.blocks();
    let extent = extent_in(size, blocks)?;
    if extent.length() > u64::from(super::TRANSFER_BYTES_MAX) {
        return Err(Sense::invalid_cdb(cdb.count_at()).into());
    }
    Ok(extent)
}

/// What the outcomes of everything but EXTENDED COPY lead to.
pub(super) fn resume(after: After, outcomes: Vec<Outcome>) -> Handled {
    match after {
        After::Good | After::Readable => all_done(&outcomes).map(|()| Step::Good),
        After::Data => single_data(outcomes).map(Step::Data),
        After::Compare(expected) => verify::compare(&expected, &single_data(outcomes)?),
        After::ReadBack { extent, expected } => {
            all_done(&outcomes)?;
            Ok(verify::read_back(extent, expected))
        }
        After::Repeat(repeat) => {
            all_done(&outcomes)?;
            Ok(repeat.next())
        }
        After::Status(scan) => {
            all_done(&outcomes)?;
            scan.resume(outcomes)
        }
        After::Copy(_) | After::Sanitized => Ok(Step::Good),
    }
}

/// The first failure, when there is one.
pub(super) fn all_done(outcomes: &[Outcome]) -> Result<(), Refusal> {
    for outcome in outcomes {
        match outcome {
            Outcome::Done(_) => {}
            Outcome::Miscompare { first_difference } => {
                return Err(verify::miscompare(*first_difference));
            }
            Outcome::Failed(failure) => return Err((*failure).into()),
        }
    }
    Ok(())
}

/// The data of the one read.
fn single_data(outcomes: Vec<Outcome>) -> Result<Bytes, Refusal> {
    all_done(&outcomes)?;
    match outcomes.into_iter().next() {
        Some(Outcome::Done(data)) => Ok(data),
        _ => Ok(Bytes::new()),
    }
}
