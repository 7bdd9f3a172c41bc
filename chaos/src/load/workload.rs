//! What a load does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::Durable;

/// Which operations, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pattern {
    /// Reads at random places.
    Randread,
    /// Writes at random places.
    Randwrite,
    /// Both at random places, mixed as `--mix` says.
    Randrw,
    /// Reads from front to back.
    Read,
    /// Writes from front to back.
    Write,
}

impl Pattern {
    /// Whether places are random.
    pub const fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }

    /// Reads in a hundred operations.
    pub const fn read_percent(self, mix: u8) -> u8 {
        match self {
            Self::Randread | Self::Read => 100,
            Self::Randwrite | Self::Write => 0,
            Self::Randrw => mix,
        }
    }
}

/// One load.
#[derive(Debug, Clone)]
pub struct Workload {
    /// `iscsi://HOST:PORT/IQN/LUN`.
    pub url: String,
    /// Which operations.
    pub pattern: Pattern,
    /// Reads in a hundred operations of a mixed pattern.
    pub mix: u8,
    /// Bytes of an operation, a multiple of 512.
    pub block_bytes: u64,
    /// Operations in flight per session.
    pub depth: usize,
    /// Sessions.
    pub sessions: usize,
    /// How long; `None`: until `operations` are done.
    pub duration: Option<Duration>,
    /// Ends the load when it becomes true, whatever else limits it.
    pub stop: Option<Arc<AtomicBool>>,
    /// How many; `None`: until the time is over.
    pub operations: Option<u64>,
    /// Where the region begins.
    pub offset: u64,
    /// Bytes of the region; `None`: to the end of the unit.
    pub size: Option<u64>,
    /// A flush after so many writes; 0: none.
    pub flush_every: u64,
    /// Force unit access on every write.
    pub fua: bool,
    /// Write self-describing sectors and verify what is read.
    pub verify: bool,
    /// Remember generations here.
    pub shadow: Option<PathBuf>,
    /// Write times without an answer here, as they end.
    pub gaps: Option<PathBuf>,
    /// What a read must at least return.
    pub durable: Durable,
    /// Operations per second, open loop; latency then counts from when one was due.
    pub rate: Option<u64>,
    /// Of places and contents.
    pub seed: u64,
    /// CRC32C on headers.
    pub header_digest: bool,
    /// Log in again when the connection breaks.
    pub reconnect: bool,
    /// Per command.
    pub timeout: Option<Duration>,
}

impl Workload {
    /// A load on this unit with the defaults of the command line.
    pub fn new(url: &str, pattern: Pattern) -> Self {
        Self {
            url: url.to_owned(),
            pattern,
            mix: 70,
            block_bytes: 4096,
            depth: 16,
            sessions: 1,
            duration: Some(Duration::from_secs(5)),
            stop: None,
            operations: None,
            offset: 0,
            size: None,
            flush_every: 0,
            fua: false,
            verify: false,
            shadow: None,
            gaps: None,
            durable: Durable::Acknowledged,
            rate: None,
            seed: 1,
            header_digest: false,
            reconnect: true,
            timeout: None,
        }
    }
}
