//! What must hold, one file for each thing. Each looks at the state as it is, apart from the code
//! that it judges.
//!
//! What clients read, [`super::history`] explains; what it cannot explain is against INV-2, INV-5,
//! INV-8, INV-13 or INV-14, and [`of_read`] says which.

pub(super) mod acknowledged;
pub(super) mod agreement;
mod blocks;
pub(super) mod convergence;
pub(super) mod cut;
pub(super) mod epochs;
pub(super) mod flushed;
pub(super) mod losses;
mod lost;
pub(super) mod membership;
mod order;
pub(super) mod rebuilding;
pub(super) mod snapshots;
pub(super) mod syncs;
pub(super) mod trees;
mod views;
mod zeros;

pub(super) use views::Views;

use super::history::Unexplained;

/// Who noticed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// A read that misses what was acknowledged.
    Lost,
    /// A medium, or a read, that misses what a flush had covered.
    Flushed,
    /// A read that came too early, or went back.
    Order,
    /// Data that nobody wrote.
    Blocks,
    /// Zeros in the place of data.
    Zeros,
    /// A replica that is away, lacks what is acknowledged, and counts.
    Losses,
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
    /// In-sync replicas that differed when an engine compared them.
    Agreement,
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

/// Which checker a read that cannot be explained belongs to: the most telling one.
pub(super) fn of_read(found: &Unexplained) -> Finding {
    let by = if blocks::judges(found) {
        Checker::Blocks
    } else if zeros::judges(found) {
        Checker::Zeros
    } else if flushed::judges(found) {
        Checker::Flushed
    } else if lost::judges(found) {
        Checker::Lost
    } else {
        debug_assert!(order::judges(found));
        Checker::Order
    };
    let what = found.to_string();
    Finding { by, what }
}

impl Checker {
    /// Makes a finding of what this checker says.
    pub(super) fn says(self) -> impl FnOnce(String) -> Finding {
        move |what| Finding { by: self, what }
    }
}
