//! Every time limit of the group, and why it is what it is.

use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

/// The leader speaks this often. A busy machine with two cores delays a task by tens of
/// milliseconds, so less would buy nothing but load.
const HEARTBEAT_MS: u64 = 200;
/// A follower that has heard nothing for as long as `ELECTION_MAX_MS` (openraft's lease) plus a
/// random time between the two stands for election: 1.2 to 1.6 s after the leader's last word.
/// Three lost heartbeats are no reason for one.
const ELECTION_MIN_MS: u64 = 500;
const ELECTION_MAX_MS: u64 = 800;

/// Entries applied between snapshots.
const SNAPSHOT_ENTRIES: u64 = 4_000;
/// Entries kept behind a snapshot, so that a follower that was away for a moment needs none.
const ENTRIES_KEPT: u64 = 1_000;
/// Entries in one call; their bytes are limited by [`APPEND_BYTES_MAX`].
const APPEND_ENTRIES_MAX: u64 = 256;

/// Bytes of entries in one append call: half of what gRPC takes by default.
pub(super) const APPEND_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The greatest message taken: [`APPEND_BYTES_MAX`], one more entry, and what is around them.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// To connect to another manager. Less than a heartbeat's patience, so that one that is down does
/// not hold up an election.
pub(super) const CONNECT: Duration = Duration::from_millis(400);
/// For a call between managers that openraft gives no limit of its own.
pub(super) const CALL: Duration = Duration::from_secs(2);
/// For a whole snapshot.
pub(super) const SNAPSHOT: Duration = Duration::from_secs(60);
/// Until a proposal's outcome is called unknown: longer than an election.
pub(super) const PROPOSE: Duration = Duration::from_secs(5);
/// To confirm leadership for a read.
pub(super) const READ: Duration = Duration::from_secs(3);
/// Between two attempts to confirm it.
pub(super) const READ_RETRY: Duration = Duration::from_millis(50);
/// How long a call waits for a leader to be known: longer than an election.
pub(super) const LEADER: Duration = Duration::from_secs(5);
/// For a change of membership, and for a learner to catch up first.
pub(super) const MEMBERSHIP: Duration = Duration::from_secs(60);
/// Between two attempts at founding the cluster.
pub(super) const FOUND_RETRY: Duration = Duration::from_millis(250);
/// Between two proposals of the cluster's id, should the first fail.
pub(super) const CLUSTER_ID_RETRY: Duration = Duration::from_millis(500);
/// To end the group's tasks at shutdown.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(5);

/// openraft's settings.
pub(super) fn config() -> Result<Config, Box<ConfigError>> {
    Config {
        cluster_name: "ankole".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: u64::try_from(SNAPSHOT.as_millis()).unwrap_or(u64::MAX),
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: 256,
        ..Config::default()
    }
    .validate()
    .map_err(Box::new)
}
