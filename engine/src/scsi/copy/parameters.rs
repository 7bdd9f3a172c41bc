//! The parameter list of EXTENDED COPY (SPC-4 6.4.3 to 6.4.6).
//!
//! ```text
//! 0  list id                        4  zero                                16  target descriptors
//! 1  STR, LIST ID USAGE, priority   8  u32 bytes of segment descriptors     .  segment descriptors
//! 2  u16 bytes of target            12 u32 bytes of inline data             .  inline data
//!    descriptors
//! ```

use ankole_proto::{Extent, VolumeSize};

use super::{Segment, aborted};
use crate::scsi::cdb::Blocks;
use crate::scsi::handle::Refusal;
use crate::scsi::identity::Identity;
use crate::scsi::sense::{AdditionalSense, Sense};

pub(super) const TARGETS_MAX: u16 = 2;
pub(super) const SEGMENTS_MAX: u16 = 16;
/// Target and segment descriptors together.
pub(super) const DESCRIPTOR_BYTES_MAX: u32 = 1024;
/// The most blocks of a segment: all that its descriptor can name, 32 MiB.
pub(super) const SEGMENT_BLOCKS_MAX: u32 = 0xffff;

/// Identification descriptor target descriptor.
pub(super) const IDENTIFICATION: u8 = 0xe4;
/// Copy from block device to block device.
pub(super) const BLOCK_TO_BLOCK: u8 = 0x02;

const HEADER_BYTES: usize = 16;
const TARGET_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 28;

/// Under which name the result can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListId(pub(super) u8);

/// What is to be copied.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) list: Option<ListId>,
    pub(super) segments: Vec<Segment>,
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes
        .iter()
        .skip(at)
        .take(length)
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn number_16(bytes: &[u8], at: usize) -> usize {
    // Two bytes always fit.
    usize::try_from(number(bytes, at, 2)).unwrap_or(usize::MAX)
}

fn length_error() -> Refusal {
    Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR).into()
}

impl Parameters {
    pub(super) fn read(
        list: &[u8],
        identity: &Identity,
        size: VolumeSize,
    ) -> Result<Self, Refusal> {
        const HELD_NOT: u8 = 3;
        let (header, rest) = list
            .split_at_checked(HEADER_BYTES)
            .ok_or_else(length_error)?;
        let target_bytes = number(header, 2, 2);
        let segment_bytes = number(header, 8, 4);
        let inline_bytes = number(header, 12, 4);
        if target_bytes + segment_bytes > u64::from(DESCRIPTOR_BYTES_MAX) || inline_bytes != 0 {
            return Err(length_error());
        }
        let (Ok(target_bytes), Ok(segment_bytes)) = (
            usize::try_from(target_bytes),
            usize::try_from(segment_bytes),
        ) else {
            return Err(length_error());
        };
        let (targets, rest) = rest
            .split_at_checked(target_bytes)
            .ok_or_else(length_error)?;
        let segments = rest.get(..segment_bytes).ok_or_else(length_error)?;
        let target_count = check_targets(targets, identity)?;
        let segments_at = HEADER_BYTES + target_bytes;
        let segments = read_segments(segments, segments_at, target_count, size)?;
        let usage = (header[1] >> 3) & 3;
        Ok(Self {
            list: (usage != HELD_NOT).then_some(ListId(header[0])),
            segments,
        })
    }
}

/// All must name this unit. Tells how many there are.
fn check_targets(targets: &[u8], identity: &Identity) -> Result<usize, Refusal> {
    if targets.len() > usize::from(TARGETS_MAX) * TARGET_BYTES {
        return Err(Sense::illegal(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS).into());
    }
    for (index, target) in targets.chunks(TARGET_BYTES).enumerate() {
        let at = HEADER_BYTES + index * TARGET_BYTES;
        if target.first() != Some(&IDENTIFICATION) {
            let sense = Sense::illegal(AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR);
            return Err(sense.at_parameter(at).into());
        }
        if target.len() != TARGET_BYTES {
            return Err(length_error());
        }
        if !names(target, identity) {
            return Err(aborted(AdditionalSense::COPY_TARGET_NOT_REACHABLE));
        }
    }
    Ok(targets.len() / TARGET_BYTES)
}

/// Whether the designator is one of this unit's.
///
/// ```text
/// 4  code set (low 4 bits)                      7  bytes of the designator
/// 5  association (bits 5 and 4), kind           8  designator, at most 20
/// ```
fn names(target: &[u8], identity: &Identity) -> bool {
    const ASSOCIATION_AND_KIND: u8 = 0x3f;
    const NAA: u8 = 3;
    const T10_VENDOR: u8 = 1;
    const DESIGNATOR_BYTES_MAX: usize = 20;
    let (Some(kind), Some(length)) = (target.get(5), target.get(7)) else {
        return false;
    };
    let length = usize::from(*length);
    let Some(designator) = target.get(8..8 + length.min(DESIGNATOR_BYTES_MAX)) else {
        return false;
    };
    match kind & ASSOCIATION_AND_KIND {
        NAA => designator == identity.naa().to_bytes(),
        // A designator longer than the descriptor holds is cut there.
        T10_VENDOR => {
            let whole = [&Identity::VENDOR[..], identity.serial().as_bytes()].concat();
            length == whole.len().min(length)
                && length >= DESIGNATOR_BYTES_MAX
                && whole.starts_with(designator)
        }
        _ => false,
    }
}

fn read_segments(
    segments: &[u8],
    at: usize,
    targets: usize,
    size: VolumeSize,
) -> Result<Vec<Segment>, Refusal> {
    if segments.len() > usize::from(SEGMENTS_MAX) * SEGMENT_BYTES {
        return Err(Sense::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS).into());
    }
    let mut read = Vec::with_capacity(segments.len() / SEGMENT_BYTES);
    for (index, segment) in segments.chunks(SEGMENT_BYTES).enumerate() {
        if segment.first() != Some(&BLOCK_TO_BLOCK) {
            let sense = Sense::illegal(AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR);
            return Err(sense.at_parameter(at + index * SEGMENT_BYTES).into());
        }
        if segment.len() != SEGMENT_BYTES || number_16(segment, 2) != SEGMENT_BYTES - 4 {
            return Err(length_error());
        }
        if let Some(segment) = read_segment(segment, targets, size)? {
            read.push(segment);
        }
    }
    Ok(read)
}

/// ```text
/// 4  u16 source target    10  u16 blocks    20  u64 destination LBA
/// 6  u16 destination      12  u64 source LBA
/// ```
fn read_segment(
    segment: &[u8],
    targets: usize,
    size: VolumeSize,
) -> Result<Option<Segment>, Refusal> {
    if number_16(segment, 4) >= targets || number_16(segment, 6) >= targets {
        return Err(aborted(AdditionalSense::COPY_TARGET_NOT_REACHABLE));
    }
    let count = number(segment, 10, 2);
    let place = |at: usize| -> Result<Extent, Refusal> {
        let lba = number(segment, at, 8);
        match (Blocks { lba, count }).extent() {
            Some(extent) if size.contains(extent) => Ok(extent),
            _ => Err(aborted(AdditionalSense::NONE)),
        }
    };
    let (from, to) = (place(12)?, place(20)?);
    Ok((count > 0).then_some(Segment { from, to }))
}
