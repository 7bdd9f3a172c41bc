//! A command on its way: request, pending, done.

use bytes::Bytes;

use super::block::unmap::UNMAP_DESCRIPTORS_MAX;
use super::handle::{After, Change};
use super::nexus::NexusId;
use crate::volume::Operation;

/// A command with the data that it came with.
#[derive(Debug, Clone)]
pub struct Request {
    /// From whom.
    pub nexus: NexusId,
    /// To which logical unit, as in the iSCSI header.
    pub lun: [u8; 8],
    /// What.
    pub cdb: [u8; 16],
    /// The data-out, as long as [`super::data_out_bytes`] says or as the initiator was willing to
    /// send, whichever is less.
    pub data_out: Bytes,
    /// The Expected Data Transfer Length of the iSCSI header.
    pub expected_bytes: u32,
    /// How it is to be ordered; `iscsi` has seen to that.
    pub attribute: Attribute,
}

/// The task attribute of a command (SAM-5 8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attribute {
    /// In any order among its like.
    #[default]
    Simple,
    /// After every older command, before every later one that is not HEAD OF QUEUE.
    Ordered,
    /// Before everything that waits.
    HeadOfQueue,
    /// Only while an auto contingent allegiance exists, which this unit does not have.
    ContingentAllegiance,
    /// None of these.
    Reserved,
}

/// How a command ended (SAM-5 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// Not done; the sense says why.
    CheckCondition = 0x02,
    /// To be tried again later.
    Busy = 0x08,
    /// Refused because of another's reservation.
    ReservationConflict = 0x18,
    /// To be tried again when other commands have ended.
    TaskSetFull = 0x28,
}

impl Status {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// What became of a request, or of a pending one that was resumed.
#[derive(Debug)]
#[must_use = "a request that is begun must be answered"]
pub enum Begun {
    /// Answer it.
    Done(Done),
    /// It wants operations done.
    Pending(Pending),
    /// It changes what must outlive the engine.
    Keep(Keep),
}

/// A change that takes effect only once it is durable: store [`Keep::state`], then hand it to
/// [`super::LogicalUnit::kept`]. Until then another such change is answered BUSY.
#[derive(Debug)]
#[must_use = "the unit waits for it"]
pub struct Keep {
    pub(super) nexus: NexusId,
    pub(super) state: Bytes,
    pub(super) change: Change,
}

impl Keep {
    /// What the unit is to know after a restart: all of it, for
    /// [`super::LogicalUnit::restore`].
    pub fn state(&self) -> Bytes {
        self.state.clone()
    }

    /// Whose command it is.
    pub const fn nexus(&self) -> NexusId {
        self.nexus
    }
}

/// A command's answer.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the initiator waits for it"]
pub struct Done {
    /// How it ended.
    pub status: Status,
    /// The sense data, without iSCSI's length in front; empty unless the status is CHECK CONDITION.
    pub sense: Bytes,
    /// All data that the command produced, already cut to its allocation length. May be longer or
    /// shorter than what the initiator expects: `iscsi` cuts it and tells the residual.
    pub data_in: Bytes,
    /// The sessions whose other commands are to be aborted: they were preempted.
    pub abort: Vec<NexusId>,
}

/// A command that waits for operations. Dropping it abandons the command: only right when its
/// session is gone or the task was aborted.
#[derive(Debug)]
#[must_use = "a pending request must be resumed"]
pub struct Pending {
    pub(super) nexus: NexusId,
    pub(super) operations: Vec<Operation>,
    pub(super) expected_outcomes: usize,
    pub(super) after: After,
}

impl Pending {
    /// What the command wants done now, at most [`Pending::OPERATIONS_MAX`] at a time. Submit all;
    /// they may be carried out in any order. Empty when taken before.
    pub fn operations(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.operations)
    }

    /// Whether the command waits for the sanitize operation to end, not for operations of its own:
    /// to be resumed without outcomes once [`super::LogicalUnit::is_sanitizing`] says no.
    pub const fn waits_for_sanitize(&self) -> bool {
        matches!(self.after, After::Sanitized)
    }

    /// The most operations of one batch: an UNMAP list has no more descriptors, and a batch of a
    /// long WRITE SAME or copy is no longer (INV-12).
    pub const OPERATIONS_MAX: usize = UNMAP_DESCRIPTORS_MAX as usize;

    /// Whose command it is.
    pub const fn nexus(&self) -> NexusId {
        self.nexus
    }
}
