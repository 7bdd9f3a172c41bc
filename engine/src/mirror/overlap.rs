//! Range locks: never two overlapping operations in flight of which one is a write.
//!
//! First come, first served: a lock waits for every earlier one, held or waiting, that it conflicts
//! with, so nobody starves. Each lock counts those it waits for; a release counts the later ones
//! down. Overlaps are found through one ordered set per power of two of the length: of the locks
//! not longer than 2^n, those that overlap `[a, b)` begin in `(a − 2^n, b)`.

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::Extent;

use super::job::JobId;

/// Whether others may hold the same range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// With other shared ones.
    Shared,
    /// Alone.
    Exclusive,
}

#[derive(Debug)]
struct Lock {
    extent: Extent,
    mode: Mode,
    waits_for: usize,
}

/// The locks of one volume, held and waiting. Tickets grow in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct RangeLocks {
    locks: BTreeMap<JobId, Lock>,
    by_length: BTreeMap<u32, BTreeSet<(u64, JobId)>>,
}

fn length_class(extent: Extent) -> u32 {
    u64::BITS - extent.length().saturating_sub(1).leading_zeros()
}

fn class_bytes(class: u32) -> u64 {
    1u64.checked_shl(class).unwrap_or(u64::MAX)
}

impl RangeLocks {
    /// Takes or queues a lock; `true` when it is held at once.
    ///
    /// # Panics
    ///
    /// When the ticket is not newer than every other: the order of arrival would be lost.
    pub(super) fn acquire(&mut self, id: JobId, extent: Extent, mode: Mode) -> bool {
        if let Some((newest, _)) = self.locks.last_key_value() {
            assert!(*newest < id, "lock {id:?} after {newest:?}");
        }
        let mut waits_for = 0;
        self.for_conflicts(extent, mode, |_| waits_for += 1);
        self.by_length
            .entry(length_class(extent))
            .or_default()
            .insert((extent.offset(), id));
        let lock = Lock {
            extent,
            mode,
            waits_for,
        };
        self.locks.insert(id, lock);
        waits_for == 0
    }

    /// Gives a lock back, or stops waiting for it, and adds the locks that are held from now on to
    /// `granted`, oldest first. Nothing happens when there is no such lock.
    pub(super) fn release(&mut self, id: JobId, granted: &mut Vec<JobId>) {
        let Some(lock) = self.locks.remove(&id) else {
            return;
        };
        let class = length_class(lock.extent);
        if let Some(set) = self.by_length.get_mut(&class) {
            set.remove(&(lock.extent.offset(), id));
            if set.is_empty() {
                self.by_length.remove(&class);
            }
        }
        let mut later = Vec::new();
        self.for_conflicts(lock.extent, lock.mode, |other| {
            if other > id {
                later.push(other);
            }
        });
        later.sort_unstable();
        for other in later {
            if let Some(waiting) = self.locks.get_mut(&other) {
                waiting.waits_for -= 1;
                if waiting.waits_for == 0 {
                    granted.push(other);
                }
            }
        }
    }

    fn for_conflicts(&self, extent: Extent, mode: Mode, mut found: impl FnMut(JobId)) {
        for (class, set) in &self.by_length {
            let from = extent.offset().saturating_sub(class_bytes(*class));
            for (_, id) in set.range((from, JobId::FIRST)..(extent.end(), JobId::FIRST)) {
                let Some(other) = self.locks.get(id) else {
                    continue;
                };
                let conflict = mode == Mode::Exclusive || other.mode == Mode::Exclusive;
                if conflict && other.extent.overlaps(extent) {
                    found(*id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    #[test]
    fn reads_share_and_a_write_waits_for_them() {
        let mut locks = RangeLocks::default();
        assert!(locks.acquire(JobId(1), extent(0, 8), Mode::Shared));
        assert!(locks.acquire(JobId(2), extent(4, 8), Mode::Shared));
        assert!(!locks.acquire(JobId(3), extent(6, 1), Mode::Exclusive));
        let mut granted = Vec::new();
        locks.release(JobId(1), &mut granted);
        assert!(granted.is_empty());
        locks.release(JobId(2), &mut granted);
        assert_eq!(granted, [JobId(3)]);
    }

    #[test]
    fn a_read_does_not_overtake_a_waiting_write() {
        let mut locks = RangeLocks::default();
        assert!(locks.acquire(JobId(1), extent(0, 8), Mode::Shared));
        assert!(!locks.acquire(JobId(2), extent(0, 8), Mode::Exclusive));
        assert!(!locks.acquire(JobId(3), extent(0, 8), Mode::Shared));
        let mut granted = Vec::new();
        locks.release(JobId(2), &mut granted);
        assert_eq!(granted, [JobId(3)], "a waiting lock can be given up");
    }

    #[derive(Debug, Clone)]
    enum Act {
        Acquire(u64, u64, bool),
        Release(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let length = prop_oneof![1u64..5, 1u64..200, Just(4096u64)];
        prop_oneof![
            (0u64..300, length, any::<bool>()).prop_map(|(o, l, w)| Act::Acquire(o, l, w)),
            (0usize..64).prop_map(Act::Release),
        ]
    }

    /// The oracle: a lock is held when no earlier one in the list conflicts with it.
    fn held(list: &[(JobId, Extent, bool)]) -> BTreeSet<JobId> {
        let conflict = |a: &(JobId, Extent, bool), b: &(JobId, Extent, bool)| {
            (a.2 || b.2) && a.1.overlaps(b.1)
        };
        list.iter()
            .enumerate()
            .filter(|(at, lock)| !list[..*at].iter().any(|earlier| conflict(earlier, lock)))
            .map(|(_, lock)| lock.0)
            .collect()
    }

    proptest! {
        #[test]
        fn the_locks_agree_with_a_list(acts in proptest::collection::vec(act(), 1..120)) {
            let mut locks = RangeLocks::default();
            let mut list: Vec<(JobId, Extent, bool)> = Vec::new();
            let mut have = BTreeSet::new();
            for (at, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Acquire(offset, length, write) => {
                        let id = JobId(at as u64 + 1);
                        let mode = if write { Mode::Exclusive } else { Mode::Shared };
                        list.push((id, extent(offset, length), write));
                        if locks.acquire(id, extent(offset, length), mode) {
                            have.insert(id);
                        }
                    }
                    Act::Release(which) if !list.is_empty() => {
                        let (id, ..) = list.remove(which % list.len());
                        let mut granted = Vec::new();
                        locks.release(id, &mut granted);
                        have.remove(&id);
                        have.extend(granted);
                    }
                    Act::Release(_) => {}
                }
                prop_assert_eq!(&have, &held(&list));
            }
        }
    }
}
