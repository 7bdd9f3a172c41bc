use ankole_proto::rpc::v1::{Cluster, Disk, Event, Manager, Node};
use serde::Serialize;

use super::{or_dash, plain, time};
use crate::output::Row;
use crate::size;

#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    name: String,
    zone: String,
    state: String,
    has_blockd: bool,
    has_agent: bool,
    engines: u32,
    block_address: String,
    rebuild_bytes_per_second: u64,
    last_heartbeat_ms: u64,
    message: String,
    pub(crate) disks: Vec<DiskView>,
}

impl NodeView {
    pub(crate) fn is_up(&self) -> bool {
        self.state == "up"
    }

    /// Whether its blockd has reported a disk with room. One that is up may be so by its agent
    /// alone, until its blockd reports for the first time.
    pub(crate) fn can_store(&self) -> bool {
        self.has_blockd && self.disks.iter().any(|disk| disk.free_bytes > 0)
    }

    pub(crate) fn has_agent(&self) -> bool {
        self.has_agent
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl From<Node> for NodeView {
    fn from(node: Node) -> Self {
        Self {
            state: plain(node.state().as_str_name(), "NODE_STATE_"),
            name: node.name,
            zone: node.zone,
            has_blockd: node.has_blockd,
            has_agent: node.has_agent,
            engines: node.engines,
            block_address: node.block_address,
            rebuild_bytes_per_second: node.rebuild_bytes_per_second,
            last_heartbeat_ms: node.last_heartbeat_ms,
            message: node.message,
            disks: node.disks.into_iter().map(DiskView::from).collect(),
        }
    }
}

impl Row for NodeView {
    const COLUMNS: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "ROLES",
        "DISKS",
        "FREE",
        "ENGINES",
        "LAST HEARTBEAT",
        "MESSAGE",
    ];

    fn cells(&self) -> Vec<String> {
        let roles = match (self.has_blockd, self.has_agent) {
            (true, true) => "storage, engines",
            (true, false) => "storage",
            (false, true) => "engines",
            (false, false) => "-",
        };
        vec![
            self.name.clone(),
            self.state.clone(),
            roles.to_owned(),
            self.disks.len().to_string(),
            size::show(self.disks.iter().map(|disk| disk.free_bytes).sum()),
            self.engines.to_string(),
            time::utc(self.last_heartbeat_ms),
            self.trouble(),
        ]
    }
}

impl NodeView {
    /// What the node says of itself and what its disks do.
    fn trouble(&self) -> String {
        let disks = self.disks.iter().filter_map(|disk| {
            let said = [&disk.fault, &disk.warning];
            let said = said.into_iter().find(|text| !text.is_empty())?;
            Some(format!("{}: {said}", disk.path))
        });
        let own = Some(&self.message).filter(|text| !text.is_empty()).cloned();
        let all: Vec<String> = own.into_iter().chain(disks).collect();
        or_dash(&all.join("; "))
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct DiskView {
    id: String,
    node: String,
    path: String,
    capacity_bytes: u64,
    free_bytes: u64,
    replicas: u32,
    fault: String,
    warning: String,
}

impl From<Disk> for DiskView {
    fn from(disk: Disk) -> Self {
        Self {
            id: disk.id,
            node: disk.node,
            path: disk.path,
            capacity_bytes: disk.capacity_bytes,
            free_bytes: disk.free_bytes,
            replicas: disk.replicas,
            fault: disk.fault,
            warning: disk.warning,
        }
    }
}

impl Row for DiskView {
    const COLUMNS: &'static [&'static str] = &[
        "DISK", "PATH", "CAPACITY", "FREE", "REPLICAS", "FAULT", "WARNING",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.path.clone(),
            size::show(self.capacity_bytes),
            size::show(self.free_bytes),
            self.replicas.to_string(),
            or_dash(&self.fault),
            or_dash(&self.warning),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    number: u64,
    at_ms: u64,
    severity: String,
    kind: String,
    subject: String,
    message: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            severity: plain(event.severity().as_str_name(), "SEVERITY_"),
            number: event.number,
            at_ms: event.at_ms,
            kind: event.kind,
            subject: event.subject,
            message: event.message,
        }
    }
}

impl Row for EventView {
    const COLUMNS: &'static [&'static str] =
        &["NUMBER", "AT", "SEVERITY", "KIND", "SUBJECT", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            time::utc(self.at_ms),
            self.severity.clone(),
            self.kind.clone(),
            self.subject.clone(),
            or_dash(&self.message),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ClusterView {
    id: String,
    leader: u64,
    term: u64,
    applied: u64,
    pub(crate) managers: Vec<ManagerView>,
}

impl ClusterView {
    pub(crate) fn heading(&self) -> String {
        let leader = match self.leader {
            0 => "no leader".to_owned(),
            id => format!("leader {id}"),
        };
        format!(
            "cluster {}, {leader}, term {}, applied {}",
            self.id, self.term, self.applied
        )
    }
}

impl From<Cluster> for ClusterView {
    fn from(cluster: Cluster) -> Self {
        Self {
            id: cluster.id,
            leader: cluster.leader,
            term: cluster.term,
            applied: cluster.applied,
            managers: cluster
                .managers
                .into_iter()
                .map(ManagerView::from)
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ManagerView {
    id: u64,
    address: String,
    leader: bool,
    matched: u64,
}

impl From<Manager> for ManagerView {
    fn from(manager: Manager) -> Self {
        Self {
            id: manager.id,
            address: manager.address,
            leader: manager.leader,
            matched: manager.matched,
        }
    }
}

impl Row for ManagerView {
    const COLUMNS: &'static [&'static str] = &["ID", "ADDRESS", "LEADER", "MATCHED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.address.clone(),
            if self.leader { "yes" } else { "-" }.to_owned(),
            if self.matched == 0 {
                "-".to_owned()
            } else {
                self.matched.to_string()
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, fault: &str, warning: &str) -> Disk {
        Disk {
            path: path.to_owned(),
            fault: fault.to_owned(),
            warning: warning.to_owned(),
            ..Disk::default()
        }
    }

    #[test]
    fn a_node_tells_the_troubles_of_its_disks() {
        let node = |message: &str, disks| {
            let view = NodeView::from(Node {
                message: message.to_owned(),
                disks,
                ..Node::default()
            });
            view.cells().pop().unwrap()
        };
        assert_eq!(node("", vec![disk("/a", "", "")]), "-");
        let disks = vec![
            disk("/a", "", ""),
            disk("/b", "", "filling up"),
            disk("/c", "it is gone", "filling up"),
        ];
        assert_eq!(node("late", disks), "late; /b: filling up; /c: it is gone");
    }

    #[test]
    fn a_disk_has_a_column_for_its_warning() {
        let cells = DiskView::from(disk("/a", "", "filling up")).cells();
        assert_eq!(cells.len(), DiskView::COLUMNS.len());
        assert_eq!(cells.last().unwrap(), "filling up");
        assert_eq!(cells[cells.len() - 2], "-");
    }
}
