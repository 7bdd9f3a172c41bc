//! The device over a volume in memory.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths here are a few kilobytes"
)]

mod blocks;
mod copies;
mod golden;
mod modes;
mod moving;
mod primaries;
mod properties;
mod provisioning;
mod reservations;
mod sanitize;

use std::collections::VecDeque;

use ankole_proto::{Extent, VolumeId, VolumeSize};
use bytes::Bytes;

use super::*;
use crate::volume::{Failure, Operation, Outcome};

pub(super) const A: NexusId = NexusId(1);
pub(super) const B: NexusId = NexusId(2);
pub(super) const VOLUME_BYTES: u64 = 16 << 20;
pub(super) const SECTORS: u64 = VOLUME_BYTES / 512;
pub(super) const TARGET: &str = "iqn.2026-01.io.example:volume";

/// The device, with the volume behind it as plain bytes.
pub(super) struct Device {
    pub(super) unit: LogicalUnit,
    /// Every state that was kept, in order.
    pub(super) kept: Vec<Bytes>,
    /// Given instead of keeping a state.
    pub(super) keep_failure: Option<Failure>,
    pub(super) memory: Vec<u8>,
    /// Every operation that was asked for, in order.
    pub(super) seen: Vec<Operation>,
    /// Given in turn instead of carrying an operation out.
    pub(super) failures: VecDeque<Failure>,
}

pub(super) fn identity() -> Identity {
    let volume = VolumeId::from_bits(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    Identity::new(volume, TARGET, *b"0001")
}

pub(super) fn port(number: u8) -> InitiatorPort {
    InitiatorPort {
        name: format!("iqn.2026-01.io.example:host{number}"),
        isid: [0x40, 0, 0, 0, 0, number],
    }
}

impl Device {
    /// With two initiators logged in that have taken their first unit attention.
    pub(super) fn new() -> Self {
        let size = VolumeSize::from_bytes(VOLUME_BYTES).unwrap();
        let mut unit = LogicalUnit::new(identity(), size, true);
        unit.nexus_gained(A, port(1));
        unit.nexus_gained(B, port(2));
        let mut device = Self {
            unit,
            kept: Vec::new(),
            keep_failure: None,
            memory: vec![0; VOLUME_BYTES as usize],
            seen: Vec::new(),
            failures: VecDeque::new(),
        };
        let attentions = [A, B].map(|nexus| device.attention(nexus));
        assert_eq!(attentions, [Some((6, 0x29, 0x00)), Some((6, 0x29, 0x07))]);
        device
    }

    pub(super) fn run(&mut self, cdb: &[u8], data: &[u8]) -> Done {
        self.run_as(A, cdb, data)
    }

    pub(super) fn run_as(&mut self, nexus: NexusId, cdb: &[u8], data: &[u8]) -> Done {
        let mut padded = [0; 16];
        padded[..cdb.len()].copy_from_slice(cdb);
        let request = Request {
            nexus,
            lun: [0; 8],
            cdb: padded,
            data_out: Bytes::copy_from_slice(data),
            expected_bytes: data.len() as u32,
            attribute: Attribute::Simple,
        };
        self.request(request)
    }

    pub(super) fn request(&mut self, request: Request) -> Done {
        let mut begun = self.unit.begin(request);
        loop {
            match begun {
                Begun::Done(done) => return done,
                Begun::Keep(keep) => {
                    let kept = match self.keep_failure.take() {
                        Some(failure) => Err(failure),
                        None => {
                            self.kept.push(keep.state());
                            Ok(())
                        }
                    };
                    begun = self.unit.kept(keep, kept);
                }
                Begun::Pending(pending) if pending.waits_for_sanitize() => {
                    self.sanitize();
                    begun = self.unit.resume(pending, Vec::new());
                }
                Begun::Pending(mut pending) => {
                    let operations = pending.operations();
                    assert!(!operations.is_empty() && operations.len() <= Pending::OPERATIONS_MAX);
                    let outcomes = operations.into_iter().map(|o| self.carry_out(o)).collect();
                    begun = self.unit.resume(pending, outcomes);
                }
            }
        }
    }

    /// Drives the sanitize operation to its end.
    pub(super) fn sanitize(&mut self) {
        loop {
            match self.unit.sanitize_step() {
                SanitizeStep::Idle => return,
                SanitizeStep::Run(operations) => {
                    assert!(!operations.is_empty() && operations.len() <= Pending::OPERATIONS_MAX);
                    let outcomes: Vec<_> =
                        operations.into_iter().map(|o| self.carry_out(o)).collect();
                    let _ = self.unit.sanitize_outcomes(&outcomes);
                }
                SanitizeStep::Keep(state) => {
                    self.kept.push(state);
                    self.unit.sanitize_kept();
                }
            }
        }
    }

    pub(super) fn bytes(&mut self, extent: Extent) -> &mut [u8] {
        &mut self.memory[extent.offset() as usize..extent.end() as usize]
    }

    fn carry_out(&mut self, operation: Operation) -> Outcome {
        self.seen.push(operation.clone());
        if let Some(failure) = self.failures.pop_front() {
            return Outcome::Failed(failure);
        }
        match operation {
            Operation::Read { extent } => {
                assert!(extent.length() <= u64::from(TRANSFER_BYTES_MAX) && !extent.is_empty());
                return Outcome::Done(Bytes::copy_from_slice(self.bytes(extent)));
            }
            Operation::Write { extent, data, .. } => self.bytes(extent).copy_from_slice(&data),
            Operation::Unmap { extent } | Operation::WriteZeroes { extent, .. } => {
                self.bytes(extent).fill(0);
            }
            Operation::CompareAndWrite {
                extent,
                expected,
                data,
                ..
            } => {
                let found = self.bytes(extent);
                if let Some(at) = found.iter().zip(&expected).position(|(a, b)| a != b) {
                    return Outcome::Miscompare {
                        first_difference: at as u64,
                    };
                }
                found.copy_from_slice(&data);
            }
            Operation::Or { extent, data, .. } => {
                for (byte, bits) in self.bytes(extent).iter_mut().zip(&data) {
                    *byte |= bits;
                }
            }
            Operation::Copy { from, to, .. } => {
                assert_eq!(from.length(), to.length());
                let source = from.offset() as usize..from.end() as usize;
                self.memory.copy_within(source, to.offset() as usize);
            }
            Operation::Flush => {}
        }
        Outcome::Done(Bytes::new())
    }

    /// The unit attention that TEST UNIT READY is answered with.
    pub(super) fn attention(&mut self, nexus: NexusId) -> Option<(u8, u8, u8)> {
        sense(&self.run_as(nexus, &[0; 6], &[]))
    }
}

/// Key, code and qualifier of fixed sense data; `None` when the command ended otherwise.
pub(super) fn sense(done: &Done) -> Option<(u8, u8, u8)> {
    if done.status != Status::CheckCondition {
        return None;
    }
    Some((done.sense[2], done.sense[12], done.sense[13]))
}

#[track_caller]
pub(super) fn assert_good(done: &Done) {
    assert_eq!(done.status, Status::Good, "sense {:02x?}", &done.sense[..]);
    assert!(done.sense.is_empty());
}

#[track_caller]
pub(super) fn assert_sense(done: &Done, expected: (u8, u8, u8)) {
    assert_eq!(sense(done), Some(expected), "{done:02x?}");
}

pub(super) const INVALID_FIELD: (u8, u8, u8) = (5, 0x24, 0);
pub(super) const OUT_OF_RANGE: (u8, u8, u8) = (5, 0x21, 0);
pub(super) const BAD_PARAMETER: (u8, u8, u8) = (5, 0x26, 0);

pub(super) fn cdb_10(opcode: u8, flags: u8, lba: u64, count: u64) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&(lba as u32).to_be_bytes());
    cdb[7..9].copy_from_slice(&(count as u16).to_be_bytes());
    cdb
}

pub(super) fn cdb_12(opcode: u8, flags: u8, lba: u64, count: u64) -> [u8; 12] {
    let mut cdb = [0; 12];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&(lba as u32).to_be_bytes());
    cdb[6..10].copy_from_slice(&(count as u32).to_be_bytes());
    cdb
}

pub(super) fn cdb_16(opcode: u8, flags: u8, lba: u64, count: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&(count as u32).to_be_bytes());
    cdb
}

/// The command of the usual shape in each length that its operation codes have.
pub(super) fn shaped(opcode: u8, flags: u8, lba: u64, count: u64) -> Vec<u8> {
    match opcode >> 5 {
        1 | 2 => cdb_10(opcode, flags, lba, count).to_vec(),
        5 => cdb_12(opcode, flags, lba, count).to_vec(),
        _ => cdb_16(opcode, flags, lba, count).to_vec(),
    }
}

pub(super) fn pattern(sectors: u64, seed: u8) -> Vec<u8> {
    (0..sectors * 512)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) | 1)
        .collect()
}
