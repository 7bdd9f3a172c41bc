//! Bodies of the operations that compare and copy layers. All fields little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::body::{
    BodyError, LayerLink, SEALED_LAYERS_MAX, expect_bytes, layer, malformed, put_layers,
    take_layers,
};
use crate::geometry::{BLOCK_BYTES, CHUNK_BLOCKS};
use crate::{LayerId, VolumeSize};

const BITMAP_BYTES: usize = 64;
const _: () = assert!(BITMAP_BYTES as u64 * 8 == CHUNK_BLOCKS);

/// 512 bits, one for each block of a chunk; block 0 is bit 0 of byte 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkBitmap([u8; BITMAP_BYTES]);

impl Default for ChunkBitmap {
    fn default() -> Self {
        Self([0; BITMAP_BYTES])
    }
}

impl ChunkBitmap {
    /// With these bytes.
    pub const fn from_bytes(bytes: [u8; BITMAP_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; BITMAP_BYTES] {
        &self.0
    }

    /// The bit of a block of the chunk; `false` beyond 511.
    pub fn contains(&self, block: usize) -> bool {
        self.0
            .get(block / 8)
            .is_some_and(|byte| byte & (1 << (block % 8)) != 0)
    }

    /// Sets or clears the bit of a block of the chunk.
    ///
    /// # Panics
    ///
    /// Beyond 511.
    pub fn set(&mut self, block: usize, value: bool) {
        let bit = 1 << (block % 8);
        if value {
            self.0[block / 8] |= bit;
        } else {
            self.0[block / 8] &= !bit;
        }
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

/// Which layer Digest or ReadLayer looks at. 8 bytes: the layer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerOf(pub LayerId);

impl LayerOf {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.raw().to_le_bytes())
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        expect_bytes("LayerOf", payload, 8)?;
        Ok(Self(layer("LayerOf", payload.get_u64_le())?))
    }
}

/// The state of one chunk of one layer. Two replicas hold the same there exactly when these are
/// equal.
///
/// ```text
///  0  64  present     64  64  zero     128  32  BLAKE3 of the present blocks in order
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkDigest {
    /// Blocks whose data the layer holds.
    pub present: ChunkBitmap,
    /// Blocks that the layer says are zero, hiding the layers below.
    pub zero: ChunkBitmap,
    /// BLAKE3 of the data of the present blocks, one after the other.
    pub data: [u8; 32],
}

impl ChunkDigest {
    const BYTES: usize = 2 * BITMAP_BYTES + 32;

    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_slice(&self.present.0);
        out.put_slice(&self.zero.0);
        out.put_slice(&self.data);
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        expect_bytes("ChunkDigest", payload, Self::BYTES)?;
        let (present, zero) = take_bitmaps("ChunkDigest", &mut payload)?;
        let mut data = [0; 32];
        payload.copy_to_slice(&mut data);
        Ok(Self {
            present,
            zero,
            data,
        })
    }
}

/// Which layer Digest looks at, when what it reads as is to be compared and not what it holds.
///
/// ```text
///  0  u64  layer     8  u64  1
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentsOf(pub LayerId);

impl ContentsOf {
    /// How long the body is; [`LayerOf`] is shorter.
    pub const BYTES: usize = 16;
    const KIND: u64 = 1;

    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u64_le(self.0.raw());
        out.put_u64_le(Self::KIND);
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        expect_bytes("ContentsOf", payload, Self::BYTES)?;
        let layer = layer("ContentsOf", payload.get_u64_le())?;
        if payload.get_u64_le() != Self::KIND {
            return Err(malformed("ContentsOf", "it asks for an unknown digest"));
        }
        Ok(Self(layer))
    }
}

/// In what a chunk reads otherwise at a layer than at its base, the next layer below that is not
/// being removed. Does not depend on how far a replica has merged the layers between, nor on how it
/// holds a block that reads the same at both: two replicas with the same base read the same there
/// exactly when these are equal, provided that they do at the base.
///
/// ```text
///  0  u64  base, 0: none     8  u64  blocks     16  32  BLAKE3 of { u64 block, 4096 data } each
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentsDigest {
    /// What the layer is compared with.
    pub base: Option<LayerId>,
    /// How many blocks read otherwise.
    pub blocks: u64,
    /// BLAKE3 of these, each its number in the volume and its data, in order.
    pub data: [u8; 32],
}

impl ContentsDigest {
    const BYTES: usize = 48;

    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u64_le(self.base.map_or(0, LayerId::raw));
        out.put_u64_le(self.blocks);
        out.put_slice(&self.data);
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        expect_bytes("ContentsDigest", payload, Self::BYTES)?;
        let base = LayerId::from_raw(payload.get_u64_le());
        let blocks = payload.get_u64_le();
        if blocks > CHUNK_BLOCKS {
            return Err(malformed("ContentsDigest", "more blocks than a chunk has"));
        }
        let mut data = [0; 32];
        payload.copy_to_slice(&mut data);
        Ok(Self { base, blocks, data })
    }
}

fn take_bitmaps(
    operation: &'static str,
    payload: &mut &[u8],
) -> Result<(ChunkBitmap, ChunkBitmap), BodyError> {
    if payload.len() < 2 * BITMAP_BYTES {
        return Err(malformed(operation, "wrong length"));
    }
    let (mut present, mut zero) = (ChunkBitmap::default(), ChunkBitmap::default());
    payload.copy_to_slice(&mut present.0);
    payload.copy_to_slice(&mut zero.0);
    if present
        .0
        .iter()
        .zip(&zero.0)
        .any(|(present, zero)| present & zero != 0)
    {
        return Err(malformed(operation, "a block is both present and zero"));
    }
    Ok((present, zero))
}

/// Blocks of one chunk of one layer: for the blocks of the request's extent, which are present,
/// which are zero, and the data of the present ones in order. Bits outside the extent are 0.
///
/// ```text
///  0  64  present     64  64  zero     128  4096 × present
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlocks {
    /// Blocks whose data follows.
    pub present: ChunkBitmap,
    /// Blocks that the layer says are zero.
    pub zero: ChunkBitmap,
    /// The data of the present blocks.
    pub data: Bytes,
}

impl LayerBlocks {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(2 * BITMAP_BYTES + self.data.len());
        self.put(&mut out);
        out.freeze()
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.present.0);
        out.put_slice(&self.zero.0);
        out.put_slice(&self.data);
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(payload: Bytes) -> Result<Self, BodyError> {
        let mut head: &[u8] = &payload;
        let (present, zero) = take_bitmaps("LayerBlocks", &mut head)?;
        let data = payload.slice(2 * BITMAP_BYTES..);
        if data.len() as u64 != present.count() as u64 * BLOCK_BYTES {
            return Err(malformed(
                "LayerBlocks",
                "data does not match the present blocks",
            ));
        }
        Ok(Self {
            present,
            zero,
            data,
        })
    }
}

/// Sets the blocks of the request's extent in one layer of a rebuilding replica to exactly this
/// state: present with data, zero, or absent.
///
/// ```text
///  0  u64  layer     8  LayerBlocks
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteLayer {
    /// To be changed.
    pub layer: LayerId,
    /// Its new state there.
    pub blocks: LayerBlocks,
}

impl WriteLayer {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + 2 * BITMAP_BYTES + self.blocks.data.len());
        out.put_u64_le(self.layer.raw());
        self.blocks.put(&mut out);
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: Bytes) -> Result<Self, BodyError> {
        if payload.len() < 8 {
            return Err(malformed("WriteLayer", "wrong length"));
        }
        let layer = layer("WriteLayer", payload.get_u64_le())?;
        Ok(Self {
            layer,
            blocks: LayerBlocks::decode(payload)?,
        })
    }
}

/// The tree that a rebuilding replica is to have. Layers it has and that are not listed are
/// removed, missing ones are created empty, a layer that is sealed in one and head in the other
/// changes its role. A replica that is smaller than the volume grows.
///
/// ```text
///  0  u64  head     8  u64  volume bytes     16  u16  layers L     18  6 bytes, zero
/// 24  L × { u64 layer, u64 parent }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginRebuild {
    /// The writable layer.
    pub head: LayerId,
    /// The volume's size; a larger replica stays as it is.
    pub size: VolumeSize,
    /// Every layer, the head among them, a parent before its children.
    pub layers: Vec<LayerLink>,
}

impl BeginRebuild {
    /// The bytes on the wire.
    ///
    /// # Panics
    ///
    /// When it holds more than 255 layers.
    pub fn encode(&self) -> Bytes {
        assert!(
            self.layers.len() <= SEALED_LAYERS_MAX + 1,
            "{} layers",
            self.layers.len()
        );
        let mut out = BytesMut::with_capacity(24 + 16 * self.layers.len());
        out.put_u64_le(self.head.raw());
        out.put_u64_le(self.size.bytes());
        out.put_u16_le(u16::try_from(self.layers.len()).unwrap_or(u16::MAX));
        out.put_bytes(0, 6);
        put_layers(&mut out, &self.layers);
        out.freeze()
    }

    /// Reads the body. Whether the layers form a tree is the replica's to check.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        const NAME: &str = "BeginRebuild";
        if payload.len() < 24 {
            return Err(malformed(NAME, "wrong length"));
        }
        let head = layer(NAME, payload.get_u64_le())?;
        let size = VolumeSize::from_bytes(payload.get_u64_le())
            .map_err(|_| malformed(NAME, "no volume size"))?;
        let count = usize::from(payload.get_u16_le());
        payload.advance(6);
        if count > SEALED_LAYERS_MAX + 1 {
            return Err(malformed(NAME, "too many layers"));
        }
        expect_bytes(NAME, payload, 16 * count)?;
        Ok(Self {
            head,
            size,
            layers: take_layers(NAME, &mut payload, count)?,
        })
    }
}
