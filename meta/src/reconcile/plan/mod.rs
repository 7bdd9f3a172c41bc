//! The planner: which commands bring the agreed state nearer to what is wanted and what is so.

mod clones;
mod count;
mod engines;
mod groups;
mod medium;
mod nodes;
mod rebuilds;
mod replicas;
mod snapshots;

use ankole_proto::rpc::v1::LogCommand;
use ankole_proto::rpc::v1::log_command::Command;

use super::{Now, Observed};
use crate::state::State;

pub use nodes::{Liveness, agent_alive, liveness};
pub use rebuilds::{REBUILDS_MAX, REBUILDS_PER_NODE_MAX};

/// How long a daemon may be silent before its node counts as down: three heartbeats at the longest
/// hold.
pub const SILENT_MS: u64 = 6_000;

/// How long a node may stay away before its replicas are replaced elsewhere: a restart of the host
/// is shorter, and costs a comparison instead of a full copy.
pub const AWAY_MS: u64 = 10 * 60 * 1000;

/// The most commands of one plan (INV-12); the next plan has the rest.
pub const COMMANDS_MAX: usize = 64;

/// What is to be proposed now. `fresh` makes 128 random bits for the id of a new replica.
pub fn plan(
    state: &State,
    observed: &Observed,
    now: Now,
    fresh: &mut dyn FnMut() -> u128,
) -> Vec<LogCommand> {
    let view = View {
        state,
        observed,
        now,
    };
    let mut commands = Vec::new();
    view.nodes(&mut commands);
    view.groups(&mut commands);
    view.snapshots(&mut commands);
    view.nameless_layers(&mut commands);
    view.engines(&mut commands);
    view.medium(&mut commands);
    view.count(fresh, &mut commands);
    view.clones(&mut commands);
    view.replicas(fresh, &mut commands);
    commands.truncate(COMMANDS_MAX);
    let entry = |command| LogCommand {
        request_id: String::new(),
        at_ms: now.wall_ms,
        command: Some(command),
    };
    commands.into_iter().map(entry).collect()
}

/// What a plan is made from.
#[derive(Clone, Copy)]
struct View<'a> {
    state: &'a State,
    observed: &'a Observed,
    now: Now,
}

type Commands = Vec<Command>;
