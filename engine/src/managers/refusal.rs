//! From a refused record to the mirror's terms.

use tonic::Code;

use super::CallError;
use crate::mirror::event::RecordRefusal;

/// The trailer in which the managers name a refusal.
pub const REFUSAL_TRAILER: &str = "ankole-refusal";

/// What a failed record means to the mirror. Only a refusal that the managers name is one:
/// everything else leaves open whether it was recorded, and the mirror asks again.
pub fn record_refusal(error: &CallError) -> RecordRefusal {
    let CallError::Refused(status) = error else {
        return RecordRefusal::Unreachable(error.to_string());
    };
    let named = status
        .metadata()
        .get(REFUSAL_TRAILER)
        .and_then(|value| value.to_str().ok());
    match (status.code(), named) {
        (Code::FailedPrecondition, Some("fenced")) => RecordRefusal::Fenced,
        (Code::FailedPrecondition, Some("last-in-sync")) => RecordRefusal::LastInSync,
        (Code::FailedPrecondition, Some("unknown-replica" | "unknown-task")) => {
            RecordRefusal::Unknown
        }
        _ => RecordRefusal::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn refused(code: Code, named: Option<&'static str>) -> RecordRefusal {
        let mut status = Status::new(code, "no");
        if let Some(named) = named {
            let value = tonic::metadata::MetadataValue::from_static(named);
            status.metadata_mut().insert(REFUSAL_TRAILER, value);
        }
        record_refusal(&CallError::Refused(Box::new(status)))
    }

    #[test]
    fn only_a_named_refusal_is_one() {
        let code = Code::FailedPrecondition;
        assert_eq!(refused(code, Some("fenced")), RecordRefusal::Fenced);
        assert_eq!(
            refused(code, Some("last-in-sync")),
            RecordRefusal::LastInSync
        );
        assert_eq!(
            refused(code, Some("unknown-replica")),
            RecordRefusal::Unknown
        );
        assert_eq!(refused(code, Some("unknown-task")), RecordRefusal::Unknown);
        for (code, named) in [
            (code, None),
            (code, Some("else")),
            (Code::NotFound, Some("fenced")),
            (Code::InvalidArgument, None),
        ] {
            assert!(
                matches!(refused(code, named), RecordRefusal::Unreachable(_)),
                "{code:?} {named:?}"
            );
        }
    }
}
