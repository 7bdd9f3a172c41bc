//! Layers that are gone everywhere: of deleted snapshots, and those that clones were born with.

use ankole_proto::rpc::v1::LayerGoneCommand;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{LayerId, ReplicaId};

use super::{Commands, View};
use crate::reconcile::{Sight, blockd_orders, removable_layers};
use crate::state::{Replica, ReplicaMode, SnapshotState, Volume};

impl View<'_> {
    pub(super) fn snapshots(self, commands: &mut Commands) {
        let deleting = self
            .state
            .snapshots()
            .values()
            .filter(|one| one.state == SnapshotState::Deleting);
        for snapshot in deleting {
            let Some(volume) = self.state.volumes().get(&snapshot.volume) else {
                continue;
            };
            let Some(layer) = snapshot.layer else {
                continue;
            };
            let ordered = removable_layers(self.state, volume).contains(&layer);
            if ordered && self.merged_everywhere(volume, layer) {
                let snapshot_id = snapshot.id.to_string();
                commands.push(Command::LayerGone(LayerGoneCommand {
                    snapshot_id,
                    ..Default::default()
                }));
            }
        }
    }

    /// Layers that a clone was born with, gone from it.
    pub(super) fn nameless_layers(self, commands: &mut Commands) {
        for volume in self.state.volumes().values() {
            let nameless = volume.nameless_layers(self.state);
            if nameless.is_empty() {
                continue;
            }
            let ordered = removable_layers(self.state, volume);
            let gone = nameless
                .into_iter()
                .filter(|layer| ordered.contains(layer) && self.merged_everywhere(volume, *layer));
            commands.extend(gone.map(|layer| {
                Command::LayerGone(LayerGoneCommand {
                    volume_id: volume.id.to_string(),
                    layer: layer.to_string(),
                    ..Default::default()
                })
            }));
        }
    }

    fn merged_everywhere(self, volume: &Volume, layer: LayerId) -> bool {
        let mut counting = volume.in_mode(ReplicaMode::InSync);
        counting.all(|(id, replica)| self.lacks(id, replica, layer))
    }

    /// Whether the replica answers the present orders and has the layer no more.
    fn lacks(self, id: ReplicaId, replica: &Replica, layer: LayerId) -> bool {
        match self.observed.sight(&replica.node, replica.disk, id) {
            Sight::Stored(stored) => {
                !stored.layers.contains(&layer) && self.blockd_answers(&replica.node)
            }
            _ => false,
        }
    }

    /// Whether the last report of a node's blockd answers the present orders, so that what it lacks
    /// is lacking.
    pub(super) fn blockd_answers(self, node: &ankole_proto::NodeName) -> bool {
        let orders = blockd_orders(self.state, node).revision;
        self.observed
            .blockds
            .get(node)
            .is_some_and(|seen| seen.answers(orders))
    }
}
