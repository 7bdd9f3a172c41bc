//! What becomes of a replica when its disk refuses.

use std::io;

use ankole_proto::{ChunkNumber, Epoch, LayerId};

use super::descriptor::{Descriptor, FILE_NAME, StoredState};
use super::refusal::{Medium, Unusable};
use super::{Replica, Session, State};
use crate::disk::Disk;
use crate::layer::{MapRecord, RecordError};

/// How often a fault is tried to be made durable at once; later each background step tries again.
pub(super) const FAULT_ATTEMPTS: usize = 3;

/// Whether an error says that the disk is full, or holds no file that long.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl<D: Disk> Replica<D> {
    /// Refuses everybody but the engine of the greatest epoch (INV-1).
    pub(super) fn admit(&self, epoch: Epoch) -> Result<(), Unusable> {
        let current = self.epoch();
        if epoch < current {
            return Err(Unusable::Fenced { current });
        }
        self.check_sound()?;
        if epoch > current || self.session == Session::Closed {
            return Err(Unusable::NotOpen);
        }
        Ok(())
    }

    pub(super) fn check_sound(&self) -> Result<(), Unusable> {
        match &self.state {
            State::Faulted { reason } => Err(Unusable::Faulted {
                reason: reason.clone(),
            }),
            State::Ready | State::Rebuilding => Ok(()),
        }
    }

    /// A read or write failed. A full disk is a refusal; anything else faults the replica.
    pub(super) fn failed(&mut self, act: &'static str, source: io::Error) -> Medium {
        if is_full(&source) {
            return Medium::NoSpace;
        }
        self.failed_for_good(act, source)
    }

    /// A sync failed, or state cannot be known any more: the replica is faulted (INV-10).
    pub(super) fn failed_for_good(&mut self, act: &'static str, source: io::Error) -> Medium {
        self.fault(format!("{act}: {source}"));
        Medium::Io { act, source }
    }

    /// A map record is damaged, or another's.
    pub(super) fn map_damaged(
        &mut self,
        layer: LayerId,
        chunk: ChunkNumber,
        error: RecordError,
    ) -> Medium {
        let damage = Medium::Map {
            layer,
            chunk,
            error,
        };
        self.fault(damage.to_string());
        damage
    }

    /// Faults the replica, on the disk too if that still takes it.
    fn fault(&mut self, reason: String) {
        if matches!(self.state, State::Faulted { .. }) {
            return;
        }
        self.state = State::Faulted { reason };
        self.merge = None;
        self.settle = None;
        self.privacy.abandon();
        let _later = (0..FAULT_ATTEMPTS).any(|_| self.record_fault());
    }

    /// Makes the fault durable, unless it is; whether it is now. Without it the next blockd would
    /// take the replica for one that was merely killed, and after a failed sync what its page cache
    /// shows may never reach the medium (INV-10). So this is tried for as long as the daemon runs.
    pub(super) fn record_fault(&mut self) -> bool {
        let State::Faulted { reason } = &self.state else {
            return true;
        };
        let faulted = StoredState::Faulted {
            reason: reason.clone(),
        };
        if self.descriptor.state == faulted {
            return true;
        }
        let mut next = self.descriptor.clone();
        next.state = faulted;
        let path = self.directory.join(FILE_NAME);
        if self.disk.replace_file(&path, &next.encode()).is_err() {
            return false;
        }
        self.descriptor = next;
        true
    }

    /// Makes this description durable, then obeys it.
    pub(super) fn commit(&mut self, mut next: Descriptor) -> Result<(), Medium> {
        next.set_mapped(|layer| self.index.mapped(layer));
        if next == self.descriptor {
            return Ok(());
        }
        let path = self.directory.join(FILE_NAME);
        if let Err(error) = self.disk.replace_file(&path, &next.encode()) {
            return Err(self.failed("replacing replica.json", error));
        }
        self.descriptor = next;
        Ok(())
    }

    /// The map record of a chunk of a layer.
    pub(super) fn record(
        &mut self,
        layer: LayerId,
        chunk: ChunkNumber,
    ) -> Result<MapRecord, Medium> {
        let is_head = layer == self.tree.head();
        if let (true, Some(record)) = (is_head, self.chunks.record(chunk)) {
            return Ok(record);
        }
        let read = match self.files.of(&self.disk, layer) {
            Ok(files) => files.read_record(chunk),
            Err(error) => Err(error),
        };
        match read {
            Ok(Ok(record)) => {
                if is_head {
                    self.chunks.put_record(chunk, &record);
                }
                Ok(record)
            }
            Ok(Err(error)) => Err(self.map_damaged(layer, chunk, error)),
            Err(error) => Err(self.failed("reading a map", error)),
        }
    }

    /// Writes a map record of a layer. The caller counts the change.
    pub(super) fn put_record(
        &mut self,
        layer: LayerId,
        chunk: ChunkNumber,
        record: &MapRecord,
    ) -> Result<(), Medium> {
        let written = match self.files.of(&self.disk, layer) {
            Ok(files) => files.write_record(chunk, record),
            Err(error) => Err(error),
        };
        written.map_err(|error| self.failed("writing a map", error))?;
        if layer == self.tree.head() {
            self.chunks.put_record(chunk, record);
        } else {
            self.census.forget(layer);
        }
        Ok(())
    }
}
