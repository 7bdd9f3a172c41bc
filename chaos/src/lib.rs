//! Everything that attacks Ankole, or measures it: the deterministic simulator, the load and
//! verification client, the conformance suite, the demo and the benchmarks.
//!
//! Nothing depends on this crate; it may depend on every other. It is the only one that needs a C
//! library: libiscsi, an initiator that shares no code with our target.
#![allow(
    clippy::disallowed_methods,
    reason = "tests wait for real processes: a poll with a deadline sleeps between two looks"
)]

pub mod bench;
pub mod cluster;
pub mod conformance;
pub mod demo;
pub mod fuzz;
pub mod initiator;
pub mod interrupt;
pub mod live;
pub mod load;
pub mod proxy;
pub mod sim;
