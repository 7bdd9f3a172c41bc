//! One replica on one host: what of it outlives the blockd, and what the blockd has in memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ankole_blockd::disk::sim::{Fate, SimDisk};
use ankole_blockd::replica::{
    CloneError, CloneSpec, DataError, FlushPlan, Progress, Replica, State,
};
use ankole_blockd::session::Denial;
use ankole_blockd::store::{Tenancy, replica_report};
use ankole_proto::rpc::v1::{ReplicaReport, StoredState};
use ankole_proto::wire::body::{LayerLink, Memory, OpenRequest, Opened};
use ankole_proto::wire::{ErrorCode, Frame, Header, Opcode};
use ankole_proto::{BLOCK_BYTES, Epoch, Extent, LayerId, ReplicaId, VolumeId};
use bytes::{Bytes, BytesMut};

use super::super::fleet::clock;
use super::super::mutation::Mutation;
use super::super::network::LinkKey;
use super::super::workload::{self, SECTOR};
use super::flips::Flips;
use super::perform::{Outcome, is_skipped, misreport, perform, refuse, reply, resum, run};

/// A replica on a host's disk.
pub(in super::super) struct Slot {
    pub(in super::super) id: ReplicaId,
    pub(in super::super) volume: VolumeId,
    /// The greatest epoch ever seen durable: it must never shrink (INV-1).
    pub(in super::super) greatest_epoch: Epoch,
    /// It carried out a request of an engine older than one that it had let in (INV-1).
    pub(in super::super) obeyed_older: Option<String>,
    /// Nothing that was acknowledged has been lost with its power since it was in sync.
    pub(in super::super) intact: bool,
    /// A sync of it failed, and the power has not.
    pub(in super::super) sync_failed: bool,
    disk: SimDisk,
    flips: Flips,
    process: Option<Process>,
    mutation: Option<Mutation>,
    /// It is the one replica that some mutations are about.
    chosen: bool,
    /// Counts requests, for what is done to some of them only.
    requests: u64,
    /// Counts syncs.
    syncs: u64,
}

struct Process {
    store: Result<Replica<SimDisk>, String>,
    tenant: Option<LinkKey>,
    tenancy: Tenancy,
    started: Duration,
    /// A sync of the background's that has run and is not finished.
    synced: Option<(FlushPlan<SimDisk>, std::io::Result<()>)>,
    /// Nothing is left to do in the background.
    idle: bool,
    /// The sync that is under way, and who waits for it.
    syncing: Option<(FlushPlan<SimDisk>, Vec<Waiter>)>,
    /// Who waits for the next.
    waiting: Vec<Waiter>,
}

/// A request that is answered after a sync.
struct Waiter {
    link: LinkKey,
    epoch: Epoch,
    header: Header,
}

/// What a request comes to.
pub(in super::super) enum Answer {
    Reply(Frame),
    /// It waits for a sync.
    Waits(Syncs),
}

/// What becomes of syncs.
#[derive(Default)]
pub(in super::super) struct Syncs {
    pub(in super::super) replies: Vec<(LinkKey, Frame)>,
    /// A sync has begun: [`Slot::sync`] with this number ends it.
    pub(in super::super) begun: Option<u64>,
}

/// Where a replica is on its disk.
pub(super) fn directory(id: ReplicaId) -> PathBuf {
    Path::new("replicas").join(id.to_string())
}

impl Slot {
    pub(super) fn new(
        id: ReplicaId,
        volume: VolumeId,
        disk: &SimDisk,
        chosen: bool,
        mutation: Option<Mutation>,
    ) -> Self {
        Self {
            id,
            volume,
            greatest_epoch: Epoch::ZERO,
            obeyed_older: None,
            intact: true,
            sync_failed: false,
            disk: disk.clone(),
            flips: Flips::default(),
            process: None,
            mutation,
            chosen,
            requests: 0,
            syncs: 0,
        }
    }

    /// The blockd finds it.
    pub(super) fn load(&mut self, boot: u64, now: Duration) {
        let store = Replica::load(&self.disk, &directory(self.id))
            .map(|mut replica| {
                replica.set_boot(&boot.to_string());
                replica
            })
            .map_err(|error| error.to_string());
        let (epoch, in_use) = store.as_ref().map_or((Epoch::ZERO, false), |replica| {
            (replica.epoch(), replica.memory() != Memory::Clean)
        });
        self.process = Some(Process {
            store,
            tenant: None,
            tenancy: Tenancy::found(epoch, in_use),
            started: now,
            synced: None,
            idle: false,
            syncing: None,
            waiting: Vec::new(),
        });
    }

    /// The blockd is gone.
    pub(super) fn unload(&mut self) {
        self.hide_flips();
        self.process = None;
    }

    /// What an unclean stop of the blockd does to bits that flipped.
    pub(super) fn hide_flips(&mut self) {
        if let Some(head) = self.replica().map(Replica::head) {
            self.flips.crash(&self.disk, head);
        }
    }

    /// The power was cut: what was not synced may be gone.
    pub(super) fn lose_power(&mut self, disk: &SimDisk) {
        self.process = None;
        self.intact = false;
        self.sync_failed = false;
        self.disk = disk.clone();
    }

    /// What would be found if its blockd, or its host, ended now and came back; nothing when that
    /// could not be used.
    pub(in super::super) fn after_crash(&self, fate: Fate, seed: u64) -> Option<Replica<SimDisk>> {
        let disk = self.disk.crash(fate, seed);
        let replica = Replica::load(&disk, &directory(self.id)).ok()?;
        (*replica.state() == State::Ready).then_some(replica)
    }

    /// The running replica, when it could be loaded.
    pub(in super::super) fn replica_mut(&mut self) -> Option<&mut Replica<SimDisk>> {
        self.process.as_mut()?.store.as_mut().ok()
    }

    fn replica(&self) -> Option<&Replica<SimDisk>> {
        self.process.as_ref()?.store.as_ref().ok()
    }

    /// Whether its blockd runs.
    pub(in super::super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its replica can be used, when it runs.
    pub(in super::super) fn state(&self) -> Option<&State> {
        Some(self.replica()?.state())
    }

    /// Whether nothing is left to do in the background.
    pub(in super::super) fn is_idle(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.idle)
    }

    /// The layers that its replica has, when it runs.
    pub(in super::super) fn layers(&self) -> Option<Vec<LayerLink>> {
        Some(self.replica()?.layers())
    }

    /// What its replica would answer a read with.
    pub(in super::super) fn peek(&mut self, extent: Extent) -> Option<Bytes> {
        let store = self.replica_mut()?;
        let (mut data, epoch) = (BytesMut::new(), store.epoch());
        store.read(epoch, extent, &mut data).ok()?;
        Some(data.freeze())
    }

    /// What the managers are told of it.
    pub(super) fn report(&self, now: Duration) -> ReplicaReport {
        match &self.process {
            Some(Process {
                store: Ok(replica), ..
            }) => {
                let mut report = replica_report(self.id, replica, clock(now).wall_ms);
                if self.mutation == Some(Mutation::HideDamages) {
                    (report.damaged_blocks, report.damages) = (0, Vec::new());
                }
                report
            }
            other => ReplicaReport {
                id: self.id.to_string(),
                state: StoredState::Faulted.into(),
                message: match other {
                    Some(Process {
                        store: Err(error), ..
                    }) => error.clone(),
                    _ => "not loaded".to_owned(),
                },
                ..ReplicaReport::default()
            },
        }
    }

    /// Begins the scrub that was asked for, unless it was begun already.
    pub(super) fn ask_scrub(&mut self, request: u64, now: Duration) {
        if request != 0
            && let Some(store) = self.replica_mut()
        {
            store.begin_scrub(request, clock(now).wall_ms);
        }
    }

    /// Creates a replica that begins as a sealed layer of this one.
    pub(super) fn clone_into(&mut self, mut spec: CloneSpec) -> Result<(), CloneError> {
        let skips = self.mutation == Some(Mutation::CloneBelow);
        let Some(store) = self.replica_mut() else {
            let text = "its source cannot be used".to_owned();
            return Err(CloneError::Io(std::io::Error::other(text)));
        };
        if skips {
            let mut links = store.layers().into_iter();
            let link = links.find(|link| link.layer == spec.layer);
            spec.layer = link.and_then(|link| link.parent).unwrap_or(spec.layer);
        }
        match store.clone_into(&directory(spec.replica.replica), &spec) {
            // Made by a blockd that did not live to load it.
            Ok(()) | Err(CloneError::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether all that it holds was read after this request.
    pub(in super::super) fn is_scrubbed(&self, request: u64) -> bool {
        self.replica().is_some_and(|replica| {
            let scrub = replica.scrub_report();
            scrub.request >= request && scrub.finished_at_ms != 0
        })
    }

    /// Blocks that are known to be bad.
    pub(in super::super) fn damaged_blocks(&self) -> u64 {
        self.replica().map_or(0, |replica| replica.damages().0)
    }

    /// Wishes layers away.
    pub(super) fn remove_layers(&mut self, layers: &[LayerId]) {
        let Some(store) = self.replica_mut() else {
            return;
        };
        for layer in layers {
            if store.layers().iter().any(|link| link.layer == *layer) {
                // Refused when it is faulted, which the record will tell.
                let _ = store.remove_layer(*layer);
            }
        }
    }

    /// Why the replica cannot be used, when it is broken for good.
    pub(in super::super) fn fault(&self) -> Option<String> {
        match &self.process.as_ref()?.store {
            Err(error) => Some(error.clone()),
            Ok(replica) => match replica.state() {
                State::Faulted { reason } => Some(reason.clone()),
                State::Ready | State::Rebuilding => None,
            },
        }
    }

    /// The connection that speaks for the replica.
    pub(in super::super) fn tenant(&self) -> Option<LinkKey> {
        self.process.as_ref()?.tenant
    }

    /// Takes the first frame of a connection.
    pub(super) fn open(
        &mut self,
        link: LinkKey,
        request: &OpenRequest,
        now: Duration,
    ) -> Result<Opened, Denial> {
        let Some(process) = self.process.as_mut() else {
            return Err(Denial::new(ErrorCode::Stopping, "not running"));
        };
        let store = match &mut process.store {
            Ok(store) => store,
            Err(error) => return Err(Denial::new(ErrorCode::Faulted, error.clone())),
        };
        let mut request = request.clone();
        if self.mutation == Some(Mutation::ObeyAnyEpoch) {
            request.epoch = request.epoch.max(store.epoch());
        }
        let mut opened = store.open(&request).map_err(|error| Denial::of(&error))?;
        let wait = process.tenancy.opened(request.epoch, now - process.started);
        opened.lease_remaining_ms =
            u32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        process.tenant = Some(link);
        self.mutation
            .inspect(|mutation| misreport(*mutation, &mut opened));
        Ok(opened)
    }

    /// Carries out a request; `None` when its connection speaks for the replica no more.
    pub(super) fn execute(
        &mut self,
        link: LinkKey,
        frame: &Frame,
        now: Duration,
    ) -> Option<Answer> {
        self.requests += 1;
        let skipped = is_skipped(self.mutation, frame.header.opcode, self.requests);
        let (mutation, first) = (self.mutation, self.chosen);
        let process = self.process.as_mut()?;
        let late = mutation == Some(Mutation::LateFrames) && process.tenant.is_some();
        if process.tenant != Some(link) && !late {
            return None;
        }
        let store = process.store.as_mut().ok()?;
        let epoch = if mutation == Some(Mutation::ObeyAnyEpoch) {
            store.epoch()
        } else {
            link.epoch
        };
        let result = if frame.header.opcode == Opcode::Close {
            let closed = store.close(epoch).map(|()| Outcome::Done(Bytes::new()));
            process.tenant = None;
            process.tenancy.closed();
            closed.map_err(|error| Denial::of(&error))
        } else if skipped && (first || mutation != Some(Mutation::SkipSeals)) {
            Ok(Outcome::Done(Bytes::new()))
        } else {
            process.tenancy.heard(now - process.started);
            perform(store, epoch, frame, mutation)
        };
        if link.epoch < store.epoch() && result.is_ok() {
            let opcode = frame.header.opcode;
            self.obeyed_older = Some(format!("{link:?} {opcode:?} at epoch {}", store.epoch()));
        }
        self.greatest_epoch = self.greatest_epoch.max(store.epoch());
        let result = match result {
            Ok(Outcome::Sync) => {
                process.waiting.push(Waiter {
                    link,
                    epoch,
                    header: frame.header,
                });
                return Some(Answer::Waits(self.begin_sync()));
            }
            Ok(Outcome::Done(payload)) => Ok(payload),
            Err(denial) => Err(denial),
        };
        Some(Answer::Reply(reply(&frame.header, result)))
    }

    /// Begins a sync for all who wait, unless one is under way.
    fn begin_sync(&mut self) -> Syncs {
        let mut syncs = Syncs::default();
        let Some(process) = &mut self.process else {
            return syncs;
        };
        let Ok(store) = &mut process.store else {
            return syncs;
        };
        let late = self.mutation == Some(Mutation::LateFrames);
        if process.syncing.is_some() {
            return syncs;
        }
        let tenant = process.tenant;
        process
            .waiting
            .retain(|waiter| tenant == Some(waiter.link) || late);
        let waiters = std::mem::take(&mut process.waiting);
        let Some(first) = waiters.first() else {
            return syncs;
        };
        match store.plan_flush(first.epoch) {
            Ok(plan) => {
                process.syncing = Some((plan, waiters));
                self.syncs += 1;
                syncs.begun = Some(self.syncs);
            }
            Err(error) => {
                let denial = refuse(&DataError::from(error));
                let replies = waiters.into_iter();
                syncs.replies = replies
                    .map(|waiter| (waiter.link, reply(&waiter.header, Err(denial.clone()))))
                    .collect();
            }
        }
        syncs
    }

    /// Ends the sync with this number, and begins the next.
    pub(super) fn sync(&mut self, number: u64) -> Syncs {
        let Some(process) = self.process.as_mut().filter(|_| self.syncs == number) else {
            return Syncs::default();
        };
        let (Some((plan, waiters)), Ok(store)) = (process.syncing.take(), &mut process.store)
        else {
            return Syncs::default();
        };
        let synced = run(&plan, self.mutation);
        let finished = store.finish_flush(plan, synced);
        let result = finished.map_err(|error| refuse(&error));
        let mut syncs = self.begin_sync();
        for waiter in waiters {
            let result = result.clone().map(|()| Bytes::new());
            syncs
                .replies
                .push((waiter.link, reply(&waiter.header, result)));
        }
        syncs
    }

    /// The file of a layer's blocks.
    fn image(&self, layer: LayerId) -> PathBuf {
        directory(self.id)
            .join("layers")
            .join(format!("{layer}.img"))
    }

    /// Flips a bit of a block that some layer holds; whether there is one.
    pub(super) fn flip_bit(&mut self, random: u64) -> bool {
        let Some(store) = self.replica() else {
            return false;
        };
        let layers = store.layers();
        let index = usize::try_from(random % 1024).unwrap_or_default() % layers.len();
        let layer = layers[index].layer;
        if store.is_unsettled(layer) {
            return false;
        }
        let (path, byte) = (self.image(layer), workload::some_byte(random / 1024));
        let flipped = self.flips.flip(&self.disk, layer, path.clone(), byte);
        if self.mutation == Some(Mutation::FlipWithSum) {
            resum(&self.disk, &path, byte / BLOCK_BYTES);
        }
        flipped
    }

    /// Changes a block of a sealed layer, and its sum.
    fn rewrite_sealed(&mut self) {
        let Some(store) = self.replica_mut() else {
            return;
        };
        let head = store.head();
        let sealed = store.layers().into_iter().map(|link| link.layer);
        let Some(layer) = sealed.rev().find(|layer| *layer != head) else {
            return;
        };
        let path = self.image(layer);
        if self.disk.flip_bit(&path, 0, 0).is_ok() {
            resum(&self.disk, &path, 0);
        }
    }

    /// What each layer holds of an extent, in one line each: the numbers in its sectors.
    pub(in super::super) fn copies(&mut self, node: &str, extent: Extent) -> Vec<String> {
        let id = self.id;
        let Some(store) = self.replica_mut() else {
            return vec![format!("{node} {id} does not run")];
        };
        let (epoch, state) = (store.epoch(), store.state().clone());
        let mut lines = vec![format!("{node} {id} {state:?}, head {}", store.head())];
        for link in store.layers() {
            for block in extent.blocks() {
                let held = store.read_layer(epoch, link.layer, block.extent());
                let text = match held {
                    Err(error) => error.to_string(),
                    Ok(held) if held.present.contains(block.in_chunk()) => {
                        let number = |sector: &[u8]| sector.first_chunk::<8>().copied();
                        let numbers = held.data.chunks(SECTOR).filter_map(number);
                        format!("{:?}", numbers.map(u64::from_le_bytes).collect::<Vec<_>>())
                    }
                    Ok(held) if held.zero.contains(block.in_chunk()) => "zeros".to_owned(),
                    Ok(_) => continue,
                };
                let (layer, block) = (link.layer, block.raw());
                lines.push(format!("{node} layer {layer} block {block}: {text}"));
            }
        }
        lines
    }

    /// Takes some steps of the replica's background work. What it syncs is finished at the next
    /// call: I/O goes on meanwhile.
    pub(super) fn work(&mut self, now: Duration) {
        const STEPS: usize = 4;
        const BLOCKS: u64 = 64;
        if self.mutation == Some(Mutation::RewriteSealed) && now.subsec_millis() == 900 {
            self.rewrite_sealed();
        }
        let Some(process) = self.process.as_mut() else {
            return;
        };
        let Ok(store) = &mut process.store else {
            return;
        };
        if let Some((plan, synced)) = process.synced.take() {
            // A failed sync has faulted the replica; its engine hears of it.
            let _ = store.finish_flush(plan, synced);
        }
        process.idle = false;
        for _ in 0..STEPS {
            let settled = store.settle_step(BLOCKS);
            let progress = match settled {
                Ok(Progress::Idle) => store.merge_step(BLOCKS),
                other => other,
            };
            let progress = match progress {
                Ok(Progress::Idle) => store.private_step(BLOCKS),
                other => other,
            };
            let progress = match progress {
                Ok(Progress::Idle) => store.scrub_step(BLOCKS, clock(now).wall_ms),
                other => other,
            };
            match progress {
                Ok(Progress::Working { .. }) => {}
                Ok(Progress::Sync(plan)) => {
                    let synced = run(&plan, self.mutation);
                    process.synced = Some((plan, synced));
                    return;
                }
                Ok(Progress::Idle) => {
                    process.idle = true;
                    return;
                }
                // Whatever it is, it is tried again; a fault shows itself.
                Err(_) => return,
            }
        }
    }
}
