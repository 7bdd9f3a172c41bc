//! From a byte stream to frames.

use bytes::{Buf, Bytes, BytesMut};

use super::header::{FrameError, HEADER_BYTES, Header};

/// A header and the payload that it states, both checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// `header.payload_bytes` bytes.
    pub payload: Bytes,
}

impl Frame {
    /// The frame of this header and payload; length and checksum are filled in.
    pub fn new(header: Header, payload: Bytes) -> Self {
        Self {
            header: header.with_payload(&payload),
            payload,
        }
    }
}

/// Cuts a byte stream into frames. Feed it by appending to the buffer passed to
/// [`Decoder::decode`]; it owns no socket.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Option<Header>,
}

impl Decoder {
    /// At the start of a connection.
    pub const fn new() -> Self {
        Self { header: None }
    }

    /// Takes the next frame off the front of `buffer`; `None` when more bytes are needed, for
    /// which room has then been reserved.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the stream is lost, close the connection.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() else {
                    buffer.reserve(HEADER_BYTES);
                    return Ok(None);
                };
                let header = Header::decode(bytes)?;
                buffer.advance(HEADER_BYTES);
                self.header = Some(header);
                header
            }
        };
        let wanted = header.payload_bytes as usize;
        if buffer.len() < wanted {
            buffer.reserve(wanted - buffer.len());
            return Ok(None);
        }
        self.header = None;
        let payload = buffer.split_to(wanted).freeze();
        header.check_payload(&payload)?;
        Ok(Some(Frame { header, payload }))
    }
}
