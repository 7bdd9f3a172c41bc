//! What an engine is told on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use ankole_proto::{Epoch, NodeName, VolumeId};

use crate::managers::ManagerAddress;

/// `ankole-engine run`: serve one volume. Started by the agent, which has asked for the epoch.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// The volume's id
    #[arg(long)]
    pub volume: VolumeId,
    /// The epoch that the managers granted for this engine
    #[arg(long, value_parser = parse_epoch)]
    pub epoch: Epoch,
    /// The name of this node
    #[arg(long)]
    pub node: NodeName,
    /// Where the target listens
    #[arg(
        long,
        value_name = "HOST:PORT",
        required_unless_present = "without_target"
    )]
    pub listen: Option<SocketAddr>,
    /// The address that initiators are told; the one listened on when it is missing
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<SocketAddr>,
    /// A manager's address; repeat it for each manager
    #[arg(
        long = "manager",
        value_name = "HOST:PORT",
        required = true,
        value_delimiter = ','
    )]
    pub managers: Vec<ManagerAddress>,
    /// This engine's directory: lock, record, reservations, log
    #[arg(long)]
    pub directory: PathBuf,
    /// The engine of the epoch before has been seen dead: do not wait for its lease to run out
    #[arg(long)]
    pub previous_ended: bool,
    /// Serve no target: only rebuild and do the tasks of a detached volume
    #[arg(long, conflicts_with_all = ["listen", "advertise"])]
    pub without_target: bool,
}

impl RunArgs {
    /// The address that initiators are told; `None` without a target.
    pub fn portal(&self) -> Option<SocketAddr> {
        self.advertise.or(self.listen)
    }
}

fn parse_epoch(text: &str) -> Result<Epoch, String> {
    match text.parse() {
        Ok(raw) if raw > 0 => Ok(Epoch::from_raw(raw)),
        _ => Err("an epoch is a number above 0, as the managers grant it".to_owned()),
    }
}
