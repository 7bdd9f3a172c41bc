//! The 48-byte basic header segment and the fields that most PDUs share.

use std::fmt;

use crate::iscsi::sequence::Serial;

/// Bytes of a basic header segment.
pub const HEADER_BYTES: usize = 48;

/// A basic header segment, as on the wire (RFC 7143 §11.2.1).
///
/// ```text
///  0 I | opcode   1 F | flags   2..4 opcode-specific   4 words of AHS   5..8 data length
///  8..16 LUN or opcode-specific   16..20 initiator task tag   20..48 opcode-specific
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header(pub(super) [u8; HEADER_BYTES]);

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Header(opcode {:#04x}, flags {:#04x}, {})",
            self.opcode(),
            self.flags(),
            self.tag()
        )
    }
}

impl Header {
    /// The bytes, as received.
    pub const fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, as sent.
    pub const fn bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    /// The opcode, without the immediate bit.
    pub const fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// Whether it is for immediate delivery.
    pub const fn is_immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Byte 1: the F bit and what the opcode puts beside it.
    pub const fn flags(&self) -> u8 {
        self.0[1]
    }

    /// Bytes of additional header segments.
    pub fn additional_bytes(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// Bytes of the data segment, without padding.
    pub fn data_bytes(&self) -> usize {
        usize::from(self.0[5]) << 16 | usize::from(self.0[6]) << 8 | usize::from(self.0[7])
    }

    /// The initiator task tag.
    pub const fn tag(&self) -> Tag {
        Tag(self.word::<16>())
    }

    /// The LUN field.
    pub const fn lun(&self) -> [u8; 8] {
        self.array::<8, 8>()
    }

    /// The big-endian word at a fixed offset.
    pub(super) const fn word<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(self.array::<AT, 4>())
    }

    pub(super) const fn half<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes(self.array::<AT, 2>())
    }

    pub(super) const fn serial<const AT: usize>(&self) -> Serial {
        Serial::from_raw(self.word::<AT>())
    }

    /// `N` bytes at a fixed offset, checked when compiled.
    pub(super) const fn array<const AT: usize, const N: usize>(&self) -> [u8; N] {
        const { assert!(AT + N <= HEADER_BYTES) };
        let mut bytes = [0; N];
        let mut i = 0;
        while i < N {
            bytes[i] = self.0[AT + i];
            i += 1;
        }
        bytes
    }

    /// A response's header: opcode, flags and tag.
    pub(super) fn respond(opcode: u8, flags: u8, tag: Tag) -> Self {
        let mut header = Self([0; HEADER_BYTES]);
        header.0[0] = opcode;
        header.0[1] = flags;
        header.put_word::<16>(tag.0);
        header
    }

    pub(super) fn put_word<const AT: usize>(&mut self, word: u32) {
        self.put::<AT, 4>(word.to_be_bytes());
    }

    pub(super) fn put_half<const AT: usize>(&mut self, half: u16) {
        self.put::<AT, 2>(half.to_be_bytes());
    }

    pub(super) fn put<const AT: usize, const N: usize>(&mut self, bytes: [u8; N]) {
        const { assert!(AT + N <= HEADER_BYTES) };
        self.0[AT..AT + N].copy_from_slice(&bytes);
    }

    /// Sets the data segment's length.
    pub(super) fn put_data_bytes(&mut self, bytes: u32) {
        let [_, high, middle, low] = bytes.to_be_bytes();
        self.put::<5, 3>([high, middle, low]);
    }
}

/// An initiator task tag: the initiator's name for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub u32);

impl Tag {
    /// The reserved value: no task.
    pub const NONE: Self = Self(u32::MAX);
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {:#010x}", self.0)
    }
}

/// A target transfer tag: the target's name for an R2T, a ping or a text exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferTag(pub u32);

impl TransferTag {
    /// The reserved value: not solicited.
    pub const NONE: Self = Self(u32::MAX);
}

/// The initiator's part of a session's name (RFC 7143 §11.12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InitiatorSessionId(pub [u8; 6]);

impl fmt::Display for InitiatorSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{g:02x}")
    }
}
