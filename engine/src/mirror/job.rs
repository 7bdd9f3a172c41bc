//! What the mirror works on: an operation of the volume's user, or a copy of its own.

use std::collections::BTreeMap;

use ankole_proto::wire::Opcode;
use ankole_proto::{Extent, LayerId, ReplicaId};
use bytes::Bytes;

use super::repair::Repair;
use super::replica::SlotSet;
use crate::volume::{Moment, OperationId};

/// What a copy holds in memory at a time; more would only make others wait longer.
pub(super) const TRANSFER_PIECE_BYTES: u64 = 1 << 20;

/// Names a job; grows in the order of arrival and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct JobId(pub(super) u64);

impl JobId {
    pub(super) const FIRST: Self = Self(0);
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    /// To be answered; `None` once it is, and for the mirror's own jobs.
    pub(super) user: Option<OperationId>,
    pub(super) extent: Extent,
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    /// When it last came forward: the hold limit counts from here.
    pub(super) progress: Moment,
    /// A mutation of it has been sent, or what it will write is being read: a drain waits for it.
    pub(super) begun: bool,
}

/// What a job is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Read,
    Write {
        data: Bytes,
        fua: bool,
    },
    Zero {
        opcode: Opcode,
        fua: bool,
    },
    Compare {
        expected: Bytes,
        data: Bytes,
        fua: bool,
    },
    Or {
        data: Bytes,
        fua: bool,
    },
    /// Puts what another place holds on the extent, a piece at a time.
    Transfer(Transfer),
    Flush,
    /// Reads the extent from one replica and writes it to all: makes replicas equal after a crash,
    /// and writes a bad block anew that cannot be repaired in its layer.
    Copy(CopyReason),
    /// Rewrites a damaged block of one layer of one replica.
    Repair(Repair),
    /// Only holds the lock of a head chunk while the replicas are compared.
    Comparison,
    /// Only holds the lock of a head chunk for a rebuild.
    Chunk {
        target: ReplicaId,
    },
}

/// A copy from one place of the volume to another, of which one piece is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    /// All of the source.
    pub(super) from: Extent,
    /// Durable before it is answered.
    pub(super) fua: bool,
    /// Where in the source the piece at hand is, and where it goes.
    pub(super) piece: (Extent, Extent),
}

impl Transfer {
    /// With its first piece at hand. Both places are equally long.
    pub(super) fn new(from: Extent, to: Extent, fua: bool) -> Self {
        let piece = Self::piece_at(from, to, 0).unwrap_or((from, to));
        Self { from, fua, piece }
    }

    /// With the next piece at hand; `None` when that was the last.
    pub(super) fn next(self, to: Extent) -> Option<Self> {
        let done = self.piece.0.end() - self.from.offset();
        let piece = Self::piece_at(self.from, to, done)?;
        Some(Self { piece, ..self })
    }

    fn piece_at(from: Extent, to: Extent, done: u64) -> Option<(Extent, Extent)> {
        let length = from.length().checked_sub(done)?.min(TRANSFER_PIECE_BYTES);
        let part = |whole: Extent| Extent::new(whole.offset() + done, length);
        let piece = (part(from)?, part(to)?);
        (length > 0).then_some(piece)
    }
}

/// Why a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyReason {
    /// The previous engine left it in flight.
    Recovery,
    /// This replica's block failed its checksum, and no other can give its layer's.
    Repair(ReplicaId),
}

/// How far a job is.
///
/// ```text
///            ┌─────────────┐   read, compare, or, copy   ┌─────────┐
///  ─────────▶│   Locking   │────────────────────────────▶│ Reading │──▶ read done
///            └──────┬──────┘                             └────┬────┘
///                   │ write, zero                             │ compare, or, copy
///                   ▼                                         ▼
///            ┌─────────────┐  gate open, window free     ┌─────────┐  more pieces
///            │   Parked    │◀────────────────────────────│         │──────────────▶ Parked
///            │             │────────────────────────────▶│ Writing │
///            └─────────────┘                             └────┬────┘
///                                        more to copy:        │ zero with FUA
///                                        to Reading           │
///  flush ───────────────────────────────────────────────▶ Flushing ──▶ done
/// ```
#[derive(Debug)]
pub(super) enum Stage {
    /// Waits for its range lock; or has it, will read before it writes, and waits for the gate.
    Locking,
    /// Waits for data; `at` is `None` while no replica can be asked.
    Reading {
        tried: SlotSet,
        at: Option<ReplicaId>,
        /// Blocks that failed their checksum on the way.
        bad: Vec<(ReplicaId, Option<LayerId>, u64)>,
    },
    /// Waits until it may send this piece.
    Parked(Piece),
    /// One mutation is out; `rest` comes after it.
    Writing { rest: Option<Extent> },
    /// Waits for the replicas' flushes.
    Flushing { done: SlotSet },
    /// A source reads the block, or the damaged replica writes it.
    Repairing {
        tried: SlotSet,
        at: ReplicaId,
        /// A source has merged the layer away.
        merged: bool,
    },
    /// A rebuild or a comparison holds the lock.
    Holding,
}

impl Stage {
    /// No replica has been asked yet.
    pub(super) fn reading() -> Self {
        Self::Reading {
            tried: SlotSet::default(),
            at: None,
            bad: Vec::new(),
        }
    }
}

/// A mutation that is to be sent, and what comes after it.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) opcode: Opcode,
    pub(super) extent: Extent,
    pub(super) data: Bytes,
    pub(super) fua: bool,
    pub(super) rest: Option<Extent>,
}

impl Job {
    /// What it reads.
    pub(super) fn source(&self) -> Extent {
        match &self.purpose {
            Purpose::Transfer(transfer) => transfer.piece.0,
            _ => self.extent,
        }
    }

    /// Bytes that it holds in memory.
    pub(super) fn bytes(&self) -> u64 {
        let held = match &self.purpose {
            Purpose::Write { data, .. } | Purpose::Or { data, .. } => data.len(),
            Purpose::Compare { expected, data, .. } => expected.len() + data.len(),
            _ => 0,
        };
        let read = match self.purpose {
            Purpose::Read | Purpose::Compare { .. } | Purpose::Or { .. } | Purpose::Copy(_) => {
                self.extent.length()
            }
            Purpose::Transfer(_) => self.extent.length().min(TRANSFER_PIECE_BYTES),
            _ => 0,
        };
        held as u64 + read
    }
}

/// The jobs in hand, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<JobId, Job>,
    last: JobId,
    bytes: u64,
    begun: usize,
}

impl Jobs {
    pub(super) fn add(&mut self, job: Job) -> JobId {
        self.last = JobId(self.last.0 + 1);
        self.bytes += job.bytes();
        self.jobs.insert(self.last, job);
        self.last
    }

    pub(super) fn find(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub(super) fn find_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.bytes -= job.bytes();
        self.begun -= usize::from(job.begun);
        Some(job)
    }

    /// Marks that a mutation of the job is about to be sent, or what it will write to be read.
    pub(super) fn begin(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id)
            && !job.begun
        {
            job.begun = true;
            self.begun += 1;
        }
    }

    /// Jobs that a drain waits for.
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    pub(super) fn count(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (*id, job))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (JobId, &mut Job)> {
        self.jobs.iter_mut().map(|(id, job)| (*id, job))
    }
}
