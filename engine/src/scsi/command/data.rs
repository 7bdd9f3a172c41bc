//! How much data-out a command takes, read off its CDB.

use ankole_proto::SECTOR_BYTES;

use crate::scsi::cdb::Cdb;

pub(super) fn none(_: &Cdb) -> u64 {
    0
}

pub(super) fn blocks(cdb: &Cdb) -> u64 {
    cdb.blocks().bytes()
}

/// VERIFY and WRITE AND VERIFY share BYTCHK; only VERIFY without it takes nothing.
pub(super) fn blocks_if_compared(cdb: &Cdb) -> u64 {
    if cdb.bit(1, 1) {
        cdb.blocks().bytes()
    } else {
        0
    }
}

pub(super) fn one_block(_: &Cdb) -> u64 {
    SECTOR_BYTES
}

/// WRITE SAME (16): none with NDOB.
pub(super) fn one_block_unless_ndob(cdb: &Cdb) -> u64 {
    if cdb.bit(1, 0) { 0 } else { SECTOR_BYTES }
}

pub(super) fn compare_and_write(cdb: &Cdb) -> u64 {
    2 * SECTOR_BYTES * u64::from(cdb.u8(13))
}

/// TRANSFER LENGTH in bytes 12 and 13: WRITE ATOMIC (16).
pub(super) fn atomic_blocks(cdb: &Cdb) -> u64 {
    SECTOR_BYTES * u64::from(cdb.u16(12))
}

/// PARAMETER LIST LENGTH in byte 4.
pub(super) fn list_4(cdb: &Cdb) -> u64 {
    u64::from(cdb.u8(4))
}

/// PARAMETER LIST LENGTH in bytes 7 and 8.
pub(super) fn list_7(cdb: &Cdb) -> u64 {
    u64::from(cdb.u16(7))
}

/// PARAMETER LIST LENGTH in bytes 5 to 8: PERSISTENT RESERVE OUT.
pub(super) fn list_5(cdb: &Cdb) -> u64 {
    u64::from(cdb.u32(5))
}

/// PARAMETER LIST LENGTH in bytes 10 to 13: EXTENDED COPY.
pub(super) fn list_10(cdb: &Cdb) -> u64 {
    u64::from(cdb.u32(10))
}
