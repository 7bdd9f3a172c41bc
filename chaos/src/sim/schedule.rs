//! Simulated time: what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    /// When, the how-manieth, and where in `events`: what is sorted stays small.
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    next: u64,
    now: Duration,
}

impl<E> Schedule<E> {
    pub(super) fn new() -> Self {
        Self {
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
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
        let place = self.free.pop().unwrap_or(self.events.len());
        match self.events.get_mut(place) {
            Some(free) => *free = Some(event),
            None => self.events.push(Some(event)),
        }
        let moment = moment.max(self.now);
        self.queue.push(Reverse((moment, self.next, place)));
        self.next += 1;
    }

    /// Puts an event this long from now.
    pub(super) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Goes on to the next event.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse((moment, _, place)) = self.queue.pop()?;
        self.now = moment;
        self.free.push(place);
        self.events.get_mut(place)?.take()
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
