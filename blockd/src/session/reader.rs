//! From a socket's bytes to frames, with few system calls and without copying.
//!
//! One buffer per connection: a read takes whatever the socket holds, so that many small frames
//! cost one call, and a large payload is read straight to where it is handed out from. Only the
//! beginning of a frame that would not fit behind the others is ever moved.

use std::io::{self, Read};

use ankole_proto::wire::{FrameError, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX};

/// The buffer's size while no larger frame comes: some sixty 4 KiB writes.
const BUFFER_BYTES: usize = 256 << 10;
/// The buffer's size at most: one frame of the largest kind.
const BUFFER_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX as usize;

/// A whole frame in the reader's buffer, its checksums verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    /// The header.
    pub header: Header,
    /// `header.payload_bytes` bytes.
    pub payload: &'a [u8],
}

/// Cuts what a socket delivers into frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    buffer: Vec<u8>,
    /// Unconsumed bytes are `start..end`; behind a decoded header they begin with its payload.
    start: usize,
    end: usize,
    header: Option<Header>,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// At the start of a connection.
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            header: None,
        }
    }

    /// The next whole frame that has been read; `None` when more must be read first.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: where the next frame begins is unknown, close the connection.
    pub(super) fn next_frame(&mut self) -> Result<Option<Received<'_>>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
                let Some(bytes) = unread.first_chunk::<HEADER_BYTES>() else {
                    return Ok(None);
                };
                let header = Header::decode(bytes)?;
                self.start += HEADER_BYTES;
                *self.header.insert(header)
            }
        };
        let payload_end = self.start + header.payload_bytes as usize;
        if payload_end > self.end {
            return Ok(None);
        }
        self.header = None;
        let payload = self.buffer.get(self.start..payload_end).unwrap_or_default();
        self.start = payload_end;
        header.check_payload(payload)?;
        Ok(Some(Received { header, payload }))
    }

    /// Whether the bytes so far end inside a frame.
    pub(super) const fn is_inside_frame(&self) -> bool {
        self.header.is_some() || self.start < self.end
    }

    /// Reads once from the socket. Call when [`FrameReader::next_frame`] gave `None`.
    ///
    /// # Errors
    ///
    /// As the socket's read; an end of the stream is `Ok(0)`.
    pub(super) fn fill(&mut self, socket: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let count = socket.read(room)?;
        self.end += count;
        Ok(count)
    }

    /// Gives back what a large frame made the buffer grow by. For idle connections.
    pub(super) fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > BUFFER_BYTES {
            self.start = 0;
            self.end = 0;
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    /// Makes the buffer end behind the frame that is under way, at least.
    fn make_room(&mut self) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let wanted = self
            .header
            .map_or(HEADER_BYTES, |header| header.payload_bytes as usize);
        if self.start + wanted <= self.buffer.len() && self.end < self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if wanted > self.buffer.len() {
            // Bounded by the header's own check.
            self.buffer.resize(wanted.min(BUFFER_BYTES_MAX), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::wire::{Decoder, Frame, Opcode};
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::*;

    /// A socket that delivers its bytes in pieces of the sizes given, over and over.
    struct Pieces {
        bytes: Vec<u8>,
        at: usize,
        sizes: Vec<usize>,
        turn: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            assert!(!out.is_empty(), "a read of nothing looks like the end");
            let size = self.sizes[self.turn % self.sizes.len()];
            self.turn += 1;
            let count = size.min(out.len()).min(self.bytes.len() - self.at);
            out[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
            self.at += count;
            Ok(count)
        }
    }

    fn stream(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (id, length) in lengths.iter().enumerate() {
            let fill = u8::try_from(id % 251).unwrap();
            let frame = Frame::new(
                Header::request(Opcode::Write, id as u64),
                Bytes::from(vec![fill; *length]),
            );
            bytes.extend_from_slice(&frame.header.encode());
            bytes.extend_from_slice(&frame.payload);
        }
        bytes
    }

    fn read_all(mut source: Pieces) -> Result<Vec<Frame>, FrameError> {
        let mut reader = FrameReader::new();
        let mut frames = Vec::new();
        loop {
            while let Some(received) = reader.next_frame()? {
                frames.push(Frame {
                    header: received.header,
                    payload: Bytes::copy_from_slice(received.payload),
                });
            }
            if reader.fill(&mut source).unwrap() == 0 {
                return Ok(frames);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_come_out_as_the_reference_decoder_cuts_them(
            lengths in prop::collection::vec(
                prop_oneof![Just(0usize), 1usize..9000, 250_000usize..600_000], 1..12),
            sizes in prop::collection::vec(1usize..300_000, 1..5),
        ) {
            let bytes = stream(&lengths);
            let mut oracle = BytesMut::from(&bytes[..]);
            let mut decoder = Decoder::new();
            let mut expected = Vec::new();
            while let Some(frame) = decoder.decode(&mut oracle).unwrap() {
                expected.push(frame);
            }
            let got = read_all(Pieces { bytes, at: 0, sizes, turn: 0 }).unwrap();
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 64..400),
        ) {
            let source = Pieces { bytes, at: 0, sizes: vec![37], turn: 0 };
            prop_assert!(read_all(source).is_err());
        }
    }

    #[test]
    fn a_flipped_payload_bit_is_found() {
        let mut bytes = stream(&[5000]);
        bytes[HEADER_BYTES + 4321] ^= 4;
        let source = Pieces {
            bytes,
            at: 0,
            sizes: vec![999],
            turn: 0,
        };
        assert!(matches!(
            read_all(source),
            Err(FrameError::PayloadCrc { .. })
        ));
    }

    #[test]
    fn the_buffer_grows_to_the_largest_frame_and_shrinks_again() {
        let mut source = Pieces {
            bytes: stream(&[PAYLOAD_BYTES_MAX as usize]),
            at: 0,
            sizes: vec![1 << 20],
            turn: 0,
        };
        let mut reader = FrameReader::new();
        while reader.next_frame().unwrap().is_none() {
            assert!(reader.fill(&mut source).unwrap() > 0);
            assert!(reader.buffer.len() <= BUFFER_BYTES_MAX);
        }
        reader.shrink();
        assert_eq!(reader.buffer.len(), BUFFER_BYTES);
    }
}
