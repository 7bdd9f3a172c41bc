//! Nodes on record.

use ankole_proto::NodeName;
use ankole_proto::rpc::v1::{LogAnswer, MarkNodeCommand, RegisterNodeCommand};

use super::{Apply, parse};
use crate::state::changes::Key;
use crate::state::{NodeOnRecord, Refusal, Severity, record};

impl Apply<'_> {
    pub(super) fn register_node(&mut self, c: &RegisterNodeCommand) -> Result<LogAnswer, Refusal> {
        let missing = || Refusal::Malformed("a node to be registered is missing".to_owned());
        let record = c.node.as_ref().ok_or_else(missing)?;
        let mut node = record::node_from(record).map_err(Refusal::Invalid)?;
        node.revision = self.index;
        if let Some(known) = self.state.nodes.get(&node.name) {
            let told_alike = known.block_address == node.block_address
                && known.block_socket == node.block_socket
                && known.rebuild_bytes_per_second == node.rebuild_bytes_per_second;
            if told_alike {
                node.revision = known.revision;
            }
            node.down = known.down;
            node.message.clone_from(&known.message);
        } else {
            let subject = format!("node/{}", node.name);
            let message = "reports for the first time".to_owned();
            self.event(Severity::Info, "NodeRegistered", subject, message);
        }
        self.put_node(node);
        Ok(LogAnswer::default())
    }

    pub(super) fn mark_node(&mut self, c: &MarkNodeCommand) -> Result<LogAnswer, Refusal> {
        let name: NodeName = parse(&c.node)?;
        let unknown = || Refusal::Invalid(format!("node {name} never reported"));
        let mut node = self.state.nodes.get(&name).cloned().ok_or_else(unknown)?;
        if node.down == c.down {
            return Ok(LogAnswer::default());
        }
        node.down = c.down;
        node.message.clone_from(&c.message);
        let (severity, kind) = if c.down {
            (Severity::Warning, "NodeDown")
        } else {
            (Severity::Info, "NodeUp")
        };
        self.event(severity, kind, format!("node/{name}"), c.message.clone());
        self.put_node(node);
        Ok(LogAnswer::default())
    }

    fn put_node(&mut self, node: NodeOnRecord) {
        self.touched.note(Key::Node(node.name.clone()));
        self.state.nodes.insert(node.name.clone(), node);
    }
}
