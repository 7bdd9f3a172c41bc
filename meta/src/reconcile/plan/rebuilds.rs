//! How many replicas are rebuilt at a time.

use std::collections::BTreeMap;

use ankole_proto::NodeName;

use super::View;
use crate::reconcile::{Liveness, liveness};
use crate::state::{ReplicaMode, Volume};

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
    /// Those on record that can go on. One whose sources are all on nodes that are down waits, for
    /// however long, and must not keep others from their turn. So when a source is back, more may go
    /// on for a while than are begun at a time.
    pub(super) fn on_record(view: View<'_>) -> Self {
        let mut rebuilds = Self {
            by_node: BTreeMap::new(),
            all: 0,
        };
        let volumes = view.state.volumes().values();
        for volume in volumes.filter(|volume| view.has_source(volume)) {
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

impl View<'_> {
    /// Whether one of the volume's in-sync replicas is on a node that is not known to be down.
    fn has_source(self, volume: &Volume) -> bool {
        let mut in_sync = volume.in_mode(ReplicaMode::InSync);
        in_sync.any(|(_, replica)| {
            let liveness = liveness(self.state, self.observed, self.now, &replica.node);
            !matches!(liveness, Liveness::Down { .. })
        })
    }
}
