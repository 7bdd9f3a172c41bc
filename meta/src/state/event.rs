//! The ring of events: what happened lately, for people.

use std::collections::BTreeMap;

/// How many events are kept (INV-12): some days of a calm cluster, and little memory.
pub const EVENTS_MAX: usize = 2000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What, as a stable word in `CamelCase`.
    pub kind: String,
    /// To whom: `volume/<name>`, `node/<name>`.
    pub subject: String,
    /// For people.
    pub message: String,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Redundancy or service is lessened.
    Warning,
    /// Somebody has to act.
    Error,
}

/// The last [`EVENTS_MAX`] events, numbered from 1 without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub(super) next: u64,
    pub(super) ring: BTreeMap<u64, Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            next: 1,
            ring: BTreeMap::new(),
        }
    }
}

impl Events {
    /// Events with a greater number than `after`, oldest first.
    pub fn after(&self, after: u64) -> impl Iterator<Item = (u64, &Event)> {
        let first = after.saturating_add(1);
        self.ring
            .range(first..)
            .map(|(number, event)| (*number, event))
    }

    /// The number of the newest event; 0 before the first.
    pub const fn last(&self) -> u64 {
        self.next - 1
    }

    /// Adds an event; the numbers of the new one and of those that fell out.
    pub(super) fn push(&mut self, event: Event) -> Vec<u64> {
        let number = self.next;
        self.next += 1;
        self.ring.insert(number, event);
        let mut touched = vec![number];
        while self.ring.len() > EVENTS_MAX {
            touched.extend(self.ring.pop_first().map(|(oldest, _)| oldest));
        }
        touched
    }
}
