//! The one place where refusals become gRPC statuses.

use ankole_proto::rpc::v1::LogRefusal;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::seat::SeatError;
use crate::reconcile::{NoRoom, NoSource, ReportError, Unplaceable};

/// The trailer that names a refusal for daemons.
pub(super) const REFUSAL_TRAILER: &str = "ankole-refusal";

/// A command that the state refused.
pub(super) fn refused(refusal: &LogRefusal) -> Status {
    let code = i32::try_from(refusal.code).map_or(Code::Unknown, Code::from_i32);
    named(Status::new(code, refusal.message.clone()), &refusal.kind)
}

/// A status with the refusal's name in the trailer.
pub(super) fn named(mut status: Status, kind: &str) -> Status {
    let value = MetadataValue::try_from(kind)
        .ok()
        .filter(|_| !kind.is_empty());
    if let Some(value) = value {
        status.metadata_mut().insert(REFUSAL_TRAILER, value);
    }
    status
}

impl From<SeatError> for Status {
    fn from(error: SeatError) -> Self {
        match error {
            SeatError::NoLeader(_) | SeatError::Unknown(_) => Self::unavailable(error.to_string()),
            SeatError::TooLarge(_) => Self::invalid_argument(error.to_string()),
        }
    }
}

impl From<ReportError> for Status {
    fn from(error: ReportError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<NoRoom> for Status {
    fn from(why: NoRoom) -> Self {
        Self::resource_exhausted(why.to_string())
    }
}

impl From<NoSource> for Status {
    fn from(why: NoSource) -> Self {
        Self::failed_precondition(why.to_string())
    }
}

impl From<Unplaceable> for Status {
    fn from(why: Unplaceable) -> Self {
        Self::resource_exhausted(why.to_string())
    }
}
