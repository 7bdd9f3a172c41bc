//! From an operation to a job, and from a job to its outcome.

use ankole_proto::Extent;
use ankole_proto::wire::{DATA_BYTES_MAX, Opcode};
use bytes::Bytes;

use super::event::Effect;
use super::job::{Job, JobId, Piece, Purpose, Stage, Transfer};
use super::overlap::Mode;
use super::replica::SlotSet;
use super::{Mirror, Phase};
use crate::volume::{Failure, Moment, Operation, OperationId, Outcome};

const NOTHING: Extent = match Extent::new(0, 0) {
    Some(extent) => extent,
    None => unreachable!(),
};

impl Mirror {
    /// Takes an operation in, or answers at once that it cannot be.
    pub(super) fn submit(
        &mut self,
        id: OperationId,
        operation: Operation,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.last_user_at = Some(now);
        let limits = &self.config.limits;
        let full = self.jobs.count() + self.early.len() >= limits.operations_max
            || self.jobs.bytes() >= limits.operation_bytes_max;
        let refusal = match self.phase {
            Phase::Stopping(_) | Phase::Stopped => Some(Failure::Stopping),
            _ if full => Some(Failure::Busy),
            _ => None,
        };
        if let Some(failure) = refusal {
            let outcome = Outcome::Failed(failure);
            effects.push(Effect::Complete { id, outcome });
        } else if matches!(self.phase, Phase::Starting(_)) {
            self.early.push_back((id, operation, now));
        } else {
            self.admit(id, operation, now, effects);
        }
    }

    /// Makes a job of an operation.
    pub(super) fn admit(
        &mut self,
        id: OperationId,
        operation: Operation,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let (extent, purpose) = split(operation);
        if matches!(purpose, Purpose::Flush) {
            self.start_flush(id, now, effects);
            return;
        }
        self.check(extent, &purpose);
        self.start_job(Some(id), extent, purpose, now);
    }

    /// # Panics
    ///
    /// When `scsi` passed an operation that breaks the contract of [`Operation`]: a bug.
    fn check(&self, extent: Extent, purpose: &Purpose) {
        assert!(
            !extent.is_empty() && self.orders.size.contains(extent),
            "{extent} of a volume of {}",
            self.orders.size
        );
        let fits = extent.length() <= u64::from(DATA_BYTES_MAX);
        let legal = match purpose {
            Purpose::Write { data, .. } | Purpose::Or { data, .. } => {
                fits && data.len() as u64 == extent.length()
            }
            Purpose::Compare { expected, data, .. } => {
                fits && data.len() as u64 == extent.length() && data.len() == expected.len()
            }
            Purpose::Read => fits,
            Purpose::Transfer(Transfer { from, .. }) => {
                from.length() == extent.length() && self.orders.size.contains(*from)
            }
            _ => true,
        };
        assert!(legal, "data does not fit {extent}");
    }

    /// Adds a job that first needs its range.
    pub(super) fn start_job(
        &mut self,
        user: Option<OperationId>,
        extent: Extent,
        purpose: Purpose,
        now: Moment,
    ) -> JobId {
        let mode = match purpose {
            // A chunk's copy is read where others read; only the target is written, and it is read
            // by nobody.
            Purpose::Read | Purpose::Chunk { .. } | Purpose::Comparison => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let source = match purpose {
            Purpose::Transfer(Transfer { from, .. }) => Some(from),
            _ => None,
        };
        let id = self.jobs.add(Job {
            user,
            extent,
            purpose,
            stage: Stage::Locking,
            progress: now,
            begun: false,
        });
        if user.is_some() {
            self.watch(id, now);
        }
        if self.locks.acquire(id, extent, mode, source) {
            self.ready.push_back(id);
        }
        id
    }

    /// From now on the job fails when it makes no progress for the hold limit.
    pub(super) fn watch(&mut self, id: JobId, now: Moment) {
        let limits = &self.config.limits;
        if self.stalls.len() > 4 * limits.operations_max {
            // Most are done; what is kept is bounded by the operations in hand.
            let jobs = &self.jobs;
            self.stalls.retain(|(_, id)| jobs.find(*id).is_some());
        }
        self.stalls.push_back((now + limits.hold_limit, id));
    }

    /// Goes on with every job that can: first those with a new lock, then those parked.
    pub(super) fn pump(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        loop {
            while let Some(id) = self.ready.pop_front() {
                self.locked(id, now, effects);
            }
            self.issue_parked(now, effects);
            if self.ready.is_empty() {
                return;
            }
        }
    }

    pub(super) fn locked(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        let zero_piece = u64::from(self.config.limits.zero_piece_bytes);
        let admitted = !self.gate_is_closed();
        let Some(job) = self.jobs.find_mut(id) else {
            return;
        };
        match &job.purpose {
            Purpose::Compare { .. }
            | Purpose::Or { .. }
            | Purpose::Copy(_)
            | Purpose::Transfer(_)
            | Purpose::Repair(_)
                if !admitted =>
            {
                // What it read now might be of before a revert when it writes.
                self.parked.push_back(id);
            }
            Purpose::Read
            | Purpose::Compare { .. }
            | Purpose::Or { .. }
            | Purpose::Transfer(_)
            | Purpose::Copy(_) => {
                let writes = !matches!(job.purpose, Purpose::Read);
                job.stage = Stage::reading();
                if writes {
                    self.jobs.begin(id);
                }
                self.dispatch_read(id, now, effects);
            }
            Purpose::Write { data, fua } => {
                let piece = Piece {
                    opcode: Opcode::Write,
                    extent: job.extent,
                    data: data.clone(),
                    fua: *fua,
                    rest: None,
                };
                self.park(id, piece);
            }
            Purpose::Zero { opcode, .. } => {
                let piece = Piece::first_of(*opcode, job.extent, zero_piece);
                self.park(id, piece);
            }
            Purpose::Repair(repair) => {
                job.stage = Stage::Repairing {
                    tried: SlotSet::default(),
                    at: repair.target,
                    merged: false,
                };
                self.jobs.begin(id);
                self.dispatch_repair(id, now, effects);
            }
            Purpose::Chunk { target } => {
                let target = *target;
                job.stage = Stage::Holding;
                self.chunk_locked(target, id, now, effects);
            }
            Purpose::Comparison => {
                job.stage = Stage::Holding;
                self.comparison_locked(id, now, effects);
            }
            Purpose::Flush => {}
        }
    }

    /// Answers the job's user, if it still waits.
    pub(super) fn answer_job(
        &mut self,
        id: JobId,
        outcome: Outcome,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let user = self.jobs.find_mut(id).and_then(|job| job.user.take());
        if let Some(user) = user {
            self.answer(user, outcome, now, effects);
        }
    }

    /// Ends a job that no replica works on any more: its range is free.
    pub(super) fn finish_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(id)?;
        let mut granted = Vec::new();
        self.locks.release(id, &mut granted);
        self.ready.extend(granted);
        if self.task_gates() || !matches!(self.phase, Phase::Serving) {
            // A drain, a recovery or a stop may have waited for it.
            self.attention = true;
        }
        Some(job)
    }

    /// Fails what has made no progress for longer than I/O is held. A mutation that is out stays
    /// in hand with its range locked until the replicas are alike again; only its user stops
    /// waiting.
    pub(super) fn fail_stalled(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let limit = self.config.limits.hold_limit;
        while let Some((_, id)) = self.stalls.pop_front_if(|(at, _)| now >= *at) {
            let Some(job) = self.jobs.find(id) else {
                continue;
            };
            if job.user.is_none() {
                continue;
            }
            if now < job.progress + limit {
                self.stalls.push_back((job.progress + limit, id));
                continue;
            }
            let abandoned = !job.begun || matches!(job.stage, Stage::Reading { .. });
            self.answer_job(id, Outcome::Failed(Failure::Unavailable), now, effects);
            if abandoned {
                self.finish_job(id);
            }
        }
        while let Some((id, ..)) = self.early.pop_front_if(|(.., at)| now >= *at + limit) {
            let outcome = Outcome::Failed(Failure::Unavailable);
            effects.push(Effect::Complete { id, outcome });
        }
    }

    /// Answers everything in hand with a failure.
    pub(super) fn fail_all(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        let outcome = Outcome::Failed(failure);
        self.fail_held(failure, effects);
        for (id, ..) in self.early.drain(..) {
            let outcome = outcome.clone();
            effects.push(Effect::Complete { id, outcome });
        }
        for (_, job) in self.jobs.iter_mut() {
            if let Some(id) = job.user.take() {
                let outcome = outcome.clone();
                effects.push(Effect::Complete { id, outcome });
            }
        }
    }
}

fn split(operation: Operation) -> (Extent, Purpose) {
    match operation {
        Operation::Read { extent } => (extent, Purpose::Read),
        Operation::Write { extent, data, fua } => (extent, Purpose::Write { data, fua }),
        Operation::Unmap { extent } => {
            let opcode = Opcode::Unmap;
            (extent, Purpose::Zero { opcode, fua: false })
        }
        Operation::WriteZeroes { extent, fua } => {
            let opcode = Opcode::WriteZeroes;
            (extent, Purpose::Zero { opcode, fua })
        }
        Operation::CompareAndWrite {
            extent,
            expected,
            data,
            fua,
        } => {
            let purpose = Purpose::Compare {
                expected,
                data,
                fua,
            };
            (extent, purpose)
        }
        Operation::Or { extent, data, fua } => (extent, Purpose::Or { data, fua }),
        Operation::Copy { from, to, fua } => (to, Purpose::Transfer(Transfer::new(from, to, fua))),
        Operation::Flush => (NOTHING, Purpose::Flush),
    }
}

impl Piece {
    /// The first piece of a long range, and what is left of it. Pieces end at multiples of the
    /// piece's length, so that they stay whole chunks.
    pub(super) fn first_of(opcode: Opcode, extent: Extent, piece_bytes: u64) -> Self {
        let into = extent.offset() % piece_bytes;
        let length = extent.length().min(piece_bytes - into);
        let part = |offset, length| Extent::new(offset, length).unwrap_or(extent);
        let rest = extent.length() - length;
        Self {
            opcode,
            extent: part(extent.offset(), length),
            data: Bytes::new(),
            fua: false,
            rest: (rest > 0).then(|| part(extent.offset() + length, rest)),
        }
    }
}
