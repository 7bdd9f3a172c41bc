//! Nodes: which are on record, which are down.

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::NodeName;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{MarkNodeCommand, RegisterNodeCommand};

use super::{Commands, SILENT_MS, View};
use crate::reconcile::{Now, Observed, Seen};
use crate::state::{DiskOnRecord, NodeOnRecord, State, record};

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The daemon that makes it what it is reports.
    Up,
    /// It has been silent for this long.
    Down {
        /// Since its last report, or since this manager leads.
        silent_ms: u64,
    },
    /// This manager leads too shortly to tell.
    Unknown,
}

/// Whether a node answers: by its blockd, or by its agent when it has no blockd.
pub fn liveness(state: &State, observed: &Observed, now: Now, node: &NodeName) -> Liveness {
    let has_blockd = state.nodes().get(node).is_some_and(|node| node.has_blockd)
        || observed.blockds.contains_key(node);
    let heard = if has_blockd {
        heard(&observed.blockds, node)
    } else {
        heard(&observed.agents, node)
    };
    judge(heard, observed, now)
}

/// Whether the agent of a node answers.
pub fn agent_alive(observed: &Observed, now: Now, node: &NodeName) -> Liveness {
    judge(heard(&observed.agents, node), observed, now)
}

fn heard<T>(seen: &BTreeMap<NodeName, Seen<T>>, node: &NodeName) -> Option<Now> {
    seen.get(node).map(|seen| seen.at)
}

fn judge(heard: Option<Now>, observed: &Observed, now: Now) -> Liveness {
    let last = heard.map_or(observed.since, |at| at.tick);
    let silent_ms = now.tick.since_ms(last);
    match heard {
        _ if silent_ms > SILENT_MS => Liveness::Down { silent_ms },
        Some(_) => Liveness::Up,
        None => Liveness::Unknown,
    }
}

impl View<'_> {
    pub(super) fn nodes(self, commands: &mut Commands) {
        let names = self
            .observed
            .blockds
            .keys()
            .chain(self.observed.agents.keys());
        for name in names.collect::<BTreeSet<_>>() {
            let seen = self.node_seen(name);
            if self.state.nodes().get(name) != Some(&seen) {
                let node = Some(record::node_to(&seen));
                commands.push(Command::RegisterNode(RegisterNodeCommand { node }));
            }
        }
        for (name, node) in self.state.nodes() {
            let message = match liveness(self.state, self.observed, self.now, name) {
                Liveness::Down { silent_ms } if !node.down => {
                    format!("has not reported for {} s", silent_ms / 1000)
                }
                Liveness::Up if node.down => "reports again".to_owned(),
                _ => continue,
            };
            let (node, down) = (name.to_string(), !node.down);
            commands.push(Command::MarkNode(MarkNodeCommand {
                node,
                down,
                message,
            }));
        }
    }

    /// The node as it is to stand on record.
    fn node_seen(self, name: &NodeName) -> NodeOnRecord {
        let known = self.state.nodes().get(name).cloned();
        let mut node = known.unwrap_or_else(|| NodeOnRecord {
            name: name.clone(),
            zone: String::new(),
            has_blockd: false,
            has_agent: false,
            block_address: String::new(),
            block_socket: String::new(),
            rebuild_bytes_per_second: 0,
            revision: 0,
            disks: BTreeMap::new(),
            down: false,
            message: String::new(),
        });
        node.has_agent |= self.observed.agents.contains_key(name);
        if let Some(Seen { said, .. }) = self.observed.blockds.get(name) {
            node.has_blockd = true;
            node.zone.clone_from(&said.zone);
            node.block_address.clone_from(&said.block_address);
            node.block_socket.clone_from(&said.block_socket);
            node.rebuild_bytes_per_second = said.rebuild_bytes_per_second;
            for (id, disk) in &said.disks {
                let (path, capacity_bytes) = (disk.path.clone(), disk.capacity_bytes);
                node.disks.insert(
                    *id,
                    DiskOnRecord {
                        path,
                        capacity_bytes,
                    },
                );
            }
        }
        node
    }
}
