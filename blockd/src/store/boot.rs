//! Whether the host has restarted since a replica was opened.
//!
//! `<disk>/ankole/opened/<replica-id>` holds the kernel's boot id of when an engine was last
//! answered that the replica holds all it acknowledged. It is never synced: what makes it vanish is
//! what makes it untrue. When the daemon finds the present boot's id there, only the daemon has
//! ended since, and everything acknowledged is in the system's hands.

use std::fs;
use std::path::{Path, PathBuf};

use ankole_proto::ReplicaId;
use ankole_proto::wire::body::Memory;

use super::OPENED;

/// The kernel's id of the present boot; empty where there is none.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// What is known of the boots of one replica.
#[derive(Debug)]
pub(super) struct BootRecord {
    path: PathBuf,
    present: String,
    /// The last engine was answered during the present boot, by an earlier daemon.
    found_present: bool,
}

impl BootRecord {
    /// Reads the record of a replica.
    pub(super) fn read(store: &Path, id: ReplicaId, present: String) -> Self {
        let path = store.join(OPENED).join(id.to_string());
        // A record that cannot be read tells as little as none.
        let found = fs::read_to_string(&path).unwrap_or_default();
        Self {
            found_present: !present.is_empty() && found == present,
            path,
            present,
        }
    }

    /// What an engine is to be told, for what the replica remembers.
    pub(super) fn tell(&self, memory: Memory) -> Memory {
        match memory {
            Memory::Lost if self.found_present => Memory::Restarted,
            told => told,
        }
    }

    /// An engine is about to be answered that everything acknowledged is there.
    pub(super) fn write(&self) {
        if let Err(error) = fs::write(&self.path, &self.present) {
            // Costs a rebuild after the next restart, no data.
            tracing::warn!(path = %self.path.display(), "cannot note the boot: {error}");
        }
    }

    /// The replica is deleted.
    pub(super) fn remove(&self) {
        let _never_opened = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_within_the_boot_keeps_what_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(OPENED)).unwrap();
        let id = ReplicaId::from_bits(5);
        let read = |boot: &str| BootRecord::read(dir.path(), id, boot.to_owned());
        assert_eq!(read("one").tell(Memory::Lost), Memory::Lost);
        read("one").write();
        assert_eq!(read("one").tell(Memory::Lost), Memory::Restarted);
        assert_eq!(read("one").tell(Memory::Clean), Memory::Clean);
        assert_eq!(read("two").tell(Memory::Lost), Memory::Lost);
        read("").write();
        assert_eq!(read("").tell(Memory::Lost), Memory::Lost);
        read("one").remove();
        assert_eq!(read("one").tell(Memory::Lost), Memory::Lost);
    }
}
