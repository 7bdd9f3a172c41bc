//! CRC-32C (Castagnoli), the one checksum of frames, of blocks in a store and of iSCSI digests
//! (RFC 7143, section 13.1).
//!
//! Every byte that is written or read passes through it several times, so it is the variant that
//! folds with carry-less multiplication where the CPU has that.

use crc_fast::{CrcAlgorithm, Digest};

/// The sum of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The sum of several pieces, one after the other, as if they were one.
pub fn crc32c_of(pieces: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    let [a, b, c, d, ..] = digest.finalize().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, by the polynomial.
    fn plain(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
            })
        })
    }

    /// RFC 7143, appendix A.4.
    #[test]
    fn the_sums_of_the_standard_come_out() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        let falling: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&falling), 0x113f_db5c);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_have_the_sum_by_the_polynomial(
            bytes in proptest::collection::vec(any::<u8>(), 0..9000),
            cut in any::<prop::sample::Index>(),
        ) {
            let sum = plain(&bytes);
            prop_assert_eq!(crc32c(&bytes), sum);
            let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(crc32c_of(&[one, other]), sum);
        }
    }
}
