use std::collections::BTreeMap;

use ankole_proto::rpc::v1::Snapshot;
use serde::Serialize;

use super::{VolumeView, or_dash, plain, time};
use crate::output::Row;
use crate::size;

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotView {
    id: String,
    name: String,
    volume_id: String,
    layer: String,
    parent_layer: String,
    state: String,
    created_at_ms: u64,
    size_bytes: u64,
    group_id: String,
    message: String,
    /// Of each in-sync replica; empty where nobody asked for it.
    usage: Vec<LayerUsage>,
}

/// What a replica takes for a snapshot's layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LayerUsage {
    pub(super) node: String,
    pub(super) used_bytes: u64,
    pub(super) reclaimable_bytes: u64,
}

/// What the snapshots of some volumes take.
#[derive(Debug, Default)]
pub(crate) struct SnapshotUsage(BTreeMap<(String, String), Vec<LayerUsage>>);

impl SnapshotUsage {
    pub(crate) fn of(volumes: &[VolumeView]) -> Self {
        let mut known = BTreeMap::<_, Vec<LayerUsage>>::new();
        for volume in volumes {
            for (layer, usage) in volume.usage() {
                let key = (volume.id().to_owned(), layer.to_owned());
                known.entry(key).or_default().push(usage);
            }
        }
        Self(known)
    }
}

impl SnapshotView {
    /// With what its layer takes.
    pub(crate) fn with_usage(mut self, known: &SnapshotUsage) -> Self {
        let key = (self.volume_id.clone(), self.layer.clone());
        self.usage = known.0.get(&key).cloned().unwrap_or_default();
        self
    }

    /// One size when all replicas agree, else that of each.
    fn sizes(&self, of: impl Fn(&LayerUsage) -> u64) -> String {
        let Some(first) = self.usage.first() else {
            return "-".to_owned();
        };
        if self.usage.iter().all(|one| of(one) == of(first)) {
            return size::show(of(first));
        }
        let each = self.usage.iter();
        let each: Vec<String> = each
            .map(|one| format!("{}: {}", one.node, size::show(of(one))))
            .collect();
        each.join(", ")
    }
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            state: plain(snapshot.state().as_str_name(), "SNAPSHOT_STATE_"),
            id: snapshot.id,
            name: snapshot.name,
            volume_id: snapshot.volume_id,
            layer: snapshot.layer,
            parent_layer: snapshot.parent_layer,
            created_at_ms: snapshot.created_at_ms,
            size_bytes: snapshot.size_bytes,
            group_id: snapshot.group_id,
            message: snapshot.message,
            usage: Vec::new(),
        }
    }
}

impl Row for SnapshotView {
    const COLUMNS: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "CREATED",
        "SIZE",
        "USED",
        "RECLAIMABLE",
        "LAYER",
        "PARENT",
        "MESSAGE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            time::utc(self.created_at_ms),
            size::show(self.size_bytes),
            self.sizes(|one| one.used_bytes),
            self.sizes(|one| one.reclaimable_bytes),
            self.layer.clone(),
            or_dash(&self.parent_layer),
            or_dash(&self.message),
        ]
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::rpc::v1::{self as rpc, Replica, ReplicaMode, Volume};

    use super::*;

    fn replica(node: &str, mode: ReplicaMode, used_bytes: u64) -> Replica {
        Replica {
            node: node.to_owned(),
            mode: mode.into(),
            layers: vec![rpc::LayerUsage {
                layer: "aa".to_owned(),
                used_bytes,
                reclaimable_bytes: 1 << 20,
            }],
            ..Replica::default()
        }
    }

    fn shown(used_bytes: [u64; 3]) -> Vec<String> {
        let [one, two, three] = used_bytes;
        let volume = Volume {
            id: "v".to_owned(),
            replicas: vec![
                replica("n1", ReplicaMode::InSync, one),
                replica("n2", ReplicaMode::InSync, two),
                replica("n3", ReplicaMode::Rebuilding, three),
            ],
            ..Volume::default()
        };
        let snapshot = Snapshot {
            volume_id: "v".to_owned(),
            layer: "aa".to_owned(),
            ..Snapshot::default()
        };
        let known = SnapshotUsage::of(&[VolumeView::from(volume)]);
        let view = SnapshotView::from(snapshot).with_usage(&known);
        assert_eq!(view.usage.len(), 2);
        let cells = view.cells();
        assert_eq!(cells.len(), SnapshotView::COLUMNS.len());
        let titles = SnapshotView::COLUMNS.iter();
        let shown = titles
            .zip(cells)
            .filter(|(title, _)| ["USED", "RECLAIMABLE"].contains(*title));
        shown.map(|(_, cell)| cell).collect()
    }

    #[test]
    fn what_a_snapshot_takes_is_one_size_when_the_replicas_agree_and_else_each() {
        assert_eq!(shown([4 << 20, 4 << 20, 0]), ["4.0 MiB", "1.0 MiB"]);
        assert_eq!(
            shown([4 << 20, 2 << 20, 0]),
            ["n1: 4.0 MiB, n2: 2.0 MiB", "1.0 MiB"]
        );
    }

    #[test]
    fn a_snapshot_of_which_nothing_is_known_has_a_dash() {
        let view = SnapshotView::from(Snapshot::default());
        let view = view.with_usage(&SnapshotUsage::default());
        assert_eq!(view.sizes(|one| one.used_bytes), "-");
    }
}
