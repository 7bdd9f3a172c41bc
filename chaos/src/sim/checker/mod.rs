//! What must hold, one file for each thing. Each looks at the state as it is, apart from the code
//! that it judges.
//!
//! Reads are judged by [`super::history`] (INV-2, INV-5, INV-8, INV-13, INV-14: data that is lost,
//! old, torn or made up has no explanation).

pub(super) mod acknowledged;
pub(super) mod convergence;
pub(super) mod epochs;
pub(super) mod membership;
pub(super) mod snapshots;
