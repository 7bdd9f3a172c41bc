//! Who a manager is, and how it is written on a command line.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A manager's number in its group. Never zero, never used again after its store was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagerId(NonZeroU64);

impl ManagerId {
    /// The id with this number; `None` for zero.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a positive number.
    #[error("{0:?} is not a manager's id: expected a number from 1 up")]
    Id(String),
    /// Not `HOST:PORT`.
    #[error("{0:?} is not an address: expected HOST:PORT")]
    Address(String),
    /// No `=`.
    #[error("{0:?} is not a peer: expected ID=HOST:PORT")]
    Peer(String),
}

impl FromStr for ManagerId {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        text.parse()
            .map(Self)
            .map_err(|_| PeerError::Id(text.into()))
    }
}

/// A manager and where it is reached: `ID=HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its id.
    pub id: ManagerId,
    /// `HOST:PORT`; the host may be a name.
    pub address: String,
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (id, address) = text
            .split_once('=')
            .ok_or_else(|| PeerError::Peer(text.into()))?;
        Ok(Self {
            id: id.parse()?,
            address: parse_address(address)?,
        })
    }
}

/// Checks that a text is `HOST:PORT`, with a host and a port that can be connected to.
///
/// # Errors
///
/// When it is not.
pub fn parse_address(text: &str) -> Result<String, PeerError> {
    let wrong = || PeerError::Address(text.into());
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && !host.contains([':', '/', '@', ' ', '[', ']']);
    if port == 0 || !(bracketed || plain) {
        return Err(wrong());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_id_and_an_address() {
        let peer: Peer = "2=manager-2:7400".parse().unwrap();
        assert_eq!(peer.id.number(), 2);
        assert_eq!(peer.address, "manager-2:7400");
        assert!("1=[::1]:7400".parse::<Peer>().is_ok());
    }

    #[test]
    fn what_is_no_peer_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Peer>().unwrap_err();
        assert_eq!(refused("x"), PeerError::Peer("x".into()));
        assert_eq!(refused("0=a:1"), PeerError::Id("0".into()));
        for address in ["a", ":1", "a:0", "a:70000", "http://a:1", "::1:1"] {
            let wrong = PeerError::Address(address.into());
            assert_eq!(refused(&format!("1={address}")), wrong);
        }
    }
}
