//! One host: its disk, and the blockd process that may run on it.
//!
//! The process is the real replica code behind the real parsing of requests; what stands in for
//! the daemon's threads is that requests of one connection are carried out in any order.

use std::path::Path;
use std::time::Duration;

use ankole_blockd::disk::sim::{Fate, Fault, SimDisk};
use ankole_blockd::disk::{Disk, DiskFile};
use ankole_blockd::replica::{
    self, FlushPlan, Mutation as Order, Progress, Refusal, Replica, ReplicaSpec, State,
};
use ankole_blockd::session::request::{Durability, Request, TreeRequest};
use ankole_blockd::session::{Denial, Detail};
use ankole_proto::wire::body::{LayerLink, Memory, OpenRequest, Opened};
use ankole_proto::wire::{ErrorCode, Frame, Header, LEASE_MS, Opcode};
use ankole_proto::{BLOCK_BYTES, Epoch, Extent, LayerId, NodeName, ReplicaId, Sequence};
use bytes::{Bytes, BytesMut};

use super::mutation::Mutation;
use super::network::LinkKey;
use super::workload::SECTOR;

const DIRECTORY: &str = "replica";

/// A host.
pub(super) struct Host {
    pub(super) node: NodeName,
    pub(super) replica: ReplicaId,
    pub(super) disk: SimDisk,
    process: Option<Process>,
    /// How often it was switched on.
    boot: u64,
    /// Until when answers take longer, and by how much.
    pub(super) slow: Option<(Duration, Duration)>,
    /// The greatest epoch ever seen durable: it must never shrink (INV-1).
    pub(super) greatest_epoch: Epoch,
    /// It carried out a request of an engine older than one that it had let in (INV-1).
    pub(super) obeyed_older: Option<String>,
    /// Nothing that was acknowledged has been lost with its power since it was in sync.
    pub(super) intact: bool,
    /// Syncs that failed before the present replica was created.
    pub(super) failed_syncs: u64,
    mutation: Option<Mutation>,
    /// Counts requests, for what is done to some of them only.
    requests: u64,
}

struct Process {
    store: Result<Replica<SimDisk>, String>,
    tenant: Option<LinkKey>,
    started: Duration,
    last_reply: Option<Duration>,
    /// A sync of the background's that has run and is not finished.
    synced: Option<(FlushPlan<SimDisk>, std::io::Result<()>)>,
    /// Nothing is left to do in the background.
    idle: bool,
}

impl Host {
    pub(super) fn new(
        node: NodeName,
        replica: ReplicaId,
        disk: SimDisk,
        mutation: Option<Mutation>,
    ) -> Self {
        Self {
            node,
            replica,
            disk,
            process: None,
            boot: 1,
            slow: None,
            greatest_epoch: Epoch::ZERO,
            obeyed_older: None,
            intact: true,
            failed_syncs: 0,
            mutation,
            requests: 0,
        }
    }

    /// Creates an empty replica, in the place of any other.
    pub(super) fn create(&mut self, spec: &ReplicaSpec) -> Result<(), String> {
        let directory = Path::new(DIRECTORY);
        self.process = None;
        replica::destroy(&self.disk, directory).map_err(|error| error.to_string())?;
        replica::create(&self.disk, directory, spec).map_err(|error| error.to_string())?;
        self.replica = spec.replica;
        self.greatest_epoch = Epoch::ZERO;
        self.failed_syncs = self.disk.failed_syncs();
        Ok(())
    }

    /// Whether its blockd runs.
    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the blockd.
    pub(super) fn start(&mut self, now: Duration) {
        if self.mutation == Some(Mutation::DropSynced) {
            // From now on: what was created is there.
            self.disk.drop_synced();
        }
        let store = Replica::load(&self.disk, Path::new(DIRECTORY))
            .map(|mut replica| {
                replica.set_boot(&self.boot.to_string());
                replica
            })
            .map_err(|error| format!("{error}"));
        self.process = Some(Process {
            store,
            tenant: None,
            started: now,
            last_reply: None,
            synced: None,
            idle: false,
        });
    }

    /// Kills the blockd; the page cache lives on.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Cuts the power: what was not synced may be gone.
    pub(super) fn cut_power(&mut self, fate: Fate, seed: u64) {
        self.process = None;
        self.boot += 1;
        self.intact = false;
        self.disk = self.disk.crash(fate, seed);
        // The new disk counts anew.
        self.failed_syncs = 0;
    }

    /// The running replica, when it could be loaded.
    pub(super) fn replica_mut(&mut self) -> Option<&mut Replica<SimDisk>> {
        self.process.as_mut()?.store.as_mut().ok()
    }

    /// Whether its replica can be used, when it runs.
    pub(super) fn state(&self) -> Option<&State> {
        Some(self.process.as_ref()?.store.as_ref().ok()?.state())
    }

    /// Whether nothing is left to do in the background.
    pub(super) fn is_idle(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.idle)
    }

    /// The layers that its replica has, when it runs.
    pub(super) fn layers(&self) -> Option<Vec<LayerLink>> {
        Some(self.process.as_ref()?.store.as_ref().ok()?.layers())
    }

    /// What its replica would answer a read with.
    pub(super) fn peek(&mut self, extent: Extent) -> Option<Bytes> {
        let store = self.replica_mut()?;
        let (mut data, epoch) = (BytesMut::new(), store.epoch());
        store.read(epoch, extent, &mut data).ok()?;
        Some(data.freeze())
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
    pub(super) fn fault(&self) -> Option<String> {
        match &self.process.as_ref()?.store {
            Err(error) => Some(error.clone()),
            Ok(replica) => match replica.state() {
                State::Faulted { reason } => Some(reason.clone()),
                State::Ready | State::Rebuilding => None,
            },
        }
    }

    /// The connection that speaks for the replica.
    pub(super) fn tenant(&self) -> Option<LinkKey> {
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
        if request.replica != self.replica {
            return Err(Denial::new(ErrorCode::NoSuchReplica, "not here"));
        }
        let store = match &mut process.store {
            Ok(store) => store,
            Err(error) => return Err(Denial::new(ErrorCode::Faulted, error.clone())),
        };
        let mut request = request.clone();
        if self.mutation == Some(Mutation::ObeyAnyEpoch) {
            request.epoch = request.epoch.max(store.epoch());
        }
        let mut opened = store.open(&request).map_err(|error| Denial::of(&error))?;
        if opened.previous_epoch < request.epoch && opened.memory != Memory::Clean {
            let since = process.last_reply.unwrap_or(process.started);
            let left = Duration::from_millis(LEASE_MS.into()).saturating_sub(now - since);
            opened.lease_remaining_ms = u32::try_from(left.as_millis()).unwrap_or(LEASE_MS);
        }
        process.tenant = Some(link);
        process.last_reply = Some(now);
        self.mutation
            .inspect(|mutation| misreport(*mutation, &mut opened));
        Ok(opened)
    }

    /// Carries out a request; `None` when its connection speaks for the replica no more.
    pub(super) fn execute(&mut self, link: LinkKey, frame: &Frame, now: Duration) -> Option<Frame> {
        self.requests += 1;
        let skipped = self.skips(frame.header.opcode);
        let (mutation, first) = (self.mutation, self.replica == ReplicaId::from_bits(1));
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
            let closed = store.close(epoch).map(|()| Bytes::new());
            process.tenant = None;
            closed.map_err(|error| Denial::of(&error))
        } else if skipped && (first || mutation != Some(Mutation::SkipSeals)) {
            Ok(Bytes::new())
        } else {
            perform(store, epoch, frame, mutation)
        };
        process.last_reply = Some(now);
        if link.epoch < store.epoch() && result.is_ok() {
            let opcode = frame.header.opcode;
            self.obeyed_older = Some(format!("{link:?} {opcode:?} at epoch {}", store.epoch()));
        }
        self.greatest_epoch = self.greatest_epoch.max(store.epoch());
        Some(reply(&frame.header, result))
    }

    /// Whether a request is answered without being carried out, for what is broken on purpose.
    fn skips(&self, opcode: Opcode) -> bool {
        const ONE_IN: u64 = 16;
        let sometimes = self.requests.is_multiple_of(ONE_IN);
        match self.mutation {
            Some(Mutation::SkipWrites) => opcode == Opcode::Write && sometimes,
            Some(Mutation::IgnoreFlushes) => opcode == Opcode::Flush,
            Some(Mutation::SkipSeals) => opcode == Opcode::Seal,
            Some(Mutation::SkipCopies) => opcode == Opcode::WriteLayer,
            Some(Mutation::SkipFinish) => opcode == Opcode::FinishRebuild,
            _ => false,
        }
    }

    /// Lets one of the disk's next calls fail.
    pub(super) fn fail_call(&self, ahead: u64) {
        self.disk.fail(self.disk.calls() + ahead, Fault::Io);
    }

    /// Lets the disk be full but for this many pages.
    pub(super) fn fill_disk(&self, pages: u64) {
        const PAGE: u64 = 4096;
        if let Ok(space) = self.disk.space() {
            let used = space.capacity_bytes - space.free_bytes;
            self.disk.set_capacity(used + pages * PAGE);
        }
    }

    /// Flips a bit of a block that some layer holds; whether there is one.
    pub(super) fn flip_bit(&mut self, random: u64) -> bool {
        let Some(store) = self.replica_mut() else {
            return false;
        };
        let layers = store.layers();
        let Some(link) = usize::try_from(random % 1024)
            .ok()
            .and_then(|index| layers.get(index % layers.len()))
        else {
            return false;
        };
        let path = Path::new(DIRECTORY)
            .join("layers")
            .join(format!("{}.img", link.layer));
        let byte = super::workload::some_byte(random / 1024);
        let flipped = self.disk.flip_bit(&path, byte, 3).is_ok();
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
        let path = Path::new(DIRECTORY)
            .join("layers")
            .join(format!("{layer}.img"));
        if self.disk.flip_bit(&path, 0, 0).is_ok() {
            resum(&self.disk, &path, 0);
        }
    }

    /// What each layer holds of an extent, in one line each: the numbers in its sectors.
    pub(super) fn copies(&mut self, extent: Extent) -> Vec<String> {
        let node = self.node.clone();
        let Some(store) = self.replica_mut() else {
            return vec![format!("{node} does not run")];
        };
        let (epoch, state) = (store.epoch(), store.state().clone());
        let mut lines = vec![format!("{node} {state:?}, head {}", store.head())];
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
                lines.push(format!(
                    "{node} layer {} block {}: {text}",
                    link.layer,
                    block.raw()
                ));
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

/// Runs a plan's syncs.
fn run(plan: &FlushPlan<SimDisk>, mutation: Option<Mutation>) -> std::io::Result<()> {
    match mutation {
        Some(Mutation::IgnoreFailedSyncs) => plan.run().or(Ok(())),
        _ => plan.run(),
    }
}

/// Makes the sum of a block agree with its bytes.
fn resum(disk: &SimDisk, image: &Path, block: u64) {
    let agree = || -> std::io::Result<()> {
        let mut bytes = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()];
        disk.open(image)?.read_at(&mut bytes, block * BLOCK_BYTES)?;
        let sum = crc32c::crc32c(&bytes).to_le_bytes();
        let sums = disk.open(&image.with_extension("sum"))?;
        sums.write_at(&[std::io::IoSlice::new(&sum)], block * 4)
    };
    // A block that is not there needs no sum.
    let _ = agree();
}

/// Tells an engine what is not so.
fn misreport(mutation: Mutation, opened: &mut Opened) {
    match mutation {
        Mutation::ForgetInFlight => opened.in_flight.clear(),
        Mutation::SayClean if opened.memory != Memory::Kept => opened.memory = Memory::Clean,
        Mutation::SayRestarted if opened.memory == Memory::Lost => {
            opened.memory = Memory::Restarted;
        }
        Mutation::ForgetLeases => opened.lease_remaining_ms = 0,
        _ => {}
    }
}

fn reply(request: &Header, result: Result<Bytes, Denial>) -> Frame {
    let mut header = request.reply();
    match result {
        Ok(payload) => Frame::new(header, payload),
        Err(denial) => {
            header.error = Some(denial.code);
            match denial.detail {
                Detail::None => {}
                Detail::Epoch(epoch) => header.sequence = epoch,
                Detail::Damage { offset, layer } => {
                    header.offset = offset;
                    header.sequence = layer;
                }
            }
            Frame::new(header, Bytes::from(denial.message))
        }
    }
}

fn perform(
    store: &mut Replica<SimDisk>,
    epoch: Epoch,
    frame: &Frame,
    broken: Option<Mutation>,
) -> Result<Bytes, Denial> {
    let header = &frame.header;
    let watermark = Sequence::from_raw(header.watermark);
    let mutation = Order {
        sequence: Sequence::from_raw(header.sequence),
        watermark,
    };
    let durability = match Request::parse(header, &frame.payload)? {
        Request::Ping => {
            store
                .note_watermark(epoch, watermark)
                .map_err(|error| refuse(&replica::DataError::from(error)))?;
            Durability::Cached
        }
        Request::Read(extent) => {
            let mut out = BytesMut::new();
            let read = store.read(epoch, extent, &mut out);
            if read.is_err() && broken == Some(Mutation::ZerosForErrors) {
                let bytes = usize::try_from(extent.length()).unwrap_or_default();
                return Ok(Bytes::from(vec![0; bytes]));
            }
            read.map_err(|error| refuse(&error))?;
            return Ok(out.freeze());
        }
        Request::Write(extent, durability) => {
            let written = store.write(epoch, extent, &frame.payload, mutation, false);
            written.map_err(|error| refuse(&error))?;
            durability
        }
        Request::Unmap(extent, durability) => {
            store
                .unmap(epoch, extent, mutation)
                .map_err(|error| refuse(&error))?;
            durability
        }
        Request::WriteZeroes(extent, durability) => {
            store
                .write_zeroes(epoch, extent, mutation)
                .map_err(|error| refuse(&error))?;
            durability
        }
        Request::Flush => Durability::Synced,
        Request::Digest(layer, chunk) => {
            let extent = chunk.extent_in(store.size());
            let digest = store
                .digest(epoch, layer, extent)
                .map_err(|error| refuse(&error))?;
            return Ok(digest.encode());
        }
        Request::ReadLayer(layer, extent) => {
            let blocks = store
                .read_layer(epoch, layer, extent)
                .map_err(|error| refuse(&error))?;
            return Ok(blocks.encode());
        }
        Request::WriteLayer(extent, body) => {
            store
                .write_layer(epoch, extent, &body)
                .map_err(|error| refuse(&error))?;
            Durability::Cached
        }
        Request::Tree(change) => {
            match change {
                TreeRequest::Seal(seal) => store.seal(epoch, seal),
                TreeRequest::Revert(revert) => store.revert(epoch, revert),
                TreeRequest::BeginRebuild(begin) => store.begin_rebuild(epoch, &begin),
                TreeRequest::FinishRebuild => store.finish_rebuild(epoch),
                TreeRequest::Expand(expand) => store.expand(epoch, expand),
            }
            .map_err(|error| refuse(&error))?;
            Durability::Cached
        }
    };
    let ignored = broken == Some(Mutation::IgnoreFua) && header.opcode != Opcode::Flush;
    if durability == Durability::Synced && !ignored {
        sync(store, epoch, broken)?;
    }
    Ok(Bytes::new())
}

fn sync(
    store: &mut Replica<SimDisk>,
    epoch: Epoch,
    broken: Option<Mutation>,
) -> Result<(), Denial> {
    let plan = store
        .plan_flush(epoch)
        .map_err(|error| refuse(&replica::DataError::from(error)))?;
    let synced = run(&plan, broken);
    store
        .finish_flush(plan, synced)
        .map_err(|error| refuse(&error))
}

fn refuse(error: &dyn Refusal) -> Denial {
    Denial::of(error)
}
