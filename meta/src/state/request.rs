//! The memory of requests: a call repeated with the same id acts once.

use std::collections::BTreeMap;

use ankole_proto::rpc::v1::LogAnswer;

/// How many requests are remembered (INV-12).
pub const REQUESTS_MAX: usize = 4096;

/// For how long a request is remembered, by the proposers' clocks: longer than anybody retries.
pub const REQUEST_AGE_MS_MAX: u64 = 6 * 60 * 60 * 1000;

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remembered {
    pub(super) id: String,
    pub(super) at_ms: u64,
    pub(super) call: String,
    pub(super) answer: LogAnswer,
}

impl Eq for Remembered {}

/// What was carried out lately, in the order in which it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    pub(super) next: u64,
    pub(super) by_number: BTreeMap<u64, Remembered>,
    by_id: BTreeMap<String, u64>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            next: 1,
            by_number: BTreeMap::new(),
            by_id: BTreeMap::new(),
        }
    }
}

impl Requests {
    /// The call that was carried out under this id, and its answer.
    pub fn find(&self, id: &str) -> Option<(&str, &LogAnswer)> {
        let number = self.by_id.get(id)?;
        let found = self.by_number.get(number)?;
        Some((found.call.as_str(), &found.answer))
    }

    /// Forgets what is too old; the numbers of the forgotten.
    pub(super) fn forget(&mut self, now_ms: u64) -> Vec<u64> {
        let mut touched = Vec::new();
        while let Some(oldest) = self.by_number.first_entry() {
            let age_ms = now_ms.saturating_sub(oldest.get().at_ms);
            let crowded = oldest.key() + REQUESTS_MAX as u64 <= self.next;
            if age_ms <= REQUEST_AGE_MS_MAX && !crowded {
                break;
            }
            let (number, old) = oldest.remove_entry();
            self.by_id.remove(&old.id);
            touched.push(number);
        }
        touched
    }

    /// Remembers a request and tells its number.
    pub(super) fn remember(&mut self, request: Remembered) -> u64 {
        let number = self.next;
        self.next += 1;
        self.restore(number, request);
        number
    }

    /// Puts a remembered request back under its number.
    pub(super) fn restore(&mut self, number: u64, request: Remembered) {
        self.by_id.insert(request.id.clone(), number);
        self.by_number.insert(number, request);
    }
}
