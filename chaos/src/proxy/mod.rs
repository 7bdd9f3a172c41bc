//! Faulty networks between real processes: a TCP proxy in user space that delays, narrows, holds,
//! swallows and cuts what goes through it.
//!
//! Owns one thread with all listeners and connections ([`Network`]), and what each of them may do
//! to its bytes ([`rules`]). Promises that a connection delivers a prefix of what was sent, in
//! order and unchanged, whatever strikes: one that has lost bytes is never used again, but reset
//! when the fault ends. Bounded in connections and in bytes under way (INV-12); the delays are
//! seeded. It knows nothing of what the bytes mean.

mod connection;
mod network;
pub mod rules;
mod way;

pub use network::{Network, Proxy};
pub use rules::{Passage, Rules, Way};

#[cfg(test)]
mod tests;
