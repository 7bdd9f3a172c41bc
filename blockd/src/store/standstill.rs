//! Background work of a replica that cannot go on: said once when it stops, and when it goes on.

use std::collections::BTreeMap;
use std::fmt;

use super::Slot;
use crate::disk::Disk;
use crate::replica::{Progress, WorkError};

/// So many steps without a refusal, and the work goes on again: on a disk that is nearly full some
/// succeed between two that do not.
const STEPS_TO_GO_ON: u32 = 64;

/// A kind of background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// [`crate::replica::Replica::settle_step`].
    Settle,
    /// [`crate::replica::Replica::merge_step`].
    Merge,
    /// [`crate::replica::Replica::private_step`].
    Copy,
    /// [`crate::replica::Replica::census_step`].
    Count,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settle => "settling the checksums that an unclean stop left in doubt",
            Self::Merge => "merging the layer of a deleted snapshot away",
            Self::Copy => "copying a layer that is shared with a clone, for a repair,",
            Self::Count => "counting what can be reclaimed",
        })
    }
}

/// Why work waits.
#[derive(Debug)]
struct Standstill {
    reason: String,
    /// Done since it was refused.
    steps: u32,
}

/// What stands still of a replica's work.
#[derive(Debug, Default)]
pub(super) struct Standstills(BTreeMap<Work, Standstill>);

impl Standstills {
    /// A step was refused; whether that is news.
    fn refused(&mut self, work: Work, reason: String) -> bool {
        let known = self.0.get(&work);
        let is_news = known.is_none_or(|known| known.reason != reason);
        self.0.insert(work, Standstill { reason, steps: 0 });
        is_news
    }

    /// A step was done; whether the work goes on again with it.
    fn done(&mut self, work: Work) -> bool {
        let Some(standstill) = self.0.get_mut(&work) else {
            return false;
        };
        standstill.steps += 1;
        standstill.steps >= STEPS_TO_GO_ON && self.0.remove(&work).is_some()
    }

    /// There is nothing to do; whether something stood still.
    fn idle(&mut self, work: Work) -> bool {
        self.0.remove(&work).is_some()
    }

    /// For the managers; empty when nothing stands still.
    pub(super) fn told(&self) -> String {
        let all = self.0.iter();
        let all: Vec<String> = all
            .map(|(work, standstill)| format!("{work} stands still: {}", standstill.reason))
            .collect();
        all.join("; ")
    }
}

impl Slot {
    /// Takes in how a step of background work went.
    pub fn note_work<D: Disk>(&self, work: Work, progress: &Result<Progress<D>, WorkError>) {
        let mut standstills = self.standstills.lock();
        let (is_news, refused) = match progress {
            // The replica is reported as faulted.
            Err(WorkError::Unusable(_)) => return,
            Err(error) => (standstills.refused(work, error.to_string()), Some(error)),
            Ok(Progress::Idle) => (standstills.idle(work), None),
            Ok(Progress::Working { .. } | Progress::Sync(_)) => (standstills.done(work), None),
        };
        drop(standstills);
        if !is_news {
            return;
        }
        match refused {
            Some(error) => tracing::warn!(replica = %self.id(), "{work} stands still: {error}"),
            None => tracing::info!(replica = %self.id(), "{work} does not stand still any more"),
        }
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_once_for_each_reason_until_it_is_over() {
        let mut standstills = Standstills::default();
        assert!(!standstills.done(Work::Merge) && !standstills.idle(Work::Merge));
        assert!(standstills.refused(Work::Merge, "full".to_owned()));
        assert!(!standstills.refused(Work::Merge, "full".to_owned()));
        assert!(standstills.refused(Work::Copy, "full".to_owned()));
        assert!(standstills.refused(Work::Merge, "bad".to_owned()));
        assert_eq!(
            standstills.told(),
            "merging the layer of a deleted snapshot away stands still: bad; copying a layer that \
             is shared with a clone, for a repair, stands still: full"
        );
        assert!(standstills.idle(Work::Copy));
        for _ in 0..2 {
            // A few steps between two refusals are no going on.
            for _ in 1..STEPS_TO_GO_ON {
                assert!(!standstills.done(Work::Merge));
            }
            assert!(!standstills.refused(Work::Merge, "bad".to_owned()));
        }
        let over = (0..STEPS_TO_GO_ON).filter(|_| standstills.done(Work::Merge));
        assert_eq!(over.count(), 1);
        assert_eq!(standstills.told(), "");
        assert!(standstills.refused(Work::Merge, "bad".to_owned()), "anew");
    }
}
