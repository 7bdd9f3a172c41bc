//! Where a replica is reached.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the block protocol of one blockd is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// From any host.
    pub tcp: SocketAddr,
    /// From the same host: a unix socket, cheaper than TCP. `None` when it has none.
    pub unix: Option<PathBuf>,
}
