//! What the managers have agreed on, and how a log entry changes it. Pure (INV-11).

use ankole_proto::rpc::v1::{LogAnswer, LogCommand};

/// What one apply changes in the stored state: records to put (`Some`) or to remove (`None`), in
/// ascending key order. Goes to the store in one batch together with the applied index.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A state that log entries change: what `raft` keeps alike on every manager. Deterministic: same
/// entries, same records, same bytes (INV-11).
pub trait Replicated: Default + Send + Sync + 'static {
    /// Changes the state by one entry and tells which records changed. Never fails: what cannot be
    /// carried out is a refusal in the answer.
    fn apply(&mut self, index: u64, command: &LogCommand) -> (LogAnswer, Changes);

    /// The state with these records.
    ///
    /// # Errors
    ///
    /// When a record cannot be read: the store is damaged, or of a newer version.
    fn from_records(
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RecordError>;

    /// Every record, in ascending key order.
    fn to_records(&self) -> Vec<(Vec<u8>, Vec<u8>)>;
}

/// A stored record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the record with key {key:02x?} cannot be read: {reason}")]
pub struct RecordError {
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}
