//! The replica store of one node: layers on local disks behind the block protocol.
//!
//! A write passes `session → replica → layer → disk`. `layer` and `replica` are plain synchronous
//! code over the [`disk::Disk`] trait, so that the simulator in `chaos` runs them over a disk that
//! forgets what was not synced. `store` knows the replicas of this node's disks, `daemon` talks to
//! the managers. A blockd decides nothing.

pub mod daemon;
pub mod disk;
#[cfg(any(test, feature = "sim"))]
pub mod fuzzing;
#[cfg(any(test, feature = "sim"))]
pub mod golden;
pub mod layer;
pub mod replica;
pub mod session;
pub mod store;
