//! What the target sends about commands (RFC 7143 §11.4, 11.6 to 11.8).

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{Header, Tag, TransferTag};
use crate::iscsi::sequence::Serial;

const RESPONSE: u8 = 0x21;
const TASK_RESPONSE: u8 = 0x22;
const DATA_IN: u8 = 0x25;
const READY_TO_TRANSFER: u8 = 0x31;

const FINAL: u8 = 0x80;

/// A PDU to send; digests and padding are added on the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponsePdu {
    /// The header, complete.
    pub header: Header,
    /// The data segment, at most 2²⁴ − 1 bytes.
    pub data: Bytes,
}

impl ResponsePdu {
    pub(super) fn new(mut header: Header, data: Bytes) -> Self {
        // The field has 24 bits; every caller sends at most a negotiated segment, which fits.
        let bytes = u32::try_from(data.len())
            .unwrap_or(u32::MAX)
            .min(0x00ff_ffff);
        header.put_data_bytes(bytes);
        Self { header, data }
    }

    /// Sets StatSN, ExpCmdSN and MaxCmdSN, which all responses but Data-In without status and R2T
    /// carry in full. `status` is `None` in those that carry no StatSN.
    #[must_use]
    pub fn numbered(mut self, status: Option<Serial>, expected: Serial, max: Serial) -> Self {
        if let Some(status) = status {
            self.header.put_word::<24>(status.raw());
        }
        self.header.put_word::<28>(expected.raw());
        self.header.put_word::<32>(max.raw());
        self
    }
}

/// How far the data moved and the data expected differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// They do not.
    None,
    /// This much less was moved than the initiator expected.
    Underflow(u32),
    /// This much more would have been moved.
    Overflow(u32),
}

impl Residual {
    /// Of a command that moves `actual` bytes where the initiator expects `expected`.
    pub fn between(expected: u32, actual: u64) -> Self {
        let expected = u64::from(expected);
        let clamp = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        match actual.cmp(&expected) {
            std::cmp::Ordering::Equal => Self::None,
            std::cmp::Ordering::Less => Self::Underflow(clamp(expected - actual)),
            std::cmp::Ordering::Greater => Self::Overflow(clamp(actual - expected)),
        }
    }

    const fn flags(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Underflow(_) => 0x02,
            Self::Overflow(_) => 0x04,
        }
    }

    const fn bytes(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Underflow(bytes) | Self::Overflow(bytes) => bytes,
        }
    }
}

/// SCSI Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiResponse<'sense> {
    /// The command.
    pub tag: Tag,
    /// The SCSI status.
    pub status: u8,
    /// The sense data, or nothing.
    pub sense: &'sense [u8],
    /// What was not moved.
    pub residual: Residual,
    /// How many Data-In and R2T PDUs were sent.
    pub expected_data: u32,
}

impl ScsiResponse<'_> {
    /// For the wire.
    pub fn pdu(&self) -> ResponsePdu {
        let mut header = Header::respond(RESPONSE, FINAL | self.residual.flags(), self.tag);
        header.0[3] = self.status;
        header.put_word::<36>(self.expected_data);
        header.put_word::<44>(self.residual.bytes());
        ResponsePdu::new(header, with_length(self.sense))
    }
}

/// Sense data has its length in front (RFC 7143 §11.4.7.2).
pub(super) fn with_length(sense: &[u8]) -> Bytes {
    if sense.is_empty() {
        return Bytes::new();
    }
    let length = u16::try_from(sense.len()).unwrap_or(u16::MAX);
    let mut data = BytesMut::with_capacity(2 + sense.len());
    data.put_u16(length);
    data.put_slice(sense.get(..usize::from(length)).unwrap_or_default());
    data.freeze()
}

/// SCSI Data-In.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataIn {
    /// The command.
    pub tag: Tag,
    /// The last of its sequence.
    pub is_final: bool,
    /// Its place among the command's Data-In PDUs.
    pub number: u32,
    /// Where in the command's data.
    pub offset: u32,
    /// The data.
    pub data: Bytes,
    /// With the last one: the command ended GOOD, with this residual.
    pub good: Option<Residual>,
}

impl DataIn {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let status = self.good.map_or(0, |residual| 0x01 | residual.flags());
        let last = if self.is_final { FINAL } else { 0 };
        let mut header = Header::respond(DATA_IN, last | status, self.tag);
        header.put_word::<20>(TransferTag::NONE.0);
        header.put_word::<36>(self.number);
        header.put_word::<40>(self.offset);
        header.put_word::<44>(self.good.map_or(0, Residual::bytes));
        ResponsePdu::new(header, self.data)
    }
}

/// Ready To Transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyToTransfer {
    /// The command.
    pub tag: Tag,
    /// Its logical unit.
    pub lun: [u8; 8],
    /// To be given back with the data.
    pub transfer: TransferTag,
    /// Its place among the command's R2Ts.
    pub number: u32,
    /// From where.
    pub offset: u32,
    /// How much.
    pub bytes: u32,
}

impl ReadyToTransfer {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut header = Header::respond(READY_TO_TRANSFER, FINAL, self.tag);
        header.put::<8, 8>(self.lun);
        header.put_word::<20>(self.transfer.0);
        header.put_word::<36>(self.number);
        header.put_word::<40>(self.offset);
        header.put_word::<44>(self.bytes);
        ResponsePdu::new(header, Bytes::new())
    }
}

/// The answers to a task management request (RFC 7143 §11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskResponseCode {
    /// Done.
    Complete = 0,
    /// No such task.
    NoTask = 1,
    /// No such logical unit.
    NoUnit = 2,
    /// Tasks cannot move at error recovery level 0.
    ReassignNotSupported = 4,
    /// Not a function of this target.
    NotSupported = 5,
    /// Not now.
    Rejected = 255,
}

/// Task Management Function Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskResponse {
    /// The request.
    pub tag: Tag,
    /// The answer.
    pub code: TaskResponseCode,
}

impl TaskResponse {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut header = Header::respond(TASK_RESPONSE, FINAL, self.tag);
        header.0[2] = self.code as u8;
        ResponsePdu::new(header, Bytes::new())
    }
}
