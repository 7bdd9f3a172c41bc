//! From what is agreed and what the daemons report to what is to be agreed next, and to what each
//! daemon is told.
//!
//! Owns placement, the planner and the orders, all pure: the moment, the reports and new ids are
//! handed in. Only [`drive`] waits and proposes. Promises that nothing is destroyed because it is
//! absent: a replica is deleted by an explicit order only, a missing one is never created empty
//! under its old id, and an absence counts only in a report that answers the present orders.

pub mod drive;
mod observed;
mod orders;
mod place;
mod place_clone;
mod plan;

#[cfg(test)]
mod tests;

pub use observed::{
    Agent, Blockd, DiskSeen, EngineSeen, NODES_MAX, Now, Observed, ReportError, Seen, Sight,
    Stored, StoredState, Tick,
};
pub use orders::{agent_orders, blockd_orders, engine_orders, removable_layers};
pub use place::{NoRoom, Unplaceable, Want, place, room_to_grow};
pub use place_clone::{CloneSource, NoSource, place_clone};
pub use plan::{
    AWAY_MS, COMMANDS_MAX, Liveness, REBUILDS_MAX, REBUILDS_PER_NODE_MAX, SILENT_MS, agent_alive,
    liveness, plan,
};
