//! How many replicas are rebuilt at a time.

use std::collections::BTreeMap;

use ankole_proto::NodeName;

use crate::state::{ReplicaMode, State};

/// How many rebuilds may write to one node at a time: more take turns on its disks and all end
/// late. Each is held to the engine's own rate, so this bounds a node's as well.
pub const REBUILDS_PER_NODE_MAX: usize = 2;

/// How many there may be in the cluster at a time, so that a node that comes back does not fill the
/// network of all others.
pub const REBUILDS_MAX: usize = 8;

/// The rebuilds on record and those of the plan that is being made.
pub(super) struct Rebuilds {
    by_node: BTreeMap<NodeName, usize>,
    all: usize,
}

impl Rebuilds {
    /// Those on record.
    pub(super) fn on_record(state: &State) -> Self {
        let mut rebuilds = Self {
            by_node: BTreeMap::new(),
            all: 0,
        };
        for volume in state.volumes().values() {
            for (_, replica) in volume.in_mode(ReplicaMode::Rebuilding) {
                rebuilds.add(&replica.node);
            }
        }
        rebuilds
    }

    fn add(&mut self, node: &NodeName) {
        *self.by_node.entry(node.clone()).or_default() += 1;
        self.all += 1;
    }

    /// Takes a turn on this node; whether there was one.
    pub(super) fn take(&mut self, node: &NodeName) -> bool {
        let on_node = self.by_node.get(node).copied().unwrap_or(0);
        let free = self.all < REBUILDS_MAX && on_node < REBUILDS_PER_NODE_MAX;
        if free {
            self.add(node);
        }
        free
    }
}
