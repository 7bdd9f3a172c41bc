use ankole_proto::rpc::v1::Snapshot;
use serde::Serialize;

use super::{or_dash, plain, time};
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
        }
    }
}

impl Row for SnapshotView {
    const COLUMNS: &'static [&'static str] = &[
        "NAME", "STATE", "CREATED", "SIZE", "LAYER", "PARENT", "MESSAGE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            time::utc(self.created_at_ms),
            size::show(self.size_bytes),
            self.layer.clone(),
            or_dash(&self.parent_layer),
            or_dash(&self.message),
        ]
    }
}
