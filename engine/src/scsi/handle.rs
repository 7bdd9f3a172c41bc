//! What the handlers of commands share: the task at hand, and what they may answer.

use ankole_proto::Extent;
use bytes::Bytes;

use super::block::provisioning::Scan;
use super::block::repeat::Repeat;
use super::cdb::Cdb;
use super::copy::CopyJob;
use super::nexus::NexusId;
use super::reservation::ReservationChange;
use super::sanitize::Order;
use super::sense::{AdditionalSense, FailureAnswer, Sense};
use super::task::Status;
use crate::volume::{Failure, Operation};

/// A command that passed the checks that all commands have.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) nexus: NexusId,
    pub(super) cdb: Cdb,
    pub(super) data_out: Bytes,
    pub(super) expected_bytes: u32,
}

impl Task {
    /// The first `bytes` of the data-out.
    pub(super) fn data(&self, bytes: u64) -> Result<Bytes, Refusal> {
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= self.data_out.len() => Ok(self.data_out.slice(..bytes)),
            _ => Err(wrong_data_length()),
        }
    }

    /// The data-out, which the initiator must have announced with exactly this length: of commands
    /// whose data is not a plain run of blocks, where more or less cannot be what was meant.
    pub(super) fn exact_data(&self, bytes: u64) -> Result<Bytes, Refusal> {
        if u64::from(self.expected_bytes) != bytes {
            return Err(wrong_data_length());
        }
        self.data(bytes)
    }

    /// A parameter list of this length.
    pub(super) fn parameters(&self, bytes: usize) -> Result<Bytes, Refusal> {
        if bytes > self.data_out.len() {
            return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR).into());
        }
        Ok(self.data_out.slice(..bytes))
    }
}

fn wrong_data_length() -> Refusal {
    Sense::illegal(AdditionalSense::INVALID_FIELD_IN_INFORMATION_UNIT).into()
}

/// What a handler answers when it does not refuse.
#[derive(Debug)]
pub(super) enum Step {
    /// GOOD without data.
    Good,
    /// GOOD with data.
    Data(Bytes),
    /// Once the change is durable.
    Keep(Change),
    /// First these operations.
    Run(Vec<Operation>, After),
}

/// How the command goes on when its operations are done.
#[derive(Debug)]
pub(super) enum After {
    /// GOOD.
    Good,
    /// GOOD with what was read.
    Data,
    /// Compare what was read.
    Compare(Bytes),
    /// Read it and compare: WRITE AND VERIFY.
    ReadBack {
        extent: Extent,
        expected: Option<Bytes>,
    },
    /// The read only had to succeed.
    Readable,
    /// Tell which blocks read as zeros: GET LBA STATUS.
    Status(Box<Scan>),
    /// The sanitize operation has ended.
    Sanitized,
    /// The next batch of WRITE SAME.
    Repeat(Repeat),
    /// The next step of EXTENDED COPY.
    Copy(Box<CopyJob>),
}

impl After {
    /// Whether more operations, or an answer that needs the old contents, would follow.
    pub(super) const fn goes_on(&self) -> bool {
        !matches!(self, Self::Good | Self::Sanitized)
    }
}

/// What changes of the state that outlives the engine.
#[derive(Debug)]
pub(super) enum Change {
    Reservations(Box<ReservationChange>),
    /// Begins, or with nothing leaves the failure mode.
    Sanitize(Option<Order>),
}

/// A status other than GOOD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) sense: Option<Sense>,
}

impl Refusal {
    /// Something of the kind is under way: to be tried again.
    pub(super) const BUSY: Self = Self {
        status: Status::Busy,
        sense: None,
    };

    pub(super) const CONFLICT: Self = Self {
        status: Status::ReservationConflict,
        sense: None,
    };
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self {
            status: Status::CheckCondition,
            sense: Some(sense),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.into() {
            FailureAnswer::Check(sense) => return sense.into(),
            FailureAnswer::Busy => Status::Busy,
            FailureAnswer::TaskSetFull => Status::TaskSetFull,
        };
        Self {
            status,
            sense: None,
        }
    }
}

/// What every handler returns.
pub(super) type Handled = Result<Step, Refusal>;
