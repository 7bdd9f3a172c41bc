//! What a mirror is told at its start, and its bounds (INV-12).

use std::num::NonZeroU64;
use std::time::Duration;

use ankole_proto::wire::LEASE_MS;
use ankole_proto::{Epoch, NodeName};

/// What a mirror is told at its start.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    /// The engine's epoch, committed by the managers before the engine began.
    pub epoch: Epoch,
    /// The engine's host: a replica there is read first.
    pub node: NodeName,
    /// The agent saw the previous engine die, so nobody believes in its lease any more.
    pub previous_engine_ended: bool,
    /// Waits, queues and rates.
    pub limits: Limits,
}

/// Every wait, queue and rate of a mirror.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a replica may take to open before it is recorded lost: at the start, and when all
    /// had been silent. As long as a stopped blockd may stall I/O.
    pub open_grace: Duration,
    /// How long the others are waited for when the only replicas that answer have lost their host's
    /// power, and with it perhaps what was acknowledged and not flushed. As long as I/O is held, and
    /// as a host takes to start: a replica that has it all may be a moment away.
    pub forgetful_grace: Duration,
    /// How long a replica may take over a read, write or ping. Longer than a busy disk stalls,
    /// shorter than an initiator's patience.
    pub write_deadline: Duration,
    /// How long a replica may take over what syncs or changes the tree. The link's pings find a
    /// dead replica sooner.
    pub sync_deadline: Duration,
    /// How long opening one link may take: a replica reads its maps when it is opened first. The
    /// grace times go on meanwhile.
    pub connect_deadline: Duration,
    /// How long a link that broke may be gone before the replica is recorded lost, while another
    /// answers. Bounds the gap in I/O when a blockd dies.
    pub reconnect_grace: Duration,
    /// The first pause before a link is tried again; doubled up to [`Limits::reconnect_pause_max`].
    pub reconnect_pause: Duration,
    /// The longest such pause.
    pub reconnect_pause_max: Duration,
    /// How long an operation may make no progress before it fails with `Unavailable`. Below the 30
    /// seconds after which Linux aborts a SCSI command.
    pub hold_limit: Duration,
    /// How long mutations wait for the other volumes of a group that is sealed as one cut. Below
    /// the hold limit, so that no operation fails for a snapshot.
    pub group_hold_limit: Duration,
    /// The pause before the managers are asked again.
    pub record_pause: Duration,
    /// How long a stop waits for operations in flight.
    pub stop_deadline: Duration,
    /// How long a replica's reply is believed.
    pub lease: Duration,
    /// Operations in flight; more are answered `Busy`. Half of what a link carries, which leaves
    /// room for rebuilds and pings.
    pub operations_max: usize,
    /// Bytes of data in flight; more are answered `Busy`.
    pub operation_bytes_max: u64,
    /// Chunks that one rebuild has in flight while nobody else does I/O.
    pub rebuild_chunks_max: usize,
    /// How long nobody may have done I/O for a rebuild to go as fast as it can. Beside I/O it has
    /// one chunk in flight, and rests after each for as long as that took: it yields when others
    /// make it slow.
    pub rebuild_idle: Duration,
    /// The longest such rest: bounds the time that a rebuild takes.
    pub rebuild_rest_max: Duration,
    /// How often a rebuild's target syncs and notes what is equal already: bounds what is compared
    /// and copied again after a crash, and each note costs a few syncs.
    pub rebuild_mark_pause: Duration,
    /// The pause after which a rebuild that failed at its target begins again.
    pub rebuild_pause: Duration,
    /// What a comparison of the replicas reads of each of them; `None`: no limit. Beside I/O it also
    /// rests, as a rebuild does.
    pub comparison_bytes_per_second: Option<NonZeroU64>,
    /// Damaged blocks that are rewritten at a time, of all replicas.
    pub repairs_max: usize,
    /// The pause before the repair of a block that could not be done is tried again.
    pub repair_pause: Duration,
    /// The longest piece that a long unmap or zeroing is cut into: bounds how long a replica is
    /// busy with one.
    pub zero_piece_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_grace: Duration::from_secs(5),
            forgetful_grace: Duration::from_secs(20),
            write_deadline: Duration::from_secs(5),
            sync_deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(12),
            reconnect_grace: Duration::from_millis(300),
            reconnect_pause: Duration::from_millis(50),
            reconnect_pause_max: Duration::from_secs(1),
            hold_limit: Duration::from_secs(20),
            group_hold_limit: Duration::from_secs(10),
            record_pause: Duration::from_millis(500),
            stop_deadline: Duration::from_secs(10),
            lease: Duration::from_millis(LEASE_MS as u64),
            operations_max: 512,
            operation_bytes_max: 256 << 20,
            rebuild_chunks_max: 4,
            rebuild_idle: Duration::from_millis(100),
            rebuild_rest_max: Duration::from_secs(1),
            rebuild_mark_pause: Duration::from_secs(1),
            rebuild_pause: Duration::from_secs(5),
            comparison_bytes_per_second: NonZeroU64::new(32 << 20),
            repairs_max: 4,
            repair_pause: Duration::from_secs(30),
            zero_piece_bytes: 64 << 20,
        }
    }
}

impl MirrorConfig {
    /// With the default limits.
    pub fn new(epoch: Epoch, node: NodeName) -> Self {
        Self {
            epoch,
            node,
            previous_engine_ended: false,
            limits: Limits::default(),
        }
    }
}
