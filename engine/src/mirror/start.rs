//! The start: open every replica, make them equal where the previous engine left writes in flight,
//! wait until its lease has run out, then serve.

use ankole_proto::wire::DATA_BYTES_MAX;
use ankole_proto::wire::body::Opened;
use ankole_proto::{Epoch, Extent, LayerId};

use super::event::Effect;
use super::job::{CopyReason, Purpose};
use super::loss::Grace;
use super::replica::{Kind, SlotSet};
use super::window::WINDOW_MAX;
use super::{Mirror, Phase};
use crate::volume::Moment;

/// What the start has found so far.
#[derive(Debug, Default)]
pub(super) struct Starting {
    /// The previous engine may believe in its lease until then.
    lease_ends: Moment,
    /// What may differ between the replicas.
    in_flight: Vec<Extent>,
    /// The copies are under way.
    recovering: bool,
}

impl Starting {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Notes what a replica said.
    pub(super) fn opened(&mut self, opened: &Opened, epoch: Epoch, now: Moment) {
        if opened.previous_epoch < epoch {
            let left = std::time::Duration::from_millis(u64::from(opened.lease_remaining_ms));
            self.lease_ends = self.lease_ends.max(now + left);
        }
        let ranges = opened.in_flight.iter().map(|entry| entry.extent);
        self.in_flight
            .extend(ranges.filter(|extent| !extent.is_empty()));
    }
}

/// The ranges without overlaps, cut into pieces that one write can carry.
fn pieces(mut ranges: Vec<Extent>) -> Vec<Extent> {
    let piece = u64::from(DATA_BYTES_MAX);
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some((_, end)) if range.offset() <= *end => *end = range.end().max(*end),
            _ => merged.push((range.offset(), range.end())),
        }
    }
    merged
        .into_iter()
        .flat_map(|(from, end)| {
            let starts = (0..).map(move |n| from + n * piece);
            starts
                .take_while(move |at| *at < end)
                .filter_map(move |at| Extent::new(at, piece.min(end - at)))
        })
        .collect()
}

impl Mirror {
    /// The heads that a replica may have: the volume's, and that of a task which a previous engine
    /// or this one may have done in part.
    pub(super) fn heads(&self) -> Vec<LayerId> {
        let mut heads = vec![self.head];
        match &self.phase {
            Phase::Starting(_) => {
                heads.extend(self.orders.tasks.first().and_then(|t| t.new_head()))
            }
            _ => heads.extend(self.task_head()),
        }
        heads
    }

    /// Goes on with the start as far as it can.
    pub(super) fn tend_start(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let all_live = self.all_live();
        let half_done = self.task.is_none() && self.half_done_task();
        let gated = self.task_gates();
        let Phase::Starting(starting) = &mut self.phase else {
            return;
        };
        if !starting.recovering {
            if !all_live {
                return;
            }
            if half_done {
                self.resume_half_done_task(now, effects);
                return;
            }
            if gated {
                return;
            }
            starting.recovering = true;
            let ranges = std::mem::take(&mut starting.in_flight);
            self.recover(ranges, now, effects);
        }
        self.serve_when_ready(now, effects);
    }

    fn all_live(&self) -> bool {
        let mut in_sync = self.replicas.values().filter(|r| r.is_in_sync()).peekable();
        in_sync.peek().is_some() && in_sync.all(|replica| replica.state().kind() == Kind::Live)
    }

    /// Copies what may differ from one replica to all. Unacknowledged, so either state of it is
    /// right, as long as it is everywhere the same (INV-8).
    fn recover(&mut self, ranges: Vec<Extent>, now: Moment, effects: &mut Vec<Effect>) {
        let mut others = self.in_sync();
        let Some(source) = self.pick_source(SlotSet::default()) else {
            return;
        };
        if let Some(source) = self.replicas.get(&source) {
            others.remove(source.slot);
        }
        let pieces = pieces(ranges);
        if pieces.len() as u64 >= WINDOW_MAX {
            // More than the replicas would remember of this engine: one is chosen.
            for id in self.ids_of(others) {
                let reason = "too much was in flight to be copied".to_owned();
                self.lose(id, reason, Grace::None, now, effects);
            }
        } else if !others.is_empty() {
            for extent in pieces {
                self.start_job(None, extent, Purpose::Copy(CopyReason::Recovery), now);
            }
            self.pump(now, effects);
        }
    }

    fn serve_when_ready(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let recovered = self.jobs.count() == 0 && self.all_live();
        let ended = self.config.previous_engine_ended;
        let Phase::Starting(starting) = &self.phase else {
            return;
        };
        if !recovered || (!ended && now < starting.lease_ends) {
            return;
        }
        self.window.thaw();
        self.phase = Phase::Serving;
        self.attention = true;
        effects.push(Effect::Serve);
        while let Some((id, operation, _)) = self.early.pop_front() {
            self.admit(id, operation, now, effects);
        }
    }

    /// When the previous engine's lease is over.
    pub(super) fn start_wake_at(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Starting(starting) if starting.lease_ends > self.now => {
                Some(starting.lease_ends)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    #[test]
    fn ranges_in_flight_are_merged_and_cut() {
        let big = u64::from(DATA_BYTES_MAX);
        let ranges = vec![
            extent(4096, 4096),
            extent(0, 6000),
            extent(1 << 30, big + 1),
        ];
        assert_eq!(
            pieces(ranges),
            [
                extent(0, 8192),
                extent(1 << 30, big),
                extent((1 << 30) + big, 1)
            ]
        );
    }
}
