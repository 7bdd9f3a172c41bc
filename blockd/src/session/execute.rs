//! Carrying out requests on an open replica.

use std::sync::Arc;

use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::WriteLayer;
use ankole_proto::wire::{ErrorCode, Header};
use ankole_proto::{ChunkNumber, Epoch, Extent, LayerId, ReplicaId, Sequence};
use bytes::{Bytes, BytesMut};

use super::disk_threads::DiskThreads;
use super::link::{Answer, Denial, Link};
use super::request::{Durability, Request, TreeRequest};
use crate::replica::refusal::Refusal;
use crate::replica::{ContentsHasher, Hashed, LayerError, Mutation, TreeError};
use crate::store::{ConnectionId, CopyWaiter, FlushWaiter, Joined, Occupant, Slot, Store};

/// What a comparison reads of a chunk at once, with the replica held: 256 KiB, and as much below.
const DIGEST_BLOCKS: u64 = 64;

/// A connection's hold on the replica that it has opened.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    slot: Arc<Slot>,
    occupant: Occupant,
}

impl Tenant {
    /// Opens the replica that the request names.
    pub(super) fn open(
        store: &Store,
        request: &OpenRequest,
        connection: ConnectionId,
    ) -> Result<(Self, Opened), Denial> {
        let slot = store.slot(request.replica).ok_or_else(|| {
            Denial::new(
                ErrorCode::NoSuchReplica,
                format!("replica {} is not on this node", request.replica),
            )
        })?;
        let opened = slot
            .open(request, connection)
            .map_err(|error| deny(&slot, &error))?;
        let occupant = Occupant {
            connection,
            epoch: request.epoch,
        };
        Ok((Self { slot, occupant }, opened))
    }

    /// Which replica.
    pub(super) fn replica(&self) -> ReplicaId {
        self.slot.id()
    }

    /// Of the engine.
    pub(super) const fn epoch(&self) -> Epoch {
        self.occupant.epoch
    }

    /// Whether no other connection has taken its place.
    pub(super) fn is_current(&self) -> bool {
        self.slot.is_held_by(self.occupant)
    }

    /// Ends the engine's use of the replica in order.
    pub(super) fn close(&self) -> Result<(), Denial> {
        self.slot
            .close(self.occupant)
            .map_err(|error| deny(&self.slot, &error))
    }

    fn deny(&self, error: &dyn Refusal) -> Denial {
        deny(&self.slot, error)
    }
}

/// The denial for a refusal. When the replica has become faulted the managers hear of it at once.
fn deny(slot: &Slot, error: &dyn Refusal) -> Denial {
    let denial = Denial::of(error);
    if matches!(denial.code, ErrorCode::Io | ErrorCode::Checksum) {
        tracing::error!(replica = %slot.id(), "{}", denial.message);
        slot.tell();
    }
    denial
}

/// Carries a request out. `None`: a disk thread will answer it.
pub(super) fn execute(
    tenant: &Tenant,
    link: &Arc<Link>,
    disk_threads: &DiskThreads,
    header: &Header,
    payload: &[u8],
) -> Result<Option<Bytes>, Denial> {
    let mutation = Mutation {
        sequence: Sequence::from_raw(header.sequence),
        watermark: Sequence::from_raw(header.watermark),
    };
    let durability = match Request::parse(header, payload)? {
        Request::Ping => {
            tenant.ping(mutation.watermark)?;
            return Ok(Some(Bytes::new()));
        }
        Request::Read(extent) => return tenant.read(extent, mutation.watermark).map(Some),
        Request::Digest(layer, chunk) => return tenant.digest(layer, chunk).map(Some),
        Request::DigestContents(layer, chunk) => {
            digest_contents(tenant, link, disk_threads, *header, (layer, chunk));
            return Ok(None);
        }
        Request::ReadLayer(layer, extent) => return tenant.read_layer(layer, extent).map(Some),
        Request::WriteLayer(extent, body) => {
            let layer = body.layer;
            if tenant
                .enter()?
                .needs_copy(layer)
                .map_err(|error| tenant.deny(&LayerError::from(error)))?
            {
                write_shared_layer(tenant, link, disk_threads, *header, extent, body);
                return Ok(None);
            }
            return tenant
                .write_layer(extent, &body)
                .map(|()| Some(Bytes::new()));
        }
        Request::RepairLayer(extent, body) => {
            return tenant
                .repair_layer(extent, &body)
                .map(|()| Some(Bytes::new()));
        }
        Request::MarkRebuilt(cursor) => {
            mark_rebuilt(tenant, link, disk_threads, *header, cursor);
            return Ok(None);
        }
        Request::Tree(request) => {
            change_tree(tenant, link, disk_threads, *header, request);
            return Ok(None);
        }
        Request::Write(extent, durability) => {
            let written = tenant
                .enter()?
                .write(tenant.epoch(), extent, payload, mutation, false);
            written.map_err(|error| tenant.deny(&error))?;
            durability
        }
        Request::Unmap(extent, durability) => {
            let unmapped = tenant.enter()?.unmap(tenant.epoch(), extent, mutation);
            unmapped.map_err(|error| tenant.deny(&error))?;
            durability
        }
        Request::WriteZeroes(extent, durability) => {
            let zeroed = tenant
                .enter()?
                .write_zeroes(tenant.epoch(), extent, mutation);
            zeroed.map_err(|error| tenant.deny(&error))?;
            durability
        }
        Request::Flush => {
            tenant.ping(mutation.watermark)?;
            Durability::Synced
        }
    };
    match durability {
        Durability::Cached => Ok(Some(Bytes::new())),
        Durability::Synced => {
            sync(tenant, link, disk_threads, *header);
            Ok(None)
        }
    }
}

impl Tenant {
    fn enter(&self) -> Result<parking_lot::MutexGuard<'_, crate::store::StoreReplica>, Denial> {
        self.slot
            .enter(self.occupant)
            .map_err(|barred| self.deny(&barred))
    }

    fn ping(&self, watermark: Sequence) -> Result<(), Denial> {
        self.slot
            .ping(self.occupant, watermark)
            .map_err(|barred| self.deny(&barred))
    }

    fn read(&self, extent: Extent, watermark: Sequence) -> Result<Bytes, Denial> {
        // Bounded by the request's own check.
        let mut out = BytesMut::with_capacity(usize::try_from(extent.length()).unwrap_or_default());
        let mut replica = self.enter()?;
        replica
            .note_watermark(self.epoch(), watermark)
            .map_err(|unusable| self.deny(&crate::replica::DataError::from(unusable)))?;
        let read = replica.read(self.epoch(), extent, &mut out);
        drop(replica);
        read.map_err(|error| self.deny(&error))?;
        Ok(out.freeze())
    }

    fn digest(&self, layer: LayerId, chunk: ChunkNumber) -> Result<Bytes, Denial> {
        let mut replica = self.enter()?;
        let extent = chunk.extent_in(replica.size());
        let digest = replica.digest(self.epoch(), layer, extent);
        drop(replica);
        Ok(digest.map_err(|error| self.deny(&error))?.encode())
    }

    fn digest_contents(&self, layer: LayerId, chunk: ChunkNumber) -> Result<Bytes, Denial> {
        let mut hasher = ContentsHasher::new(layer, chunk);
        loop {
            let mut replica = self.enter()?;
            let hashed = replica.hash_contents(self.epoch(), &mut hasher, DIGEST_BLOCKS);
            // I/O that waits for the replica comes next.
            parking_lot::MutexGuard::unlock_fair(replica);
            if let Hashed::All(digest) = hashed.map_err(|error| self.deny(&error))? {
                return Ok(digest.encode());
            }
        }
    }

    fn write_layer(&self, extent: Extent, body: &WriteLayer) -> Result<(), Denial> {
        let written = self.enter()?.write_layer(self.epoch(), extent, body);
        written.map_err(|error| self.deny(&error))
    }

    fn repair_layer(&self, extent: Extent, body: &WriteLayer) -> Result<(), Denial> {
        let repaired = self.enter()?.repair_layer(self.epoch(), extent, body);
        let blocks = repaired.map_err(|error| self.deny(&error))?;
        if blocks > 0 {
            let (replica, layer) = (self.slot.id(), body.layer);
            tracing::info!(%replica, %layer, blocks, offset = extent.offset(), "repaired");
            // The managers hold a list of what is damaged.
            self.slot.tell();
        }
        Ok(())
    }

    fn change(&self, request: TreeRequest) -> Result<Bytes, Denial> {
        let epoch = self.epoch();
        let mut replica = self.enter()?;
        let nothing = |()| Bytes::new();
        let changed: Result<Bytes, TreeError> = match request {
            TreeRequest::Seal(seal) => replica.seal(epoch, seal).map(nothing),
            TreeRequest::Revert(revert) => replica.revert(epoch, revert).map(nothing),
            TreeRequest::BeginRebuild(begin) => replica
                .begin_rebuild(epoch, &begin)
                .map(|cursor| cursor.encode()),
            TreeRequest::FinishRebuild => replica.finish_rebuild(epoch).map(nothing),
            TreeRequest::Expand(expand) => replica.expand(epoch, expand).map(nothing),
        };
        drop(replica);
        changed.map_err(|error| self.deny(&error))
    }

    fn read_layer(&self, layer: LayerId, extent: Extent) -> Result<Bytes, Denial> {
        let blocks = self.enter()?.read_layer(self.epoch(), layer, extent);
        Ok(blocks.map_err(|error| self.deny(&error))?.encode())
    }
}

/// Joins the replica's next sync; the one who comes first gives it to a disk thread.
fn sync(tenant: &Tenant, link: &Arc<Link>, disk_threads: &DiskThreads, header: Header) {
    let deferred = link.defer(header);
    let denying = Arc::clone(&tenant.slot);
    let joined = tenant.slot.join_flush(FlushWaiter {
        occupant: tenant.occupant,
        answer: Box::new(move |result| {
            deferred.answer(match result {
                Ok(()) => Answer::Done(Bytes::new()),
                Err(error) => Answer::Refused(deny(&denying, error)),
            });
        }),
    });
    if joined == Joined::First {
        let slot = Arc::clone(&tenant.slot);
        disk_threads.run(Box::new(move || slot.sync_all()));
    }
}

/// Has a thread of its own read a chunk for a comparison, while the connection goes on.
fn digest_contents(
    tenant: &Tenant,
    link: &Arc<Link>,
    disk_threads: &DiskThreads,
    header: Header,
    (layer, chunk): (LayerId, ChunkNumber),
) {
    let deferred = link.defer(header);
    let tenant = tenant.clone();
    disk_threads.run_digest(Box::new(move || {
        deferred.answer(tenant.digest_contents(layer, chunk).into());
    }));
}

/// Has a disk thread sync what a rebuild has made equal, and note it.
fn mark_rebuilt(
    tenant: &Tenant,
    link: &Arc<Link>,
    disk_threads: &DiskThreads,
    header: Header,
    cursor: RebuildCursor,
) {
    let deferred = link.defer(header);
    let tenant = tenant.clone();
    disk_threads.run(Box::new(move || {
        let marked = tenant.slot.mark_rebuilt(tenant.occupant, cursor);
        deferred.answer(match marked {
            Ok(()) => Answer::Done(Bytes::new()),
            Err(error) => Answer::Refused(tenant.deny(&*error)),
        });
    }));
}

/// Writes to a layer whose files a clone has too: a disk thread copies them first, which may take
/// long, while the connection goes on.
fn write_shared_layer(
    tenant: &Tenant,
    link: &Arc<Link>,
    disk_threads: &DiskThreads,
    header: Header,
    extent: Extent,
    body: WriteLayer,
) {
    let deferred = link.defer(header);
    let writing = tenant.clone();
    let joined = tenant.slot.join_copy(CopyWaiter {
        layer: body.layer,
        go_on: Box::new(move || {
            let written = writing.write_layer(extent, &body);
            deferred.answer(written.map(|()| Bytes::new()).into());
        }),
    });
    if joined == Joined::First {
        let slot = Arc::clone(&tenant.slot);
        disk_threads.run_long(Box::new(move || slot.copy_all()));
    }
}

/// Has a disk thread change the tree of layers, which syncs.
fn change_tree(
    tenant: &Tenant,
    link: &Arc<Link>,
    disk_threads: &DiskThreads,
    header: Header,
    request: TreeRequest,
) {
    let deferred = link.defer(header);
    let tenant = tenant.clone();
    let copies = match &request {
        TreeRequest::BeginRebuild(begin) => tenant.slot.replica().is_some_and(|mut replica| {
            // One that cannot tell says so when it is changed.
            replica.needs_copy(begin.head).unwrap_or(false)
        }),
        _ => false,
    };
    let change = Box::new(move || {
        if let TreeRequest::BeginRebuild(begin) = &request
            && tenant.is_current()
        {
            tenant.slot.prepare(begin.head);
        }
        let changed = tenant.change(request);
        tenant.slot.close_removed();
        tenant.slot.tell();
        deferred.answer(changed.into());
    });
    if copies {
        disk_threads.run_long(change);
    } else {
        disk_threads.run(change);
    }
}
