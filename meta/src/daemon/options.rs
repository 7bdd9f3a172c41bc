//! What a manager is told on its command line.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use crate::raft::{ManagerId, Peer, PeerError, parse_address};

/// `ankole-meta serve`, as typed.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// This manager's number in the group: from 1 up, never reused after its directory was lost
    #[arg(long)]
    pub id: ManagerId,
    /// Where to listen: HOST:PORT
    #[arg(long, value_parser = parse_address)]
    pub listen: String,
    /// Where the other managers and the daemons reach it: HOST:PORT
    #[arg(long, value_parser = parse_address)]
    pub advertise: String,
    /// Where to keep the log and the state; for this manager only
    #[arg(long)]
    pub directory: PathBuf,
    /// Every manager of the first group, itself included: ID=HOST:PORT; repeat it
    #[arg(long = "peer", value_name = "ID=HOST:PORT")]
    pub peers: Vec<Peer>,
    /// Found the cluster with these peers, unless it exists. Give it to all of them; harmless later
    #[arg(long)]
    pub bootstrap: bool,
}

/// Options that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Two peers have one id.
    #[error("--peer names manager {0} twice")]
    PeerTwice(ManagerId),
    /// Two peers have one address.
    #[error("--peer gives the address {0} to two managers")]
    AddressTwice(String),
    /// The peer with this manager's own id is elsewhere.
    #[error(
        "--advertise is {advertise}, but --peer says that manager {id} is at {peer}: they must agree"
    )]
    OtherAddress {
        /// This manager.
        id: ManagerId,
        /// Its address according to `--advertise`.
        advertise: String,
        /// And according to `--peer`.
        peer: String,
    },
    /// A cluster without its founder.
    #[error("--bootstrap needs every manager as --peer, and manager {0} itself is missing")]
    NotAPeer(ManagerId),
    /// Not an address.
    #[error(transparent)]
    Address(#[from] PeerError),
}

/// Options that make sense together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeOptions {
    pub(super) id: ManagerId,
    pub(super) listen: String,
    pub(super) directory: PathBuf,
    /// Ascending by id.
    pub(super) peers: Vec<Peer>,
    pub(super) bootstrap: bool,
}

impl TryFrom<ServeArguments> for ServeOptions {
    type Error = OptionsError;

    fn try_from(given: ServeArguments) -> Result<Self, OptionsError> {
        let mut peers = given.peers;
        peers.sort();
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for peer in &peers {
            if !ids.insert(peer.id) {
                return Err(OptionsError::PeerTwice(peer.id));
            }
            if !addresses.insert(peer.address.as_str()) {
                return Err(OptionsError::AddressTwice(peer.address.clone()));
            }
        }
        match peers.iter().find(|peer| peer.id == given.id) {
            Some(own) if own.address != given.advertise => {
                return Err(OptionsError::OtherAddress {
                    id: given.id,
                    advertise: given.advertise,
                    peer: own.address.clone(),
                });
            }
            None if given.bootstrap => return Err(OptionsError::NotAPeer(given.id)),
            _ => {}
        }
        Ok(Self {
            id: given.id,
            listen: given.listen,
            directory: given.directory,
            peers,
            bootstrap: given.bootstrap,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(peers: &[&str]) -> ServeArguments {
        ServeArguments {
            id: "2".parse().unwrap(),
            listen: "127.0.0.1:7002".into(),
            advertise: "b:7002".into(),
            directory: "/d".into(),
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            bootstrap: true,
        }
    }

    #[test]
    fn options_that_agree_are_taken() {
        let options = ServeOptions::try_from(arguments(&["2=b:7002", "1=a:7001"])).unwrap();
        assert_eq!(options.peers[0].address, "a:7001");
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let refused = |peers: &[&str]| ServeOptions::try_from(arguments(peers)).unwrap_err();
        let two: ManagerId = "2".parse().unwrap();
        assert_eq!(refused(&["1=a:1"]), OptionsError::NotAPeer(two));
        assert_eq!(
            refused(&["2=b:7002", "2=c:1"]),
            OptionsError::PeerTwice(two)
        );
        assert_eq!(
            refused(&["2=b:7002", "1=b:7002"]),
            OptionsError::AddressTwice("b:7002".into())
        );
        assert!(matches!(
            refused(&["2=x:1"]),
            OptionsError::OtherAddress { .. }
        ));
    }
}
