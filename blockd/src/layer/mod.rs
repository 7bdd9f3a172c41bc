//! One layer: the blocks of a volume written in one interval, in three files; and the tree that
//! the layers of a replica form.
//!
//! Owns the formats of `.img`, `.map` and `.sum` and the checksum of every block. Promises that a
//! block that does not match its sum is never handed on (INV-13) and that a damaged map record is
//! an error, never an older layer's data. Must not know epochs, engines or the order of syncs.

use ankole_proto::BLOCK_BYTES;
use ankole_proto::geometry::CHUNK_BLOCKS;

mod blocks;
mod files;
mod record;
mod tree;

/// Bytes of a block, as a length in memory.
pub const BLOCK: usize = 4096;
/// Blocks of a chunk: the places of a map record.
pub const PLACES: usize = 512;

const _: () = assert!(BLOCK as u64 == BLOCK_BYTES && PLACES as u64 == CHUNK_BLOCKS);

pub use blocks::{BlockRun, Flaw};
pub use files::{LayerFiles, Lengths, Part, file_path, is_empty_from, read_record_of};
pub use record::{MapRecord, RECORD_BYTES, RecordError};
pub use tree::{Tree, TreeShapeError};
