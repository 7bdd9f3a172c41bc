//! EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4 5.17, 6.4, 6.19, 6.20): copies from one place
//! of the volume to another. No other device can be reached, so that only descriptors that name this
//! unit are accepted.
//!
//! Each segment is one operation of the volume, which no write to its source or destination comes
//! between. Ranges that overlap are copied in ascending order, as SPC-4 6.4.6.3 leaves open.

mod page;
mod parameters;
mod results;

pub(super) use page::third_party_copy_page;
pub(super) use results::{copy_status, operating_parameters};

use std::collections::VecDeque;

use ankole_proto::Extent;

use super::handle::{After, Handled, Refusal, Step, Task};
use super::nexus::NexusId;
use super::sense::{AdditionalSense, Sense, SenseKey};
use super::task::Status;
use super::unit::LogicalUnit;
use crate::volume::{Operation, Outcome};
use parameters::{ListId, Parameters};

/// What became of a copy whose results may be asked for.
#[derive(Debug, Clone, Copy)]
struct Ended {
    nexus: NexusId,
    list: u8,
    failed: bool,
    segments: u16,
    bytes: u64,
}

/// The copies that ended, oldest first.
#[derive(Debug, Default)]
pub(super) struct Copies {
    ended: VecDeque<Ended>,
}

impl Copies {
    /// The most results that are kept; older ones are forgotten (INV-12).
    const ENDED_MAX: usize = 64;

    fn keep(&mut self, ended: Ended) {
        self.ended
            .retain(|kept| (kept.nexus, kept.list) != (ended.nexus, ended.list));
        if self.ended.len() >= Self::ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// Takes out the result of a copy.
    fn take(&mut self, nexus: NexusId, list: u8) -> Option<Ended> {
        let place = self
            .ended
            .iter()
            .position(|kept| kept.nexus == nexus && kept.list == list)?;
        self.ended.remove(place)
    }

    /// The session is gone, and with it who could ask.
    pub(super) fn forget(&mut self, nexus: NexusId) {
        self.ended.retain(|kept| kept.nexus != nexus);
    }
}

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    from: Extent,
    to: Extent,
}

/// A copy on its way.
#[derive(Debug)]
pub(super) struct CopyJob {
    list: Option<ListId>,
    /// The segments not yet done, the one at hand last.
    segments: Vec<Segment>,
    ended_segments: u16,
    bytes: u64,
    fua: bool,
}

/// EXTENDED COPY (LID1).
pub(super) fn extended_copy(unit: &mut LogicalUnit, task: &Task) -> Handled {
    let list_bytes = task.cdb.u32(10) as usize;
    if list_bytes == 0 {
        return Ok(Step::Good);
    }
    let list = task.parameters(list_bytes)?;
    let Parameters { list, mut segments } = Parameters::read(&list, &unit.identity, unit.size)?;
    segments.reverse();
    let job = CopyJob {
        list,
        segments,
        ended_segments: 0,
        bytes: 0,
        fua: unit.mode.writes_through(),
    };
    Box::new(job).advance(unit, task.nexus)
}

impl CopyJob {
    /// The next segment, or the end.
    fn advance(self: Box<Self>, unit: &mut LogicalUnit, nexus: NexusId) -> Handled {
        let Some(Segment { from, to }) = self.segments.last().copied() else {
            self.end(unit, nexus, false);
            return Ok(Step::Good);
        };
        let fua = self.fua;
        let copy = Operation::Copy { from, to, fua };
        Ok(Step::Run(vec![copy], After::Copy(self)))
    }

    /// Goes on when a segment is done.
    pub(super) fn resume(
        mut self: Box<Self>,
        unit: &mut LogicalUnit,
        nexus: NexusId,
        outcomes: Vec<Outcome>,
    ) -> Handled {
        if let Some(Outcome::Failed(failure)) = outcomes.into_iter().next() {
            self.end(unit, nexus, true);
            return Err(copy_failure(failure.into()));
        }
        if let Some(done) = self.segments.pop() {
            self.ended_segments = self.ended_segments.saturating_add(1);
            self.bytes += done.to.length();
        }
        self.advance(unit, nexus)
    }

    fn end(&self, unit: &mut LogicalUnit, nexus: NexusId, failed: bool) {
        if let Some(ListId(list)) = self.list {
            unit.copies.keep(Ended {
                nexus,
                list,
                failed,
                segments: self.ended_segments,
                bytes: self.bytes,
            });
        }
    }
}

/// A failure on the way: told as COPY ABORTED with the cause, or to be tried again.
fn copy_failure(refusal: Refusal) -> Refusal {
    match (refusal.status, refusal.sense) {
        (Status::CheckCondition, Some(sense)) if sense.key() != SenseKey::NotReady => {
            aborted(sense.additional())
        }
        _ => refusal,
    }
}

fn aborted(additional: AdditionalSense) -> Refusal {
    Sense::new(SenseKey::CopyAborted, additional).into()
}
