//! What source and target answer while a chunk is compared and copied.

use ankole_proto::wire::rebuild::{ChunkDigest, LayerBlocks, WriteLayer};
use ankole_proto::wire::{ErrorCode, Frame, Opcode};
use ankole_proto::{LayerId, ReplicaId};

use super::ChunkKey;
use super::copy::Step;
use crate::mirror::Mirror;
use crate::mirror::event::Effect;
use crate::mirror::loss::Grace;
use crate::mirror::replica::Replica;
use crate::mirror::session::CopyOf;
use crate::volume::Moment;

impl Mirror {
    /// Source or target answered a step of a chunk.
    pub(in crate::mirror) fn copy_reply(
        &mut self,
        from: ReplicaId,
        CopyOf { target, over, key }: CopyOf,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if self.replicas.get(&target).and_then(Replica::link) != Some(over) {
            return;
        }
        let Some(copy) = self.copy_of(target, key) else {
            return;
        };
        if from == target {
            self.target_answered(target, key, frame, now, effects);
        } else if copy.source == Some(from) {
            self.source_answered(from, target, key, frame, now, effects);
        }
    }

    fn target_answered(
        &mut self,
        target: ReplicaId,
        key: ChunkKey,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let digest = match (frame.header.opcode, frame.header.error) {
            (Opcode::WriteLayer, None) => {
                self.copied(target, key, now);
                return;
            }
            (Opcode::Digest, None) => ChunkDigest::decode(&frame.payload).ok(),
            (Opcode::Digest, Some(ErrorCode::Checksum)) => None,
            (_, Some(error)) => {
                let reason = format!("its rebuild failed: {error}");
                self.target_failed(target, reason, now, effects);
                return;
            }
            _ => return,
        };
        if let Some(copy) = self.copy_of(target, key) {
            copy.target = Some(digest);
        }
        self.compared(target, key, now, effects);
    }

    fn source_answered(
        &mut self,
        from: ReplicaId,
        target: ReplicaId,
        key: ChunkKey,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        match (frame.header.opcode, frame.header.error) {
            (Opcode::Digest, None) => {
                if let Ok(digest) = ChunkDigest::decode(&frame.payload)
                    && let Some(copy) = self.copy_of(target, key)
                {
                    copy.wanted = Some(digest);
                    self.compared(target, key, now, effects);
                    return;
                }
            }
            (Opcode::ReadLayer, None) => {
                if let Ok(blocks) = LayerBlocks::decode(frame.payload.clone()) {
                    self.write_chunk(target, key, blocks, now, effects);
                    return;
                }
            }
            (_, Some(ErrorCode::NoSuchLayer)) => {
                self.layer_is_gone(key.layer, target, now, effects);
                return;
            }
            (_, Some(ErrorCode::Io | ErrorCode::Faulted)) => {
                let reason = "its disk failed while a replica was rebuilt from it".to_owned();
                self.lose(from, reason, Grace::None, now, effects);
            }
            _ => {}
        }
        // It could not give the chunk. All of a rebuild comes from one source, so it begins again.
        if frame.header.error == Some(ErrorCode::Checksum) {
            let layer = LayerId::from_raw(frame.header.sequence);
            self.found_bad_copy(from, layer, frame.header.offset, now);
        }
        if let Some(replica) = self.replicas.get_mut(&target) {
            replica.unable_sources.insert(from);
        }
        let reason = format!(
            "chunk {} of layer {} cannot be read from {from}; its rebuild begins again from another",
            key.chunk.raw(),
            key.layer
        );
        self.lose(target, reason, Grace::None, now, effects);
    }

    /// Both digests are there: the chunk is done, or copied.
    fn compared(
        &mut self,
        target: ReplicaId,
        key: ChunkKey,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(copy) = self.copy_of(target, key) else {
            return;
        };
        let (Some(theirs), Some(wanted), Some(source)) = (copy.target, copy.wanted, copy.source)
        else {
            return;
        };
        if theirs == Some(wanted) {
            self.copied(target, key, now);
        } else {
            copy.step = Step::Reading;
            self.send_copy(source, target, key, Opcode::ReadLayer, now, effects);
        }
    }

    fn write_chunk(
        &mut self,
        target: ReplicaId,
        key: ChunkKey,
        blocks: LayerBlocks,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let bytes = blocks.data.len() as u64;
        let layer = key.layer;
        let body = WriteLayer { layer, blocks }.encode();
        if let Some(rebuild) = self.rebuild_of(target) {
            rebuild.pace.take(bytes, now);
            if let Some(copy) = rebuild.copies.get_mut(&key) {
                copy.step = Step::Writing;
            }
        }
        self.send_copy_body(target, target, key, Opcode::WriteLayer, body, now, effects);
    }

    /// The chunk is equal.
    fn copied(&mut self, target: ReplicaId, key: ChunkKey, now: Moment) {
        self.attention = true;
        let rest_max = self.config.limits.rebuild_rest_max;
        let copy = self.rebuild_of(target).and_then(|rebuild| {
            let copy = rebuild.copies.remove(&key)?;
            rebuild.pace.rest(now.since(copy.began).min(rest_max), now);
            Some(copy)
        });
        if let Some(job) = copy.and_then(|copy| copy.job) {
            self.finish_job(job);
        }
    }

    /// The source has merged a layer away: the rebuild begins again with what it has now.
    fn layer_is_gone(
        &mut self,
        gone: LayerId,
        target: ReplicaId,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        // One that is being rebuilt has what it was told to have, until it is told anew.
        let sources = self.replicas.values_mut();
        for replica in sources.filter(|replica| replica.rebuild().is_none()) {
            let parent = replica
                .tree
                .iter()
                .find(|link| link.layer == gone)
                .map(|link| link.parent);
            if let Some(parent) = parent {
                replica.tree.retain(|link| link.layer != gone);
                for link in &mut replica.tree {
                    if link.parent == Some(gone) {
                        link.parent = parent;
                    }
                }
            }
        }
        let reason = format!("layer {gone} was merged away; its rebuild begins again");
        self.lose(target, reason, Grace::None, now, effects);
    }
}
