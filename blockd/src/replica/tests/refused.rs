//! Why an operation was not done, whatever family of operations it is of.

use std::io;

use ankole_proto::wire::ErrorCode;

use crate::replica::{CloneError, DataError, LoadError, Refusal, WorkError};

/// Why an operation was not done.
#[derive(Debug)]
pub(super) struct Refused {
    /// As an engine would be told, if there is a code for it.
    pub(super) code: Option<ErrorCode>,
    #[expect(dead_code, reason = "shown when a test fails")]
    pub(super) text: String,
}

impl<E: Refusal> From<E> for Refused {
    fn from(error: E) -> Self {
        Self {
            code: Some(error.code()),
            text: error.to_string(),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let is_full = error.kind() == io::ErrorKind::StorageFull;
        Self {
            code: is_full.then_some(ErrorCode::NoSpace),
            text: error.to_string(),
        }
    }
}

impl From<WorkError> for Refused {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Unusable(unusable) => DataError::from(unusable).into(),
            WorkError::Medium(medium) => DataError::from(medium).into(),
            WorkError::Checksum(mismatch) => DataError::from(mismatch).into(),
        }
    }
}

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Self {
        let text = error.to_string();
        let code = match error {
            LoadError::Io { source, .. } => Self::from(source).code.or(Some(ErrorCode::Io)),
            LoadError::Faulted { .. } => Some(ErrorCode::Faulted),
            LoadError::BadFile { .. } | LoadError::Foreign { .. } => None,
        };
        Self { code, text }
    }
}

impl From<CloneError> for Refused {
    fn from(error: CloneError) -> Self {
        let text = error.to_string();
        match error {
            CloneError::Io(error) => error.into(),
            CloneError::Medium(medium) => DataError::from(medium).into(),
            CloneError::Unusable(unusable) => DataError::from(unusable).into(),
            _ => Self { code: None, text },
        }
    }
}
