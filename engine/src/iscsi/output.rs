//! What waits to be sent on one connection, in pieces that a vectored write takes as they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::pdu::{Digests, ResponsePdu};

/// Data this short is copied beside its header: cheaper than a piece of its own.
const COPY_BYTES_MAX: usize = 512;
/// Headers and short data are collected in buffers of this size.
const ARENA_BYTES: usize = 16 << 10;

/// Bytes to send, in order. Long data stays where it is and is referred to.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    /// The last bytes, still growing.
    tail: BytesMut,
    bytes: u64,
}

impl Output {
    /// Adds a PDU with its padding and digests.
    pub fn push(&mut self, pdu: ResponsePdu, digests: Digests) {
        let ResponsePdu { header, data } = pdu;
        if self.tail.capacity() - self.tail.len() < COPY_BYTES_MAX {
            self.seal_tail();
            self.tail = BytesMut::with_capacity(ARENA_BYTES);
        }
        self.append(header.bytes());
        if digests.header {
            self.append(&ankole_proto::crc32c(header.bytes()).to_le_bytes());
        }
        if data.is_empty() {
            return;
        }
        let padding = [0_u8; 3];
        let padding = padding
            .get(..data.len().next_multiple_of(4) - data.len())
            .unwrap_or_default();
        let digest = digests
            .data
            .then(|| ankole_proto::crc32c_of(&[&data, padding]).to_le_bytes());
        if data.len() <= COPY_BYTES_MAX {
            self.append(&data);
        } else {
            self.seal_tail();
            self.bytes += data.len() as u64;
            self.pieces.push_back(data);
        }
        self.append(padding);
        if let Some(digest) = digest {
            self.append(&digest);
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Points the slices at what is to be sent next and says how many of them are in use.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let waiting = self.pieces.iter().map(|piece| &piece[..]);
        let all = waiting.chain(std::iter::once(&self.tail[..]).filter(|tail| !tail.is_empty()));
        let mut used = 0;
        for (slot, piece) in slices.iter_mut().zip(all) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// The first bytes have been sent.
    pub fn advance(&mut self, mut sent: usize) {
        self.bytes = self.bytes.saturating_sub(sent as u64);
        while sent > 0 {
            let Some(first) = self.pieces.front_mut() else {
                self.tail.advance(sent.min(self.tail.len()));
                return;
            };
            if sent < first.len() {
                first.advance(sent);
                return;
            }
            sent -= first.len();
            self.pieces.pop_front();
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// All that waits, in one piece.
    #[cfg(test)]
    pub(crate) fn contents(&self) -> Vec<u8> {
        let mut contents: Vec<u8> = self.pieces.iter().flatten().copied().collect();
        contents.extend_from_slice(&self.tail);
        contents
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iscsi::pdu::{NopIn, Tag, TransferTag};

    proptest! {
        #[test]
        fn what_is_sent_in_any_steps_is_what_was_pushed(
            sizes in prop::collection::vec(0_usize..2000, 1..40),
            steps in prop::collection::vec(1_usize..5000, 1..10),
        ) {
            let mut output = Output::default();
            for (number, size) in sizes.iter().enumerate() {
                let data = Bytes::from(vec![u8::try_from(number).unwrap(); *size]);
                let nop = NopIn { tag: Tag(1), transfer: TransferTag::NONE, lun: [0; 8], data };
                output.push(nop.pdu(), Digests { header: true, data: true });
            }
            let whole = output.contents();
            prop_assert_eq!(whole.len() as u64, output.bytes());
            let mut sent = Vec::new();
            for step in steps.iter().cycle() {
                let mut slices = [IoSlice::new(&[]); 8];
                let used = output.slices(&mut slices);
                if used == 0 {
                    break;
                }
                let ready: Vec<u8> = slices[..used].iter().flat_map(|s| s.to_vec()).collect();
                let taken = ready.len().min(*step);
                sent.extend_from_slice(&ready[..taken]);
                output.advance(taken);
            }
            prop_assert!(output.is_empty());
            prop_assert_eq!(sent, whole);
        }
    }
}
