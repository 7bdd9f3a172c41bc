//! An asynchronous iSCSI load with latency percentiles, and a verifier that finds lost, stale and
//! torn writes after any crash.
//!
//! Every sector that is written says where it belongs and which write of its block it is
//! ([`sector`]). A shadow file ([`shadow`]) remembers for each block which writes were issued,
//! acknowledged and flushed, and outlives a `kill -9` of this program, so that a later [`check`]
//! can demand of every block: not older than the last acknowledged write, not newer than the last
//! issued one, and whole.

pub mod check;
pub mod gap;
pub mod report;
pub mod run;
pub mod sector;
pub mod shadow;
pub mod workload;

pub use check::{Findings, check};
pub use gap::{Gap, gaps};
pub use report::{Figures, Report};
pub use run::{LoadError, run};
pub use shadow::{Durable, Shadow};
pub use workload::{Pattern, Workload};
