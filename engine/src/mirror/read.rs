//! Reads: from the replica on this node, else from the least busy one, else from whoever has it.

use ankole_proto::wire::{ErrorCode, Frame, Header, Opcode};
use ankole_proto::{LayerId, ReplicaId};
use bytes::{Bytes, BytesMut};

use super::Mirror;
use super::event::Effect;
use super::job::{CopyReason, JobId, Piece, Purpose, Stage};
use super::loss::Grace;
use super::replica::{Ask, Replica, SlotSet};
use crate::volume::{Failure, Moment, Outcome};

impl Mirror {
    /// The best replica to read from, except these.
    pub(super) fn pick_source(&self, except: SlotSet) -> Option<ReplicaId> {
        self.replicas
            .values()
            .filter(|replica| replica.is_readable() && !except.contains(replica.slot))
            .min_by_key(|replica| {
                let owed = replica.session().map_or(0, |session| session.owed());
                let far = replica.member.node != self.config.node;
                (self.is_wrong(replica.id()), far, owed, replica.id())
            })
            .map(Replica::id)
    }

    /// Asks a replica for the job's data, or fails the job when none is left to ask.
    pub(super) fn dispatch_read(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.find(id) else {
            return;
        };
        let Stage::Reading {
            tried, at: None, ..
        } = job.stage
        else {
            return;
        };
        let mut except = tried;
        if let Purpose::Copy(CopyReason::Repair(bad)) = job.purpose
            && let Some(replica) = self.replicas.get(&bad)
        {
            except.insert(replica.slot);
        }
        let mut header = Header::request(Opcode::Read, 0);
        let source = job.source();
        header.offset = source.offset();
        header.length = u32::try_from(source.length()).unwrap_or(u32::MAX);
        match self.pick_source(except) {
            Some(source) => {
                header.watermark = self.window.watermark().raw();
                if let Some(replica) = self.replicas.get_mut(&source) {
                    replica.send(Ask::Read(id), header, Bytes::new(), now, effects);
                }
                if let Some(job) = self.jobs.find_mut(id)
                    && let Stage::Reading { at, .. } = &mut job.stage
                {
                    *at = Some(source);
                }
            }
            None if except.covers(self.in_sync()) => self.unreadable(id, now, effects),
            // One that is away may have it.
            None => {}
        }
    }

    /// The replicas on record as in sync.
    pub(super) fn in_sync(&self) -> SlotSet {
        let mut set = SlotSet::default();
        for replica in self
            .replicas
            .values()
            .filter(|replica| replica.is_in_sync())
        {
            set.insert(replica.slot);
        }
        set
    }

    fn unreadable(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        self.answer_job(id, Outcome::Failed(Failure::Unreadable), now, effects);
        self.finish_job(id);
    }

    /// Asks again for every job whose replica went away.
    pub(super) fn retry_reads(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let waiting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.stage, Stage::Reading { at: None, .. }))
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            self.dispatch_read(id, now, effects);
        }
    }

    /// A replica's link went: nobody is asked by these jobs now.
    pub(super) fn forget_reads(&mut self, id: ReplicaId) {
        for (_, job) in self.jobs.iter_mut() {
            if let Stage::Reading { at, .. } = &mut job.stage
                && *at == Some(id)
            {
                *at = None;
            }
        }
    }

    /// A replica answered a read.
    pub(super) fn read_reply(
        &mut self,
        from: ReplicaId,
        id: JobId,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.find_mut(id) else {
            return;
        };
        let length = job.source().length();
        let Stage::Reading { at, tried, bad } = &mut job.stage else {
            return;
        };
        if *at != Some(from) {
            return;
        }
        if frame.header.error.is_none() && frame.payload.len() as u64 == length {
            let bad = std::mem::take(bad);
            self.read_done(id, frame.payload, now, effects);
            for (replica, layer, offset) in bad {
                self.found_bad(replica, layer, offset, now);
            }
            return;
        }
        *at = None;
        if let Some(replica) = self.replicas.get(&from) {
            tried.insert(replica.slot);
        }
        match frame.header.error {
            Some(ErrorCode::Checksum) => {
                let layer = LayerId::from_raw(frame.header.sequence);
                bad.push((from, layer, frame.header.offset));
            }
            other => {
                let why = other.map_or("a wrong length".to_owned(), |error| error.to_string());
                let reason = format!("answered a read with: {why}");
                self.lose(from, reason, Grace::None, now, effects);
            }
        }
        self.dispatch_read(id, now, effects);
    }

    fn read_done(&mut self, id: JobId, data: Bytes, now: Moment, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.find_mut(id) else {
            return;
        };
        job.progress = now;
        let (extent, opcode) = (job.extent, Opcode::Write);
        let piece = |data, fua| Piece {
            opcode,
            extent,
            data,
            fua,
            rest: None,
        };
        let next = match &job.purpose {
            Purpose::Compare {
                expected,
                data: new,
                fua,
            } => match data.iter().zip(expected).position(|(a, b)| a != b) {
                Some(at) => Err(Outcome::Miscompare {
                    first_difference: at as u64,
                }),
                None => Ok(piece(new.clone(), *fua)),
            },
            Purpose::Or { data: bits, fua } => Ok(piece(or(&data, bits), *fua)),
            Purpose::Copy(_) => Ok(piece(data, false).without_zeros()),
            Purpose::Transfer(transfer) => {
                let mut piece = piece(data, transfer.fua);
                piece.extent = transfer.piece.1;
                Ok(piece.without_zeros())
            }
            _ => Err(Outcome::Done(data)),
        };
        match next {
            Ok(piece) => self.park(id, piece),
            Err(outcome) => {
                self.answer_job(id, outcome, now, effects);
                self.finish_job(id);
            }
        }
    }
}

impl Piece {
    /// Zeros take no space; but only a write can be asked to be durable.
    fn without_zeros(mut self) -> Self {
        if !self.fua && self.data.iter().all(|byte| *byte == 0) {
            self.opcode = Opcode::WriteZeroes;
            self.data = Bytes::new();
        }
        self
    }
}

fn or(data: &Bytes, bits: &Bytes) -> Bytes {
    let mut out = BytesMut::from(&data[..]);
    for (byte, bit) in out.iter_mut().zip(bits) {
        *byte |= bit;
    }
    out.freeze()
}
