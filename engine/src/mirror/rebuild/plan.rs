//! The order in which chunks are compared: layer by layer, parents first, the head last.
//!
//! Parents first, and one layer after the other, because a source may merge a layer into the next
//! newer one meanwhile: its blocks move from a layer that was compared earlier to one that is
//! compared later, so none is missed.

use ankole_proto::wire::body::LayerLink;
use ankole_proto::{ChunkNumber, LayerId, VolumeSize};

use super::ChunkKey;

/// What is still to be compared.
#[derive(Debug, Default)]
pub(super) struct Plan {
    layers: Vec<LayerId>,
    chunks: u64,
    /// Position: chunks begun, counted over all layers.
    begun: u64,
}

impl Plan {
    /// Over a tree that lists parents before children.
    pub(super) fn new(tree: &[LayerLink], head: LayerId, size: VolumeSize) -> Self {
        let sealed = tree
            .iter()
            .map(|link| link.layer)
            .filter(|layer| *layer != head);
        Self {
            layers: sealed.chain([head]).collect(),
            chunks: size.chunks(),
            begun: 0,
        }
    }

    /// The next chunk; `None` at the end.
    pub(super) fn peek(&self) -> Option<ChunkKey> {
        let at = usize::try_from(self.begun.checked_div(self.chunks)?).ok()?;
        Some(ChunkKey {
            layer: *self.layers.get(at)?,
            chunk: ChunkNumber::from_raw(self.begun % self.chunks),
        })
    }

    /// Whether the next chunk is the first of its layer.
    pub(super) fn at_layer_start(&self) -> bool {
        self.chunks == 0 || self.begun.is_multiple_of(self.chunks)
    }

    /// Goes on to the chunk after.
    pub(super) fn advance(&mut self) {
        self.begun += 1;
    }

    /// Chunks of all layers.
    pub(super) fn total(&self) -> u64 {
        self.chunks * self.layers.len() as u64
    }

    /// Chunks begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::CHUNK_BYTES;

    use super::*;

    #[test]
    fn parents_come_first_and_the_head_last() {
        let layer = |raw| LayerId::from_raw(raw).unwrap();
        let link = |raw, parent| LayerLink {
            layer: layer(raw),
            parent: LayerId::from_raw(parent),
        };
        let tree = [link(1, 0), link(3, 1), link(2, 1)];
        let size = VolumeSize::from_bytes(CHUNK_BYTES + 4096).unwrap();
        let mut plan = Plan::new(&tree, layer(3), size);
        let mut seen = Vec::new();
        while let Some(key) = plan.peek() {
            seen.push((key.layer.raw(), key.chunk.raw(), plan.at_layer_start()));
            plan.advance();
        }
        let expected = [
            (1, 0, true),
            (1, 1, false),
            (2, 0, true),
            (2, 1, false),
            (3, 0, true),
            (3, 1, false),
        ];
        assert_eq!(seen, expected);
    }
}
