//! A stream socket of either kind.

use std::io::{self, IoSlice};

use ankole_proto::{NodeName, ReplicaAddress};
use bytes::BytesMut;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::CONNECT_TIMEOUT;
use crate::short_read;

/// The connection to a blockd.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect to {address}: {source}")]
    Refused { address: String, source: io::Error },
    #[error("{0} did not take the connection in time")]
    Timeout(String),
}

impl Socket {
    /// Connects over the unix socket when the replica is on our host and it works, else over TCP.
    pub(super) async fn connect(
        address: &ReplicaAddress,
        node: &NodeName,
        own_node: &NodeName,
    ) -> Result<Self, ConnectError> {
        if node == own_node
            && let Some(path) = &address.unix
        {
            match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => return Ok(Self::Unix(stream)),
                Ok(Err(error)) => {
                    tracing::debug!(path = %path.display(), %error, "no unix socket: trying TCP");
                }
                Err(_) => return Err(ConnectError::Timeout(path.display().to_string())),
            }
        }
        let refused = |source| ConnectError::Refused {
            address: address.tcp.to_string(),
            source,
        };
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address.tcp))
            .await
            .map_err(|_| ConnectError::Timeout(address.tcp.to_string()))?
            .map_err(refused)?;
        // A request waits for nothing: each is a whole frame.
        stream.set_nodelay(true).map_err(refused)?;
        Ok(Self::Tcp(stream))
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    pub(super) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => short_read::read(stream, buffer),
            Self::Unix(stream) => short_read::read(stream, buffer),
        }
    }
}
