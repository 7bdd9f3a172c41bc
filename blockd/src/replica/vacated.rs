//! Places of the head's image that the map no longer counts but that may still hold old data.
//!
//! A place is *hidden* from when its blocks are unmapped until the map record that says so is
//! durable; only then may it be punched (else a crash could show an older layer's value), and then
//! it is *punched* until a sync of the image has made the hole durable (else a crash after the next
//! write could show what was there before). Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// The most ranges that wait; more make the next unmap sync at once (INV-12).
pub(crate) const RANGES_MAX: usize = 4096;

/// Ranges of block numbers, each with the number of the map change that hid it.
#[derive(Debug, Default)]
pub(crate) struct Vacated {
    hidden: BTreeMap<u64, (u64, u64)>,
    punched: BTreeMap<u64, (u64, u64)>,
}

fn cut(ranges: &mut BTreeMap<u64, (u64, u64)>, range: &Range<u64>) {
    let touched: Vec<(u64, (u64, u64))> = ranges
        .range(..range.end)
        .rev()
        .take_while(|(_, (end, _))| *end > range.start)
        .map(|(start, rest)| (*start, *rest))
        .collect();
    for (start, (end, stamp)) in touched {
        ranges.remove(&start);
        if start < range.start {
            ranges.insert(start, (range.start, stamp));
        }
        if end > range.end {
            ranges.insert(range.end, (end, stamp));
        }
    }
}

/// Adds a range and joins it with the one before it, when that one's stamp is above `join_above`.
fn put(
    ranges: &mut BTreeMap<u64, (u64, u64)>,
    range: Range<u64>,
    stamp: u64,
    join_above: Option<u64>,
) {
    cut(ranges, &range);
    let before = ranges.range(..range.start).next_back();
    match before.map(|(start, (end, before))| (*start, *end, *before)) {
        Some((start, end, before))
            if end == range.start && join_above.is_none_or(|above| before > above) =>
        {
            ranges.insert(start, (range.end, before.max(stamp)));
        }
        _ => {
            ranges.insert(range.start, (range.end, stamp));
        }
    }
}

fn touches(ranges: &BTreeMap<u64, (u64, u64)>, range: &Range<u64>) -> bool {
    ranges
        .range(..range.end)
        .next_back()
        .is_some_and(|(_, (end, _))| *end > range.start)
}

impl Vacated {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.hidden.is_empty() && self.punched.is_empty()
    }

    /// Whether more waits than may.
    pub(crate) fn is_full(&self) -> bool {
        self.hidden.len() + self.punched.len() > RANGES_MAX
    }

    /// Whether places wait to be punched.
    pub(crate) fn has_hidden(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// The map change `stamp` hid the range; a flush that covers those up to `planned` is the last
    /// that began. Only ranges that the same flush will cover are joined.
    pub(crate) fn hide(&mut self, range: Range<u64>, stamp: u64, planned: u64) {
        put(&mut self.hidden, range, stamp, Some(planned));
    }

    /// Whether writing here must wait until the holes are durable. Places that were hidden after the
    /// map change `planned`, up to which a flush is done or under way, may be written at once: their
    /// old value is one that a crash may show. Those of a flush under way may not. Its sync of the
    /// map would make durable that they hold data again, when it may not have synced that data.
    pub(crate) fn must_settle(&self, range: &Range<u64>, planned: u64) -> bool {
        touches(&self.punched, range)
            || self
                .hidden
                .range(..range.end)
                .rev()
                .take_while(|(_, (end, _))| *end > range.start)
                .any(|(_, (_, stamp))| *stamp <= planned)
    }

    /// The range holds data again.
    pub(crate) fn reuse(&mut self, range: &Range<u64>) {
        cut(&mut self.hidden, range);
    }

    /// The ranges that may be punched now that every map change up to `map_synced` is durable.
    pub(crate) fn punchable(&self, map_synced: u64) -> Vec<Range<u64>> {
        self.hidden
            .iter()
            .filter(|(_, (_, stamp))| *stamp <= map_synced)
            .map(|(start, (end, _))| *start..*end)
            .collect()
    }

    /// The range was punched after `plans` plans were made.
    pub(crate) fn punched(&mut self, range: Range<u64>, plans: u64) {
        cut(&mut self.hidden, &range);
        put(&mut self.punched, range, plans, None);
    }

    /// The image was synced by plan number `plan`: earlier holes are durable.
    pub(crate) fn image_synced(&mut self, plan: u64) {
        self.punched.retain(|_, (_, plans)| *plans >= plan);
    }

    /// Forgets everything: another head, or all is durable.
    pub(crate) fn clear(&mut self) {
        self.hidden.clear();
        self.punched.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durably_hidden_places_are_punched() {
        let mut vacated = Vacated::default();
        vacated.hide(0..4, 1, 0);
        vacated.hide(10..12, 2, 0);
        assert_eq!(vacated.punchable(1), vec![Range { start: 0, end: 4 }]);
        assert_eq!(vacated.punchable(2), [0..4, 10..12]);
    }

    #[test]
    fn a_place_that_is_written_again_is_not_punched() {
        let mut vacated = Vacated::default();
        vacated.hide(0..10, 1, 0);
        vacated.reuse(&(3..5));
        assert_eq!(vacated.punchable(1), [0..3, 5..10]);
    }

    #[test]
    fn a_punched_place_is_writable_after_a_later_sync_of_the_image() {
        let mut vacated = Vacated::default();
        vacated.hide(0..4, 1, 0);
        assert!(!vacated.must_settle(&(0..1), 0));
        assert!(vacated.must_settle(&(0..1), 1));
        vacated.punched(0..4, 7);
        assert!(vacated.must_settle(&(3..9), 1));
        vacated.image_synced(7);
        assert!(vacated.must_settle(&(3..9), 1));
        vacated.image_synced(8);
        assert!(vacated.is_empty());
    }

    #[test]
    fn neighbours_are_joined() {
        let mut vacated = Vacated::default();
        let whole = vec![Range { start: 0, end: 100 }];
        for block in 0..100 {
            vacated.hide(block..block + 1, block + 1, 0);
        }
        assert_eq!(vacated.punchable(100), whole);
        assert!(vacated.punchable(99).is_empty());
        vacated.hide(100..101, 101, 100);
        assert_eq!(vacated.punchable(100), whole);
    }
}
