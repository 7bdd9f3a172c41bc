//! Simulated time: what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    queue: BinaryHeap<Entry<E>>,
    next: u64,
    now: Duration,
}

#[derive(Debug)]
struct Entry<E> {
    key: Reverse<(Duration, u64)>,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl<E> Schedule<E> {
    pub(super) fn new() -> Self {
        Self {
            queue: BinaryHeap::new(),
            next: 0,
            now: Duration::ZERO,
        }
    }

    /// The present.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// Puts an event at this moment, or at the present when that has passed.
    pub(super) fn at(&mut self, moment: Duration, event: E) {
        let key = Reverse((moment.max(self.now), self.next));
        self.next += 1;
        self.queue.push(Entry { key, event });
    }

    /// Puts an event this long from now.
    pub(super) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Goes on to the next event.
    pub(super) fn next(&mut self) -> Option<E> {
        let entry = self.queue.pop()?;
        self.now = entry.key.0.0;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_and_then_of_their_making() {
        let mut schedule = Schedule::new();
        schedule.after(Duration::from_secs(2), 'c');
        schedule.after(Duration::from_secs(1), 'a');
        schedule.after(Duration::from_secs(1), 'b');
        assert_eq!(schedule.next(), Some('a'));
        schedule.at(Duration::ZERO, 'x');
        assert_eq!(schedule.next(), Some('b'));
        assert_eq!(schedule.next(), Some('x'));
        assert_eq!(schedule.next(), Some('c'));
        assert_eq!(schedule.now(), Duration::from_secs(2));
        assert_eq!(schedule.next(), None);
    }
}
