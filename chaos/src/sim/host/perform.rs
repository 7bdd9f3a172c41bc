//! Carrying out one request on a replica, as the daemon's threads do, and what is broken there on
//! purpose.

use std::path::Path;

use ankole_blockd::disk::sim::SimDisk;
use ankole_blockd::disk::{Disk, DiskFile};
use ankole_blockd::replica::{self, FlushPlan, Mutation as Order, Refusal, Replica, TreeError};
use ankole_blockd::session::request::{Durability, Request, TreeRequest};
use ankole_blockd::session::{Denial, Detail};
use ankole_proto::wire::body::{Memory, Opened};
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::{ErrorCode, Frame, Header, Opcode};
use ankole_proto::{BLOCK_BYTES, Epoch, Sequence};
use bytes::{Bytes, BytesMut};

use super::super::mutation::Mutation;

/// Runs a plan's syncs.
pub(super) fn run(plan: &FlushPlan<SimDisk>, mutation: Option<Mutation>) -> std::io::Result<()> {
    match mutation {
        Some(Mutation::IgnoreFailedSyncs) => plan.run().or(Ok(())),
        _ => plan.run(),
    }
}

/// Makes the sum of a block agree with its bytes.
pub(super) fn resum(disk: &SimDisk, image: &Path, block: u64) {
    let agree = || -> std::io::Result<()> {
        let mut bytes = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()];
        disk.open(image)?.read_at(&mut bytes, block * BLOCK_BYTES)?;
        let sum = ankole_proto::crc32c(&bytes).to_le_bytes();
        let sums = disk.open(&image.with_extension("sum"))?;
        sums.write_at(&[std::io::IoSlice::new(&sum)], block * 4)
    };
    // A block that is not there needs no sum.
    let _ = agree();
}

/// Whether a replica's n-th request is answered without being carried out, for what is broken on
/// purpose.
pub(super) fn is_skipped(mutation: Option<Mutation>, opcode: Opcode, number: u64) -> bool {
    const ONE_IN: u64 = 16;
    match mutation {
        Some(Mutation::SkipWrites) => opcode == Opcode::Write && number.is_multiple_of(ONE_IN),
        Some(Mutation::IgnoreFlushes) => opcode == Opcode::Flush,
        Some(Mutation::SkipSeals) => opcode == Opcode::Seal,
        Some(Mutation::SkipCopies) => opcode == Opcode::WriteLayer,
        Some(Mutation::SkipFinish) => opcode == Opcode::FinishRebuild,
        _ => false,
    }
}

/// Tells an engine what is not so.
pub(super) fn misreport(mutation: Mutation, opened: &mut Opened) {
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

pub(super) fn reply(request: &Header, result: Result<Bytes, Denial>) -> Frame {
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

/// What a request that was carried out comes to.
pub(super) enum Outcome {
    /// Its answer.
    Done(Bytes),
    /// It is answered when a sync has covered it.
    Sync,
}

/// Carries a request out.
pub(super) fn perform(
    store: &mut Replica<SimDisk>,
    epoch: Epoch,
    frame: &Frame,
    broken: Option<Mutation>,
) -> Result<Outcome, Denial> {
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
                return Ok(Outcome::Done(Bytes::from(vec![0; bytes])));
            }
            read.map_err(|error| refuse(&error))?;
            return Ok(Outcome::Done(out.freeze()));
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
        request @ (Request::Digest(..) | Request::DigestContents(..) | Request::ReadLayer(..)) => {
            return tell_layer(store, epoch, request, broken).map(Outcome::Done);
        }
        Request::WriteLayer(extent, body) => {
            store
                .write_layer(epoch, extent, &body)
                .map_err(|error| refuse(&error))?;
            Durability::Cached
        }
        Request::RepairLayer(extent, body) => {
            store
                .repair_layer(epoch, extent, &body)
                .map_err(|error| refuse(&error))?;
            Durability::Cached
        }
        Request::MarkRebuilt(cursor) => {
            mark_rebuilt(store, epoch, cursor).map_err(|error| refuse(&error))?;
            Durability::Cached
        }
        Request::Tree(change) => {
            let changed = change_tree(store, epoch, change);
            return changed.map(Outcome::Done).map_err(|error| refuse(&error));
        }
    };
    let ignored = broken == Some(Mutation::IgnoreFua) && header.opcode != Opcode::Flush;
    if durability == Durability::Synced && !ignored {
        return Ok(Outcome::Sync);
    }
    Ok(Outcome::Done(Bytes::new()))
}

/// What a request about one layer is answered with.
fn tell_layer(
    store: &mut Replica<SimDisk>,
    epoch: Epoch,
    request: Request,
    broken: Option<Mutation>,
) -> Result<Bytes, Denial> {
    let told = match request {
        Request::Digest(layer, chunk) => {
            let extent = chunk.extent_in(store.size());
            store.digest(epoch, layer, extent).map(|one| one.encode())
        }
        Request::DigestContents(layer, chunk) => {
            let digest = store.digest_contents(epoch, layer, chunk);
            return digest.map(|one| one.encode()).map_err(|error| {
                let mut denial = refuse(&error);
                if broken == Some(Mutation::HideDamages) {
                    denial.code = ErrorCode::Overloaded;
                }
                denial
            });
        }
        Request::ReadLayer(layer, extent) => {
            let blocks = store.read_layer(epoch, layer, extent);
            blocks.map(|blocks| blocks.encode())
        }
        _ => return Ok(Bytes::new()),
    };
    told.map_err(|error| refuse(&error))
}

fn mark_rebuilt(
    store: &mut Replica<SimDisk>,
    epoch: Epoch,
    cursor: RebuildCursor,
) -> Result<(), TreeError> {
    let plan = store.plan_mark(epoch, cursor)?;
    let synced = plan.run();
    store.finish_mark(epoch, plan, synced)
}

fn change_tree(
    store: &mut Replica<SimDisk>,
    epoch: Epoch,
    change: TreeRequest,
) -> Result<Bytes, TreeError> {
    match change {
        TreeRequest::Seal(seal) => store.seal(epoch, seal)?,
        TreeRequest::Revert(revert) => store.revert(epoch, revert)?,
        TreeRequest::BeginRebuild(begin) => {
            return Ok(store.begin_rebuild(epoch, &begin)?.encode());
        }
        TreeRequest::FinishRebuild => store.finish_rebuild(epoch)?,
        TreeRequest::Expand(expand) => store.expand(epoch, expand)?,
    }
    Ok(Bytes::new())
}

pub(super) fn refuse(error: &dyn Refusal) -> Denial {
    Denial::of(error)
}
