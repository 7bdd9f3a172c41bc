//! The fence: which engine the replica obeys (INV-1).

use ankole_proto::wire::body::{Memory, OpenRequest, Opened};
use ankole_proto::{Epoch, Sequence};

use super::descriptor::Stop;
use super::refusal::{OpenError, Unusable};
use super::{Replica, Session, State};
use crate::disk::Disk;

impl<D: Disk> Replica<D> {
    /// Says in which boot of its host the replica was loaded (any text that changes with the boot).
    /// Call it after loading: a memory that was lost within one boot is then
    /// `Memory::Restarted`, otherwise `Memory::Lost`.
    pub fn set_boot(&mut self, boot: &str) {
        if !boot.is_empty() && self.descriptor.boot == boot {
            self.memory.same_boot();
        }
        boot.clone_into(&mut self.boot);
    }

    /// Opens it for the engine of `request.epoch`: checks the request, makes the epoch durable,
    /// obeys it. The size may differ from the engine's: the answer tells.
    /// `lease_remaining_ms` of the answer is 0: the caller owns the clock.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing has changed then, unless the disk failed.
    pub fn open(&mut self, request: &OpenRequest) -> Result<Opened, OpenError> {
        if request.replica != self.id() {
            return Err(OpenError::WrongReplica);
        }
        if request.credential != self.credential {
            return Err(OpenError::BadCredential);
        }
        if request.volume != self.volume() {
            return Err(OpenError::WrongVolume);
        }
        let current = self.epoch();
        if request.epoch < current {
            return Err(Unusable::Fenced { current }.into());
        }
        self.check_sound()?;
        let mut next = self.descriptor.clone();
        next.epoch = request.epoch;
        next.stop = Stop::Unclean;
        if self.memory.kind() != Memory::Lost {
            // What may be gone stays in doubt through the next restart, until a rebuild ends it.
            next.boot.clone_from(&self.boot);
        }
        self.commit(next)?;
        let opened = Opened {
            size: self.size,
            head: self.tree.head(),
            previous_epoch: current,
            lease_remaining_ms: 0,
            memory: self.memory.kind(),
            rebuilding: self.state == State::Rebuilding,
            layers: self.tree.links(),
            in_flight: self.memory.in_flight(),
        };
        self.memory.opened(request.epoch > current);
        self.session = Session::Open;
        Ok(opened)
    }

    /// Ends the engine's use in order: everything is synced, nothing is in flight.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn close(&mut self, epoch: Epoch) -> Result<(), OpenError> {
        self.admit(epoch)?;
        if self.state == State::Rebuilding {
            // It stays unclean: only a whole rebuild says what it holds.
            self.session = Session::Closed;
            return Ok(());
        }
        self.sync_head()?;
        let mut next = self.descriptor.clone();
        next.stop = Stop::Clean;
        self.commit(next)?;
        self.memory.forget(true);
        self.session = Session::Closed;
        Ok(())
    }

    /// Takes the watermark of a frame that is no mutation (Ping, Read, Flush…).
    ///
    /// # Errors
    ///
    /// [`Unusable`].
    pub fn note_watermark(&mut self, epoch: Epoch, watermark: Sequence) -> Result<(), Unusable> {
        self.admit(epoch)?;
        self.memory.advance(watermark);
        Ok(())
    }
}
