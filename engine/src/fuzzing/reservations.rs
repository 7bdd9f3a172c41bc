//! Any bytes as stored persistent reservations, with a checksum that fits or without: an error, or
//! a state that is stored and restored as it is.
use crate::scsi::{Identity, LogicalUnit};
use ankole_proto::{VolumeId, VolumeSize};

fn unit() -> LogicalUnit {
    let size = VolumeSize::from_bytes(1 << 20).expect("a size");
    let identity = Identity::new(VolumeId::from_bits(1), "iqn.2026-01.test:disk", *b"0001");
    LogicalUnit::new(identity, size, true)
}

fn take_up(bytes: &[u8]) {
    let mut first = unit();
    if first.restore(bytes).is_ok() {
        let stored = first.state();
        let mut second = unit();
        assert!(second.restore(&stored).is_ok());
        assert_eq!(second.state(), stored);
    }
}

/// Runs one input.
pub(super) fn run(data: &[u8]) {
    take_up(data);
    let mut sealed = data.to_vec();
    sealed.extend(ankole_proto::crc32c(data).to_le_bytes());
    take_up(&sealed);
}
