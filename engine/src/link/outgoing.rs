//! Frames on their way into a socket. Pure.

use std::collections::VecDeque;
use std::io::IoSlice;

use ankole_proto::wire::{Frame, HEADER_BYTES};
use bytes::Bytes;

/// Slices that one write is given: two per frame, so 64 frames, well below the kernel's 1024.
pub(super) const SLICES_MAX: usize = 128;

/// Encoded frames in order, the first of them partly sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    frames: VecDeque<Encoded>,
    /// Bytes of the first frame that are sent.
    sent: usize,
}

#[derive(Debug)]
struct Encoded {
    header: [u8; HEADER_BYTES],
    payload: Bytes,
}

impl Encoded {
    fn len(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

impl Outgoing {
    /// Puts a frame behind the others.
    pub(super) fn push(&mut self, frame: Frame) {
        self.frames.push_back(Encoded {
            header: frame.header.encode(),
            payload: frame.payload,
        });
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.sent = 0;
    }

    /// Whether everything is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Points `slices` at the bytes that come next; returns how many of them are in use.
    pub(super) fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let pieces = self
            .frames
            .iter()
            .flat_map(|frame| [&frame.header[..], &frame.payload[..]])
            .filter_map(|piece| {
                let rest = piece.get(skip..);
                skip = skip.saturating_sub(piece.len());
                rest.filter(|rest| !rest.is_empty())
            });
        let mut used = 0;
        for (slot, piece) in slices.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// The socket took this many bytes.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        while let Some(first) = self.frames.front() {
            let length = first.len();
            if self.sent < length {
                return;
            }
            self.sent -= length;
            self.frames.pop_front();
        }
        assert!(
            self.sent == 0,
            "{} bytes sent that were not queued",
            self.sent
        );
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::wire::{Header, Opcode};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..90),
            takes in prop::collection::vec(1_usize..700, 1..20),
        ) {
            let mut outgoing = Outgoing::default();
            let mut expected = Vec::new();
            for (number, payload) in payloads.into_iter().enumerate() {
                let frame = Frame::new(
                    Header::request(Opcode::Write, number as u64),
                    payload.into(),
                );
                expected.extend_from_slice(&frame.header.encode());
                expected.extend_from_slice(&frame.payload);
                outgoing.push(frame);
            }
            let (mut sent, mut turn) = (Vec::new(), 0);
            while !outgoing.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let used = outgoing.fill(&mut slices);
                prop_assert!(slices[..used].iter().all(|slice| !slice.is_empty()));
                let offered: Vec<u8> =
                    slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
                let take = offered.len().min(takes[turn % takes.len()]);
                turn += 1;
                sent.extend_from_slice(&offered[..take]);
                outgoing.advance(take);
            }
            prop_assert_eq!(sent, expected);
        }
    }
}
