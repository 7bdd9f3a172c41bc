//! Replication of one volume: which replicas get what, when a command is done, who is lost.
//!
//! Pure: [`event::Event`]s in, [`event::Effect`]s out; no socket, clock, randomness or tokio. The
//! same code runs under `run` in production and under the simulator in `chaos`.

pub mod event;
