//! GET LBA STATUS (SBC-3 5.4).

use ankole_proto::{BLOCK_BYTES, BlockNumber, Extent, SECTOR_BYTES};
use bytes::{BufMut, BytesMut};

use super::extent_in;
use crate::scsi::cdb::Blocks;
use crate::scsi::handle::{After, Handled, Step, Task};
use crate::scsi::primary::cut;
use crate::scsi::unit::LogicalUnit;
use crate::volume::{Operation, Outcome};

/// What one read looks at: 1 MiB.
const WINDOW_BYTES: u64 = 1 << 20;
/// Windows of one batch.
const BATCH_WINDOWS: u64 = 8;
/// How far one command looks: 1 GiB of blocks that read as zeros, which cost the replicas little. The
/// initiator goes on from there.
const SCAN_BYTES_MAX: u64 = 1 << 30;
const HEADER_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;

const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// GET LBA STATUS. The volume is not asked for its maps: a block that reads as zeros is told as
/// deallocated, which a device with LBPRZ=1 may make of it at any time (SBC-3 4.7.4.6), any other
/// as mapped. The first megabyte is looked at, and more for as long as it ends deallocated and there
/// is room for what is found.
pub(in crate::scsi) fn lba_status(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let start = Blocks {
        lba: task.cdb.u64(2),
        count: 1,
    };
    let first = extent_in(unit.size, start)?;
    let allocation_bytes = task.cdb.u32(10) as usize;
    let scan = Scan {
        next: first.offset(),
        end: unit
            .size
            .bytes()
            .min(first.offset().saturating_add(SCAN_BYTES_MAX)),
        runs: Vec::new(),
        allocation_bytes,
    };
    Ok(Box::new(scan).look(1))
}

/// A GET LBA STATUS on its way.
#[derive(Debug)]
pub(in crate::scsi) struct Scan {
    /// Up to here blocks have been looked at, or are being.
    next: u64,
    end: u64,
    runs: Vec<Run>,
    allocation_bytes: usize,
}

impl Scan {
    /// Reads the next windows.
    fn look(mut self: Box<Self>, windows: u64) -> Step {
        let mut operations = Vec::new();
        for _ in 0..windows {
            let length = WINDOW_BYTES.min(self.end - self.next);
            let Some(extent) = Extent::new(self.next, length).filter(|e| !e.is_empty()) else {
                break;
            };
            operations.push(Operation::Read { extent });
            self.next += length;
        }
        Step::Run(operations, After::Status(self))
    }

    /// Goes on, or tells, when windows have been read.
    pub(super) fn resume(mut self: Box<Self>, outcomes: Vec<Outcome>) -> Handled {
        let bytes: u64 = outcomes.iter().map(data_bytes).sum();
        let mut offset = self.next.saturating_sub(bytes);
        for outcome in outcomes {
            if let Outcome::Done(data) = outcome {
                note_runs(offset, &data, &mut self.runs);
                offset += data.len() as u64;
            }
        }
        let room = self.allocation_bytes.saturating_sub(HEADER_BYTES) / DESCRIPTOR_BYTES;
        let ends_deallocated = self
            .runs
            .last()
            .is_some_and(|run| run.status == DEALLOCATED);
        if ends_deallocated && self.next < self.end && self.runs.len() <= room {
            return Ok(self.look(BATCH_WINDOWS));
        }
        report(&self.runs, self.allocation_bytes)
    }
}

fn data_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Done(data) => data.len() as u64,
        Outcome::Miscompare { .. } | Outcome::Failed(_) => 0,
    }
}

/// A run of blocks of one kind, in bytes of the volume.
#[derive(Debug)]
struct Run {
    offset: u64,
    length: u64,
    status: u8,
}

/// The answer.
///
/// ```text
/// 0  u32  length of what follows    8  n × { u64 LBA, u32 blocks, status in the low 4 bits, 3 zero }
/// ```
fn report(runs: &[Run], allocation_bytes: usize) -> Handled {
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

/// Adds what is found from this offset on to the runs before it.
fn note_runs(mut offset: u64, mut data: &[u8], runs: &mut Vec<Run>) {
    while !data.is_empty() {
        // Up to the next block boundary: provisioning is per block.
        let to_boundary = BlockNumber::at(offset).offset() + BLOCK_BYTES - offset;
        let bytes = usize::try_from(to_boundary).map_or(data.len(), |bytes| bytes.min(data.len()));
        let (block, rest) = data.split_at(bytes);
        let status = if is_zero(block) { DEALLOCATED } else { MAPPED };
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
}

/// Eight bytes at a time.
fn is_zero(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
