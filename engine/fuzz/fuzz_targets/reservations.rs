//! Any bytes as stored persistent reservations, with a checksum that fits or without: an error, or
//! a state that is stored and restored as it is.
#![no_main]

use ankole_engine::scsi::{Identity, LogicalUnit};
use ankole_proto::{VolumeId, VolumeSize};
use libfuzzer_sys::fuzz_target;

fn unit() -> LogicalUnit {
    let size = VolumeSize::from_bytes(1 << 20).expect("a size");
    let identity = Identity::new(VolumeId::from_bits(1), "iqn.2026-01.test:disk", *b"0001");
    LogicalUnit::new(identity, size, true)
}

fn restore(bytes: &[u8]) {
    let mut first = unit();
    if first.restore_reservations(bytes).is_ok() {
        let stored = first.export_reservations();
        let mut second = unit();
        assert!(second.restore_reservations(&stored).is_ok());
        assert_eq!(second.export_reservations(), stored);
    }
}

fuzz_target!(|data: &[u8]| {
    restore(data);
    let mut sealed = data.to_vec();
    sealed.extend(crc32c::crc32c(data).to_le_bytes());
    restore(&sealed);
});
