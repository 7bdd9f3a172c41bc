//! INV-8: a read shows no write that is not acknowledged, and does not go back behind another one.

use super::super::history::Unexplained;

/// Whether a read came too early, or after one that had shown more.
pub(super) fn judges(found: &Unexplained) -> bool {
    match found {
        Unexplained::Unacknowledged(_) => true,
        Unexplained::Superseded(found) => !found.was_acknowledged(),
        Unexplained::MadeUp(_) => false,
    }
}
