//! Gathering the data of a write: immediate, unsolicited, and asked for with R2T
//! (RFC 7143 §4.2.4.2, 11.7, 11.8). Data and sequences come in order, as negotiated.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::pdu::{DataOut, TransferTag};

/// What was negotiated about data that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// No unsolicited Data-Out PDUs.
    pub initial_r2t: bool,
    /// Data may come with the command.
    pub immediate_data: bool,
    /// All unsolicited data of a command.
    pub first_burst_bytes: u32,
    /// The data of one R2T.
    pub burst_bytes: u32,
    /// R2Ts of a command at a time.
    pub outstanding_r2t: u32,
}

/// How an initiator broke the rules; the command ends (RFC 7143 §11.4.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransferFault {
    /// Data that nobody asked for.
    #[error("unexpected unsolicited data")]
    Unsolicited,
    /// More or less data than asked for, or not in order.
    #[error("not the amount of data that was asked for")]
    Amount,
}

/// A command's data on its way in.
#[derive(Debug)]
pub struct Gather {
    /// What the initiator is willing to send.
    expected: u32,
    /// What the command needs of it; what comes beyond is dropped.
    wanted: u32,
    received: u32,
    collected: Collected,
    /// The next PDU of the unsolicited sequence, while it goes on.
    unsolicited: Option<u32>,
    /// Up to where data has come or has been asked for.
    requested: u32,
    sequences: VecDeque<Sequence>,
    next_r2t: u32,
}

/// The data asked for with one R2T.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    transfer: TransferTag,
    end: u32,
    next_number: u32,
}

/// An R2T to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its place among the command's R2Ts.
    pub number: u32,
    /// From where.
    pub offset: u32,
    /// How much.
    pub bytes: u32,
}

/// One piece stays where it was received; more are put together once.
#[derive(Debug)]
enum Collected {
    Piece(Bytes),
    Whole(BytesMut),
}

impl Gather {
    /// The start: what came with the command. `expected` is the Expected Data Transfer Length,
    /// `is_final` says that no unsolicited data follows.
    pub fn begin(
        rules: &Rules,
        expected: u32,
        wanted: u32,
        immediate: Bytes,
        is_final: bool,
    ) -> Result<Self, TransferFault> {
        let limit = expected.min(rules.first_burst_bytes);
        let received = amount(&immediate, limit)?;
        let unasked = (received > 0 && !rules.immediate_data) || (!is_final && rules.initial_r2t);
        if unasked {
            return Err(TransferFault::Unsolicited);
        }
        Ok(Self {
            expected,
            wanted: wanted.min(expected),
            received,
            collected: Collected::Piece(immediate),
            unsolicited: (!is_final).then_some(0),
            requested: received,
            sequences: VecDeque::new(),
            next_r2t: 0,
        })
    }

    /// A Data-Out of this command.
    pub fn receive(&mut self, rules: &Rules, pdu: DataOut) -> Result<(), TransferFault> {
        let end = if pdu.transfer == TransferTag::NONE {
            let next = self
                .unsolicited
                .as_mut()
                .ok_or(TransferFault::Unsolicited)?;
            expect(next, pdu.number)?;
            if pdu.is_final {
                self.unsolicited = None;
            }
            self.expected.min(rules.first_burst_bytes)
        } else {
            let sequence = self
                .sequences
                .front_mut()
                .ok_or(TransferFault::Unsolicited)?;
            if sequence.transfer != pdu.transfer {
                return Err(TransferFault::Unsolicited);
            }
            expect(&mut sequence.next_number, pdu.number)?;
            sequence.end
        };
        if pdu.offset != self.received {
            return Err(TransferFault::Amount);
        }
        let bytes = amount(&pdu.data, end - self.received.min(end))?;
        self.received += bytes;
        self.requested = self.requested.max(self.received);
        self.collect(&pdu.data);
        if pdu.transfer != TransferTag::NONE {
            if pdu.is_final != (self.received == end) {
                return Err(TransferFault::Amount);
            }
            if pdu.is_final {
                self.sequences.pop_front();
            }
        }
        Ok(())
    }

    /// The next R2T to send, under this tag, when there is one.
    pub fn ask(&mut self, rules: &Rules, transfer: TransferTag) -> Option<Wanted> {
        let may = self.unsolicited.is_none()
            && self.requested < self.wanted
            && self.sequences.len() < rules.outstanding_r2t as usize;
        if !may {
            return None;
        }
        let offset = self.requested;
        let bytes = (self.wanted - offset).min(rules.burst_bytes);
        self.requested = offset + bytes;
        self.sequences.push_back(Sequence {
            transfer,
            end: self.requested,
            next_number: 0,
        });
        let number = self.next_r2t;
        self.next_r2t += 1;
        Some(Wanted {
            number,
            offset,
            bytes,
        })
    }

    /// Whether all that is wanted has come and no sequence is open.
    pub fn is_complete(&self) -> bool {
        self.unsolicited.is_none() && self.sequences.is_empty() && self.received >= self.wanted
    }

    /// How many R2Ts were sent.
    pub fn r2ts(&self) -> u32 {
        self.next_r2t
    }

    /// The data, cut to what is wanted.
    pub fn into_data(self) -> Bytes {
        let mut data = match self.collected {
            Collected::Piece(piece) => piece,
            Collected::Whole(whole) => whole.freeze(),
        };
        data.truncate(self.wanted as usize);
        data
    }

    fn collect(&mut self, data: &Bytes) {
        if let Collected::Piece(piece) = &self.collected {
            if piece.is_empty() {
                self.collected = Collected::Piece(data.clone());
                return;
            }
            // `wanted` is bounded by the largest transfer, so this allocation is, too.
            let mut whole = BytesMut::with_capacity((self.wanted as usize).max(piece.len()));
            whole.extend_from_slice(piece);
            self.collected = Collected::Whole(whole);
        }
        if let Collected::Whole(whole) = &mut self.collected {
            let room = (self.wanted as usize).saturating_sub(whole.len());
            whole.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }
}

fn amount(data: &Bytes, limit: u32) -> Result<u32, TransferFault> {
    u32::try_from(data.len())
        .ok()
        .filter(|&bytes| bytes <= limit)
        .ok_or(TransferFault::Amount)
}

fn expect(next: &mut u32, number: u32) -> Result<(), TransferFault> {
    if *next != number {
        return Err(TransferFault::Amount);
    }
    *next = next.wrapping_add(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iscsi::pdu::Tag;

    const RULES: Rules = Rules {
        initial_r2t: false,
        immediate_data: true,
        first_burst_bytes: 1024,
        burst_bytes: 2048,
        outstanding_r2t: 2,
    };

    fn data_out(transfer: u32, number: u32, offset: u32, data: &[u8], is_final: bool) -> DataOut {
        DataOut {
            tag: Tag(1),
            transfer: TransferTag(transfer),
            is_final,
            number,
            offset,
            data: Bytes::copy_from_slice(data),
        }
    }

    fn asking() -> Gather {
        let mut gather = Gather::begin(&RULES, 4096, 4096, Bytes::new(), true).unwrap();
        let first = Wanted {
            number: 0,
            offset: 0,
            bytes: 2048,
        };
        assert_eq!(gather.ask(&RULES, TransferTag(1)), Some(first));
        gather
    }

    #[test]
    fn a_single_piece_is_not_copied() {
        let data = Bytes::from(vec![7; 512]);
        let gather = Gather::begin(&RULES, 512, 512, data.clone(), true).unwrap();
        assert!(gather.is_complete());
        assert_eq!(gather.into_data().as_ptr(), data.as_ptr());
    }

    #[test]
    fn data_that_was_not_negotiated_is_refused() {
        let rules = Rules {
            initial_r2t: true,
            immediate_data: false,
            ..RULES
        };
        let data = Bytes::from_static(&[0; 4]);
        let fault = Gather::begin(&rules, 512, 512, data.clone(), true).unwrap_err();
        assert_eq!(fault, TransferFault::Unsolicited);
        let fault = Gather::begin(&rules, 512, 512, Bytes::new(), false).unwrap_err();
        assert_eq!(fault, TransferFault::Unsolicited);
        let fault = Gather::begin(&RULES, 2, 2, data, true).unwrap_err();
        assert_eq!(fault, TransferFault::Amount);
        let big = Bytes::from(vec![0; 1025]);
        let fault = Gather::begin(&RULES, 4096, 4096, big, true).unwrap_err();
        assert_eq!(fault, TransferFault::Amount);
    }

    #[test]
    fn no_more_r2ts_are_out_than_negotiated() {
        let mut gather = Gather::begin(&RULES, 1 << 20, 1 << 20, Bytes::new(), true).unwrap();
        assert!(gather.ask(&RULES, TransferTag(1)).is_some());
        assert!(gather.ask(&RULES, TransferTag(2)).is_some());
        assert!(gather.ask(&RULES, TransferTag(3)).is_none());
        gather
            .receive(&RULES, data_out(1, 0, 0, &[1; 2048], true))
            .unwrap();
        assert!(gather.ask(&RULES, TransferTag(3)).is_some());
    }

    #[test]
    fn sequences_that_lie_are_refused() {
        let wrong = [
            (
                data_out(2, 0, 0, &[0; 8], false),
                TransferFault::Unsolicited,
            ),
            (
                data_out(u32::MAX, 0, 0, &[0; 8], false),
                TransferFault::Unsolicited,
            ),
            (data_out(1, 1, 0, &[0; 8], false), TransferFault::Amount),
            (data_out(1, 0, 512, &[0; 8], false), TransferFault::Amount),
            (
                data_out(1, 0, u32::MAX, &[0; 8], false),
                TransferFault::Amount,
            ),
            (data_out(1, 0, 0, &[0; 2049], true), TransferFault::Amount),
            (data_out(1, 0, 0, &[0; 2048], false), TransferFault::Amount),
            (data_out(1, 0, 0, &[0; 8], true), TransferFault::Amount),
        ];
        for (pdu, fault) in wrong {
            assert_eq!(asking().receive(&RULES, pdu.clone()), Err(fault), "{pdu:?}");
        }
    }

    #[test]
    fn what_the_command_does_not_want_is_dropped() {
        let immediate = Bytes::from(vec![1; 600]);
        let mut gather = Gather::begin(&RULES, 4096, 512, immediate, false).unwrap();
        assert!(!gather.is_complete());
        gather
            .receive(&RULES, data_out(u32::MAX, 0, 600, &[2; 424], true))
            .unwrap();
        assert!(gather.is_complete());
        assert_eq!(gather.ask(&RULES, TransferTag(1)), None);
        assert_eq!(gather.into_data(), vec![1; 512]);
    }

    proptest! {
        // The oracle is the data itself, sent by a naive initiator that follows the rules.
        #[test]
        fn whatever_the_rules_all_data_arrives_in_place(
            length in 0_u32..20_000,
            first_burst in 512_u32..4096,
            burst in 512_u32..4096,
            outstanding in 1_u32..5,
            segment in 1_u32..3000,
            initial_r2t in any::<bool>(),
            immediate in 0_u32..4096,
        ) {
            let rules = Rules {
                initial_r2t,
                immediate_data: true,
                first_burst_bytes: first_burst,
                burst_bytes: burst,
                outstanding_r2t: outstanding,
            };
            let data: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let data = Bytes::from(data);
            let immediate = immediate.min(length).min(first_burst);
            let first_end = if initial_r2t { immediate } else { first_burst.min(length) };
            let mut gather = Gather::begin(
                &rules, length, length, data.slice(..immediate as usize), immediate == first_end,
            ).unwrap();
            let send = |gather: &mut Gather, transfer: u32, from: u32, to: u32| {
                let (mut at, mut number) = (from, 0);
                while at < to {
                    let end = to.min(at + segment);
                    let piece = &data[at as usize..end as usize];
                    let pdu = data_out(transfer, number, at, piece, end == to);
                    gather.receive(&rules, pdu).unwrap();
                    (at, number) = (end, number + 1);
                }
            };
            send(&mut gather, u32::MAX, immediate, first_end);
            let (mut tag, mut asked) = (0, VecDeque::new());
            loop {
                while let Some(wanted) = gather.ask(&rules, TransferTag(tag)) {
                    prop_assert!(wanted.bytes <= burst);
                    asked.push_back((tag, wanted));
                    tag += 1;
                }
                prop_assert!(asked.len() <= outstanding as usize);
                let Some((tag, wanted)) = asked.pop_front() else { break };
                send(&mut gather, tag, wanted.offset, wanted.offset + wanted.bytes);
            }
            prop_assert!(gather.is_complete());
            prop_assert_eq!(gather.into_data(), data);
        }
    }
}
