//! One host: its disk, and the blockd process that may run on it.
//!
//! The process is the real replica code behind the real parsing of requests; what stands in for
//! the daemon's threads is that requests of one connection are carried out in any order.

use std::path::Path;
use std::time::Duration;

use ankole_blockd::disk::sim::{Fate, Fault, SimDisk};
use ankole_blockd::replica::{self, Mutation, Refusal, Replica, ReplicaSpec, State};
use ankole_blockd::session::request::{Durability, Request, TreeRequest};
use ankole_blockd::session::{Denial, Detail};
use ankole_proto::wire::body::{Memory, OpenRequest, Opened};
use ankole_proto::wire::{ErrorCode, Frame, Header, LEASE_MS, Opcode};
use ankole_proto::{Epoch, NodeName, ReplicaId, Sequence};
use bytes::{Bytes, BytesMut};

use super::network::LinkKey;

const DIRECTORY: &str = "replica";

/// A host.
pub(super) struct Host {
    pub(super) node: NodeName,
    pub(super) replica: ReplicaId,
    pub(super) disk: SimDisk,
    process: Option<Process>,
    /// How often it was switched on.
    boot: u64,
    /// In which boot an engine last opened the replica.
    opened_in_boot: u64,
    /// Until when answers take longer, and by how much.
    pub(super) slow: Option<(Duration, Duration)>,
    /// The greatest epoch ever seen durable: it must never shrink (INV-1).
    pub(super) greatest_epoch: Epoch,
}

struct Process {
    store: Result<Replica<SimDisk>, String>,
    tenant: Option<LinkKey>,
    started: Duration,
    last_reply: Option<Duration>,
}

impl Host {
    pub(super) fn new(node: NodeName, replica: ReplicaId, disk: SimDisk) -> Self {
        Self {
            node,
            replica,
            disk,
            process: None,
            boot: 1,
            opened_in_boot: 1,
            slow: None,
            greatest_epoch: Epoch::ZERO,
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
        Ok(())
    }

    /// Whether its blockd runs.
    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the blockd.
    pub(super) fn start(&mut self, now: Duration) {
        let store =
            Replica::load(&self.disk, Path::new(DIRECTORY)).map_err(|error| format!("{error}"));
        self.process = Some(Process {
            store,
            tenant: None,
            started: now,
            last_reply: None,
        });
    }

    /// Kills the blockd; the page cache lives on.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Cuts the power: what was not synced may be gone.
    pub(super) fn cut_power(&mut self, seed: u64) {
        self.process = None;
        self.boot += 1;
        self.disk = self.disk.crash(Fate::Reordered, seed);
    }

    /// The running replica, when it could be loaded.
    pub(super) fn replica_mut(&mut self) -> Option<&mut Replica<SimDisk>> {
        self.process.as_mut()?.store.as_mut().ok()
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
        let same_boot = self.opened_in_boot == self.boot;
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
        let mut opened = store.open(request).map_err(|error| Denial::of(&error))?;
        if opened.previous_epoch < request.epoch && opened.memory != Memory::Clean {
            let since = process.last_reply.unwrap_or(process.started);
            let left = Duration::from_millis(LEASE_MS.into()).saturating_sub(now - since);
            opened.lease_remaining_ms = u32::try_from(left.as_millis()).unwrap_or(LEASE_MS);
        }
        if opened.memory == Memory::Lost && same_boot {
            opened.memory = Memory::Restarted;
        }
        self.opened_in_boot = self.boot;
        process.tenant = Some(link);
        process.last_reply = Some(now);
        Ok(opened)
    }

    /// Carries out a request; `None` when its connection speaks for the replica no more.
    pub(super) fn execute(&mut self, link: LinkKey, frame: &Frame, now: Duration) -> Option<Frame> {
        let process = self.process.as_mut()?;
        if process.tenant != Some(link) {
            return None;
        }
        let store = process.store.as_mut().ok()?;
        let result = if frame.header.opcode == Opcode::Close {
            let closed = store.close(link.epoch).map(|()| Bytes::new());
            process.tenant = None;
            closed.map_err(|error| Denial::of(&error))
        } else {
            perform(store, link.epoch, frame)
        };
        process.last_reply = Some(now);
        self.greatest_epoch = self.greatest_epoch.max(store.epoch());
        Some(reply(&frame.header, result))
    }

    /// Lets one of the disk's next calls fail.
    pub(super) fn fail_call(&self, ahead: u64) {
        self.disk.fail(self.disk.calls() + ahead, Fault::Io);
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
        let byte = random / 1024 % super::workload::VOLUME_BYTES;
        self.disk.flip_bit(&path, byte, 3).is_ok()
    }

    /// Takes a step of the replica's background work.
    pub(super) fn work(&mut self) {
        const BLOCKS: u64 = 64;
        let Some(store) = self.replica_mut() else {
            return;
        };
        let progress = store.settle_step(BLOCKS);
        if let Ok(replica::Progress::Sync(plan)) = progress {
            let synced = plan.run();
            // A failed sync has faulted the replica; its engine hears of it.
            let _ = store.finish_flush(plan, synced);
        }
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
                Detail::Offset(offset) => header.offset = offset,
            }
            Frame::new(header, Bytes::from(denial.message))
        }
    }
}

fn perform(store: &mut Replica<SimDisk>, epoch: Epoch, frame: &Frame) -> Result<Bytes, Denial> {
    let header = &frame.header;
    let watermark = Sequence::from_raw(header.watermark);
    let mutation = Mutation {
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
            store
                .read(epoch, extent, &mut out)
                .map_err(|error| refuse(&error))?;
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
            }
            .map_err(|error| refuse(&error))?;
            Durability::Cached
        }
    };
    if durability == Durability::Synced {
        let plan = store
            .plan_flush(epoch)
            .map_err(|error| refuse(&replica::DataError::from(error)))?;
        let synced = plan.run();
        store
            .finish_flush(plan, synced)
            .map_err(|error| refuse(&error))?;
    }
    Ok(Bytes::new())
}

fn refuse(error: &dyn Refusal) -> Denial {
    Denial::of(error)
}
