//! Command descriptor blocks: where each length keeps its fields (SPC-4 4.2).

use ankole_proto::{Extent, SECTOR_BYTES};

/// A CDB, padded with zeros to 16 bytes as iSCSI carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cdb([u8; 16]);

/// The logical blocks that a command names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) lba: u64,
    pub(super) count: u64,
}

impl Blocks {
    /// In bytes of the volume. `None` beyond 2^64 − 1.
    pub(super) fn extent(self) -> Option<Extent> {
        let offset = self.lba.checked_mul(SECTOR_BYTES)?;
        let length = self.count.checked_mul(SECTOR_BYTES)?;
        Extent::new(offset, length)
    }

    /// How many bytes they are, saturating.
    pub(super) const fn bytes(self) -> u64 {
        self.count.saturating_mul(SECTOR_BYTES)
    }
}

impl Cdb {
    /// The CDB with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The operation code.
    pub const fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// The service action, where the operation code has such.
    pub const fn service_action(&self) -> u8 {
        self.0[1] & 0x1f
    }

    /// The length that the operation code's group says (SPC-4 4.2.5.1); 16 of groups that have no
    /// fixed length.
    pub const fn length(opcode: u8) -> u8 {
        match opcode >> 5 {
            0 => 6,
            1 | 2 => 10,
            5 => 12,
            _ => 16,
        }
    }

    pub(super) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// # Panics
    ///
    /// When there is no such byte: the callers' positions are constants.
    pub(super) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(super) fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] & (1 << bit) != 0
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    pub(super) fn u24(&self, at: usize) -> u32 {
        u32::from_be_bytes([0, self.0[at], self.0[at + 1], self.0[at + 2]])
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        (u64::from(self.u32(at)) << 32) | u64::from(self.u32(at + 4))
    }

    /// The blocks of a command of the usual shape for its length (SBC-3 5.*).
    ///
    /// ```text
    /// length   LBA              number of blocks
    ///  6       1..4, 21 bits    4, where 0 means 256
    /// 10       2..6             7..9
    /// 12       2..6             6..10
    /// 16       2..10            10..14
    /// ```
    pub(super) fn blocks(&self) -> Blocks {
        match Self::length(self.opcode()) {
            6 => Blocks {
                lba: u64::from(self.u24(1) & 0x1f_ffff),
                count: match self.u8(4) {
                    0 => 256,
                    count => u64::from(count),
                },
            },
            10 => Blocks {
                lba: u64::from(self.u32(2)),
                count: u64::from(self.u16(7)),
            },
            12 => Blocks {
                lba: u64::from(self.u32(2)),
                count: u64::from(self.u32(6)),
            },
            _ => Blocks {
                lba: self.u64(2),
                count: u64::from(self.u32(10)),
            },
        }
    }

    /// Where [`Self::blocks`] finds the number of blocks, for field pointers.
    pub(super) fn count_at(&self) -> u16 {
        match Self::length(self.opcode()) {
            6 => 4,
            10 => 7,
            12 => 6,
            _ => 10,
        }
    }
}
