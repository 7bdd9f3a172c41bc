//! Any bytes as the stream of a connection, with and without digests: PDUs, requests to be
//! rejected, or the end of the stream; never a panic, and never more held than was declared.
use crate::iscsi::limit;
use crate::iscsi::pdu::frame::take;
use crate::iscsi::pdu::{Digests, Framing, HEADER_BYTES, RequestPdu};
use bytes::BytesMut;

/// Additional header segments, both digests and padding.
const AROUND_DATA_BYTES: usize = 255 * 4 + 4 + 4 + 3;

/// Runs one input.
pub(super) fn run(data: &[u8]) {
    let Some((&flags, stream)) = data.split_first() else {
        return;
    };
    let framing = Framing {
        digests: Digests {
            header: flags & 1 != 0,
            data: flags & 2 != 0,
        },
        segment_bytes_max: if flags & 4 == 0 {
            limit::LOGIN_SEGMENT_BYTES
        } else {
            limit::RECEIVE_SEGMENT_BYTES
        },
    };
    let held_max = HEADER_BYTES + framing.segment_bytes_max as usize + AROUND_DATA_BYTES;
    let mut received = BytesMut::from(stream);
    loop {
        let before = received.len();
        match take(&mut received, framing) {
            Ok(Some(frame)) => {
                assert!(received.len() + HEADER_BYTES <= before);
                assert_eq!(frame.data.len(), frame.header.data_bytes());
                assert!(frame.data.len() <= framing.segment_bytes_max as usize);
                if let Ok(request) = RequestPdu::parse(frame.clone()) {
                    assert_eq!(RequestPdu::parse(frame).as_ref(), Ok(&request));
                }
            }
            Ok(None) => {
                assert!(received.len() < held_max);
                break;
            }
            Err(_) => break,
        }
    }
}
