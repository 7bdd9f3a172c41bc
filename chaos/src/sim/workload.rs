//! What clients ask: overlapping reads, writes of any alignment, unmaps, zeroing and flushes, most
//! of them near each other.

use ankole_proto::geometry::{BLOCK_BYTES, CHUNK_BYTES, SECTOR_BYTES};
use ankole_proto::{Extent, VolumeSize};
use rand::Rng;
use rand::rngs::StdRng;

/// A sector, as a length in memory.
pub(super) const SECTOR: usize = 512;
const _: () = assert!(SECTOR as u64 == SECTOR_BYTES);

/// Two chunks and a short third: every boundary there is.
pub(super) const VOLUME_BYTES: u64 = 2 * CHUNK_BYTES + 4 * BLOCK_BYTES;
/// How large a volume may become.
const GROWN_BYTES: u64 = VOLUME_BYTES + CHUNK_BYTES;
/// Where operations fall: the beginning, around the first chunk's end, the end; of a volume that has
/// grown around the end that it had, too, and its new end.
const HOT: [u64; 5] = [
    0,
    CHUNK_BYTES - 4 * BLOCK_BYTES,
    VOLUME_BYTES - 8 * BLOCK_BYTES,
    VOLUME_BYTES - 4 * BLOCK_BYTES,
    GROWN_BYTES - 8 * BLOCK_BYTES,
];
const HOT_BYTES: u64 = 8 * BLOCK_BYTES;

/// One thing to ask.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Read(Extent),
    Write(Extent, bool),
    Unmap(Extent),
    WriteZeroes(Extent, bool),
    /// Of what is likely to be there.
    CompareAndWrite(Extent, bool),
    /// Of zeros.
    Or(Extent, bool),
    /// Onto itself.
    Copy(Extent, bool),
    Flush,
}

pub(super) fn size() -> VolumeSize {
    VolumeSize::from_bytes(VOLUME_BYTES).unwrap_or_else(|error| unreachable!("{error}"))
}

/// The size of one that grows.
pub(super) fn grown_size() -> VolumeSize {
    VolumeSize::from_bytes(GROWN_BYTES).unwrap_or_else(|error| unreachable!("{error}"))
}

/// All that a volume may ever have.
pub(super) fn everything() -> Extent {
    grown_size().extent()
}

/// The places of a volume of this size.
fn places(size: VolumeSize) -> impl Iterator<Item = Extent> {
    HOT.iter()
        .filter_map(|offset| Extent::new(*offset, HOT_BYTES))
        .filter(move |place| place.end() <= size.bytes())
}

/// The next thing to ask of a volume of this size.
pub(super) fn next(random: &mut StdRng, size: VolumeSize) -> Ask {
    match random.random_range(0..100) {
        0..35 => Ask::Read(extent(random, size)),
        35..74 => Ask::Write(extent(random, size), random.random_ratio(1, 8)),
        74..77 => Ask::CompareAndWrite(extent(random, size), random.random_ratio(1, 8)),
        77..79 => Ask::Or(extent(random, size), random.random_ratio(1, 8)),
        79..81 => Ask::Copy(extent(random, size), random.random_ratio(1, 8)),
        81..85 => Ask::Unmap(extent(random, size)),
        85..90 => Ask::WriteZeroes(extent(random, size), random.random_ratio(1, 8)),
        _ => Ask::Flush,
    }
}

fn extent(random: &mut StdRng, size: VolumeSize) -> Extent {
    let count = places(size).count();
    let hot = HOT[random.random_range(0..count)];
    let sectors = HOT_BYTES / SECTOR_BYTES;
    let (offset, length) = if random.random_ratio(2, 3) {
        let block = random.random_range(0..HOT_BYTES / BLOCK_BYTES);
        let most = HOT_BYTES / BLOCK_BYTES - block;
        (
            block * BLOCK_BYTES,
            random.random_range(1..=most) * BLOCK_BYTES,
        )
    } else {
        let sector = random.random_range(0..sectors);
        (
            sector * SECTOR_BYTES,
            random.random_range(1..=(sectors - sector).min(20)) * SECTOR_BYTES,
        )
    };
    Extent::new(hot + offset, length).unwrap_or_else(|| unreachable!("inside the volume"))
}

/// Everywhere that anything was ever written to a volume of this size.
pub(super) fn written(size: VolumeSize) -> impl Iterator<Item = Extent> {
    places(size)
}

/// Some byte where anything was ever written.
pub(super) fn some_byte(random: u64) -> u64 {
    let place = random % (HOT.len() as u64 * HOT_BYTES);
    let hot = usize::try_from(place / HOT_BYTES).unwrap_or_default();
    HOT[hot] + place % HOT_BYTES
}
