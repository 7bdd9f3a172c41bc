//! INV-2: what was acknowledged is there for every read.

use super::super::history::Unexplained;

/// Whether an acknowledged write that no flush had covered is missed.
pub(super) fn judges(found: &Unexplained) -> bool {
    match found {
        Unexplained::Superseded(found) => found.was_acknowledged() && !found.was_durable(),
        Unexplained::MadeUp(_) | Unexplained::Unacknowledged(_) => false,
    }
}
