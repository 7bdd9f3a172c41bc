//! How far a rebuild is, as its target keeps it: what a later rebuild need not compare again.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::body::{BodyError, LayerLink, SEALED_LAYERS_MAX, expect_bytes, layer, malformed};
use crate::{ChunkNumber, LayerId, ReplicaId};

/// The most layers that one MarkRebuilt may say of that they became equal since the last: bounds
/// the files that are open and synced for it.
pub const MARK_LAYERS_MAX: usize = 16;

/// Which sealed layers of a rebuilding replica are equal to one source's already.
///
/// ```text
///  0  u128  source     16  u64  layer that is equal in part, 0: none     24  u64  chunks of that
/// 32  u16  layers L    34  6 bytes, zero                                 40  L × u64 layer
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildCursor {
    /// The replica that all of this was compared with.
    pub source: ReplicaId,
    /// Layers that are equal as a whole. What they stand on is among them.
    pub equal: Vec<LayerId>,
    /// A layer that is equal below this chunk, and stands on one of the others or on none.
    pub part: Option<(LayerId, ChunkNumber)>,
}

impl RebuildCursor {
    const HEAD_BYTES: usize = 40;

    /// Nothing is equal.
    pub const fn nothing(source: ReplicaId) -> Self {
        Self {
            source,
            equal: Vec::new(),
            part: None,
        }
    }

    /// Whether nothing is equal.
    pub fn is_nothing(&self) -> bool {
        self.equal.is_empty() && self.part.is_none()
    }

    /// The layers that it says something of.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> {
        let part = self.part.map(|(layer, _)| layer);
        self.equal.iter().copied().chain(part)
    }

    /// What is left of it when the tree `old` becomes `new`. A layer that stands on another one now
    /// has taken over that one's blocks, at the source; it and all above it count no more. Both
    /// trees list parents before children.
    #[must_use]
    pub fn after(&self, old: &[LayerLink], new: &[LayerLink], head: LayerId) -> Self {
        let stays = |link: &LayerLink, kept: &[LayerId]| {
            let below = link.parent.is_none_or(|parent| kept.contains(&parent));
            link.layer != head && old.contains(link) && below
        };
        let mut equal = Vec::with_capacity(self.equal.len());
        for link in new {
            if self.equal.contains(&link.layer) && stays(link, &equal) {
                equal.push(link.layer);
            }
        }
        let part = self.part.filter(|(layer, _)| {
            let link = new.iter().find(|link| link.layer == *layer);
            link.is_some_and(|link| stays(link, &equal))
        });
        Self {
            source: self.source,
            equal,
            part,
        }
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    ///
    /// When it holds more than 254 layers.
    pub fn encode(&self) -> Bytes {
        let layers = self.equal.len();
        assert!(layers <= SEALED_LAYERS_MAX, "{layers} layers");
        let (part, chunks) = self
            .part
            .map_or((0, 0), |(layer, chunk)| (layer.raw(), chunk.raw()));
        let mut out = BytesMut::with_capacity(Self::HEAD_BYTES + 8 * layers);
        out.put_u128_le(self.source.bits());
        out.put_u64_le(part);
        out.put_u64_le(chunks);
        out.put_u16_le(u16::try_from(layers).unwrap_or(u16::MAX));
        out.put_bytes(0, 6);
        for layer in &self.equal {
            out.put_u64_le(layer.raw());
        }
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        const NAME: &str = "RebuildCursor";
        if payload.len() < Self::HEAD_BYTES {
            return Err(malformed(NAME, "wrong length"));
        }
        let source = ReplicaId::from_bits(payload.get_u128_le());
        let part = LayerId::from_raw(payload.get_u64_le());
        let chunks = ChunkNumber::from_raw(payload.get_u64_le());
        let count = usize::from(payload.get_u16_le());
        payload.advance(6);
        if count > SEALED_LAYERS_MAX {
            return Err(malformed(NAME, "too many layers"));
        }
        expect_bytes(NAME, payload, 8 * count)?;
        let layers = (0..count).map(|_| layer(NAME, payload.get_u64_le()));
        Ok(Self {
            source,
            equal: layers.collect::<Result<_, _>>()?,
            part: part.map(|layer| (layer, chunks)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(raw: u64) -> LayerId {
        LayerId::from_raw(raw).unwrap()
    }

    fn tree(links: &[(u64, u64)]) -> Vec<LayerLink> {
        let link = |(raw, parent): &(u64, u64)| LayerLink {
            layer: layer(*raw),
            parent: LayerId::from_raw(*parent),
        };
        links.iter().map(link).collect()
    }

    fn cursor(equal: &[u64], part: Option<(u64, u64)>) -> RebuildCursor {
        RebuildCursor {
            source: ReplicaId::from_bits(7),
            equal: equal.iter().map(|raw| layer(*raw)).collect(),
            part: part.map(|(raw, chunks)| (layer(raw), ChunkNumber::from_raw(chunks))),
        }
    }

    #[test]
    fn a_cursor_has_these_bytes() {
        let cursor = cursor(&[2, 3], Some((4, 5)));
        let bytes = cursor.encode();
        let mut wanted = [0_u8; 56];
        for (at, byte) in [(0, 7), (16, 4), (24, 5), (32, 2), (40, 2), (48, 3)] {
            wanted[at] = byte;
        }
        assert_eq!(bytes[..], wanted[..]);
        assert_eq!(RebuildCursor::decode(&bytes), Ok(cursor));
        assert!(RebuildCursor::decode(&bytes[..55]).is_err());
        let nothing = RebuildCursor::nothing(ReplicaId::from_bits(7));
        assert_eq!(RebuildCursor::decode(&nothing.encode()), Ok(nothing));
    }

    #[test]
    fn what_stands_as_before_stays_equal() {
        let old = tree(&[(1, 0), (2, 1), (3, 2), (4, 3)]);
        let before = cursor(&[1, 2], Some((3, 9)));
        assert_eq!(before.after(&old, &old, layer(4)), before);
        let sealed = tree(&[(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]);
        assert_eq!(before.after(&old, &sealed, layer(5)), before);
    }

    #[test]
    fn what_took_over_blocks_and_all_above_it_count_no_more() {
        let old = tree(&[(1, 0), (2, 1), (3, 2), (6, 1), (4, 3)]);
        let merged = tree(&[(1, 0), (3, 1), (6, 1), (4, 3)]);
        let all = cursor(&[1, 2, 3, 6], None);
        assert_eq!(all.after(&old, &merged, layer(4)), cursor(&[1, 6], None));
        let part = cursor(&[1, 2], Some((3, 9)));
        assert_eq!(part.after(&old, &merged, layer(4)), cursor(&[1], None));
        let base_gone = tree(&[(2, 0), (3, 2), (6, 2), (4, 3)]);
        let none = RebuildCursor::nothing(all.source);
        assert_eq!(all.after(&old, &base_gone, layer(4)), none);
        assert!(none.is_nothing() && !all.is_nothing() && !part.is_nothing());
    }

    #[test]
    fn a_head_is_never_equal() {
        let old = tree(&[(1, 0), (2, 1)]);
        let sealed_too_early = cursor(&[1, 2], None);
        let after = sealed_too_early.after(&old, &old, layer(2));
        assert_eq!(after, cursor(&[1], None));
        assert_eq!(
            cursor(&[], Some((2, 1))).after(&old, &old, layer(2)).part,
            None
        );
    }
}
