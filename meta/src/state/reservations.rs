//! The persistent reservations of a volume: bytes that only its engines understand, kept so that
//! they move with the volume. They have a record of their own, which keeps the volume's small.

use ankole_proto::Epoch;

/// The most that an engine may have kept (INV-12): what some thousand registrations take.
pub const RESERVATIONS_BYTES_MAX: usize = 16 * 1024;

/// What an engine told last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservations {
    /// Under which epoch.
    pub epoch: Epoch,
    /// Which of that engine's changes it was: an older one that comes late replaces nothing.
    pub number: u64,
    /// The reservations; empty: none.
    pub bytes: Vec<u8>,
    /// The log index of the change.
    pub revision: u64,
}
