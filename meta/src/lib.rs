//! The managers: a Raft group that knows every volume, snapshot and replica.
//!
//! A command passes `api → raft → state`; `reconcile` compares what is agreed with what daemons
//! report and proposes commands of its own. `state` and `reconcile` are pure; `raft` is the only
//! place that names openraft, `store` the only one that names sled.

pub mod api;
pub mod daemon;
pub mod raft;
pub mod reconcile;
pub mod state;
pub mod store;
