//! The engine: one process per attached volume, an iSCSI target that mirrors every write
//! synchronously to the volume's replicas.
//!
//! A write passes `iscsi → scsi → mirror → link`, all on one thread, and comes back the same way.
//! What decides (`iscsi` session logic, `scsi`, `mirror`) is plain synchronous code without clock,
//! randomness, sockets or tokio; `run` and `link` wait and carry out. `agent` supervises the
//! engines of one node.

pub mod agent;
#[doc(hidden)]
pub mod fuzzing;
pub mod iscsi;
pub mod link;
pub mod managers;
pub mod mirror;
pub mod run;
pub mod scsi;
mod short_read;
pub mod volume;
