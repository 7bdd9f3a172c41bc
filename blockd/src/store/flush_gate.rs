//! Flushes of one replica that come while a sync runs share the next one.
//!
//! A request joins the gate after the writes it is to cover have been carried out. The one that
//! finds the gate idle has to see to the syncing: it takes everybody who waits, syncs, answers
//! them, and looks again. Who joins during a sync is covered by the following one only (INV-5).

use parking_lot::Mutex;

use super::slot::Occupant;
use crate::replica::refusal::Refusal;

/// Told once that a sync is done, or why it is not.
pub type FlushAnswer = Box<dyn FnOnce(Result<(), &dyn Refusal>) + Send>;

/// Somebody who waits for a sync.
pub struct FlushWaiter {
    /// Whose flush it is.
    pub occupant: Occupant,
    /// Told when it is done.
    pub answer: FlushAnswer,
}

impl std::fmt::Debug for FlushWaiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FlushWaiter").field(&self.occupant).finish()
    }
}

/// Who waits, and whether somebody is syncing.
#[derive(Debug)]
pub struct FlushGate<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    syncing: bool,
    waiting: Vec<W>,
}

/// What the one who joined has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Joined {
    /// Sync until [`FlushGate::take`] gives nobody.
    First,
    /// Nothing: the syncing one comes round again.
    Behind,
}

impl<W> Default for FlushGate<W> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                syncing: false,
                waiting: Vec::new(),
            }),
        }
    }
}

impl<W> FlushGate<W> {
    /// Waits for the next sync that begins.
    pub fn join(&self, waiter: W) -> Joined {
        let mut state = self.state.lock();
        state.waiting.push(waiter);
        if state.syncing {
            Joined::Behind
        } else {
            state.syncing = true;
            Joined::First
        }
    }

    /// Takes everybody whom the sync that now begins covers; `None` ends the syncing.
    pub fn take(&self) -> Option<Vec<W>> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            state.syncing = false;
            return None;
        }
        Some(std::mem::take(&mut state.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_during_a_sync_share_the_next() {
        let gate = FlushGate::default();
        assert_eq!(gate.join(1), Joined::First);
        assert_eq!(gate.take(), Some(vec![1]));
        assert_eq!(gate.join(2), Joined::Behind);
        assert_eq!(gate.join(3), Joined::Behind);
        assert_eq!(gate.take(), Some(vec![2, 3]));
        assert_eq!(gate.take(), None);
        assert_eq!(gate.join(4), Joined::First);
    }
}
