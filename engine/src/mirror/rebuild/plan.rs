//! The order in which chunks are compared: layer by layer, parents first, the head last.
//!
//! Parents first, and one layer after the other, because a source may merge a layer into the next
//! newer one meanwhile: its blocks move from a layer that was compared earlier to one that is
//! compared later, so none is missed.

use ankole_proto::wire::body::LayerLink;
use ankole_proto::wire::cursor::{MARK_LAYERS_MAX, RebuildCursor};
use ankole_proto::{ChunkNumber, LayerId, ReplicaId, VolumeSize};

use super::ChunkKey;

/// What is still to be compared.
#[derive(Debug, Default)]
pub(super) struct Plan {
    layers: Vec<LayerId>,
    chunks: u64,
    /// Position: chunks begun, counted over all layers.
    begun: u64,
    /// Position below which all was equal before. Of each layer there only the first chunk is
    /// compared, to learn whether the source still has the layer: it may have merged it since the
    /// link to it was opened.
    noted: u64,
}

impl Plan {
    /// Over a tree that lists parents before children, but for what is equal already.
    pub(super) fn new(
        tree: &[LayerLink],
        head: LayerId,
        size: VolumeSize,
        before: &RebuildCursor,
    ) -> Self {
        let chunks = size.chunks();
        let is_done = |layer: &LayerId| before.equal.contains(layer);
        let sealed = || {
            let layers = tree.iter().map(|link| link.layer);
            layers.filter(|layer| *layer != head)
        };
        let done: Vec<LayerId> = sealed().filter(is_done).collect();
        let mut noted = done.len() as u64 * chunks;
        let mut rest = sealed().filter(|layer| !is_done(layer)).peekable();
        if let Some((layer, chunk)) = before.part
            && rest.peek() == Some(&layer)
        {
            noted += chunk.raw().min(chunks);
        }
        Self {
            layers: done.into_iter().chain(rest).chain([head]).collect(),
            chunks,
            begun: 0,
            noted,
        }
    }

    /// Position below which all was equal before.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }

    /// Position below which every chunk is equal, when these are under way. They are of one layer.
    pub(super) fn done(&self, mut under_way: impl Iterator<Item = ChunkKey>) -> u64 {
        let Some(first) = under_way.next() else {
            return self.begun;
        };
        let chunk = under_way.map(|key| key.chunk).fold(first.chunk, Ord::min);
        let at = self.layers.iter().position(|layer| *layer == first.layer);
        at.unwrap_or_default() as u64 * self.chunks + chunk.raw()
    }

    /// The part of the position that can be marked when `marked` is: sealed layers, a few at a time.
    pub(super) fn markable(&self, done: u64, marked: u64) -> u64 {
        let sealed = (self.layers.len() as u64).saturating_sub(1) * self.chunks;
        let whole = marked.checked_div(self.chunks).unwrap_or_default();
        let most = (whole + MARK_LAYERS_MAX as u64) * self.chunks;
        done.min(sealed).min(most)
    }

    /// Whether the position lies behind all sealed layers.
    pub(super) fn is_at_head(&self, position: u64) -> bool {
        position >= (self.layers.len() as u64).saturating_sub(1) * self.chunks
    }

    /// What is equal below the position.
    pub(super) fn cursor(&self, position: u64, source: ReplicaId) -> RebuildCursor {
        let whole = position.checked_div(self.chunks).unwrap_or_default();
        let whole = usize::try_from(whole).unwrap_or(usize::MAX);
        let (equal, rest) = self.layers.split_at(whole.min(self.layers.len()));
        let chunk = position % self.chunks.max(1);
        let part = rest.first().filter(|_| chunk > 0);
        RebuildCursor {
            source,
            equal: equal.to_vec(),
            part: part.map(|layer| (*layer, ChunkNumber::from_raw(chunk))),
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
        let layer_end = (self.begun / self.chunks.max(1) + 1) * self.chunks;
        self.begun += 1;
        // Of what was noted the first chunk was enough.
        self.begun = self.begun.max(self.noted.min(layer_end));
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

    fn layer(raw: u64) -> LayerId {
        LayerId::from_raw(raw).unwrap()
    }

    /// Layers of two chunks: 1 below 2 and 4, 2 below the head 3.
    fn plan(before: &RebuildCursor) -> Plan {
        let link = |raw, parent| LayerLink {
            layer: layer(raw),
            parent: LayerId::from_raw(parent),
        };
        let tree = [link(1, 0), link(3, 2), link(2, 1), link(4, 1)];
        let size = VolumeSize::from_bytes(CHUNK_BYTES + 4096).unwrap();
        Plan::new(&tree, layer(3), size, before)
    }

    fn cursor(equal: &[u64], part: Option<(u64, u64)>) -> RebuildCursor {
        RebuildCursor {
            source: ReplicaId::from_bits(7),
            equal: equal.iter().map(|raw| layer(*raw)).collect(),
            part: part.map(|(raw, chunk)| (layer(raw), ChunkNumber::from_raw(chunk))),
        }
    }

    fn rest(mut plan: Plan) -> Vec<(u64, u64, bool)> {
        let mut seen = Vec::new();
        while let Some(key) = plan.peek() {
            seen.push((key.layer.raw(), key.chunk.raw(), plan.at_layer_start()));
            plan.advance();
        }
        seen
    }

    #[test]
    fn parents_come_first_and_the_head_last() {
        let layers: Vec<_> = rest(plan(&cursor(&[], None)));
        let expected: Vec<_> = [1, 2, 4, 3]
            .into_iter()
            .flat_map(|layer| [(layer, 0, true), (layer, 1, false)])
            .collect();
        assert_eq!(layers, expected);
    }

    #[test]
    fn what_is_equal_already_is_not_compared_again() {
        let after = rest(plan(&cursor(&[1, 4], Some((2, 1)))));
        let looked_at = [(1, 0, true), (4, 0, true), (2, 0, true)];
        let compared = [(2, 1, false), (3, 0, true), (3, 1, false)];
        assert_eq!(after, [looked_at, compared].concat());
        let part_is_not_next = rest(plan(&cursor(&[1], Some((4, 1)))));
        assert_eq!(part_is_not_next.len(), 7, "{part_is_not_next:?}");
        assert_eq!(rest(plan(&cursor(&[1, 2, 4], None))).len(), 3 + 2);
    }

    #[test]
    fn a_position_tells_what_is_equal_and_never_the_head() {
        let mut plan = plan(&cursor(&[], None));
        let source = ReplicaId::from_bits(7);
        for (position, known) in [
            (0, cursor(&[], None)),
            (1, cursor(&[], Some((1, 1)))),
            (4, cursor(&[1, 2], None)),
            (5, cursor(&[1, 2], Some((4, 1)))),
            (6, cursor(&[1, 2, 4], None)),
        ] {
            assert_eq!(plan.cursor(position, source), known);
            assert_eq!(plan.is_at_head(position), position == 6);
        }
        assert_eq!(plan.markable(8, 5), 6);
        while plan.begun() < 8 {
            plan.advance();
        }
        let key = |raw, chunk| ChunkKey {
            layer: layer(raw),
            chunk: ChunkNumber::from_raw(chunk),
        };
        assert_eq!(plan.done([].into_iter()), 8);
        assert_eq!(plan.done([key(4, 1)].into_iter()), 5);
        assert_eq!(plan.done([key(4, 1), key(4, 0)].into_iter()), 4);
    }
}
