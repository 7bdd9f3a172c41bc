//! GET LBA STATUS (SBC-3 5.4).

use ankole_proto::{BLOCK_BYTES, BlockNumber, Extent, SECTOR_BYTES};
use bytes::{BufMut, BytesMut};

use super::extent_in;
use crate::scsi::cdb::Blocks;
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::primary::cut;
use crate::scsi::unit::LogicalUnit;
use crate::volume::Operation;

/// How far one command looks: 1 MiB.
const WINDOW_BYTES: u64 = 1 << 20;

const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// GET LBA STATUS. The volume is not asked for its maps: a block that reads as zeros is told as
/// deallocated, which a device with LBPRZ=1 may make of it at any time (SBC-3 4.7.4.6), any other
/// as mapped. Only the first megabyte from the address is told; the initiator goes on from there.
pub(in crate::scsi) fn lba_status(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let start = Blocks {
        lba: task.cdb.u64(2),
        count: 1,
    };
    let first = extent_in(unit.size, start)?;
    let length = WINDOW_BYTES.min(unit.size.bytes() - first.offset());
    let extent = Extent::new(first.offset(), length).unwrap_or(first);
    Ok(Step::Run(
        vec![Operation::Read { extent }],
        After::Status {
            extent,
            allocation_bytes: task.cdb.u32(10) as usize,
        },
    ))
}

/// A run of blocks of one kind, in bytes of the volume.
struct Run {
    offset: u64,
    length: u64,
    status: u8,
}

/// The answer, when the extent holds `data`.
///
/// ```text
/// 0  u32  length of what follows    8  n × { u64 LBA, u32 blocks, status in the low 4 bits, 3 zero }
/// ```
pub(super) fn report(extent: Extent, data: &[u8], allocation_bytes: usize) -> Handled {
    const HEADER_BYTES: usize = 8;
    const DESCRIPTOR_BYTES: usize = 16;
    let runs = runs(extent, data);
    let length = HEADER_BYTES - 4 + runs.len() * DESCRIPTOR_BYTES;
    let mut out = BytesMut::with_capacity(4 + length);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u32(0);
    for run in runs {
        out.put_u64(run.offset / SECTOR_BYTES);
        out.put_u32(u32::try_from(run.length / SECTOR_BYTES).unwrap_or(u32::MAX));
        out.put_slice(&[run.status, 0, 0, 0]);
    }
    cut(out, allocation_bytes)
}

fn runs(extent: Extent, mut data: &[u8]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut offset = extent.offset();
    while !data.is_empty() {
        // Up to the next block boundary: provisioning is per block.
        let to_boundary = BlockNumber::at(offset).offset() + BLOCK_BYTES - offset;
        let bytes = usize::try_from(to_boundary).map_or(data.len(), |bytes| bytes.min(data.len()));
        let (block, rest) = data.split_at(bytes);
        let status = if block.iter().all(|byte| *byte == 0) {
            DEALLOCATED
        } else {
            MAPPED
        };
        match runs.last_mut() {
            Some(run) if run.status == status => run.length += bytes as u64,
            _ => runs.push(Run {
                offset,
                length: bytes as u64,
                status,
            }),
        }
        offset += bytes as u64;
        data = rest;
    }
    runs
}
