//! The order of commands and how many may come (RFC 7143 §4.2.2.1).

use std::collections::BTreeMap;

use super::sequence::Serial;

/// What is to happen to a request that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival<T> {
    /// It is the next one: execute it, then ask [`Window::take_next`].
    InOrder(T),
    /// It has come early and is held.
    Held,
    /// It is outside of the window, or a second one of its number: ignored without a word.
    Ignored,
}

/// The command window: which number is expected, up to which the initiator may send, and what has
/// come early. `MaxCmdSN` moves on only when a command ends, so that never more than `depth` are
/// executed or held (INV-12).
#[derive(Debug)]
pub struct Window<T> {
    expected: Serial,
    max: Serial,
    /// By raw number. `None` is a number whose command was aborted before it came.
    early: BTreeMap<u32, Option<T>>,
}

impl<T> Window<T> {
    /// The window of a session whose first command has this number.
    pub fn new(first: Serial, depth: u32) -> Self {
        Self {
            expected: first,
            max: first.plus(depth.saturating_sub(1)),
            early: BTreeMap::new(),
        }
    }

    /// ExpCmdSN.
    pub fn expected(&self) -> Serial {
        self.expected
    }

    /// MaxCmdSN.
    pub fn max(&self) -> Serial {
        self.max
    }

    /// A numbered request has come.
    pub fn arrive(&mut self, number: Serial, request: T) -> Arrival<T> {
        if !self.allows(number) || self.early.contains_key(&number.raw()) {
            return Arrival::Ignored;
        }
        if number == self.expected {
            self.expected = self.expected.plus(1);
            return Arrival::InOrder(request);
        }
        self.early.insert(number.raw(), Some(request));
        Arrival::Held
    }

    /// Whether a request of this number would be taken.
    pub fn accepts(&self, number: Serial) -> bool {
        self.allows(number) && !self.early.contains_key(&number.raw())
    }

    /// The held request whose turn it is now.
    pub fn take_next(&mut self) -> Option<T> {
        while let Some(held) = self.early.remove(&self.expected.raw()) {
            self.expected = self.expected.plus(1);
            match held {
                Some(request) => return Some(request),
                None => self.finish(),
            }
        }
        None
    }

    /// A numbered request has been dealt with: the initiator may send one more.
    pub fn finish(&mut self) {
        self.max = self.max.plus(1);
    }

    /// Counts a number as received whose command is not to be executed any more when it comes
    /// (ABORT TASK, RFC 7143 §11.6.1). False when it is outside of the window or was received.
    pub fn void(&mut self, number: Serial) -> bool {
        if !self.accepts(number) {
            return false;
        }
        self.early.insert(number.raw(), None);
        true
    }

    fn allows(&self, number: Serial) -> bool {
        number.steps_since(self.expected).is_some() && !self.max.precedes(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_outside_of_the_window_and_repeated_ones_are_ignored() {
        let mut window = Window::new(Serial::from_raw(10), 4);
        assert_eq!(window.arrive(Serial::from_raw(9), 'a'), Arrival::Ignored);
        assert_eq!(window.arrive(Serial::from_raw(14), 'b'), Arrival::Ignored);
        assert_eq!(window.arrive(Serial::from_raw(12), 'c'), Arrival::Held);
        assert_eq!(window.arrive(Serial::from_raw(12), 'd'), Arrival::Ignored);
        assert_eq!(
            window.arrive(Serial::from_raw(10), 'e'),
            Arrival::InOrder('e')
        );
        assert_eq!(window.arrive(Serial::from_raw(10), 'f'), Arrival::Ignored);
        assert_eq!(window.take_next(), None);
        assert_eq!(
            window.arrive(Serial::from_raw(11), 'g'),
            Arrival::InOrder('g')
        );
        assert_eq!(window.take_next(), Some('c'));
    }

    #[test]
    fn a_full_window_opens_again_only_when_a_command_ends() {
        let mut window = Window::new(Serial::from_raw(u32::MAX), 2);
        assert_eq!(
            window.arrive(Serial::from_raw(u32::MAX), ()),
            Arrival::InOrder(())
        );
        assert_eq!(window.arrive(Serial::from_raw(0), ()), Arrival::InOrder(()));
        assert_eq!(window.arrive(Serial::from_raw(1), ()), Arrival::Ignored);
        assert_eq!(window.max(), window.expected().before());
        window.finish();
        assert_eq!(window.arrive(Serial::from_raw(1), ()), Arrival::InOrder(()));
    }

    #[test]
    fn a_voided_number_is_passed_over() {
        let mut window = Window::new(Serial::from_raw(5), 8);
        assert!(window.void(Serial::from_raw(6)));
        assert!(!window.void(Serial::from_raw(6)));
        assert_eq!(window.arrive(Serial::from_raw(6), 'x'), Arrival::Ignored);
        assert_eq!(window.arrive(Serial::from_raw(7), 'y'), Arrival::Held);
        assert_eq!(
            window.arrive(Serial::from_raw(5), 'z'),
            Arrival::InOrder('z')
        );
        assert_eq!(window.take_next(), Some('y'));
        assert_eq!(window.expected(), Serial::from_raw(8));
    }

    proptest! {
        #[test]
        fn any_arrival_order_is_executed_in_number_order(
            first in any::<u32>(),
            order in Just((0_u32..64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let first = Serial::from_raw(first);
            let mut window = Window::new(first, 64);
            let mut executed = Vec::new();
            for number in order {
                if let Arrival::InOrder(it) = window.arrive(first.plus(number), number) {
                    executed.push(it);
                    while let Some(next) = window.take_next() {
                        executed.push(next);
                    }
                }
            }
            prop_assert_eq!(executed, (0..64).collect::<Vec<_>>());
        }

        #[test]
        fn never_more_than_the_depth_is_held_or_executed(
            first in any::<u32>(),
            numbers in prop::collection::vec((0_u32..40, any::<bool>()), 0..200),
        ) {
            let first = Serial::from_raw(first);
            let mut window = Window::new(first, 16);
            let mut executing = 0;
            for (number, ends) in numbers {
                if let Arrival::InOrder(()) = window.arrive(first.plus(number), ()) {
                    executing += 1;
                    while window.take_next().is_some() {
                        executing += 1;
                    }
                }
                prop_assert!(executing + window.early.len() <= 16);
                if ends && executing > 0 {
                    executing -= 1;
                    window.finish();
                }
            }
        }
    }
}
