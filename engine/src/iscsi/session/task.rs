//! One SCSI command between its PDU and its answer.

use bytes::Bytes;

use super::order::Turn;
use crate::iscsi::pdu::{CommandPdu, Residual, Tag};
use crate::iscsi::transfer::{Gather, Rules, TransferFault};
use crate::scsi::{self, Attribute};

/// Names a command as long as it lives; never used again in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// How far a command has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its data is on its way, or it waits for its turn or for memory.
    Gathering(Gather),
    /// All its data is here; others have to end first.
    Dormant(Bytes),
    /// SCSI has it.
    Executing,
    /// SCSI has it, and nobody wants its answer.
    Aborted,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) tag: Tag,
    pub(super) immediate: bool,
    reads: bool,
    writes: bool,
    pub(super) lun: [u8; 8],
    pub(super) cdb: [u8; 16],
    pub(super) expected_bytes: u32,
    wanted_bytes: u32,
    pub(super) stage: Stage,
    pub(super) attribute: Attribute,
    /// Its turn has come.
    pub(super) turn: Option<Turn>,
    /// Memory has been set aside for it.
    pub(super) admitted: bool,
    pub(super) r2ts: u32,
}

impl Task {
    /// A command as it arrives. `Err` when its data breaks the rules.
    pub(super) fn begin(pdu: CommandPdu, rules: &Rules) -> (Self, Result<(), TransferFault>) {
        let wanted_bytes = if pdu.writes {
            scsi::data_out_bytes(&pdu.cdb)
        } else {
            0
        };
        // Only a write announces data.
        let sendable = if pdu.writes { pdu.expected_bytes } else { 0 };
        let is_final = pdu.is_final || !pdu.writes;
        let wanted = wanted_bytes.min(scsi::TRANSFER_BYTES_MAX);
        let gather = Gather::begin(rules, sendable, wanted, pdu.data, is_final);
        let (stage, result) = match gather {
            Ok(gather) => (Stage::Gathering(gather), Ok(())),
            Err(fault) => (Stage::Aborted, Err(fault)),
        };
        let task = Self {
            tag: pdu.tag,
            immediate: pdu.order.immediate,
            reads: pdu.reads,
            writes: pdu.writes,
            lun: pdu.lun,
            cdb: pdu.cdb,
            expected_bytes: pdu.expected_bytes,
            wanted_bytes,
            stage,
            attribute: pdu.attribute,
            turn: None,
            admitted: false,
            r2ts: 0,
        };
        (task, result)
    }

    /// Whether it goes before others and holds none up.
    pub(super) fn goes_first(&self) -> bool {
        scsi::goes_first(&self.cdb)
    }

    /// The memory that it may take: its data, one way or the other.
    pub(super) fn cost(&self) -> u64 {
        let data_in = if self.reads { self.expected_bytes } else { 0 };
        u64::from(self.wanted_bytes.max(data_in).min(scsi::TRANSFER_BYTES_MAX))
    }

    /// How much Data-In the initiator takes.
    pub(super) fn data_in_room(&self) -> u32 {
        if self.reads && !self.writes {
            self.expected_bytes
        } else {
            0
        }
    }

    /// How far the data of the command and the initiator's expectation differ.
    pub(super) fn residual(&self, data_in: usize) -> Residual {
        if self.writes {
            return Residual::between(self.expected_bytes, u64::from(self.wanted_bytes));
        }
        let wanted = u64::from(scsi::data_out_bytes(&self.cdb)).max(data_in as u64);
        let expected = if self.reads { self.expected_bytes } else { 0 };
        Residual::between(expected, if self.reads { data_in as u64 } else { wanted })
    }
}
