//! What was done to the golden replicas, and what they hold by that, worked out without the store.
//!
//! Never changed: the stores that were written after it are kept. What a later format needs is
//! another list.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a sector: what is written is told in sectors, so that parts of blocks are nothing else.
pub const SECTOR: u64 = 512;
/// Sectors of the volume: 1100 blocks, two chunks and a part of a third.
pub const SECTORS: u64 = 1100 * 8;

/// One thing that is done.
#[derive(Debug, Clone)]
pub enum Step {
    /// These sectors get this stamp.
    Write(Range<u64>, u8),
    /// These sectors become zeros.
    Unmap(Range<u64>),
    /// All is made durable.
    Flush,
    /// The head is sealed; the new one has the next free number.
    Seal,
    /// A new head, with the next free number, on this layer.
    Revert(u64),
}

/// Sectors of whole blocks.
const fn blocks(blocks: Range<u64>) -> Range<u64> {
    blocks.start * 8..blocks.end * 8
}

/// Layer 1 below all; 2 on it; 3 on 2, a branch; 5 on 2, and the head, 6, on 5.
pub const STEPS: [Step; 28] = [
    Step::Write(blocks(0..24), 1),
    Step::Write(blocks(500..524), 1),
    Step::Write(blocks(1090..1100), 1),
    Step::Seal,
    Step::Write(blocks(4..12), 2),
    Step::Unmap(blocks(16..20)),
    Step::Unmap(blocks(510..514)),
    Step::Write(blocks(600..608), 2),
    Step::Unmap(blocks(604..606)),
    Step::Seal,
    Step::Write(blocks(8..10), 3),
    Step::Write(163..164, 3),
    Step::Write(blocks(17..18), 3),
    Step::Unmap(180..188),
    Step::Flush,
    Step::Seal,
    Step::Write(blocks(30..34), 4),
    Step::Revert(2),
    Step::Write(blocks(6..8), 5),
    Step::Unmap(blocks(9..10)),
    Step::Write(8797..8800, 5),
    Step::Seal,
    Step::Write(blocks(0..2), 6),
    Step::Unmap(blocks(5..6)),
    Step::Write(blocks(605..606), 6),
    Step::Flush,
    Step::Write(blocks(511..513), 7),
    Step::Unmap(blocks(1091..1092)),
];

/// The stamp of each sector; 0 where it is zeros.
pub type Stamps = Vec<u8>;

/// What each sealed layer and the head holds, by its number.
pub fn contents() -> BTreeMap<u64, Stamps> {
    let (mut head, mut next) = (1, 2);
    let mut now = vec![0; 8 * 1100];
    let mut sealed = BTreeMap::new();
    for step in STEPS {
        match step {
            Step::Write(sectors, stamp) => stamp_all(&mut now, sectors, stamp),
            Step::Unmap(sectors) => stamp_all(&mut now, sectors, 0),
            Step::Flush => {}
            Step::Seal => {
                sealed.insert(head, now.clone());
                (head, next) = (next, next + 1);
            }
            Step::Revert(layer) => {
                now = sealed.get(&layer).cloned().unwrap_or_default();
                (head, next) = (next, next + 1);
            }
        }
    }
    sealed.insert(head, now);
    sealed
}

fn stamp_all(stamps: &mut Stamps, sectors: Range<u64>, stamp: u8) {
    for (_, place) in (0..)
        .zip(stamps)
        .filter(|(number, _)| sectors.contains(number))
    {
        *place = stamp;
    }
}

/// What a sector with this stamp is filled with, again and again; zeros are no stamp's.
pub fn word(sector: u64, stamp: u8) -> [u8; 8] {
    if stamp == 0 {
        return [0; 8];
    }
    let mut word = sector.to_be_bytes();
    word[0] = stamp;
    word
}

/// The bytes of these sectors.
pub fn bytes(sectors: Range<u64>, stamp: impl Fn(u64) -> u8) -> Vec<u8> {
    sectors
        .flat_map(|sector| [word(sector, stamp(sector)); 64])
        .flatten()
        .collect()
}
