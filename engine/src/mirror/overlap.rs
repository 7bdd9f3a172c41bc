//! Range locks: never two overlapping operations in flight of which one is a write.
//!
//! First come, first served: a lock waits for every earlier one, held or waiting, that it conflicts
//! with, so nobody starves. Each lock counts those it waits for; a release counts the later ones
//! down. Overlaps are found through one ordered set per power of two of the length: of the locks
//! not longer than 2^n, those that overlap `[a, b)` begin in `(a − 2^n, b)`.
//!
//! A copy from one place to another takes both under one ticket, so that no two of them can wait
//! for each other.

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
    /// Held shared, beside the extent, which it does not overlap.
    source: Option<Extent>,
    /// Counts pairs of ranges.
    waits_for: usize,
}

impl Lock {
    fn ranges(&self) -> impl Iterator<Item = (Extent, Mode)> + use<> {
        let source = self.source.map(|extent| (extent, Mode::Shared));
        std::iter::once((self.extent, self.mode)).chain(source)
    }
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

/// Both of two that overlap.
fn hull(one: Extent, other: Extent) -> Extent {
    let start = one.offset().min(other.offset());
    let end = one.end().max(other.end());
    Extent::new(start, end - start).unwrap_or(one)
}

impl RangeLocks {
    /// Takes or queues a lock of `extent`, and of `source` shared; `true` when it is held at once.
    ///
    /// # Panics
    ///
    /// When the ticket is not newer than every other: the order of arrival would be lost.
    pub(super) fn acquire(
        &mut self,
        id: JobId,
        extent: Extent,
        mode: Mode,
        source: Option<Extent>,
    ) -> bool {
        if let Some((newest, _)) = self.locks.last_key_value() {
            assert!(*newest < id, "lock {id:?} after {newest:?}");
        }
        let (extent, source) = match source {
            Some(source) if source.overlaps(extent) => (hull(extent, source), None),
            other => (extent, other),
        };
        let mut lock = Lock {
            extent,
            mode,
            source,
            waits_for: 0,
        };
        let mut waits_for = 0;
        for (extent, mode) in lock.ranges() {
            self.for_conflicts(extent, mode, |_| waits_for += 1);
        }
        for (extent, _) in lock.ranges() {
            self.by_length
                .entry(length_class(extent))
                .or_default()
                .insert((extent.offset(), id));
        }
        lock.waits_for = waits_for;
        self.locks.insert(id, lock);
        waits_for == 0
    }

    /// Gives a lock back, or stops waiting for it, and adds the locks that are held from now on to
    /// `granted`, oldest first. Nothing happens when there is no such lock.
    pub(super) fn release(&mut self, id: JobId, granted: &mut Vec<JobId>) {
        let Some(lock) = self.locks.remove(&id) else {
            return;
        };
        for (extent, _) in lock.ranges() {
            let class = length_class(extent);
            if let Some(set) = self.by_length.get_mut(&class) {
                set.remove(&(extent.offset(), id));
                if set.is_empty() {
                    self.by_length.remove(&class);
                }
            }
        }
        let mut later = Vec::new();
        for (extent, mode) in lock.ranges() {
            self.for_conflicts(extent, mode, |other| {
                if other > id {
                    later.push(other);
                }
            });
        }
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
            for (offset, id) in set.range((from, JobId::FIRST)..(extent.end(), JobId::FIRST)) {
                let Some(other) = self.locks.get(id) else {
                    continue;
                };
                // The two ranges of a lock do not overlap, so that they begin apart.
                let mut ranges = other.ranges();
                let Some((theirs, their_mode)) = ranges.find(|(one, _)| one.offset() == *offset)
                else {
                    continue;
                };
                let conflict = mode == Mode::Exclusive || their_mode == Mode::Exclusive;
                if conflict && theirs.overlaps(extent) {
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
        assert!(locks.acquire(JobId(1), extent(0, 8), Mode::Shared, None));
        assert!(locks.acquire(JobId(2), extent(4, 8), Mode::Shared, None));
        assert!(!locks.acquire(JobId(3), extent(6, 1), Mode::Exclusive, None));
        let mut granted = Vec::new();
        locks.release(JobId(1), &mut granted);
        assert!(granted.is_empty());
        locks.release(JobId(2), &mut granted);
        assert_eq!(granted, [JobId(3)]);
    }

    #[test]
    fn a_read_does_not_overtake_a_waiting_write() {
        let mut locks = RangeLocks::default();
        assert!(locks.acquire(JobId(1), extent(0, 8), Mode::Shared, None));
        assert!(!locks.acquire(JobId(2), extent(0, 8), Mode::Exclusive, None));
        assert!(!locks.acquire(JobId(3), extent(0, 8), Mode::Shared, None));
        let mut granted = Vec::new();
        locks.release(JobId(2), &mut granted);
        assert_eq!(granted, [JobId(3)], "a waiting lock can be given up");
    }

    #[derive(Debug, Clone)]
    enum Act {
        Acquire(u64, u64, bool),
        Copy(u64, u64, u64),
        Release(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let length = prop_oneof![1u64..5, 1u64..200, Just(4096u64)];
        prop_oneof![
            (0u64..300, length, any::<bool>()).prop_map(|(o, l, w)| Act::Acquire(o, l, w)),
            (0u64..300, 0u64..300, 1u64..60).prop_map(|(f, t, l)| Act::Copy(f, t, l)),
            (0usize..64).prop_map(Act::Release),
        ]
    }

    /// A lock's ranges, and whether it will write there.
    type Held = (JobId, Vec<(Extent, bool)>);

    /// The oracle: a lock is held when no earlier one in the list conflicts with it.
    fn held(list: &[Held]) -> BTreeSet<JobId> {
        let conflict = |a: &Held, b: &Held| {
            let pairs = a.1.iter().flat_map(|a| b.1.iter().map(move |b| (a, b)));
            pairs
                .into_iter()
                .any(|(a, b)| (a.1 || b.1) && a.0.overlaps(b.0))
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
            let mut list: Vec<Held> = Vec::new();
            let mut have = BTreeSet::new();
            for (at, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Acquire(offset, length, write) => {
                        let id = JobId(at as u64 + 1);
                        let mode = if write { Mode::Exclusive } else { Mode::Shared };
                        list.push((id, vec![(extent(offset, length), write)]));
                        if locks.acquire(id, extent(offset, length), mode, None) {
                            have.insert(id);
                        }
                    }
                    Act::Copy(from, to, length) => {
                        let id = JobId(at as u64 + 1);
                        let (from, to) = (extent(from, length), extent(to, length));
                        // Of two that overlap all is locked alone.
                        list.push((id, vec![(to, true), (from, from.overlaps(to))]));
                        if locks.acquire(id, to, Mode::Exclusive, Some(from)) {
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
