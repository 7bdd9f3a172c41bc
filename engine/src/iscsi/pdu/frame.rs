//! Finding PDUs in a byte stream, and their digests.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::header::{HEADER_BYTES, Header};

/// Which digests the connection has negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digests {
    /// CRC32C over the header and its additional segments.
    pub header: bool,
    /// CRC32C over a data segment and its padding.
    pub data: bool,
}

/// How to read the stream at this point of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// The digests in use.
    pub digests: Digests,
    /// The longest data segment accepted.
    pub segment_bytes_max: u32,
}

/// One PDU as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its data segment, without padding.
    pub data: Bytes,
    /// Whether the data segment is what its digest says; true without a digest.
    pub data_intact: bool,
}

/// Why the stream cannot be read on; the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A data segment longer than declared. What follows would have to be held.
    #[error("a data segment of {bytes} bytes, the limit is {limit}")]
    SegmentTooLong {
        /// What the header says.
        bytes: usize,
        /// What was declared.
        limit: u32,
    },
    /// The header is not what its digest says: no field of it, so no length either, is certain.
    #[error("a header does not match its digest")]
    HeaderDigest,
}

/// Takes the next whole PDU off the front of `received`. `None`: more bytes are needed, at least
/// up to the length for which room has been reserved.
pub fn take(received: &mut BytesMut, framing: Framing) -> Result<Option<Frame>, FrameError> {
    let Some(bytes) = received.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = Header::from_bytes(*bytes);
    let limit = framing.segment_bytes_max;
    if header.data_bytes() > limit as usize {
        return Err(FrameError::SegmentTooLong {
            bytes: header.data_bytes(),
            limit,
        });
    }
    let layout = Layout::of(&header, framing.digests);
    if received.len() < layout.frame_bytes {
        received.reserve(layout.frame_bytes - received.len());
        return Ok(None);
    }
    let mut head = received.split_to(layout.data_at);
    if framing.digests.header {
        let digest = head.split_off(layout.header_bytes);
        if digest.as_ref() != ankole_proto::crc32c(&head).to_le_bytes() {
            return Err(FrameError::HeaderDigest);
        }
    }
    let mut data = received.split_to(layout.frame_bytes - layout.data_at);
    let mut data_intact = true;
    if layout.data_digest {
        let digest = data.split_off(layout.padded_bytes);
        data_intact = digest.as_ref() == ankole_proto::crc32c(&data).to_le_bytes();
    }
    data.truncate(header.data_bytes());
    Ok(Some(Frame {
        header,
        data: data.freeze(),
        data_intact,
    }))
}

/// Where the parts of a PDU lie.
struct Layout {
    header_bytes: usize,
    data_at: usize,
    padded_bytes: usize,
    data_digest: bool,
    frame_bytes: usize,
}

impl Layout {
    fn of(header: &Header, digests: Digests) -> Self {
        let header_bytes = HEADER_BYTES + header.additional_bytes();
        let data_at = header_bytes + if digests.header { 4 } else { 0 };
        let padded_bytes = header.data_bytes().next_multiple_of(4);
        let data_digest = digests.data && padded_bytes > 0;
        Self {
            header_bytes,
            data_at,
            padded_bytes,
            data_digest,
            frame_bytes: data_at + padded_bytes + if data_digest { 4 } else { 0 },
        }
    }
}
