//! UNMAP (SBC-3 5.26).

use ankole_proto::{Extent, VolumeSize};

use crate::scsi::cdb::Blocks;
use crate::scsi::handle::{After, Handled, Refusal, Step, Task};
use crate::scsi::sense::{AdditionalSense, Sense};
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// MAXIMUM UNMAP LBA COUNT of VPD page B0, 512 MiB: all descriptors of a command together.
pub(in crate::scsi) const UNMAP_BLOCKS_MAX: u32 = 1 << 20;
/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT of VPD page B0.
pub(in crate::scsi) const UNMAP_DESCRIPTORS_MAX: u32 = 256;

const HEADER_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;

/// UNMAP: one operation per descriptor that names a block. What is unmapped reads as zeros.
///
/// ```text
/// 0  u16  length of what follows           8  n × { u64 LBA, u32 blocks, 4 reserved }
/// 2  u16  length of the descriptors
/// ```
pub(in crate::scsi) fn unmap(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let list_bytes = usize::from(task.cdb.u16(7));
    if list_bytes == 0 {
        return Ok(Step::Good);
    }
    let list = task.parameters(list_bytes)?;
    let extents = extents(unit.size, &list)?;
    if extents.is_empty() {
        return Ok(Step::Good);
    }
    let operations = extents
        .into_iter()
        .map(|extent| Operation::Unmap { extent })
        .collect();
    Ok(Step::Run(operations, After::Good))
}

fn extents(size: VolumeSize, list: &[u8]) -> Result<Vec<Extent>, Refusal> {
    let Some((header, descriptors)) = list.split_at_checked(HEADER_BYTES) else {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR).into());
    };
    // What the list says beyond what was sent is cut off, not refused (SBC-3 5.26.3).
    let told = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let descriptors = descriptors.get(..told).unwrap_or(descriptors);
    let mut left = u64::from(UNMAP_BLOCKS_MAX);
    let mut extents = Vec::with_capacity(descriptors.len() / DESCRIPTOR_BYTES);
    for (index, descriptor) in descriptors.chunks_exact(DESCRIPTOR_BYTES).enumerate() {
        let at = HEADER_BYTES + index * DESCRIPTOR_BYTES;
        if index >= UNMAP_DESCRIPTORS_MAX as usize {
            return Err(Sense::invalid_parameter(2).into());
        }
        let blocks = blocks(descriptor);
        left = match left.checked_sub(blocks.count) {
            Some(left) => left,
            None => return Err(Sense::invalid_parameter(at + 8).into()),
        };
        // Unlike elsewhere an empty range may start right behind the last block.
        match blocks.extent() {
            Some(extent) if size.contains(extent) => {
                if !extent.is_empty() {
                    extents.push(extent);
                }
            }
            _ => return Err(Sense::lba_out_of_range(blocks.lba).into()),
        }
    }
    Ok(extents)
}

fn blocks(descriptor: &[u8]) -> Blocks {
    let field = |from: usize, bytes: usize| {
        descriptor
            .iter()
            .skip(from)
            .take(bytes)
            .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))
    };
    Blocks {
        lba: field(0, 8),
        count: field(8, 4),
    }
}
