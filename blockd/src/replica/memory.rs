//! Which mutations may not be complete on all replicas.
//!
//! The order of mutations is (epoch, sequence): a watermark above 0 says that everything an
//! earlier engine left in flight is complete too. What is remembered is bounded; what would not
//! fit is refused, or, at the change of engines, the memory counts as lost, which is always safe.

use std::collections::VecDeque;

use ankole_proto::wire::REQUESTS_IN_FLIGHT_MAX;
use ankole_proto::wire::body::{InFlight, Memory};
use ankole_proto::{Extent, Sequence};

/// What earlier engines left is remembered up to here: Open's answer has room for this and for
/// what its own engine has in flight.
const EARLIER_MAX: usize = REQUESTS_IN_FLIGHT_MAX;

/// More mutations above the watermark than are remembered (INV-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryFull;

/// Since when the memory is whole again after it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Nothing is missing.
    None,
    /// Lost, and no engine has opened the replica since.
    Unopened,
    /// The engine of the loss is back; its next watermark tells how far its mutations may reach.
    SameEngine,
    /// Whole once the watermark reaches this.
    Until(Sequence),
}

/// Whether what was acknowledged and not flushed is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// The host has not restarted since: it is.
    Same,
    /// It may be gone.
    MayHaveRestarted,
}

/// The memory of mutations in flight.
#[derive(Debug)]
pub(crate) struct Recollection {
    clean: bool,
    loss: Loss,
    host: Host,
    watermark: Sequence,
    earlier: Vec<InFlight>,
    current: VecDeque<InFlight>,
}

impl Recollection {
    /// Of a replica that was just loaded.
    pub(crate) const fn loaded(clean: bool) -> Self {
        Self {
            clean,
            loss: if clean { Loss::None } else { Loss::Unopened },
            host: Host::MayHaveRestarted,
            watermark: Sequence::ZERO,
            earlier: Vec::new(),
            current: VecDeque::new(),
        }
    }

    /// What it is worth.
    pub(crate) const fn kind(&self) -> Memory {
        match (self.clean, self.loss, self.host) {
            (true, _, _) => Memory::Clean,
            (false, Loss::None, _) => Memory::Kept,
            (false, _, Host::Same) => Memory::Restarted,
            (false, _, Host::MayHaveRestarted) => Memory::Lost,
        }
    }

    /// The replica was last opened in the present boot of its host.
    pub(crate) const fn same_boot(&mut self) {
        self.host = Host::Same;
    }

    /// What it holds; nothing when it is clean or lost.
    pub(crate) fn in_flight(&self) -> Vec<InFlight> {
        match self.kind() {
            Memory::Kept => self.earlier.iter().chain(&self.current).copied().collect(),
            Memory::Clean | Memory::Lost | Memory::Restarted => Vec::new(),
        }
    }

    /// An engine opens the replica, after its answer was taken from here.
    pub(crate) fn opened(&mut self, newer_epoch: bool) {
        self.clean = false;
        if newer_epoch {
            self.watermark = Sequence::ZERO;
            self.earlier.extend(self.current.drain(..));
            self.earlier.sort_unstable_by_key(|entry| entry.extent);
            self.earlier.dedup_by_key(|entry| entry.extent);
            if self.earlier.len() > EARLIER_MAX {
                self.earlier.clear();
                self.loss = Loss::Unopened;
                self.host = Host::Same;
            }
            if self.loss != Loss::None {
                self.loss = Loss::Until(Sequence::from_raw(1));
            }
        } else if self.loss == Loss::Unopened {
            self.loss = Loss::SameEngine;
        }
    }

    /// The engine closed in order, or a rebuild made the replica equal.
    pub(crate) fn forget(&mut self, clean: bool) {
        self.clean = clean;
        self.loss = Loss::None;
        self.earlier.clear();
        self.current.clear();
    }

    /// Everything up to `watermark` is complete on all replicas.
    pub(crate) fn advance(&mut self, watermark: Sequence) {
        if self.loss == Loss::SameEngine {
            let reach = watermark
                .raw()
                .saturating_add(REQUESTS_IN_FLIGHT_MAX as u64);
            self.loss = Loss::Until(Sequence::from_raw(reach));
        }
        if watermark <= self.watermark {
            return;
        }
        self.watermark = watermark;
        self.earlier.clear();
        while self
            .current
            .front()
            .is_some_and(|entry| entry.sequence <= watermark)
        {
            self.current.pop_front();
        }
        if matches!(self.loss, Loss::Until(whole) if whole <= watermark) {
            self.loss = Loss::None;
        }
    }

    /// A mutation is about to be carried out, or was sent again.
    pub(crate) fn note(&mut self, sequence: Sequence, extent: Extent) -> Result<(), MemoryFull> {
        if sequence <= self.watermark {
            return Ok(());
        }
        let place = self
            .current
            .partition_point(|entry| entry.sequence < sequence);
        if let Some(entry) = self.current.get_mut(place)
            && entry.sequence == sequence
        {
            entry.extent = extent;
            return Ok(());
        }
        if self.current.len() >= REQUESTS_IN_FLIGHT_MAX {
            return Err(MemoryFull);
        }
        self.current.insert(place, InFlight { sequence, extent });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(raw: u64) -> Sequence {
        Sequence::from_raw(raw)
    }

    fn extent(block: u64) -> Extent {
        Extent::new(block * 4096, 4096).unwrap()
    }

    fn open() -> Recollection {
        let mut memory = Recollection::loaded(true);
        memory.opened(true);
        memory
    }

    #[test]
    fn what_the_watermark_passes_is_forgotten() {
        let mut memory = open();
        for raw in [2, 1, 3] {
            memory.note(sequence(raw), extent(raw)).unwrap();
        }
        memory.advance(sequence(2));
        assert_eq!(memory.in_flight().len(), 1);
        assert_eq!(memory.in_flight()[0].sequence, sequence(3));
    }

    #[test]
    fn a_mutation_sent_again_is_remembered_once() {
        let mut memory = open();
        memory.note(sequence(1), extent(1)).unwrap();
        memory.note(sequence(1), extent(1)).unwrap();
        assert_eq!(memory.in_flight().len(), 1);
    }

    #[test]
    fn the_next_engine_is_told_until_its_own_watermark_moves() {
        let mut memory = open();
        memory.note(sequence(9), extent(1)).unwrap();
        memory.opened(true);
        memory.note(sequence(1), extent(2)).unwrap();
        memory.opened(true);
        assert_eq!(memory.in_flight().len(), 2);
        memory.advance(sequence(1));
        assert!(memory.in_flight().is_empty());
        assert_eq!(memory.kind(), Memory::Kept);
    }

    #[test]
    fn more_than_the_bound_is_refused() {
        let mut memory = open();
        for raw in 1..=REQUESTS_IN_FLIGHT_MAX as u64 {
            memory.note(sequence(raw), extent(raw)).unwrap();
        }
        assert_eq!(memory.note(sequence(5000), extent(1)), Err(MemoryFull));
        memory.advance(sequence(1));
        assert_eq!(memory.note(sequence(5000), extent(1)), Ok(()));
    }

    #[test]
    fn a_lost_memory_is_whole_once_the_watermark_is_past_all_that_was_in_flight() {
        let mut memory = Recollection::loaded(false);
        memory.opened(false);
        memory.advance(sequence(10));
        memory.advance(sequence(11));
        assert_eq!(memory.kind(), Memory::Lost);
        memory.advance(sequence(10 + REQUESTS_IN_FLIGHT_MAX as u64));
        assert_eq!(memory.kind(), Memory::Kept);

        let mut memory = Recollection::loaded(false);
        memory.opened(true);
        assert_eq!(memory.kind(), Memory::Lost);
        memory.advance(sequence(1));
        assert_eq!(memory.kind(), Memory::Kept);
    }
}
