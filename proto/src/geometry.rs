//! The shape of a volume, and the only conversions between bytes, blocks and chunks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of a logical sector: what an initiator addresses.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of a block: the unit of allocation, checksum and index.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of a chunk: the unit of maps, digests, merging, rebuild and backup.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// Blocks of a chunk.
pub const CHUNK_BLOCKS: u64 = CHUNK_BYTES / BLOCK_BYTES;
/// The largest volume: 64 TiB, whose index takes 16 GiB of memory.
pub const VOLUME_BYTES_MAX: u64 = 64 << 40;

/// The logical size of a volume: a positive multiple of a block, at most [`VOLUME_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct VolumeSize(u64);

/// A number of bytes that is no volume's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is not a volume size: it must be a positive multiple of 4096, at most 64 TiB")]
pub struct VolumeSizeError(pub u64);

impl VolumeSize {
    /// The size of this many bytes.
    pub const fn from_bytes(bytes: u64) -> Result<Self, VolumeSizeError> {
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || bytes > VOLUME_BYTES_MAX {
            return Err(VolumeSizeError(bytes));
        }
        Ok(Self(bytes))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In blocks.
    pub const fn blocks(self) -> u64 {
        self.0 / BLOCK_BYTES
    }

    /// In chunks, the last of which may be short.
    pub const fn chunks(self) -> u64 {
        self.0.div_ceil(CHUNK_BYTES)
    }

    /// In logical sectors of 512 bytes.
    pub const fn sectors(self) -> u64 {
        self.0 / SECTOR_BYTES
    }

    /// Whether the extent lies inside the volume.
    pub const fn contains(self, extent: Extent) -> bool {
        extent.end() <= self.0
    }

    /// The whole volume.
    pub const fn extent(self) -> Extent {
        Extent {
            offset: 0,
            length: self.0,
        }
    }
}

impl TryFrom<u64> for VolumeSize {
    type Error = VolumeSizeError;

    fn try_from(bytes: u64) -> Result<Self, VolumeSizeError> {
        Self::from_bytes(bytes)
    }
}

impl From<VolumeSize> for u64 {
    fn from(size: VolumeSize) -> Self {
        size.0
    }
}

impl fmt::Display for VolumeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// A block of a volume, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockNumber(u64);

impl BlockNumber {
    /// The block with this number.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The block that holds the byte at this volume offset.
    pub const fn at(offset: u64) -> Self {
        Self(offset / BLOCK_BYTES)
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The volume offset of its first byte.
    pub const fn offset(self) -> u64 {
        self.0 * BLOCK_BYTES
    }

    /// Its bytes of the volume.
    pub const fn extent(self) -> Extent {
        Extent {
            offset: self.offset(),
            length: BLOCK_BYTES,
        }
    }

    /// The chunk it lies in.
    pub const fn chunk(self) -> ChunkNumber {
        ChunkNumber(self.0 / CHUNK_BLOCKS)
    }

    /// Its place in its chunk, 0 to 511.
    pub const fn in_chunk(self) -> usize {
        (self.0 % CHUNK_BLOCKS) as usize
    }
}

/// A chunk of a volume, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkNumber(u64);

impl ChunkNumber {
    /// The chunk with this number.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The chunk that holds the byte at this volume offset.
    pub const fn at(offset: u64) -> Self {
        Self(offset / CHUNK_BYTES)
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The volume offset of its first byte.
    pub const fn offset(self) -> u64 {
        self.0 * CHUNK_BYTES
    }

    /// Its first block.
    pub const fn first_block(self) -> BlockNumber {
        BlockNumber(self.0 * CHUNK_BLOCKS)
    }

    /// Its bytes of a volume of this size: the last chunk may be short, one beyond the end is
    /// empty.
    pub const fn extent_in(self, size: VolumeSize) -> Extent {
        let offset = self.offset();
        let left = size.bytes().saturating_sub(offset);
        let length = if left < CHUNK_BYTES {
            left
        } else {
            CHUNK_BYTES
        };
        Extent { offset, length }
    }
}

/// A range of bytes of a volume. `offset + length` never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    offset: u64,
    length: u64,
}

impl Extent {
    /// The range of `length` bytes from `offset`; `None` when its end is beyond 2^64 − 1.
    pub const fn new(offset: u64, length: u64) -> Option<Self> {
        match offset.checked_add(length) {
            Some(_) => Some(Self { offset, length }),
            None => None,
        }
    }

    /// The first byte's volume offset.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// In bytes.
    pub const fn length(self) -> u64 {
        self.length
    }

    /// The volume offset behind the last byte.
    pub const fn end(self) -> u64 {
        self.offset + self.length
    }

    /// Whether it holds no byte.
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// Whether the two share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// Whether it begins and ends at block boundaries.
    pub const fn is_block_aligned(self) -> bool {
        self.offset.is_multiple_of(BLOCK_BYTES) && self.length.is_multiple_of(BLOCK_BYTES)
    }

    /// The blocks that it touches, in order.
    pub fn blocks(self) -> impl DoubleEndedIterator<Item = BlockNumber> + Clone + use<> {
        let end = if self.is_empty() {
            self.offset / BLOCK_BYTES
        } else {
            self.end().div_ceil(BLOCK_BYTES)
        };
        (self.offset / BLOCK_BYTES..end).map(BlockNumber)
    }

    /// The chunks that it touches, in order.
    pub fn chunks(self) -> impl DoubleEndedIterator<Item = ChunkNumber> + Clone + use<> {
        let end = if self.is_empty() {
            self.offset / CHUNK_BYTES
        } else {
            self.end().div_ceil(CHUNK_BYTES)
        };
        (self.offset / CHUNK_BYTES..end).map(ChunkNumber)
    }

    /// The part that both hold; `None` when they share no byte.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let offset = self.offset.max(other.offset);
        let end = self.end().min(other.end());
        (offset < end).then(|| Self {
            offset,
            length: end - offset,
        })
    }

    /// The smallest range of whole blocks around it.
    pub fn to_blocks_outward(self) -> Self {
        let offset = self.offset - self.offset % BLOCK_BYTES;
        let end = self.end().div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        Self {
            offset,
            length: end - offset,
        }
    }

    /// The whole blocks inside it; `None` when it holds none.
    pub fn to_blocks_inward(self) -> Option<Self> {
        let offset = self.offset.div_ceil(BLOCK_BYTES).checked_mul(BLOCK_BYTES)?;
        let end = self.end() - self.end() % BLOCK_BYTES;
        (offset < end).then(|| Self {
            offset,
            length: end - offset,
        })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    #[test]
    fn sizes_are_whole_blocks_and_bounded() {
        assert!(VolumeSize::from_bytes(0).is_err());
        assert!(VolumeSize::from_bytes(4097).is_err());
        assert!(VolumeSize::from_bytes(VOLUME_BYTES_MAX + BLOCK_BYTES).is_err());
        let size = VolumeSize::from_bytes(CHUNK_BYTES + BLOCK_BYTES).unwrap();
        assert_eq!((size.chunks(), size.blocks()), (2, 513));
    }

    #[test]
    fn an_extent_cannot_wrap() {
        assert!(Extent::new(u64::MAX, 1).is_none());
        assert!(Extent::new(u64::MAX, 0).is_some());
    }

    #[test]
    fn blocks_of_an_extent_are_all_that_it_touches() {
        let blocks: Vec<u64> = extent(4095, 2).blocks().map(BlockNumber::raw).collect();
        assert_eq!(blocks, [0, 1]);
        assert_eq!(extent(8192, 0).blocks().count(), 0);
        assert_eq!(extent(8191, 4098).blocks().count(), 3);
    }

    #[test]
    fn alignment_goes_outward_and_inward() {
        assert_eq!(extent(1, 8192).to_blocks_outward(), extent(0, 12288));
        assert_eq!(extent(1, 8192).to_blocks_inward(), Some(extent(4096, 4096)));
        assert_eq!(extent(1, 4096).to_blocks_inward(), None);
    }

    #[test]
    fn the_last_chunk_is_as_short_as_the_volume() {
        let size = VolumeSize::from_bytes(CHUNK_BYTES + BLOCK_BYTES).unwrap();
        assert_eq!(
            ChunkNumber::from_raw(1).extent_in(size),
            extent(CHUNK_BYTES, BLOCK_BYTES)
        );
        assert!(ChunkNumber::from_raw(2).extent_in(size).is_empty());
    }
}
