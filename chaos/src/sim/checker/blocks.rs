//! INV-13: what is returned is what somebody wrote there, whole sectors of it, or zeros.

use super::super::history::Unexplained;

/// Whether data was made up.
pub(super) fn judges(found: &Unexplained) -> bool {
    matches!(found, Unexplained::MadeUp(_))
}
