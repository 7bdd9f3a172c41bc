//! The digests of RFC 3720 B.4 (RFC 7143 refers to them), on PDUs as they are on the wire.

use bytes::{Bytes, BytesMut};

use super::tests::{bytes_of, sent};
use super::*;
use crate::iscsi::sequence::Serial;

const HEADER_ONLY: Digests = Digests {
    header: true,
    data: false,
};
const DATA_ONLY: Digests = Digests {
    header: false,
    data: true,
};

/// The four patterns of 32 bytes, each with its digest as it is sent.
fn vectors() -> [([u8; 32], [u8; 4]); 4] {
    let ascending = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let descending = std::array::from_fn(|at| u8::try_from(31 - at).unwrap());
    [
        ([0; 32], [0xaa, 0x36, 0x91, 0x8a]),
        ([0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
        (ascending, [0x4e, 0x79, 0xdd, 0x46]),
        (descending, [0x5c, 0xdb, 0x3f, 0x11]),
    ]
}

/// A SCSI command with READ (10), and its digest.
const READ_10: &str = "
    01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018
    28000000 00000000 02000000 00000000 563a96d9";

fn take(bytes: &[u8], digests: Digests) -> Result<frame::Frame, FrameError> {
    let framing = Framing {
        digests,
        segment_bytes_max: 1024,
    };
    let mut received = BytesMut::from(bytes);
    let frame = frame::take(&mut received, framing)?;
    assert!(received.is_empty(), "more than one PDU");
    Ok(frame.expect("a whole PDU"))
}

#[test]
fn a_read_command_with_the_digest_of_the_standard_is_taken() {
    let bytes = bytes_of(READ_10);
    let frame = take(&bytes, HEADER_ONLY).unwrap();
    let Ok(RequestPdu::Command(command)) = RequestPdu::parse(frame) else {
        panic!("not a command");
    };
    assert!(command.reads && command.is_final && !command.writes);
    assert_eq!(command.tag, Tag(0x1400_0000));
    assert_eq!(command.expected_bytes, 1024);
    assert_eq!(command.order.command, Serial::from_raw(0x14));
    assert_eq!(command.cdb[..10], [0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    // Neither the opposite byte order nor the digest without its last complement will do.
    for wrong in ["d9963a56", "a9c56926", "00000000"] {
        let mut other = bytes[..48].to_vec();
        other.extend(bytes_of(wrong));
        assert_eq!(take(&other, HEADER_ONLY), Err(FrameError::HeaderDigest));
    }
    // With both digests in use, a PDU without data has only the one.
    let both = Digests {
        header: true,
        data: true,
    };
    assert!(take(&bytes, both).unwrap().data_intact);
}

#[test]
fn data_with_the_digests_of_the_standard_is_intact() {
    for (data, digest) in vectors() {
        let mut bytes = bytes_of(
            "00800000 00000020 00000000 00000000 00000001 ffffffff 00000002 00000003
             00000000 00000000 00000000 00000000",
        );
        bytes.extend(data);
        let whole = [&bytes[..], &digest].concat();
        let frame = take(&whole, DATA_ONLY).unwrap();
        assert!(frame.data_intact);
        assert_eq!(frame.data[..], data);
        let reversed: Vec<u8> = digest.into_iter().rev().collect();
        let whole = [bytes, reversed].concat();
        assert!(!take(&whole, DATA_ONLY).unwrap().data_intact);
    }
}

#[test]
fn data_is_sent_with_the_digests_of_the_standard() {
    for (data, digest) in vectors() {
        let bytes = sent(nop_in(&data), DATA_ONLY);
        assert_eq!(bytes[48..80], data);
        assert_eq!(bytes[80..], digest);
    }
}

#[test]
fn padding_counts_for_the_digest() {
    let (zeros, digest) = vectors()[0];
    for length in 29..32 {
        let bytes = sent(nop_in(&zeros[..length]), DATA_ONLY);
        assert_eq!(bytes[80..], digest, "{length} bytes and their padding");
        let mut bytes = bytes_of(
            "00800000 00000000 00000000 00000000 00000001 ffffffff 00000002 00000003
             00000000 00000000 00000000 00000000",
        );
        bytes[7] = u8::try_from(length).unwrap();
        bytes.extend(zeros);
        bytes.extend(digest);
        let frame = take(&bytes, DATA_ONLY).unwrap();
        assert!(frame.data_intact);
        assert_eq!(frame.data.len(), length);
    }
}

fn nop_in(data: &[u8]) -> ResponsePdu {
    let nop = NopIn {
        tag: Tag(1),
        transfer: TransferTag::NONE,
        lun: [0; 8],
        data: Bytes::copy_from_slice(data),
    };
    nop.pdu()
}
