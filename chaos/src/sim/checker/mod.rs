//! What must hold, one file for each thing. Each looks at the state as it is, apart from the code
//! that it judges.
//!
//! Reads are judged by [`super::history`] (INV-2, INV-5, INV-8, INV-13, INV-14: data that is lost,
//! old, torn or made up has no explanation).

pub(super) mod acknowledged;
pub(super) mod convergence;
pub(super) mod cut;
pub(super) mod epochs;
pub(super) mod membership;
pub(super) mod rebuilding;
pub(super) mod snapshots;
pub(super) mod syncs;
pub(super) mod trees;
mod views;

pub(super) use views::Views;

/// Who noticed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// A read that no order of the operations explains.
    History,
    /// An epoch that went back, or an older engine that was obeyed.
    Epochs,
    /// A record without in-sync replica.
    Membership,
    /// In-sync replicas that differ when a write is acknowledged.
    Acknowledged,
    /// A rebuilding replica on record as in sync.
    Rebuilding,
    /// A replica that goes on after a failed sync.
    Syncs,
    /// A tree of layers that is none.
    Trees,
    /// Replicas that differ after everything has healed.
    Convergence,
    /// A snapshot that is not the volume at one moment.
    Snapshots,
    /// Snapshots of a group that are of different moments.
    Cut,
    /// Something that does not come to an end, or an answer that nobody asked for.
    Liveness,
}

/// What was noticed.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) by: Checker,
    pub(super) what: String,
}

/// Nothing, or a finding.
pub(super) type Verdict = Result<(), Finding>;

impl Checker {
    /// Makes a finding of what this checker says.
    pub(super) fn says(self) -> impl FnOnce(String) -> Finding {
        move |what| Finding { by: self, what }
    }
}
