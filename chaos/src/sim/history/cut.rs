//! What the snapshot of one volume says of the moment at which it was taken.

use std::time::Duration;

use super::{Content, Fate, History, Unexplained, Write};

/// Between what a snapshot holds and what it lacks. A write that it holds had begun by then; one that
/// was acknowledged and is not in it had not been acknowledged by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Bounds {
    /// It was taken after this.
    pub(in super::super) after: Option<Duration>,
    /// And before this.
    pub(in super::super) before: Option<Duration>,
}

impl Bounds {
    /// Both of two.
    pub(in super::super) fn and(self, other: Self) -> Self {
        let before = [self.before, other.before].into_iter().flatten().min();
        Self {
            after: self.after.max(other.after),
            before,
        }
    }

    /// Whether there is such a moment.
    pub(in super::super) fn is_possible(self) -> bool {
        self.before.is_none_or(|before| {
            let after = self.after.unwrap_or_default();
            after <= before
        })
    }
}

impl History {
    /// What one sector of a snapshot that was done at `done` says: nothing where a return to another
    /// snapshot may have brought it back. What may have been lost with the power is not missed.
    pub(in super::super) fn bounds(
        &self,
        sector: u64,
        bytes: &[u8],
        done: Duration,
    ) -> Result<Bounds, Unexplained> {
        let id = self.identify(sector, bytes)?;
        let versions = self.by_sector.get(&sector).into_iter().flatten();
        let known: Vec<&Write> = versions
            .filter_map(|version| self.writes.get(version.write))
            .filter(|write| write.begin <= done)
            .collect();
        let held = id.and_then(|id| self.write(id));
        let returns = known
            .iter()
            .filter(|write| write.content == Content::Snapshot);
        let ends: Vec<Option<Duration>> = returns.map(|write| write.end).collect();
        let is_newer = |held: &Write| {
            let older = |end: &Option<Duration>| end.is_some_and(|end| end < held.begin);
            ends.iter().all(older)
        };
        if !ends.is_empty() && !held.is_some_and(is_newer) {
            return Ok(Bounds::default());
        }
        let zeroed = |after: &Write| {
            let mut zeros = known
                .iter()
                .filter(|write| write.content == Content::Zeros && write.fate != Fate::Refused);
            zeros.any(|zeros| zeros.end.is_none_or(|end| end >= after.begin))
        };
        let lacking = known.iter().filter(|write| {
            let acknowledged = matches!(write.fate, Fate::Acknowledged | Fate::Durable);
            acknowledged
                && match held {
                    Some(held) => held.end.is_some_and(|end| write.begin > end),
                    None => write.content == Content::Number && !zeroed(write),
                }
        });
        Ok(Bounds {
            after: held.map(|write| write.begin),
            before: lacking.filter_map(|write| write.end).min(),
        })
    }
}
