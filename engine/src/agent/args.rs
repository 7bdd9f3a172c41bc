//! What an agent is told on the command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ankole_proto::NodeName;

use crate::managers::ManagerAddress;

/// `ankole-engine agent`: supervise the engines of this node.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// The name of this node, as the managers are to know it
    #[arg(long)]
    pub node: NodeName,
    /// Where the agent keeps its lock and a directory per engine
    #[arg(long)]
    pub directory: PathBuf,
    /// The address of this node that engines listen on and initiators reach
    #[arg(long, value_name = "IP")]
    pub engine_host: IpAddr,
    /// The ports that engines may listen on
    #[arg(long, value_name = "FIRST-LAST")]
    pub ports: PortRange,
    /// A manager's address; repeat it for each manager
    #[arg(
        long = "manager",
        value_name = "HOST:PORT",
        required = true,
        value_delimiter = ','
    )]
    pub managers: Vec<ManagerAddress>,
    /// Stop the engines when the agent is stopped; without it they go on and the next agent adopts
    /// them
    #[arg(long)]
    pub stop_engines: bool,
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A text that is no range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of ports: give FIRST-LAST, both from 1 to 65535, as in 3260-3299")]
pub struct PortRangeError(String);

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let wrong = || PortRangeError(text.chars().take(40).collect());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: u16 = first.parse().map_err(|_| wrong())?;
        let last = last.parse().map_err(|_| wrong())?;
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_have_two_ends_in_order() {
        let range = |first, last| Ok(PortRange { first, last });
        assert_eq!("3260-3299".parse::<PortRange>(), range(3260, 3299));
        assert_eq!("3260".parse::<PortRange>(), range(3260, 3260));
        for text in ["", "-", "5-4", "0-4", "1-65536", "a-b", "1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
