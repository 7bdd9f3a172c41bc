//! 32-bit serial numbers (RFC 1982), which CmdSN, StatSN and the like are (RFC 7143 §4.2.2.1).

use std::fmt;

/// A serial number: it wraps, and of two numbers the one less than 2³¹ ahead is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Serial(u32);

impl Serial {
    /// The number as it stands on the wire.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// For the wire.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The number this many steps on.
    pub const fn plus(self, steps: u32) -> Self {
        Self(self.0.wrapping_add(steps))
    }

    /// The number before.
    pub const fn before(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// How many steps lead from `earlier` to this one; `None` when this one is not at or after it.
    pub const fn steps_since(self, earlier: Self) -> Option<u32> {
        let steps = self.0.wrapping_sub(earlier.0);
        if steps < 1 << 31 { Some(steps) } else { None }
    }

    /// Whether this one comes before `other`. Numbers exactly 2³¹ apart are in no order.
    pub const fn precedes(self, other: Self) -> bool {
        let steps = other.0.wrapping_sub(self.0);
        steps != 0 && steps < 1 << 31
    }

    /// The number, and moves on by one.
    pub fn take(&mut self) -> Self {
        let taken = *self;
        *self = self.plus(1);
        taken
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_survives_the_wrap() {
        let last = Serial::from_raw(u32::MAX);
        assert!(last.precedes(last.plus(1)));
        assert!(!last.plus(1).precedes(last));
        assert_eq!(last.plus(3).steps_since(last), Some(3));
        assert_eq!(last.steps_since(last.plus(3)), None);
        assert_eq!(Serial::from_raw(0).before(), last);
    }

    proptest! {
        // The oracle counts in 64 bits, where nothing wraps.
        #[test]
        fn serial_order_is_the_order_of_unwrapped_counters(
            start in 0_u64..1 << 34,
            ahead in 1_u32..1 << 31,
        ) {
            let number = |counter: u64| Serial::from_raw(u32::try_from(counter & 0xffff_ffff).unwrap());
            let (first, second) = (number(start), number(start + u64::from(ahead)));
            prop_assert!(first.precedes(second));
            prop_assert!(!second.precedes(first));
            prop_assert_eq!(second.steps_since(first), Some(ahead));
            prop_assert_eq!(first.plus(ahead), second);
        }

        #[test]
        fn numbers_half_the_circle_apart_are_in_no_order(raw in any::<u32>()) {
            let (one, other) = (Serial::from_raw(raw), Serial::from_raw(raw ^ (1 << 31)));
            prop_assert!(!one.precedes(other) && !other.precedes(one));
        }

        #[test]
        fn taking_counts_by_one(raw in any::<u32>()) {
            let mut number = Serial::from_raw(raw);
            prop_assert_eq!(number.take().raw(), raw);
            prop_assert_eq!(number.before().raw(), raw);
        }
    }
}
