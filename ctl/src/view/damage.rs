use ankole_proto::rpc::v1::DamagedBlock;
use serde::Serialize;

use super::{or_dash, plain, time};
use crate::output::Row;

/// A bad block that is not repaired yet.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DamageView {
    /// Of the replica.
    #[serde(skip)]
    node: String,
    layer: String,
    snapshot: String,
    offset: u64,
    length: u64,
    flaw: String,
    found_at_ms: u64,
}

impl DamageView {
    /// Of the replica on this node.
    pub(super) fn new(node: &str, damage: DamagedBlock) -> Self {
        Self {
            node: node.to_owned(),
            flaw: plain(damage.flaw().as_str_name(), "FLAW_"),
            layer: damage.layer,
            snapshot: damage.snapshot,
            offset: damage.offset,
            length: damage.length,
            found_at_ms: damage.found_at_ms,
        }
    }
}

impl Row for DamageView {
    const COLUMNS: &'static [&'static str] = &[
        "BAD BLOCK ON",
        "LAYER",
        "SNAPSHOT",
        "OFFSET",
        "BYTES",
        "WHAT",
        "SINCE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            self.layer.clone(),
            or_dash(&self.snapshot),
            self.offset.to_string(),
            self.length.to_string(),
            self.flaw.clone(),
            time::utc(self.found_at_ms),
        ]
    }
}
