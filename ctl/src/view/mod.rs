//! What is shown of each thing: the fields, their names in JSON and their columns.

mod comparison;
mod damage;
mod node;
mod snapshot;
mod time;
mod volume;

pub(crate) use node::{ClusterView, EventView, NodeView};
pub(crate) use snapshot::{SnapshotUsage, SnapshotView};
pub(crate) use volume::VolumeView;

/// An enum's value as the CLI writes it: `VOLUME_STATE_ATTACHED` → `attached`.
fn plain(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_lowercase()
        .replace('_', "-")
}

/// The text, or a dash for none.
fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}
