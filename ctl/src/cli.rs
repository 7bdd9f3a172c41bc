//! The command line's grammar.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::size;

/// Replicated block storage: volumes, snapshots and nodes of an Ankole cluster.
#[derive(Debug, Parser)]
#[command(name = "ankole", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) managers: ManagerArgs,
    /// How to print what is found.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the managers are.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManagerArgs {
    /// A manager's address, HOST:PORT; may be repeated. Default: the environment variable
    /// ANKOLE_MANAGERS (comma-separated), else the managers of `ankole dev up`.
    #[arg(long = "manager", global = true, value_name = "HOST:PORT")]
    pub(crate) addresses: Vec<String>,
    /// How long a command may take, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs: one JSON document; sizes in bytes, times in milliseconds since 1970.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Virtual disks.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Named points of a volume's past.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Hosts and their disks.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What has happened.
    #[command(subcommand)]
    Event(EventCommand),
    /// The managers themselves.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// A whole cluster of real processes on this machine.
    #[command(subcommand)]
    Dev(DevCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Create a volume; space is taken only as it is written.
    Create {
        /// 1 to 63 of a-z, 0-9, '-', '.', '_'.
        name: String,
        /// Such as 10GiB, 512MiB, 4096. Default with --from-snapshot: the snapshot's.
        #[arg(long, value_parser = size::parse, required_unless_present = "from_snapshot")]
        size: Option<u64>,
        /// Begin with the contents of this snapshot, in an instant: the copies share its data, and
        /// take space only for what is written to the new volume.
        #[arg(long, value_name = "VOLUME/SNAPSHOT")]
        from_snapshot: Option<String>,
        /// How many copies, each on another node.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        replicas: u32,
        #[command(flatten)]
        settings: Settings,
    },
    /// All volumes.
    List,
    /// One volume with its replicas.
    #[command(visible_alias = "show")]
    Get { volume: String },
    /// Delete a detached volume, its snapshots and its data.
    Delete { volume: String },
    /// Serve a volume over iSCSI on a node.
    Attach {
        volume: String,
        /// Default: a node that holds a replica.
        #[arg(long)]
        node: Option<String>,
        /// Take it away from the node where it is attached, which need not answer: the engine there
        /// is cut off in the middle of its I/O.
        #[arg(long)]
        force: bool,
    },
    /// Change settings of a volume, attached or not. Logins from then on are judged by them.
    Update {
        volume: String,
        /// How many copies; more are built, surplus ones removed, while it is in use.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        replicas: Option<u32>,
        #[command(flatten)]
        settings: Settings,
        /// Let anybody log in.
        #[arg(long, conflicts_with = "chap_user")]
        no_chap: bool,
        /// Only when the volume is at this revision, as `volume get` shows it in JSON.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        revision: u64,
    },
    /// Make a volume larger, attached or not. It never becomes smaller again.
    Expand {
        volume: String,
        /// The new size, such as 20GiB.
        #[arg(long, value_parser = size::parse)]
        size: u64,
        /// Only when the volume is at this revision, as `volume get` shows it in JSON.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        revision: u64,
    },
    /// Have every replica compare all its blocks with their checksums, and the replicas with each
    /// other; `volume get` shows how far that is and what it found. What is found is repaired from the
    /// other replicas.
    Scrub { volume: String },
    /// Replace the engine of an attached volume by the program that is installed now: initiators
    /// log in again at the same portal and go on.
    Restart { volume: String },
    /// Stop serving a volume.
    Detach { volume: String },
}

/// What a volume can be told at any time.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Off: every write is durable when it is acknowledged, not only when it is flushed.
    #[arg(long, value_enum)]
    pub(crate) write_cache: Option<WriteCache>,
    /// What each rebuild of a replica copies at most in a second, such as 100MiB; 0: no limit.
    /// Also for rebuilds under way. Beside I/O a rebuild rests as much as it works anyhow.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) rebuild_rate: Option<u64>,
    /// Initiators must log in as this user (CHAP).
    #[arg(long, value_name = "USER", requires = "chap_secret_file")]
    pub(crate) chap_user: Option<String>,
    /// A file with the user's secret, 12 to 128 bytes; - reads standard input.
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub(crate) chap_secret_file: Option<PathBuf>,
    /// The target proves itself to initiators as this user (mutual CHAP).
    #[arg(long, value_name = "USER", requires_all = ["chap_user", "chap_mutual_secret_file"])]
    pub(crate) chap_mutual_user: Option<String>,
    /// A file with the target's secret, another than the user's.
    #[arg(long, value_name = "FILE", requires = "chap_mutual_user")]
    pub(crate) chap_mutual_secret_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WriteCache {
    On,
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot.
    Create { volume: String, name: String },
    /// Take snapshots of several volumes at the same moment: all of them, or none.
    CreateGroup {
        /// The name of each snapshot.
        name: String,
        /// At most 64; attached or not.
        #[arg(required = true, num_args = 1..=64)]
        volumes: Vec<String>,
    },
    /// The snapshots of a volume, or of all.
    List { volume: Option<String> },
    /// Make the volume's contents those of the snapshot. No initiator may be logged in.
    Revert { volume: String, snapshot: String },
    /// Delete a snapshot; its blocks that are still needed move into the next newer layer.
    Delete { volume: String, snapshot: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes.
    List,
    /// One node with its disks.
    #[command(visible_alias = "show")]
    Get { name: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// The last events, newest last.
    List {
        /// How many, at most 1000.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only events with a greater number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Print every change as it happens, until interrupted.
    Watch,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// The managers and who leads them.
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevCommand {
    /// Start the cluster, or those of its processes that do not run.
    Up {
        #[command(flatten)]
        place: DevPlace,
        /// Have every process reached through a forwarder that you run, for trying out bad
        /// networks: managers are told to be at 3 ports from here, blockds at 3 from here + 10;
        /// the blockds' managers are sought at 9 ports from here + 20, the agents' at 9 from
        /// here + 30; and no unix socket is used. Fixed when the cluster is first started.
        #[arg(long)]
        forwarded_from: Option<u16>,
        /// How many of the nodes can serve volumes: n1, n2... Fixed when the cluster is first
        /// started. Default: 1.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3))]
        agents: Option<u16>,
    },
    /// Stop every process; the data stays.
    Down {
        #[command(flatten)]
        place: DevPlace,
        /// Delete the data as well.
        #[arg(long)]
        destroy: bool,
    },
    /// What runs.
    Status(DevPlace),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevPlace {
    /// Where all data and logs go. Default: ankole-dev in the user's data folder.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// The first port: managers take 3 from here, blockds 3 from here + 10, engines 100 from
    /// here + 100. Default: as the cluster in the directory was first started, else 7700.
    #[arg(long)]
    pub(crate) base_port: Option<u16>,
}
