//! The mutations that are not complete on all replicas, by sequence number, and the watermark.

use std::collections::VecDeque;

use ankole_proto::Sequence;
use ankole_proto::wire::{Header, REQUESTS_IN_FLIGHT_MAX};
use bytes::Bytes;

use super::job::JobId;
use super::replica::SlotSet;
use crate::volume::Failure;

/// Sequence numbers between the watermark and the newest mutation. A replica remembers the ranges
/// above the watermark, and as many of them.
pub(super) const WINDOW_MAX: u64 = REQUESTS_IN_FLIGHT_MAX as u64;

/// One mutation: sent to every replica that is open, done when all required ones have it.
#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) job: JobId,
    /// As it is sent, but for request id and watermark.
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// Replicas that have it.
    pub(super) acked: SlotSet,
    /// Replicas that refused it.
    pub(super) refused: SlotSet,
    /// Why, for the user.
    pub(super) why: Failure,
    /// Replicas whose answer is awaited on a living link.
    pub(super) outstanding: SlotSet,
    pub(super) verdict: Verdict,
}

/// What is known of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Some required replica has not answered.
    Open,
    /// Every required replica has it (INV-2).
    Done,
    /// Every required replica refused it; none has it.
    Refused,
}

/// The mutations in order.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The first stands for sequence number `base + 1`.
    mutations: VecDeque<Option<Mutation>>,
    base: u64,
    watermark: u64,
    /// The watermark stays 0 until what the previous engine left in flight is equal everywhere: a
    /// replica forgets those ranges at this engine's first watermark above 0.
    frozen: bool,
}

impl Window {
    /// With the watermark held at 0.
    pub(super) fn frozen() -> Self {
        Self {
            frozen: true,
            ..Self::default()
        }
    }

    /// Lets the watermark go.
    pub(super) fn thaw(&mut self) {
        self.frozen = false;
        self.advance();
    }

    fn newest(&self) -> u64 {
        self.base + self.mutations.len() as u64
    }

    /// Whether another mutation may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.newest() - self.base < WINDOW_MAX
    }

    /// The next mutation's sequence number.
    pub(super) fn next(&self) -> Sequence {
        Sequence::from_raw(self.newest() + 1)
    }

    /// Adds the mutation whose number [`Window::next`] gave.
    pub(super) fn push(&mut self, mutation: Mutation) {
        self.mutations.push_back(Some(mutation));
    }

    /// Passes over as many numbers as a replica remembers. No mutation is sent until all that came
    /// before are complete; then the watermark says so to a replica that forgot what was in flight,
    /// and cannot know how far that reached.
    pub(super) fn skip(&mut self) {
        let passed = self.mutations.len() + REQUESTS_IN_FLIGHT_MAX;
        self.mutations.resize_with(passed, || None);
        self.advance();
    }

    fn index(&self, sequence: Sequence) -> Option<usize> {
        let at = sequence.raw().checked_sub(self.base + 1)?;
        usize::try_from(at).ok()
    }

    pub(super) fn find_mut(&mut self, sequence: Sequence) -> Option<&mut Mutation> {
        let at = self.index(sequence)?;
        self.mutations.get_mut(at)?.as_mut()
    }

    /// Takes out a mutation that no replica is working on any more.
    pub(super) fn retire(&mut self, sequence: Sequence) {
        if let Some(at) = self.index(sequence)
            && let Some(place) = self.mutations.get_mut(at)
        {
            *place = None;
        }
        self.advance();
    }

    /// Moves the watermark over everything that is complete.
    pub(super) fn advance(&mut self) {
        if self.frozen {
            return;
        }
        while self.watermark < self.newest() {
            let at = self.index(Sequence::from_raw(self.watermark + 1));
            let open = at
                .and_then(|at| self.mutations.get(at))
                .and_then(Option::as_ref)
                .is_some_and(|mutation| mutation.verdict == Verdict::Open);
            if open {
                break;
            }
            self.watermark += 1;
        }
        while self.base < self.watermark && matches!(self.mutations.front(), Some(None)) {
            self.mutations.pop_front();
            self.base += 1;
        }
    }

    /// Every mutation up to it is complete on all required replicas.
    pub(super) fn watermark(&self) -> Sequence {
        Sequence::from_raw(self.watermark)
    }

    /// Those still in hand, oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Sequence, &mut Mutation)> {
        let base = self.base;
        (base + 1..)
            .zip(self.mutations.iter_mut())
            .filter_map(|(raw, place)| Some((Sequence::from_raw(raw), place.as_mut()?)))
    }

    /// Those still in hand, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Sequence, &Mutation)> {
        let base = self.base;
        (base + 1..)
            .zip(self.mutations.iter())
            .filter_map(|(raw, place)| Some((Sequence::from_raw(raw), place.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation() -> Mutation {
        Mutation {
            job: JobId(1),
            header: Header::request(ankole_proto::wire::Opcode::Write, 0),
            payload: Bytes::new(),
            acked: SlotSet::default(),
            refused: SlotSet::default(),
            why: Failure::Busy,
            outstanding: SlotSet::default(),
            verdict: Verdict::Open,
        }
    }

    #[test]
    fn what_is_skipped_is_passed_when_all_before_is_complete_and_not_sooner() {
        let mut window = Window::default();
        window.skip();
        assert_eq!(window.watermark().raw(), WINDOW_MAX);
        assert!(window.has_room(), "nothing was in flight");
        let sequence = window.next();
        window.push(mutation());
        window.skip();
        assert_eq!(window.watermark().raw(), WINDOW_MAX);
        assert!(!window.has_room(), "one is in flight");
        if let Some(mutation) = window.find_mut(sequence) {
            mutation.verdict = Verdict::Done;
        }
        window.retire(sequence);
        assert_eq!(window.watermark().raw(), 2 * WINDOW_MAX + 1);
        assert_eq!(window.next().raw(), 2 * WINDOW_MAX + 2);
        assert!(window.has_room());
    }
}
