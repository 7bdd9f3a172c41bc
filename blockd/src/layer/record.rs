//! The map record of one chunk.
//!
//! ```text
//!   0  64  present: the layer holds the block's data
//!  64  64  zero: hides the layers below; where the block is not present it reads as zeros
//! 128   8  layer id            136   8  chunk number
//! 144 108  zero                252   4  CRC32C of bytes 0..252
//! ```
//!
//! 256 bytes of zeros are a record that was never written: no block is present or zero.

use ankole_proto::wire::rebuild::ChunkBitmap;
use ankole_proto::{ChunkNumber, LayerId};

/// Bytes of a record: two in a sector, so that a write of one is never torn.
pub const RECORD_BYTES: usize = 256;
const BITMAP_BYTES: usize = 64;
const CRC_AT: usize = RECORD_BYTES - 4;

/// Which blocks of a chunk a layer holds, and which it hides. A block may be both: then it has
/// data, and should a crash leave none, it reads as zeros and not as an older layer's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapRecord {
    /// Blocks whose data the layer holds.
    pub present: ChunkBitmap,
    /// Blocks for which the layers below do not count.
    pub zero: ChunkBitmap,
}

/// Bytes that are no record of this layer and chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Cut short, or bits have changed.
    #[error("a map record does not match its checksum")]
    Damaged,
    /// A sound record of another layer or chunk.
    #[error("a map record belongs to chunk {chunk} of layer {layer:016x}")]
    Misplaced {
        /// The layer's number.
        layer: u64,
        /// The chunk's.
        chunk: u64,
    },
}

impl MapRecord {
    /// Whether it says nothing of any block.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty() && self.zero.is_empty()
    }

    /// Whether it says something of the block: what is below does not count.
    pub fn decides(&self, block: usize) -> bool {
        self.present.contains(block) || self.zero.contains(block)
    }

    /// What either of the two says.
    pub fn union(&self, other: &Self) -> Self {
        let both = |one: &ChunkBitmap, other: &ChunkBitmap| {
            let mut bytes = *one.as_bytes();
            for (byte, more) in bytes.iter_mut().zip(other.as_bytes()) {
                *byte |= more;
            }
            ChunkBitmap::from_bytes(bytes)
        };
        Self {
            present: both(&self.present, &other.present),
            zero: both(&self.zero, &other.zero),
        }
    }

    /// The zero bits as peers see them: of blocks without data.
    pub fn zero_without_data(&self) -> ChunkBitmap {
        let mut bytes = *self.zero.as_bytes();
        for (zero, present) in bytes.iter_mut().zip(self.present.as_bytes()) {
            *zero &= !present;
        }
        ChunkBitmap::from_bytes(bytes)
    }

    /// The bytes on the disk.
    pub fn encode(&self, layer: LayerId, chunk: ChunkNumber) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        out[..BITMAP_BYTES].copy_from_slice(self.present.as_bytes());
        out[BITMAP_BYTES..2 * BITMAP_BYTES].copy_from_slice(self.zero.as_bytes());
        out[128..136].copy_from_slice(&layer.raw().to_le_bytes());
        out[136..144].copy_from_slice(&chunk.raw().to_le_bytes());
        let crc = ankole_proto::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the record of this layer and chunk.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes are none.
    pub fn decode(bytes: &[u8], layer: LayerId, chunk: ChunkNumber) -> Result<Self, RecordError> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().map_err(|_| RecordError::Damaged)?;
        if bytes == &[0; RECORD_BYTES] {
            return Ok(Self::default());
        }
        if ankole_proto::crc32c(&bytes[..CRC_AT]).to_le_bytes() != bytes[CRC_AT..] {
            return Err(RecordError::Damaged);
        }
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let found = (number(128), number(136));
        if found != (layer.raw(), chunk.raw()) {
            let (layer, chunk) = found;
            return Err(RecordError::Misplaced { layer, chunk });
        }
        let (mut present, mut zero) = ([0; BITMAP_BYTES], [0; BITMAP_BYTES]);
        present.copy_from_slice(&bytes[..BITMAP_BYTES]);
        zero.copy_from_slice(&bytes[BITMAP_BYTES..2 * BITMAP_BYTES]);
        Ok(Self {
            present: ChunkBitmap::from_bytes(present),
            zero: ChunkBitmap::from_bytes(zero),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (LayerId, ChunkNumber) {
        (LayerId::from_raw(7).unwrap(), ChunkNumber::from_raw(3))
    }

    fn sample() -> MapRecord {
        let mut record = MapRecord::default();
        record.present.set(0, true);
        record.present.set(511, true);
        record.zero.set(9, true);
        record
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let (layer, chunk) = place();
        let bytes = sample().encode(layer, chunk);
        assert_eq!(MapRecord::decode(&bytes, layer, chunk), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let (layer, chunk) = place();
        let bytes = sample().encode(layer, chunk);
        for bit in 0..RECORD_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                MapRecord::decode(&damaged, layer, chunk),
                Err(RecordError::Damaged),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_record_of_another_place_is_refused() {
        let (layer, chunk) = place();
        let bytes = sample().encode(layer, ChunkNumber::from_raw(4));
        assert_eq!(
            MapRecord::decode(&bytes, layer, chunk),
            Err(RecordError::Misplaced { layer: 7, chunk: 4 })
        );
        assert_eq!(
            MapRecord::decode(&bytes[1..], layer, chunk),
            Err(RecordError::Damaged)
        );
    }

    #[test]
    fn the_bytes_of_version_1_stay() {
        let (layer, chunk) = place();
        let bytes = sample().encode(layer, chunk);
        assert_eq!((bytes[0], bytes[63], bytes[65]), (1, 0x80, 2));
        assert_eq!((bytes[128], bytes[136]), (7, 3));
        assert_eq!(
            bytes[252..],
            ankole_proto::crc32c(&bytes[..252]).to_le_bytes()
        );
    }
}
