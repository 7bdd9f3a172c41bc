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

/// How many seconds something will still take at its rate; `None` while it has none.
fn eta(done_bytes: u64, total_bytes: u64, bytes_per_second: u64) -> Option<u64> {
    let left = total_bytes.saturating_sub(done_bytes);
    left.checked_div(bytes_per_second)
}

/// How long something will still take, to follow its rate.
fn left(eta_seconds: Option<u64>) -> String {
    eta_seconds.map_or(String::new(), |eta| format!(", {eta} s left"))
}

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
