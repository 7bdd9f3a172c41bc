//! Who this daemon is, as it tells the managers.

use ankole_proto::NodeName;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The host's name among the nodes.
    pub node: NodeName,
    /// The failure domain it stands in; may be empty.
    pub zone: String,
    /// Of the host: another one after each restart of it.
    pub boot_id: String,
    /// Of this process: random.
    pub instance: String,
    /// Where engines reach the block protocol: host:port.
    pub block_address: String,
    /// The same for engines on this host: a unix socket's path; may be empty.
    pub block_socket: String,
    /// Bytes per second that rebuilds may write here, all together; 0: no limit.
    pub rebuild_rate: u64,
}
