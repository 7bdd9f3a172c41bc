//! A replica in memory: layers of blocks, the memory of mutations in flight, epochs and leases, as
//! `blockd` promises them.

use std::collections::BTreeMap;

use ankole_proto::geometry::CHUNK_BLOCKS;
use ankole_proto::wire::body::{
    Expand, InFlight, LayerLink, Memory, OpenRequest, Opened, Revert, Seal,
};
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::{
    BeginRebuild, ChunkBitmap, ChunkDigest, ContentsDigest, ContentsOf, LayerBlocks, LayerOf,
    WriteLayer,
};
use ankole_proto::wire::{ErrorCode, Frame, Opcode};
use ankole_proto::{BLOCK_BYTES, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeSize};
use bytes::{Bytes, BytesMut};

use crate::volume::Moment;

/// A block of a layer: data, or zeros that hide the layers below.
pub(super) type Block = Option<Bytes>;

#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) parent: Option<LayerId>,
    pub(super) blocks: BTreeMap<u64, Block>,
}

/// What is on the disk.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) head: LayerId,
    pub(super) layers: BTreeMap<LayerId, Layer>,
    pub(super) rebuilding: bool,
    /// What a rebuild has made equal.
    cursor: RebuildCursor,
}

#[derive(Debug)]
pub(super) struct FakeReplica {
    pub(super) id: ReplicaId,
    pub(super) size: VolumeSize,
    pub(super) epoch: Epoch,
    pub(super) store: Store,
    /// What a power cut leaves.
    pub(super) durable: Store,
    in_use: bool,
    pub(super) memory: Memory,
    in_flight: Vec<(Epoch, InFlight)>,
    watermark: u64,
    lease_until: Moment,
    lease: std::time::Duration,
    /// Blocks of the head whose checksum is wrong.
    pub(super) bad: Vec<u64>,
    /// A block of a sealed layer whose checksum is wrong.
    pub(super) bad_sealed: Option<(LayerId, u64)>,
    pub(super) full: bool,
    /// What comparing and reading layers is answered with.
    pub(super) failing: Option<ErrorCode>,
    /// Its blockd is of before comparisons.
    pub(super) knows_no_contents: bool,
    /// It never answers when it is asked for contents.
    pub(super) keeps_digests: bool,
    /// Blocks that were rewritten in their layer.
    pub(super) repaired: usize,
    /// How often each chunk of each layer was compared, and how often it was set.
    pub(super) compared: BTreeMap<(LayerId, u64), usize>,
    pub(super) copied: BTreeMap<(LayerId, u64), usize>,
    /// Notes of a rebuild that have arrived and are not carried out.
    notes: usize,
}

impl FakeReplica {
    pub(super) fn new(
        id: ReplicaId,
        size: VolumeSize,
        head: LayerId,
        lease: std::time::Duration,
    ) -> Self {
        let base = Layer {
            parent: None,
            blocks: BTreeMap::new(),
        };
        let store = Store {
            head,
            layers: BTreeMap::from([(head, base)]),
            rebuilding: false,
            cursor: RebuildCursor::nothing(id),
        };
        Self {
            id,
            size,
            epoch: Epoch::ZERO,
            durable: store.clone(),
            store,
            in_use: false,
            memory: Memory::Clean,
            in_flight: Vec::new(),
            watermark: 0,
            lease_until: Moment::default(),
            lease,
            bad: Vec::new(),
            bad_sealed: None,
            full: false,
            failing: None,
            knows_no_contents: false,
            keeps_digests: false,
            repaired: 0,
            compared: BTreeMap::new(),
            copied: BTreeMap::new(),
            notes: 0,
        }
    }

    /// The daemon was killed; its host keeps what it had written.
    pub(super) fn kill(&mut self) {
        if self.in_use {
            self.memory = Memory::Restarted;
        }
        self.in_flight.clear();
    }

    /// The host lost power.
    pub(super) fn power_cut(&mut self) {
        if self.in_use {
            self.memory = Memory::Lost;
        }
        self.in_flight.clear();
        self.store = self.durable.clone();
    }

    pub(super) fn open(&mut self, request: &OpenRequest, now: Moment) -> Result<Opened, Epoch> {
        if request.epoch < self.epoch {
            return Err(self.epoch);
        }
        let layers = self.store.links();
        let left = self.lease_until.since(now).as_millis();
        let kept = self.memory == Memory::Kept;
        let opened = Opened {
            size: self.size,
            head: self.store.head,
            previous_epoch: self.epoch,
            lease_remaining_ms: if request.epoch > self.epoch {
                u32::try_from(left).unwrap() + 1
            } else {
                0
            },
            memory: self.memory,
            rebuilding: self.store.rebuilding,
            layers,
            in_flight: if kept {
                self.in_flight.iter().map(|(_, entry)| *entry).collect()
            } else {
                Vec::new()
            },
        };
        if request.epoch > self.epoch {
            self.watermark = 0;
        }
        self.epoch = request.epoch;
        self.in_use = true;
        if self.memory == Memory::Clean {
            self.memory = Memory::Kept;
        }
        self.lease_until = now + self.lease;
        Ok(opened)
    }

    /// Notes what is about to be carried out: as a session does when a frame has arrived.
    pub(super) fn arrived(&mut self, frame: &Frame, now: Moment) {
        let header = &frame.header;
        match header.opcode {
            Opcode::MarkRebuilt => self.notes += 1,
            Opcode::FinishRebuild => assert_eq!(self.notes, 0, "notes are unanswered"),
            _ => {}
        }
        self.lease_until = self.lease_until.max(now + self.lease);
        if header.watermark > self.watermark {
            self.watermark = header.watermark;
            let epoch = self.epoch;
            self.in_flight
                .retain(|(of, entry)| *of == epoch && entry.sequence.raw() > header.watermark);
            // Everything before this engine's first mutation, and all that it sent again, is known.
            if header.watermark > 1024 || self.memory == Memory::Kept {
                self.memory = Memory::Kept;
            }
        }
        if header.opcode.is_mutation() && header.sequence > self.watermark {
            let extent = Extent::new(header.offset, u64::from(header.length)).unwrap();
            let sequence = Sequence::from_raw(header.sequence);
            let entry = InFlight { sequence, extent };
            self.in_flight
                .retain(|(epoch, known)| *epoch != self.epoch || known.sequence != sequence);
            self.in_flight.push((self.epoch, entry));
        }
    }

    /// Whether it answers the frame at all.
    pub(super) fn answers(&self, frame: &Frame) -> bool {
        let contents =
            frame.header.opcode == Opcode::Digest && frame.payload.len() == ContentsOf::BYTES;
        !(contents && self.keeps_digests)
    }

    pub(super) fn execute(&mut self, frame: &Frame) -> Frame {
        let result = self.carry_out(frame);
        let mut header = frame.header.reply();
        match result {
            Ok(payload) => Frame::new(header, payload),
            Err((error, offset)) => {
                header.error = Some(error);
                header.offset = offset;
                if error == ErrorCode::Checksum {
                    header.sequence = self.store.head.raw();
                }
                Frame::new(header, Bytes::new())
            }
        }
    }

    fn carry_out(&mut self, frame: &Frame) -> Result<Bytes, (ErrorCode, u64)> {
        let header = &frame.header;
        let extent = Extent::new(header.offset, u64::from(header.length)).unwrap();
        match header.opcode {
            Opcode::Read => return self.read_checked(extent),
            Opcode::Write | Opcode::WriteZeroes | Opcode::Unmap => {
                if self.full && header.opcode == Opcode::Write {
                    return Err((ErrorCode::NoSpace, header.offset));
                }
                let partial = |block: &u64| {
                    let whole = ankole_proto::BlockNumber::from_raw(*block).extent();
                    whole.overlaps(extent) && whole.intersection(extent) != Some(whole)
                };
                if let Some(block) = self.bad.iter().find(|block| partial(block)) {
                    return Err((ErrorCode::Checksum, block * BLOCK_BYTES));
                }
                self.write(
                    extent,
                    (header.opcode == Opcode::Write).then_some(&frame.payload),
                );
                if header.flags & ankole_proto::wire::flags::FUA != 0 {
                    self.durable = self.store.clone();
                }
            }
            Opcode::Flush => self.durable = self.store.clone(),
            Opcode::Seal => {
                let Seal { head, new_head } = Seal::decode(&frame.payload).unwrap();
                self.put_head(head, head, new_head)?;
            }
            Opcode::Revert => {
                let Revert { to, new_head } = Revert::decode(&frame.payload).unwrap();
                let old = self.store.head;
                self.put_head(old, to, new_head)?;
                if old != new_head {
                    self.store.layers.remove(&old);
                    self.durable = self.store.clone();
                }
            }
            Opcode::Close => {
                self.durable = self.store.clone();
                self.in_use = false;
                self.memory = Memory::Clean;
                self.in_flight.clear();
                self.lease_until = Moment::default();
            }
            Opcode::BeginRebuild => return Ok(self.begin_rebuild(&frame.payload)),
            Opcode::MarkRebuilt => self.mark_rebuilt(&frame.payload),
            Opcode::FinishRebuild => {
                self.store.rebuilding = false;
                self.memory = Memory::Kept;
                self.durable = self.store.clone();
            }
            Opcode::Digest | Opcode::ReadLayer | Opcode::WriteLayer => {
                return self.layer_operation(frame, extent);
            }
            Opcode::Expand => {
                let Expand { size } = Expand::decode(&frame.payload).unwrap();
                self.size = self.size.max(size);
            }
            Opcode::RepairLayer => self.repair_layer(frame, extent)?,
            Opcode::Ping | Opcode::Open => {}
        }
        Ok(Bytes::new())
    }

    fn repair_layer(&mut self, frame: &Frame, extent: Extent) -> Result<(), (ErrorCode, u64)> {
        let body = WriteLayer::decode(frame.payload.clone()).unwrap();
        let block = extent.blocks().next().unwrap();
        let layer = self.store.layers.get_mut(&body.layer);
        let layer = layer.ok_or((ErrorCode::NoSuchLayer, 0))?;
        assert!(body.blocks.present.contains(block.in_chunk()));
        if body.layer == self.store.head && self.bad.contains(&block.raw()) {
            layer.blocks.insert(block.raw(), Some(body.blocks.data));
            self.bad.retain(|bad| *bad != block.raw());
            self.repaired += 1;
        }
        Ok(())
    }

    fn put_head(
        &mut self,
        old: LayerId,
        parent: LayerId,
        new_head: LayerId,
    ) -> Result<(), (ErrorCode, u64)> {
        if self.store.head == new_head {
            return Ok(());
        }
        if self.store.head != old || !self.store.layers.contains_key(&parent) {
            return Err((ErrorCode::TreeConflict, 0));
        }
        let layer = Layer {
            parent: Some(parent),
            blocks: BTreeMap::new(),
        };
        self.store.layers.insert(new_head, layer);
        self.store.head = new_head;
        self.bad.clear();
        self.durable = self.store.clone();
        Ok(())
    }

    /// Only what is noted survives a power cut.
    fn mark_rebuilt(&mut self, payload: &[u8]) {
        let cursor = RebuildCursor::decode(payload).unwrap();
        self.notes -= 1;
        assert!(self.store.rebuilding);
        for layer in cursor.layers() {
            assert_ne!(layer, self.store.head);
            let synced = self.store.layers[&layer].clone();
            self.durable.layers.insert(layer, synced);
        }
        self.store.cursor = cursor.clone();
        self.durable.cursor = cursor;
    }

    fn begin_rebuild(&mut self, payload: &[u8]) -> Bytes {
        self.notes = 0;
        let begin = BeginRebuild::decode(payload).unwrap();
        let old = self.store.links();
        let mut cursor = RebuildCursor::nothing(self.id);
        if self.store.rebuilding {
            cursor = self.store.cursor.after(&old, &begin.layers, begin.head);
        }
        self.size = self.size.max(begin.size);
        let mut layers = BTreeMap::new();
        for link in begin.layers {
            let known = self.store.layers.remove(&link.layer);
            let blocks = known.map(|layer| layer.blocks).unwrap_or_default();
            let parent = link.parent;
            layers.insert(link.layer, Layer { parent, blocks });
        }
        self.store = Store {
            head: begin.head,
            layers,
            rebuilding: true,
            cursor: cursor.clone(),
        };
        let was_durable = &self.durable.layers;
        let mut durable = self.store.clone();
        for (id, layer) in &mut durable.layers {
            let blocks = was_durable.get(id).map(|layer| layer.blocks.clone());
            layer.blocks = blocks.unwrap_or_default();
        }
        self.durable = durable;
        cursor.encode()
    }

    fn layer_operation(
        &mut self,
        frame: &Frame,
        extent: Extent,
    ) -> Result<Bytes, (ErrorCode, u64)> {
        let gone = (ErrorCode::NoSuchLayer, 0);
        let first = extent.offset() / BLOCK_BYTES;
        if frame.header.opcode == Opcode::WriteLayer {
            let body = WriteLayer::decode(frame.payload.clone()).unwrap();
            let layer = self.store.layers.get_mut(&body.layer).ok_or(gone)?;
            *self
                .copied
                .entry((body.layer, header_chunk(frame)))
                .or_default() += 1;
            set_blocks(layer, extent, &body.blocks);
            return Ok(Bytes::new());
        }
        if frame.payload.len() == ContentsOf::BYTES {
            return self.digest_contents(frame, extent);
        }
        let LayerOf(id) = LayerOf::decode(&frame.payload).unwrap();
        if let Some(error) = self.failing {
            return Err((error, frame.header.offset));
        }
        if id == self.store.head
            && let Some(bad) = extent
                .blocks()
                .find(|block| self.bad.contains(&block.raw()))
        {
            return Err((ErrorCode::Checksum, bad.offset()));
        }
        let layer = self.store.layers.get(&id).ok_or(gone)?.clone();
        if let Some((bad, block)) = self.bad_sealed
            && bad == id
            && extent.blocks().any(|one| one.raw() == block)
        {
            return Err((ErrorCode::Checksum, block * BLOCK_BYTES));
        }
        let (mut present, mut zero) = (ChunkBitmap::default(), ChunkBitmap::default());
        let mut data = BytesMut::new();
        for (number, block) in layer
            .blocks
            .range(first..extent.end().div_ceil(BLOCK_BYTES))
        {
            let at = usize::try_from(number % CHUNK_BLOCKS).unwrap();
            match block {
                Some(bytes) => {
                    present.set(at, true);
                    data.extend_from_slice(bytes);
                }
                None => zero.set(at, true),
            }
        }
        if frame.header.opcode == Opcode::ReadLayer {
            let data = data.freeze();
            return Ok(LayerBlocks {
                present,
                zero,
                data,
            }
            .encode());
        }
        *self.compared.entry((id, header_chunk(frame))).or_default() += 1;
        // FNV-1a: differs where the data does, as far as a test needs it.
        let hash = fnv(FNV_BASIS, &data);
        let mut digest = [0u8; 32];
        digest[..8].copy_from_slice(&hash.to_le_bytes());
        Ok(ChunkDigest {
            present,
            zero,
            data: digest,
        }
        .encode())
    }

    fn digest_contents(&self, frame: &Frame, extent: Extent) -> Result<Bytes, (ErrorCode, u64)> {
        if self.knows_no_contents {
            return Err((ErrorCode::Malformed, 0));
        }
        let ContentsOf(id) = ContentsOf::decode(&frame.payload).unwrap();
        let layer = self.store.layers.get(&id);
        let base = layer.ok_or((ErrorCode::NoSuchLayer, 0))?.parent;
        let mut digest = ContentsDigest {
            base,
            blocks: 0,
            data: [0; 32],
        };
        let mut hash = FNV_BASIS;
        for block in extent.blocks() {
            if self.bad.contains(&block.raw()) {
                return Err((ErrorCode::Checksum, block.offset()));
            }
            let above = self.store.read_at(Some(id), block.extent());
            if above != self.store.read_at(base, block.extent()) {
                hash = fnv(fnv(hash, &block.raw().to_le_bytes()), &above);
                digest.blocks += 1;
            }
        }
        digest.data[..8].copy_from_slice(&hash.to_le_bytes());
        Ok(digest.encode())
    }

    fn read_checked(&self, extent: Extent) -> Result<Bytes, (ErrorCode, u64)> {
        if self.store.rebuilding {
            return Err((ErrorCode::Rebuilding, 0));
        }
        for block in extent.blocks() {
            if self.bad.contains(&block.raw()) {
                return Err((ErrorCode::Checksum, block.offset()));
            }
        }
        Ok(self.store.read(extent))
    }

    fn write(&mut self, extent: Extent, data: Option<&Bytes>) {
        for number in extent.blocks() {
            let whole = number.extent();
            let part = whole.intersection(extent).unwrap();
            let head = self.store.head;
            let block = if part == whole && data.is_none() {
                None
            } else {
                let mut bytes = BytesMut::from(&self.store.read(whole)[..]);
                let from = usize::try_from(part.offset() - whole.offset()).unwrap();
                let length = usize::try_from(part.length()).unwrap();
                let at = usize::try_from(part.offset() - extent.offset()).unwrap();
                match data {
                    Some(data) => {
                        bytes[from..from + length].copy_from_slice(&data[at..at + length]);
                    }
                    None => bytes[from..from + length].fill(0),
                }
                Some(bytes.freeze())
            };
            let layer = self.store.layers.get_mut(&head).unwrap();
            layer.blocks.insert(number.raw(), block);
            self.bad.retain(|bad| *bad != number.raw());
        }
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, data: &[u8]) -> u64 {
    data.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn header_chunk(frame: &Frame) -> u64 {
    frame.header.offset / ankole_proto::CHUNK_BYTES
}

fn set_blocks(layer: &mut Layer, extent: Extent, blocks: &LayerBlocks) {
    let mut data = blocks.data.clone();
    for number in extent.blocks() {
        let at = number.in_chunk();
        layer.blocks.remove(&number.raw());
        if blocks.present.contains(at) {
            let bytes = data.split_to(usize::try_from(BLOCK_BYTES).unwrap());
            layer.blocks.insert(number.raw(), Some(bytes));
        } else if blocks.zero.contains(at) {
            layer.blocks.insert(number.raw(), None);
        }
    }
}

impl Store {
    /// The tree, parents first.
    fn links(&self) -> Vec<LayerLink> {
        let mut layers: Vec<LayerLink> = Vec::new();
        while layers.len() < self.layers.len() {
            for (id, layer) in &self.layers {
                let known = layers.iter().any(|link| link.layer == *id);
                let ready = layer
                    .parent
                    .is_none_or(|parent| layers.iter().any(|link| link.layer == parent));
                if !known && ready {
                    layers.push(LayerLink {
                        layer: *id,
                        parent: layer.parent,
                    });
                }
            }
        }
        layers
    }

    /// What the volume reads as.
    pub(super) fn read(&self, extent: Extent) -> Bytes {
        self.read_at(Some(self.head), extent)
    }

    /// The same at a layer; without one it reads as zeros.
    fn read_at(&self, top: Option<LayerId>, extent: Extent) -> Bytes {
        let mut out = BytesMut::with_capacity(usize::try_from(extent.length()).unwrap());
        for number in extent.blocks() {
            let mut at = top;
            let mut found: Block = None;
            while let Some(layer) = at.and_then(|id| self.layers.get(&id)) {
                if let Some(block) = layer.blocks.get(&number.raw()) {
                    found.clone_from(block);
                    break;
                }
                at = layer.parent;
            }
            let whole = number.extent();
            let part = whole.intersection(extent).unwrap();
            let from = usize::try_from(part.offset() - whole.offset()).unwrap();
            let length = usize::try_from(part.length()).unwrap();
            match found {
                Some(bytes) => out.extend_from_slice(&bytes[from..from + length]),
                None => out.resize(out.len() + length, 0),
            }
        }
        out.freeze()
    }
}
