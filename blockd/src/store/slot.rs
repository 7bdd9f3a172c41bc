//! One replica of this node, and the one connection that speaks for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ankole_proto::wire::body::{Memory, OpenRequest, Opened};
use ankole_proto::{DiskId, Epoch, LayerId, ReplicaId, Sequence, VolumeId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::barred::{Barred, SlotError};
use super::boot_id;
use super::disk_root::DiskRoot;
use super::flush_gate::{FlushGate, FlushWaiter, Joined};
use super::preparation::CopyWaiter;
use super::standstill::Standstills;
use super::tenancy::{ConnectionId, Tenancy};
use super::{CreateError, Creation, now_ms};
use crate::disk::LocalDisk;
use crate::replica::refusal::Refusal;
use crate::replica::{self, CacheBudget, Replica, TreeError, WRITEBACK_CHUNKS_MAX};

/// A replica on a disk of this host.
pub type StoreReplica = Replica<LocalDisk>;

/// How often that is done before a sync: twice what the cache of a daemon's only replica holds.
const WRITEBACK_TURNS_MAX: usize = 768;

/// A connection that has opened a replica, and its engine's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupant {
    /// The connection.
    pub connection: ConnectionId,
    /// Of the engine.
    pub epoch: Epoch,
}

/// A replica of this node.
#[derive(Debug)]
pub struct Slot {
    id: ReplicaId,
    disk: DiskId,
    content: Content,
    /// Locked after the replica, never before.
    occupancy: Mutex<Occupancy>,
    flushes: FlushGate<FlushWaiter>,
    /// Who waits for a copy of a shared layer.
    pub(super) copies: FlushGate<CopyWaiter>,
    pub(super) standstills: Mutex<Standstills>,
    started: Instant,
    changed: Arc<Notify>,
}

#[derive(Debug)]
enum Content {
    Loaded {
        volume: VolumeId,
        replica: Box<Mutex<StoreReplica>>,
    },
    /// It cannot be loaded, for this reason.
    Bad(String),
}

#[derive(Debug)]
struct Occupancy {
    /// Who opened the replica last.
    occupant: Occupant,
    /// The occupant's watermark that the replica has not been told of.
    untold: Option<Sequence>,
    tenancy: Tenancy,
    retired: bool,
}

impl Slot {
    /// Loads a replica; one that cannot be loaded is told in the log and serves nothing.
    pub(super) fn load(
        root: &DiskRoot,
        id: ReplicaId,
        started: Instant,
        changed: Arc<Notify>,
    ) -> Self {
        let content = match load_own(root, id) {
            Ok(mut replica) => {
                replica.set_boot(&boot_id());
                Content::Loaded {
                    volume: replica.volume(),
                    replica: Box::new(Mutex::new(replica)),
                }
            }
            Err(reason) => Content::Bad(reason),
        };
        if let Content::Bad(reason) = &content {
            tracing::error!(replica = %id, disk = %root.path().display(), "cannot be used: {reason}");
        }
        let (epoch, in_use) = match &content {
            Content::Loaded { replica, .. } => {
                let replica = replica.lock();
                (replica.epoch(), replica.memory() != Memory::Clean)
            }
            Content::Bad(_) => (Epoch::ZERO, false),
        };
        Self {
            id,
            disk: root.id(),
            content,
            occupancy: Mutex::new(Occupancy {
                occupant: Occupant {
                    connection: ConnectionId::NONE,
                    epoch,
                },
                untold: None,
                tenancy: Tenancy::found(epoch, in_use),
                retired: false,
            }),
            flushes: FlushGate::default(),
            copies: FlushGate::default(),
            standstills: Mutex::default(),
            started,
            changed,
        }
    }

    /// Creates a replica's files and loads it.
    pub(super) fn create(
        root: &DiskRoot,
        creation: &Creation,
        started: Instant,
        changed: Arc<Notify>,
    ) -> Result<Self, CreateError> {
        let spec = creation.spec();
        let directory: PathBuf = DiskRoot::replica_dir(creation.replica);
        match replica::create(root.disk(), &directory, &spec) {
            // Made by a daemon that did not live to load it.
            Ok(()) | Err(replica::CreateError::Exists) => {}
            Err(error) => {
                return Err(CreateError::Replica {
                    replica: creation.replica,
                    reason: with_sources(&error),
                });
            }
        }
        Ok(Self::load(root, creation.replica, started, changed))
    }

    /// Has the replica take part in the daemon's budget for what is cached.
    pub(super) fn share_cache(&self, budget: &Arc<CacheBudget>) {
        if let Some(mut replica) = self.replica() {
            replica.share_cache(budget);
        }
    }

    /// Which replica.
    pub const fn id(&self) -> ReplicaId {
        self.id
    }

    /// The disk it is on.
    pub const fn disk(&self) -> DiskId {
        self.disk
    }

    /// Its volume; `None` when the replica cannot be read.
    pub const fn volume(&self) -> Option<VolumeId> {
        match &self.content {
            Content::Loaded { volume, .. } => Some(*volume),
            Content::Bad(_) => None,
        }
    }

    /// The replica, whoever has it open; `None` when it cannot be used or is being deleted.
    pub fn replica(&self) -> Option<MutexGuard<'_, StoreReplica>> {
        let guard = self.loaded().ok()?.lock();
        (!self.occupancy.lock().retired).then_some(guard)
    }

    pub(super) fn loaded(&self) -> Result<&Mutex<StoreReplica>, Barred> {
        match &self.content {
            Content::Loaded { replica, .. } => Ok(replica),
            Content::Bad(reason) => Err(Barred::Bad(reason.clone())),
        }
    }

    /// Opens the replica for a connection; from here on no other speaks for it (INV-1).
    ///
    /// # Errors
    ///
    /// [`SlotError`]; then nothing has changed for the connection that has it open.
    pub fn open(
        &self,
        request: &OpenRequest,
        connection: ConnectionId,
    ) -> Result<Opened, SlotError> {
        let mut replica = self.loaded()?.lock();
        if self.occupancy.lock().retired {
            return Err(Barred::Retired(self.id).into());
        }
        self.tell_watermark(&mut replica);
        let mut opened = replica.open(request)?;
        let mut occupancy = self.occupancy.lock();
        let wait = occupancy
            .tenancy
            .opened(request.epoch, self.started.elapsed());
        occupancy.occupant = Occupant {
            connection,
            epoch: request.epoch,
        };
        occupancy.untold = None;
        // Upwards: a wait that is a moment too short is a stale read.
        opened.lease_remaining_ms =
            u32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        Ok(opened)
    }

    /// The replica, for its occupant, whose lease this renews.
    ///
    /// # Errors
    ///
    /// [`Barred`] for everybody else.
    pub fn enter(&self, occupant: Occupant) -> Result<MutexGuard<'_, StoreReplica>, Barred> {
        let mut replica = self.loaded()?.lock();
        drop(self.renew(occupant)?);
        self.tell_watermark(&mut replica);
        Ok(replica)
    }

    /// Renews the occupant's lease without waiting for what is going on in the replica. Its watermark
    /// counts from now on, even if the replica is told of it only with what it does next.
    ///
    /// # Errors
    ///
    /// [`Barred`] for everybody but the occupant.
    pub fn ping(&self, occupant: Occupant, watermark: Sequence) -> Result<(), Barred> {
        let idle = self.loaded()?.try_lock();
        let mut occupancy = self.renew(occupant)?;
        // The first watermark after a loss of memory means more than a later one, so that none may be
        // left out.
        let _first = occupancy.untold.get_or_insert(watermark);
        drop(occupancy);
        if let Some(mut replica) = idle {
            self.tell_watermark(&mut replica);
            let _noted = replica.note_watermark(occupant.epoch, watermark);
        }
        Ok(())
    }

    /// Tells the replica, which is locked, what its occupant's pings have told.
    fn tell_watermark(&self, replica: &mut StoreReplica) {
        let mut occupancy = self.occupancy.lock();
        let epoch = occupancy.occupant.epoch;
        if let Some(watermark) = occupancy.untold.take() {
            // A replica that refuses it tells so at the next request that it matters to.
            let _noted = replica.note_watermark(epoch, watermark);
        }
    }

    /// Whether the replica is still the occupant's.
    pub fn is_held_by(&self, occupant: Occupant) -> bool {
        let occupancy = self.occupancy.lock();
        occupancy.occupant == occupant && !occupancy.retired
    }

    fn renew(&self, occupant: Occupant) -> Result<MutexGuard<'_, Occupancy>, Barred> {
        let mut occupancy = self.occupancy.lock();
        if occupancy.retired {
            return Err(Barred::Retired(self.id));
        }
        if occupancy.occupant != occupant {
            let current = occupancy.occupant.epoch;
            return Err(if current > occupant.epoch {
                Barred::Fenced { current }
            } else {
                Barred::Replaced
            });
        }
        occupancy.tenancy.heard(self.started.elapsed());
        Ok(occupancy)
    }

    /// Ends the occupant's use in order.
    ///
    /// # Errors
    ///
    /// [`SlotError`].
    pub fn close(&self, occupant: Occupant) -> Result<(), SlotError> {
        let mut replica = self.enter(occupant)?;
        replica.close(occupant.epoch)?;
        let mut occupancy = self.occupancy.lock();
        occupancy.tenancy.closed();
        occupancy.occupant.connection = ConnectionId::NONE;
        Ok(())
    }

    /// Nobody may use the replica any more: it is being deleted. Waits for what is going on in it.
    pub(super) fn retire(&self) {
        let _idle = self.loaded().ok().map(Mutex::lock);
        self.occupancy.lock().retired = true;
    }

    /// Waits for the next sync. When this answers [`Joined::First`] the caller has to see to it
    /// that [`Slot::sync_all`] runs.
    pub fn join_flush(&self, waiter: FlushWaiter) -> Joined {
        self.flushes.join(waiter)
    }

    /// Syncs and answers until nobody waits (INV-5: a sync begins after all it answers have come).
    pub fn sync_all(&self) {
        while let Some(waiters) = self.flushes.take() {
            let mut served = Vec::with_capacity(waiters.len());
            for waiter in waiters {
                match self.renew(waiter.occupant) {
                    Ok(_) => served.push(waiter),
                    Err(barred) => (waiter.answer)(Err(&barred)),
                }
            }
            let Some(epoch) = served.first().map(|waiter| waiter.occupant.epoch) else {
                continue;
            };
            let failure = self.sync(epoch).err();
            for waiter in served {
                (waiter.answer)(failure.as_deref().map_or(Ok(()), Err));
            }
            if failure.is_some() {
                self.changed.notify_one();
            }
        }
    }

    fn sync(&self, epoch: Epoch) -> Result<(), Box<dyn Refusal>> {
        let replica = self.loaded().map_err(boxed)?;
        let plan = replica
            .lock()
            .plan_flush(epoch)
            .map_err(|unusable| boxed(replica::DataError::from(unusable)))?;
        let result = plan.run();
        replica.lock().finish_flush(plan, result).map_err(boxed)
    }

    /// Syncs what background writeback is for; `false` when nothing was dirty.
    pub fn write_back(&self) -> bool {
        // The sums go to their files in turns with what others want of the replica.
        for _ in 0..WRITEBACK_TURNS_MAX {
            let more = self
                .replica()
                .map(|mut replica| replica.write_sums(WRITEBACK_CHUNKS_MAX));
            if !matches!(more, Some(Ok(true))) {
                break;
            }
        }
        let Some(plan) = self
            .replica()
            .and_then(|mut replica| replica.plan_writeback())
        else {
            return false;
        };
        let result = plan.run();
        let finished = self
            .replica()
            .map(|mut replica| replica.finish_flush(plan, result));
        if let Some(Err(error)) = finished {
            tracing::error!(replica = %self.id, "writeback: {}", with_sources(&error));
            self.changed.notify_one();
        }
        true
    }

    /// Wishes sealed layers away; those that are gone, or on their way, are left as they are.
    ///
    /// # Errors
    ///
    /// Why a layer stays, in words.
    pub fn remove_layers(&self, layers: &[LayerId]) -> Result<(), String> {
        if layers.is_empty() {
            return Ok(());
        }
        // A bad replica is reported as such already.
        let Some(mut replica) = self.replica() else {
            return Ok(());
        };
        let staying: Vec<LayerId> = replica
            .usage()
            .iter()
            .filter(|usage| !usage.removing)
            .map(|usage| usage.link.layer)
            .collect();
        for layer in layers.iter().filter(|layer| staying.contains(layer)) {
            match replica.remove_layer(*layer) {
                Ok(()) => tracing::info!(replica = %self.id, %layer, "layer to be merged away"),
                Err(TreeError::NoSuchLayer(_)) => {}
                Err(error) => return Err(format!("layer {layer}: {}", with_sources(&error))),
            }
        }
        Ok(())
    }

    /// Begins the scrub that was asked for, unless it was begun already.
    pub fn ask_scrub(&self, request: u64) {
        if request == 0 {
            return;
        }
        if let Some(mut replica) = self.replica()
            && replica.begin_scrub(request, now_ms())
        {
            tracing::info!(replica = %self.id, request, "scrub begins as asked");
            self.changed.notify_one();
        }
    }

    /// Has the managers told at once that something is different now.
    pub fn tell(&self) {
        self.changed.notify_one();
    }
}

/// Loads what stands in a replica's directory, unless that is another replica: its files are not
/// touched then.
fn load_own(root: &DiskRoot, id: ReplicaId) -> Result<StoreReplica, String> {
    let directory = DiskRoot::replica_dir(id);
    let found =
        replica::stored_id(root.disk(), &directory).map_err(|error| with_sources(&error))?;
    if found != id {
        return Err(format!(
            "{}: holds replica {found}: the directory was renamed or copied. Stop this daemon; give \
             the directory the name {found} or, when that is there too, move it off this disk; \
             then start the daemon again",
            root.disk().root().join(&directory).display(),
        ));
    }
    Replica::load(root.disk(), &directory).map_err(|error| with_sources(&error))
}

fn boxed(error: impl Refusal + 'static) -> Box<dyn Refusal> {
    Box::new(error)
}

/// An error and everything behind it, on one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use ankole_proto::{Credential, VolumeSize};

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_watermark_that_comes_while_the_replica_is_busy_is_not_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let disks = [dir.path().to_path_buf()];
        let store = Store::open(&disks).unwrap();
        let creation = Creation {
            replica: ReplicaId::from_bits(1),
            volume: VolumeId::from_bits(2),
            disk: store.disks()[0].id(),
            size: VolumeSize::from_bytes(8 << 20).unwrap(),
            credential: Credential::from_bytes([3; 32]),
            base: LayerId::from_raw(1).unwrap(),
        };
        store.create(&creation).unwrap();
        let request = OpenRequest {
            volume: creation.volume,
            replica: creation.replica,
            epoch: Epoch::from_raw(1),
            size: creation.size,
            credential: creation.credential,
        };
        let slot = store.slot(creation.replica).unwrap();
        slot.open(&request, ConnectionId(1)).unwrap();
        drop((slot, store));
        // Another process, the same engine.
        let store = Store::open(&disks).unwrap();
        let slot = store.slot(creation.replica).unwrap();
        let opened = slot.open(&request, ConnectionId(1)).unwrap();
        assert_eq!(opened.memory, Memory::Restarted);
        let occupant = Occupant {
            connection: ConnectionId(1),
            epoch: request.epoch,
        };
        let busy = slot.replica().unwrap();
        slot.ping(occupant, Sequence::from_raw(5)).unwrap();
        drop(busy);
        // An engine that was heard skips so many, and they count as complete.
        slot.ping(occupant, Sequence::from_raw(5 + 1024)).unwrap();
        assert_eq!(slot.enter(occupant).unwrap().memory(), Memory::Kept);
    }
}
