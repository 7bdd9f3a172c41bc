//! INV-14: zeros are returned only where nothing was written, or zeros were.

use super::super::history::Unexplained;

/// Whether zeros were returned in the place of data.
pub(super) fn judges(found: &Unexplained) -> bool {
    matches!(found, Unexplained::Superseded(found) if found.is_zeros() && found.was_acknowledged())
}
