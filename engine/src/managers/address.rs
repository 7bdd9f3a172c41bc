//! Where a manager is reached.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

/// How long a connection to a manager may take to come about: a host that is gone does not answer
/// at all, and the next manager is to have its turn within the deadline of most calls.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection with a call on it is asked whether it still lives, and how long it may
/// take to answer: finds a manager that stopped in the middle of a long poll.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The address of one manager: `host:port`, or `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerAddress {
    authority: String,
    uri: Uri,
}

/// A text that is no manager's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a manager's address: give host:port, as in 10.0.0.1:9600")]
pub struct ManagerAddressError {
    text: String,
}

impl ManagerAddress {
    /// A channel to it, which connects when it is first used and again when it broke.
    pub(super) fn channel(&self) -> Channel {
        Endpoint::from(self.uri.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect_lazy()
    }
}

impl FromStr for ManagerAddress {
    type Err = ManagerAddressError;

    fn from_str(text: &str) -> Result<Self, ManagerAddressError> {
        let wrong = || ManagerAddressError {
            text: text.chars().take(120).collect(),
        };
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let uri: Uri = format!("http://{authority}").parse().map_err(|_| wrong())?;
        let complete = uri.path() == "/" && uri.query().is_none();
        let named = uri.host().is_some_and(|host| !host.is_empty());
        if !complete || !named || uri.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong());
        }
        Ok(Self {
            authority: authority.to_owned(),
            uri,
        })
    }
}

impl fmt::Display for ManagerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_with_or_without_a_scheme() {
        for text in [
            "10.0.0.1:9600",
            "http://10.0.0.1:9600",
            "http://10.0.0.1:9600/",
        ] {
            let address: ManagerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), "10.0.0.1:9600");
        }
        assert!("[::1]:9600".parse::<ManagerAddress>().is_ok());
        assert!("meta-0.ankole:9600".parse::<ManagerAddress>().is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "host",
            "host:",
            "host:0",
            ":9600",
            "host:9600/x",
            "ftp://host:1",
            "a b:1",
        ] {
            assert!(text.parse::<ManagerAddress>().is_err(), "{text}");
        }
    }
}
