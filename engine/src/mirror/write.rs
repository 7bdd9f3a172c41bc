//! Mutations: numbered, sent to every replica that is open, done when all required ones have them.

use ankole_proto::Sequence;
use ankole_proto::wire::{ErrorCode, Header, Opcode, flags};
use bytes::Bytes;

use super::Mirror;
use super::event::Effect;
use super::job::{CopyReason, JobId, Piece, Purpose, Stage, Transfer};
use super::loss::Grace;
use super::rebuild::Rebuild;
use super::replica::{Ask, Replica, SlotSet};
use super::window::{Mutation, Verdict};
use crate::volume::{Failure, Moment, Outcome};

impl Mirror {
    /// Queues a piece of a job. One that has begun goes first: a drain waits for it.
    pub(super) fn park(&mut self, id: JobId, piece: Piece) {
        if let Some(job) = self.jobs.find_mut(id) {
            job.stage = Stage::Parked(piece);
            if job.begun {
                self.parked.push_front(id);
            } else {
                self.parked.push_back(id);
            }
        }
    }

    /// Sends what may be sent.
    pub(super) fn issue_parked(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while let Some(id) = self.parked.front().copied() {
            let Some(job) = self.jobs.find(id) else {
                self.parked.pop_front();
                continue;
            };
            let admitted = job.begun || !self.gate_is_closed();
            if !admitted || !self.window.has_room() {
                return;
            }
            let reads_first = matches!(job.stage, Stage::Locking);
            self.parked.pop_front();
            if reads_first {
                self.locked(id, now, effects);
            } else {
                self.issue(id, now, effects);
            }
        }
    }

    fn issue(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        self.jobs.begin(id);
        let sequence = self.window.next();
        let Some(job) = self.jobs.find_mut(id) else {
            return;
        };
        let sent = Stage::Writing { rest: None };
        let Stage::Parked(piece) = std::mem::replace(&mut job.stage, sent) else {
            unreachable!("job {id:?} was not parked");
        };
        job.stage = Stage::Writing { rest: piece.rest };
        self.window.push(Mutation {
            job: id,
            header: mutation_header(&piece, sequence),
            payload: piece.data,
            acked: SlotSet::default(),
            refused: SlotSet::default(),
            why: Failure::NoSpace,
            outstanding: SlotSet::default(),
            verdict: Verdict::Open,
        });
        let watermark = self.window.watermark();
        let Some(mutation) = self.window.find_mut(sequence) else {
            return;
        };
        for replica in self.replicas.values_mut() {
            send_mutation(replica, sequence, mutation, watermark, now, effects);
        }
    }

    /// Sends a replica that came back everything that it has not acknowledged. Replicas tolerate
    /// repeats of a sequence number.
    pub(super) fn resend_mutations(
        &mut self,
        id: ankole_proto::ReplicaId,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let watermark = self.window.watermark();
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        for (sequence, mutation) in self.window.iter_mut() {
            if !mutation.acked.contains(replica.slot) {
                mutation.refused.remove(replica.slot);
                send_mutation(replica, sequence, mutation, watermark, now, effects);
            }
        }
    }

    /// A replica answered a mutation.
    pub(super) fn mutation_reply(
        &mut self,
        id: ankole_proto::ReplicaId,
        sequence: Sequence,
        error: Option<ErrorCode>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.replicas.get(&id).map(|replica| replica.slot) else {
            return;
        };
        let alone = error == Some(ErrorCode::Checksum) && {
            let mut only = SlotSet::default();
            only.insert(slot);
            self.required() == only
        };
        let Some(mutation) = self.window.find_mut(sequence) else {
            return;
        };
        mutation.outstanding.remove(slot);
        match error {
            None => mutation.acked.insert(slot),
            Some(ErrorCode::NoSpace) => mutation.refused.insert(slot),
            // A part of a block cannot be written when the rest of it is bad. Where others have
            // the block, this replica is made equal to them; the only one cannot be.
            Some(ErrorCode::Checksum) if alone => {
                mutation.refused.insert(slot);
                mutation.why = Failure::Unreadable;
            }
            Some(error) => {
                let reason = format!("refused a write: {error}");
                self.lose(id, reason, Grace::None, now, effects);
                return;
            }
        }
        self.settle(sequence, now, effects);
        // Its rebuild may have waited for just this one, and under a load that never rests nothing
        // else has it looked at.
        let rebuild = self.replicas.get(&id).and_then(Replica::rebuild);
        self.attention |= rebuild.is_some_and(Rebuild::is_settling);
    }

    /// Those whose answer every acknowledgement needs.
    pub(super) fn required(&self) -> SlotSet {
        let mut set = SlotSet::default();
        for replica in self.replicas.values().filter(|replica| replica.counts()) {
            set.insert(replica.slot);
        }
        set
    }

    /// Looks at every mutation again, after the membership changed.
    pub(super) fn settle_all(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let all: Vec<Sequence> = self.window.iter().map(|(sequence, _)| sequence).collect();
        for sequence in all {
            self.settle(sequence, now, effects);
        }
    }

    fn settle(&mut self, sequence: Sequence, now: Moment, effects: &mut Vec<Effect>) {
        let required = self.required();
        let Some(mutation) = self.window.find_mut(sequence) else {
            return;
        };
        let answered = mutation.acked.or(mutation.refused);
        let decided = answered.covers(required) && !required.is_empty();
        if mutation.verdict == Verdict::Open && decided {
            let refused = mutation.refused.and(required);
            let has_it = mutation.acked.and(required);
            if refused.is_empty() {
                mutation.verdict = Verdict::Done;
            } else if has_it.is_empty() {
                mutation.verdict = Verdict::Refused;
            } else {
                self.lose_full(refused, now, effects);
                return;
            }
            self.decided(sequence, now, effects);
        }
        let Some(mutation) = self.window.find_mut(sequence) else {
            return;
        };
        if mutation.verdict != Verdict::Open && mutation.outstanding.is_empty() {
            self.retire(sequence, now, effects);
        }
    }

    /// Some have the write and these have no space for it: they are not equal any more.
    fn lose_full(&mut self, refused: SlotSet, now: Moment, effects: &mut Vec<Effect>) {
        for id in self.ids_of(refused) {
            let reason = "its disk is full".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
        }
    }

    pub(super) fn ids_of(&self, slots: SlotSet) -> Vec<ankole_proto::ReplicaId> {
        self.replicas
            .values()
            .filter(|replica| slots.contains(replica.slot))
            .map(Replica::id)
            .collect()
    }

    /// All required replicas have answered alike: the user can be told, unless more is to come.
    fn decided(&mut self, sequence: Sequence, now: Moment, effects: &mut Vec<Effect>) {
        self.window.advance();
        let Some(mutation) = self.window.find_mut(sequence) else {
            return;
        };
        let (id, verdict) = (mutation.job, mutation.verdict);
        let (acked, refused) = (mutation.acked, mutation.refused);
        let why = mutation.why;
        let Some(job) = self.jobs.find_mut(id) else {
            return;
        };
        job.progress = now;
        let flushes = matches!(job.purpose, Purpose::Zero { fua: true, .. });
        let copies_on = match &job.purpose {
            Purpose::Transfer(transfer) => transfer.next(job.extent).is_some(),
            _ => false,
        };
        let more = flushes || copies_on || matches!(job.stage, Stage::Writing { rest: Some(_) });
        if verdict == Verdict::Refused {
            self.answer_job(id, Outcome::Failed(why), now, effects);
            // A replica in rebuild that has it differs from the others now.
            self.restart_rebuilds_of(acked, now, effects);
        } else {
            self.restart_rebuilds_of(refused, now, effects);
            if !more {
                self.answer_job(id, Outcome::Done(Bytes::new()), now, effects);
            }
        }
    }

    /// No replica works on it any more: the job goes on, or ends.
    fn retire(&mut self, sequence: Sequence, now: Moment, effects: &mut Vec<Effect>) {
        let Some(mutation) = self.window.find_mut(sequence) else {
            return;
        };
        let (id, verdict) = (mutation.job, mutation.verdict);
        self.window.retire(sequence);
        let zero_piece = u64::from(self.config.limits.zero_piece_bytes);
        let Some(job) = self.jobs.find(id) else {
            return;
        };
        if let Purpose::Copy(CopyReason::Repair(bad)) = job.purpose
            && verdict == Verdict::Done
            && let Some(replica) = self.replicas.get_mut(&bad)
        {
            replica.repaired_blocks += 1;
            self.comparisons.is_copied(bad);
        }
        let rest = match job.stage {
            Stage::Writing { rest } if verdict == Verdict::Done => rest,
            _ => None,
        };
        match (rest, &job.purpose) {
            (Some(rest), Purpose::Zero { opcode, .. }) => {
                let piece = Piece::first_of(*opcode, rest, zero_piece);
                self.park(id, piece);
            }
            (_, Purpose::Zero { fua: true, .. }) if verdict == Verdict::Done => {
                self.flush_for(id, now, effects);
            }
            (_, Purpose::Transfer(transfer)) if verdict == Verdict::Done => {
                match transfer.next(job.extent) {
                    Some(next) => self.transfer_on(id, next, now, effects),
                    None => drop(self.finish_job(id)),
                }
            }
            _ => {
                self.finish_job(id);
            }
        }
    }

    /// Reads the next piece of a copy, unless nobody waits for it any more.
    fn transfer_on(&mut self, id: JobId, next: Transfer, now: Moment, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.find_mut(id) else {
            return;
        };
        if job.user.is_none() {
            self.finish_job(id);
            return;
        }
        job.purpose = Purpose::Transfer(next);
        job.stage = Stage::reading();
        self.dispatch_read(id, now, effects);
    }
}

fn mutation_header(piece: &Piece, sequence: Sequence) -> Header {
    let mut header = Header::request(piece.opcode, 0).with_payload(&piece.data);
    header.offset = piece.extent.offset();
    // Pieces are bounded by configuration and by DATA_BYTES_MAX.
    header.length = u32::try_from(piece.extent.length()).unwrap_or(u32::MAX);
    header.sequence = sequence.raw();
    if piece.fua && piece.opcode == Opcode::Write {
        header.flags = flags::FUA;
    }
    header
}

fn send_mutation(
    replica: &mut Replica,
    sequence: Sequence,
    mutation: &mut Mutation,
    watermark: Sequence,
    now: Moment,
    effects: &mut Vec<Effect>,
) {
    if !replica.receives() {
        return;
    }
    let mut header = mutation.header;
    header.watermark = watermark.raw();
    let payload = mutation.payload.clone();
    if replica.send(Ask::Mutation(sequence), header, payload, now, effects) {
        mutation.outstanding.insert(replica.slot);
    }
}
