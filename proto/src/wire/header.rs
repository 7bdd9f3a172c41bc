//! The fixed part of a frame.

use super::code::Opcode;
use super::{ErrorCode, PAYLOAD_BYTES_MAX};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// The first four bytes of every frame: "ANKB".
pub const MAGIC: u32 = u32::from_le_bytes(*b"ANKB");
/// The protocol's version.
pub const VERSION: u8 = 2;

/// Bits of a header's `flags`. Unknown bits are refused.
pub mod flags {
    /// The frame is a reply.
    pub const REPLY: u16 = 1;
    /// Force unit access: durable before the reply (Write only).
    pub const FUA: u16 = 2;
    /// Every bit that has a meaning.
    pub const ALL: u16 = REPLY | FUA;
}

/// The header of a frame.
///
/// ```text
///  0  u32  magic "ANKB"            32  u64  sequence
///  4  u8   version                 40  u64  watermark
///  5  u8   opcode                  48  u16  status: 0, or an ErrorCode
///  6  u16  flags                   50  6 bytes, zero
///  8  u64  request id              56  u32  CRC32C of the payload
/// 16  u64  offset                  60  u32  CRC32C of bytes 0..60
/// 24  u32  length
/// 28  u32  payload bytes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The operation; a reply repeats its request's.
    pub opcode: Opcode,
    /// See [`flags`].
    pub flags: u16,
    /// Chosen by the engine, unique among its unanswered requests; a reply repeats it.
    pub request_id: u64,
    /// Volume offset in bytes, where the operation has one.
    pub offset: u64,
    /// Bytes of the volume that the operation covers.
    pub length: u32,
    /// Bytes behind the header.
    pub payload_bytes: u32,
    /// Place of a mutation in its engine's order; 0 for other requests. In a reply with
    /// `ErrorCode::Fenced`, the epoch that the replica obeys; with `ErrorCode::Checksum`, the layer of
    /// the bad block.
    pub sequence: u64,
    /// Every mutation up to this sequence number is complete on all replicas.
    pub watermark: u64,
    /// `None` in requests and in replies that carry a result.
    pub error: Option<ErrorCode>,
    /// CRC32C of the payload, 0 for an empty one.
    pub payload_crc: u32,
}

/// Bytes that are no frame. The connection cannot go on: where the next frame begins is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer speaks something else.
    #[error("not a block-protocol frame: magic {0:#010x}")]
    Magic(u32),
    /// The peer speaks another version.
    #[error("block protocol version {0} is not supported (this side speaks {VERSION})")]
    Version(u8),
    /// Damaged on the way, or not a header.
    #[error("header checksum is {computed:#010x}, the header says {stated:#010x}")]
    HeaderCrc {
        /// Over the bytes that came.
        computed: u32,
        /// As they say.
        stated: u32,
    },
    /// Damaged on the way.
    #[error("payload checksum is {computed:#010x}, the header says {stated:#010x}")]
    PayloadCrc {
        /// Over the bytes that came.
        computed: u32,
        /// As the header says.
        stated: u32,
    },
    /// No operation has this code.
    #[error("unknown opcode {0}")]
    Opcode(u8),
    /// No error has this code, or a request carries one.
    #[error("status {0} is out of place")]
    Status(u16),
    /// A bit without meaning is set.
    #[error("unknown flags {0:#06x}")]
    Flags(u16),
    /// Bytes that must be zero are not.
    #[error("reserved header bytes are not zero")]
    Reserved,
    /// Longer than [`PAYLOAD_BYTES_MAX`].
    #[error("payload of {0} bytes is longer than {PAYLOAD_BYTES_MAX}")]
    PayloadTooLong(u32),
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

impl Header {
    /// A request without payload.
    pub const fn request(opcode: Opcode, request_id: u64) -> Self {
        Self {
            opcode,
            flags: 0,
            request_id,
            offset: 0,
            length: 0,
            payload_bytes: 0,
            sequence: 0,
            watermark: 0,
            error: None,
            payload_crc: 0,
        }
    }

    /// The reply to this request, successful and without payload.
    pub const fn reply(&self) -> Self {
        Self {
            flags: flags::REPLY,
            payload_bytes: 0,
            payload_crc: 0,
            error: None,
            ..*self
        }
    }

    /// The same header, stating this payload's length and checksum.
    ///
    /// # Panics
    ///
    /// When the payload is longer than [`PAYLOAD_BYTES_MAX`]: the sender bounds it before.
    pub fn with_payload(mut self, payload: &[u8]) -> Self {
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        assert!(bytes <= PAYLOAD_BYTES_MAX, "payload of {bytes} bytes");
        self.payload_bytes = bytes;
        self.payload_crc = if payload.is_empty() {
            0
        } else {
            crate::crc32c(payload)
        };
        self
    }

    /// Whether it is a reply.
    pub const fn is_reply(&self) -> bool {
        self.flags & flags::REPLY != 0
    }

    /// Whether force unit access is asked for.
    pub const fn is_fua(&self) -> bool {
        self.flags & flags::FUA != 0
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = self.opcode.code();
        bytes[6..8].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.request_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.watermark.to_le_bytes());
        bytes[48..50].copy_from_slice(&self.error.map_or(0, ErrorCode::code).to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crate::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. The payload is still to be checked, with [`Header::check_payload`].
    ///
    /// # Errors
    ///
    /// [`FrameError`] for anything that [`Header::encode`] would not have written.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let magic = u32::from_le_bytes(array(bytes, 0));
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let computed = crate::crc32c(&bytes[..60]);
        let stated = u32::from_le_bytes(array(bytes, 60));
        if computed != stated {
            return Err(FrameError::HeaderCrc { computed, stated });
        }
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        let opcode = Opcode::from_code(bytes[5]).ok_or(FrameError::Opcode(bytes[5]))?;
        let flags = u16::from_le_bytes(array(bytes, 6));
        if flags & !flags::ALL != 0 {
            return Err(FrameError::Flags(flags));
        }
        let payload_bytes = u32::from_le_bytes(array(bytes, 28));
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(FrameError::PayloadTooLong(payload_bytes));
        }
        let status = u16::from_le_bytes(array(bytes, 48));
        let error = match status {
            0 => None,
            _ if flags & flags::REPLY == 0 => return Err(FrameError::Status(status)),
            _ => Some(ErrorCode::from_code(status).ok_or(FrameError::Status(status))?),
        };
        if bytes[50..56] != [0; 6] {
            return Err(FrameError::Reserved);
        }
        Ok(Self {
            opcode,
            flags,
            request_id: u64::from_le_bytes(array(bytes, 8)),
            offset: u64::from_le_bytes(array(bytes, 16)),
            length: u32::from_le_bytes(array(bytes, 24)),
            payload_bytes,
            sequence: u64::from_le_bytes(array(bytes, 32)),
            watermark: u64::from_le_bytes(array(bytes, 40)),
            error,
            payload_crc: u32::from_le_bytes(array(bytes, 56)),
        })
    }

    /// Compares the payload's checksum with the one stated.
    ///
    /// # Errors
    ///
    /// [`FrameError::PayloadCrc`] when they differ.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), FrameError> {
        let computed = if payload.is_empty() {
            0
        } else {
            crate::crc32c(payload)
        };
        if computed == self.payload_crc {
            Ok(())
        } else {
            Err(FrameError::PayloadCrc {
                computed,
                stated: self.payload_crc,
            })
        }
    }
}
