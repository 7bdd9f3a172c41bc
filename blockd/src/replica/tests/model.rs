//! A naive volume: the bytes of every sector now, in each snapshot, and as they were since they were
//! last durable.

use std::collections::{BTreeMap, VecDeque};

/// Sectors of a volume are filled with one byte each in these tests.
pub(super) const SECTOR: u64 = 512;

/// Contents of one point in time: the byte of every sector.
pub(super) type Contents = Vec<u8>;

/// What an operation that has not succeeded may have made of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Nothing that can be read.
    Nothing,
    /// This, in some of its sectors.
    Parts(Contents),
    /// All of this.
    Whole(Contents),
}

/// How a machine or a process has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The process was killed: everything acknowledged is there.
    Kill,
    /// The power failed: everything flushed is there.
    PowerCut,
}

/// The tree of contents.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) head: u64,
    pub(super) now: Contents,
    /// Contents of each sealed layer that is not to go away.
    pub(super) sealed: BTreeMap<u64, Contents>,
    /// What is under way.
    pub(super) attempt: Attempt,
    /// The greatest epoch that an engine was told is obeyed.
    pub(super) epoch: u64,
    /// The states before `now`, back to the one that is durable.
    past: VecDeque<Contents>,
    /// How many states were before those.
    forgotten: usize,
}

fn at(contents: &Contents, sector: usize) -> u8 {
    contents.get(sector).copied().unwrap_or(0)
}

impl Model {
    pub(super) fn new(sectors: u64) -> Self {
        Self {
            head: 1,
            now: vec![0; usize::try_from(sectors).unwrap()],
            sealed: BTreeMap::new(),
            attempt: Attempt::Nothing,
            epoch: 0,
            past: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Of a clone that begins as this sealed layer, which is in a chain of these.
    pub(super) fn cloned(&self, at: u64, chain: &[u64], head: u64) -> Self {
        let mut sealed = self.sealed.clone();
        sealed.retain(|id, _| chain.contains(id));
        Self {
            head,
            now: self.reverted(at),
            sealed,
            ..Self::new(0)
        }
    }

    /// The contents with these sectors filled.
    pub(super) fn filled(&self, first: u64, count: u64, byte: u8) -> Contents {
        let mut after = self.now.clone();
        let first = usize::try_from(first).unwrap();
        after[first..first + usize::try_from(count).unwrap()].fill(byte);
        after
    }

    /// The contents of a larger volume.
    pub(super) fn grown(&self, blocks: u64) -> Contents {
        let mut after = self.now.clone();
        after.resize(usize::try_from(blocks * 8).unwrap(), 0);
        after
    }

    /// The contents of a sealed layer, as large as the volume is now.
    pub(super) fn reverted(&self, to: u64) -> Contents {
        let mut after = self.sealed[&to].clone();
        after.resize(self.now.len(), 0);
        after
    }

    /// The part of a range that the volume has now.
    pub(super) fn inside(&self, first: u64, count: u64) -> (u64, u64) {
        let end = self.now.len() as u64;
        (first.min(end), count.min(end.saturating_sub(first)))
    }

    /// A sealed layer that is not being removed.
    pub(super) fn choose(&self, which: usize) -> Option<u64> {
        let count = self.sealed.len();
        let mut layers = self.sealed.keys().copied();
        (count > 0).then(|| layers.nth(which % count)).flatten()
    }

    fn turn_into(&mut self, now: Contents) {
        self.past.push_back(std::mem::replace(&mut self.now, now));
    }

    /// What was attempted is acknowledged.
    pub(super) fn succeed(&mut self) {
        match std::mem::replace(&mut self.attempt, Attempt::Nothing) {
            Attempt::Nothing => {}
            Attempt::Parts(now) | Attempt::Whole(now) => self.turn_into(now),
        }
    }

    /// What was attempted is refused, and this is what the volume reads as now. Until a flush has
    /// covered that, a crash may still show what was attempted.
    pub(super) fn refuse(&mut self, found: &Contents) {
        self.check(found, Stop::Kill);
        assert_eq!(found.len(), self.now.len(), "a refused operation has grown");
        match std::mem::replace(&mut self.attempt, Attempt::Nothing) {
            Attempt::Parts(after) => {
                self.turn_into(after);
                self.turn_into(found.clone());
            }
            Attempt::Nothing | Attempt::Whole(_) => assert!(*found == self.now, "torn"),
        }
    }

    pub(super) fn seal(&mut self, new_head: u64) {
        self.sealed.insert(self.head, self.now.clone());
        self.head = new_head;
        self.is_durable(self.moment());
    }

    pub(super) fn revert(&mut self, new_head: u64) {
        self.succeed();
        self.head = new_head;
        self.is_durable(self.moment());
    }

    /// Names the present state.
    pub(super) fn moment(&self) -> usize {
        self.forgotten + self.past.len()
    }

    /// The state of that moment, or what came after it, is what a crash leaves.
    pub(super) fn is_durable(&mut self, moment: usize) {
        while self.forgotten < moment {
            self.past.pop_front();
            self.forgotten += 1;
        }
    }

    /// Compares what is found after a stop with what was promised: after a kill everything
    /// acknowledged, after a power cut for each sector one of the values that it has had since it was
    /// last durable; and of what was under way some or all.
    pub(super) fn check(&self, found: &Contents, stop: Stop) {
        let since = match stop {
            Stop::Kill => self.past.len(),
            Stop::PowerCut => 0,
        };
        let mut states: Vec<&Contents> = self.past.iter().skip(since).collect();
        states.push(&self.now);
        let mut sizes = vec![self.now.len()];
        match &self.attempt {
            Attempt::Whole(whole) if found == whole => return,
            Attempt::Parts(after) => {
                sizes.push(after.len());
                states.push(after);
            }
            Attempt::Whole(_) | Attempt::Nothing => {}
        }
        assert!(sizes.contains(&found.len()), "{} sectors", found.len());
        if states.last() == Some(&found) {
            return;
        }
        for (sector, byte) in found.iter().enumerate() {
            if !states.iter().any(|state| at(state, sector) == *byte) {
                let values: Vec<u8> = states.iter().map(|state| at(state, sector)).collect();
                panic!("sector {sector} reads as {byte}, not as one of {values:?}");
            }
        }
    }
}

/// The bytes as sectors; each must be of one value.
pub(super) fn sectors(bytes: &[u8]) -> Contents {
    bytes
        .chunks(usize::try_from(SECTOR).unwrap())
        .map(|sector| {
            assert_eq!(sector[1..], sector[..sector.len() - 1], "a torn sector");
            sector[0]
        })
        .collect()
}
