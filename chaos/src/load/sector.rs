//! Self-describing sectors.
//!
//! ```text
//!  0  u64  magic      8  u64  sector number    16  u64  generation    24  u64  seed
//! 32  u64  checksum of the sector with this field 0       40  472 bytes of noise
//! ```

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;
const MAGIC: u64 = u64::from_le_bytes(*b"ankchaos");
const CHECKSUM_AT: usize = 32;
const NOISE_AT: usize = 40;

/// What a sector turned out to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeros: never written.
    Zeros,
    /// This generation of its block.
    Generation(u64),
    /// Something else, for this reason.
    Foreign(&'static str),
}

fn word(sector: &[u8], at: usize) -> u64 {
    sector.get(at..at + 8).map_or(0, |bytes| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        u64::from_le_bytes(word)
    })
}

fn checksum(sector: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for at in (0..SECTOR_BYTES).step_by(8).filter(|at| *at != CHECKSUM_AT) {
        hash ^= word(sector, at);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
    }
    hash
}

/// Fills a buffer, which begins at this sector of the unit, with this generation.
pub fn stamp(buffer: &mut [u8], first_sector: u64, generation: u64, seed: u64) {
    for (number, sector) in (first_sector..).zip(buffer.chunks_exact_mut(SECTOR_BYTES)) {
        for (at, value) in [(0, MAGIC), (8, number), (16, generation), (24, seed)] {
            sector[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let mut noise = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (generation << 40) | 1;
        for bytes in sector[NOISE_AT..].chunks_exact_mut(8) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            bytes.copy_from_slice(&noise.to_le_bytes());
        }
        let sum = checksum(sector);
        sector[CHECKSUM_AT..NOISE_AT].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Looks at one sector.
pub fn read(sector: &[u8], number: u64, seed: u64) -> Content {
    if sector.iter().all(|byte| *byte == 0) {
        return Content::Zeros;
    }
    if word(sector, 0) != MAGIC {
        return Content::Foreign("not written by this program");
    }
    if word(sector, CHECKSUM_AT) != checksum(sector) {
        return Content::Foreign("its checksum does not match");
    }
    if word(sector, 8) != number {
        return Content::Foreign("it belongs elsewhere");
    }
    if word(sector, 24) != seed {
        return Content::Foreign("it is of another run");
    }
    Content::Generation(word(sector, 16))
}

/// Whether every sector of a block is between these generations; zeros count as generation 0.
/// With `whole`, all sectors must be of one generation.
///
/// # Errors
///
/// What is wrong, for people.
pub fn verify(
    buffer: &[u8],
    first_sector: u64,
    seed: u64,
    (low, high): (u64, u64),
    whole: bool,
) -> Result<(), String> {
    let mut first = None;
    for (number, sector) in (first_sector..).zip(buffer.chunks_exact(SECTOR_BYTES)) {
        let generation = match read(sector, number, seed) {
            Content::Zeros => 0,
            Content::Generation(generation) => generation,
            Content::Foreign(reason) => return Err(format!("sector {number}: {reason}")),
        };
        if generation < low {
            return Err(format!(
                "sector {number}: generation {generation}, lost {low}"
            ));
        }
        if generation > high {
            return Err(format!(
                "sector {number}: generation {generation}, issued only {high}"
            ));
        }
        if whole && *first.get_or_insert(generation) != generation {
            return Err(format!(
                "sector {number}: generation {generation}, torn block"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_block_is_of_its_generation() {
        let mut block = vec![0; 4096];
        assert_eq!(verify(&block, 8, 1, (0, 0), true), Ok(()));
        stamp(&mut block, 8, 3, 1);
        assert_eq!(verify(&block, 8, 1, (3, 3), true), Ok(()));
        assert!(
            verify(&block, 8, 1, (4, 4), true)
                .unwrap_err()
                .contains("lost 4")
        );
        assert!(
            verify(&block, 8, 1, (1, 2), true)
                .unwrap_err()
                .contains("issued only 2")
        );
        assert!(
            verify(&block, 16, 1, (3, 3), true)
                .unwrap_err()
                .contains("elsewhere")
        );
        assert!(
            verify(&block, 8, 2, (3, 3), true)
                .unwrap_err()
                .contains("another run")
        );
    }

    #[test]
    fn a_flipped_bit_and_a_torn_block_are_found() {
        let (mut old, mut new) = (vec![0; 4096], vec![0; 4096]);
        stamp(&mut old, 0, 1, 7);
        stamp(&mut new, 0, 2, 7);
        let mut flipped = new.clone();
        flipped[700] ^= 4;
        assert!(
            verify(&flipped, 0, 7, (1, 2), true)
                .unwrap_err()
                .contains("checksum")
        );
        new[2048..].copy_from_slice(&old[2048..]);
        assert!(
            verify(&new, 0, 7, (1, 2), true)
                .unwrap_err()
                .contains("torn")
        );
        assert_eq!(verify(&new, 0, 7, (1, 2), false), Ok(()));
    }
}
