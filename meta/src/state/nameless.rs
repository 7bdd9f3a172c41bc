//! Layers that lie in a volume's tree under no name.
//!
//! A clone is born with the layers of its source's chain, whose names are the source's. As long as
//! another volume has such a layer too, the replicas share its files, and merging it away would take
//! more space, not less. The last volume that has it has it for nothing.

use ankole_proto::LayerId;

use super::{State, Volume};

impl Volume {
    /// Its sealed layers that no snapshot of it names and no other volume has.
    pub fn nameless_layers(&self, state: &State) -> Vec<LayerId> {
        // Only a clone has layers that it did not name itself.
        let Some(origin) = self.origin.filter(|_| self.has_data()) else {
            return Vec::new();
        };
        let named: Vec<LayerId> = state
            .snapshots_of(self.id)
            .filter_map(|snapshot| snapshot.layer)
            .collect();
        let has = |layer: &LayerId, other: &Volume| {
            other.id != self.id && other.layers.contains_key(layer)
        };
        // Most often it is the source that has it.
        let source = state.volumes().get(&origin.volume);
        let shared = |layer: &LayerId| {
            source.is_some_and(|source| has(layer, source))
                || state.volumes().values().any(|other| has(layer, other))
        };
        let layers = self.layers.keys().copied();
        layers
            .filter(|layer| *layer != self.head && !named.contains(layer) && !shared(layer))
            .collect()
    }
}
