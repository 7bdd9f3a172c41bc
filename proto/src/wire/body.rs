//! Bodies of the operations that order I/O: Open, Seal, Revert, Expand. All fields little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};

/// The most sealed layers of a replica (INV-7).
pub const SEALED_LAYERS_MAX: usize = 254;

/// A payload that is not the body its operation carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {operation} body: {reason}")]
pub struct BodyError {
    /// Whose body.
    pub operation: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

pub(super) const fn malformed(operation: &'static str, reason: &'static str) -> BodyError {
    BodyError { operation, reason }
}

pub(super) fn expect_bytes(
    operation: &'static str,
    payload: &[u8],
    bytes: usize,
) -> Result<(), BodyError> {
    if payload.len() == bytes {
        Ok(())
    } else {
        Err(malformed(operation, "wrong length"))
    }
}

pub(super) fn layer(operation: &'static str, raw: u64) -> Result<LayerId, BodyError> {
    LayerId::from_raw(raw).ok_or(malformed(operation, "layer id 0"))
}

/// What the first frame of a connection says.
///
/// ```text
///  0  16  volume id      32   8  epoch        48  32  credential
/// 16  16  replica id     40   8  volume bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// Of which the replica must be.
    pub volume: VolumeId,
    /// To be opened.
    pub replica: ReplicaId,
    /// Of the engine; older ones are refused from here on.
    pub epoch: Epoch,
    /// The size the engine serves. A replica may be larger, when an expansion was under way, or
    /// smaller, when it missed one: [`Opened::size`] tells.
    pub size: VolumeSize,
    /// The volume's secret.
    pub credential: Credential,
}

impl OpenRequest {
    const BYTES: usize = 80;

    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u128_le(self.volume.bits());
        out.put_u128_le(self.replica.bits());
        out.put_u64_le(self.epoch.raw());
        out.put_u64_le(self.size.bytes());
        out.put_slice(self.credential.as_bytes());
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        expect_bytes("Open", payload, Self::BYTES)?;
        let volume = VolumeId::from_bits(payload.get_u128_le());
        let replica = ReplicaId::from_bits(payload.get_u128_le());
        let epoch = Epoch::from_raw(payload.get_u64_le());
        let size = VolumeSize::from_bytes(payload.get_u64_le())
            .map_err(|_| malformed("Open", "no volume size"))?;
        let credential =
            Credential::from_slice(payload).ok_or(malformed("Open", "credential cut short"))?;
        Ok(Self {
            volume,
            replica,
            epoch,
            size,
            credential,
        })
    }
}

/// What a replica remembers of the mutations that may not be complete on all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Memory {
    /// The last engine closed in order (or there was none): nothing was in flight.
    Clean = 0,
    /// The list in [`Opened::in_flight`] is all.
    Kept = 1,
    /// The blockd restarted while an engine had the replica open: what was in flight is unknown,
    /// and when its host restarted, too, what was not flushed may be gone.
    Lost = 2,
    /// The blockd restarted while an engine had the replica open, but its host did not: everything
    /// acknowledged is there, what was in flight is unknown.
    Restarted = 3,
}

/// A mutation that may not be complete on all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// Its place in its engine's order.
    pub sequence: Sequence,
    /// What it covers.
    pub extent: Extent,
}

/// A layer and the one below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLink {
    /// The layer.
    pub layer: LayerId,
    /// The layer it was put on; `None` for a base.
    pub parent: Option<LayerId>,
}

/// The answer to Open: the replica obeys the epoch, durably, and this is its state.
///
/// ```text
///  0  u64  volume bytes                     24  u32  lease remaining, ms
///  8  u64  head layer                       28  u8   memory
/// 16  u64  epoch of the last engine         29  u8   1 while rebuilding
///                                           30  u16  layers L
/// 32  u32  in flight F                      36  4 bytes, zero
/// 40  L × { u64 layer, u64 parent or 0 }    then F × { u64 sequence, u64 offset, u64 length }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The replica's size.
    pub size: VolumeSize,
    /// Its writable layer.
    pub head: LayerId,
    /// The epoch that it obeyed before this Open; 0 when there was none.
    pub previous_epoch: Epoch,
    /// How long the previous engine may still believe in its lease; 0 when it closed in order.
    pub lease_remaining_ms: u32,
    /// What it remembers of mutations in flight.
    pub memory: Memory,
    /// Whether it is being rebuilt and serves no read (INV-9).
    pub rebuilding: bool,
    /// Every layer of the tree, the head among them, a parent before its children.
    pub layers: Vec<LayerLink>,
    /// What may not be complete on all replicas; empty unless the memory is kept.
    pub in_flight: Vec<InFlight>,
}

impl Opened {
    const FIXED_BYTES: usize = 40;
    const IN_FLIGHT_MAX: usize = 2 * super::REQUESTS_IN_FLIGHT_MAX;

    /// The bytes on the wire.
    ///
    /// # Panics
    ///
    /// When it holds more layers than 255 or more ranges than twice the requests in flight.
    pub fn encode(&self) -> Bytes {
        assert!(
            self.layers.len() <= SEALED_LAYERS_MAX + 1,
            "{} layers",
            self.layers.len()
        );
        assert!(
            self.in_flight.len() <= Self::IN_FLIGHT_MAX,
            "{} ranges",
            self.in_flight.len()
        );
        let mut out = BytesMut::with_capacity(
            Self::FIXED_BYTES + 16 * self.layers.len() + 24 * self.in_flight.len(),
        );
        out.put_u64_le(self.size.bytes());
        out.put_u64_le(self.head.raw());
        out.put_u64_le(self.previous_epoch.raw());
        out.put_u32_le(self.lease_remaining_ms);
        out.put_u8(self.memory as u8);
        out.put_u8(u8::from(self.rebuilding));
        out.put_u16_le(u16::try_from(self.layers.len()).unwrap_or(u16::MAX));
        out.put_u32_le(u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX));
        out.put_u32_le(0);
        put_layers(&mut out, &self.layers);
        for entry in &self.in_flight {
            out.put_u64_le(entry.sequence.raw());
            out.put_u64_le(entry.extent.offset());
            out.put_u64_le(entry.extent.length());
        }
        out.freeze()
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        const NAME: &str = "Opened";
        if payload.len() < Self::FIXED_BYTES {
            return Err(malformed(NAME, "wrong length"));
        }
        let size = VolumeSize::from_bytes(payload.get_u64_le())
            .map_err(|_| malformed(NAME, "no volume size"))?;
        let head = layer(NAME, payload.get_u64_le())?;
        let previous_epoch = Epoch::from_raw(payload.get_u64_le());
        let lease_remaining_ms = payload.get_u32_le();
        let memory = match payload.get_u8() {
            0 => Memory::Clean,
            1 => Memory::Kept,
            2 => Memory::Lost,
            3 => Memory::Restarted,
            _ => return Err(malformed(NAME, "unknown memory state")),
        };
        let rebuilding = match payload.get_u8() {
            0 => false,
            1 => true,
            _ => return Err(malformed(NAME, "unknown rebuilding state")),
        };
        let layer_count = usize::from(payload.get_u16_le());
        let in_flight_count = payload.get_u32_le() as usize;
        if payload.get_u32_le() != 0 {
            return Err(malformed(NAME, "reserved bytes are not zero"));
        }
        if layer_count > SEALED_LAYERS_MAX + 1 || in_flight_count > Self::IN_FLIGHT_MAX {
            return Err(malformed(NAME, "too many entries"));
        }
        expect_bytes(NAME, payload, 16 * layer_count + 24 * in_flight_count)?;
        let layers = take_layers(NAME, &mut payload, layer_count)?;
        let mut in_flight = Vec::with_capacity(in_flight_count);
        for _ in 0..in_flight_count {
            let sequence = Sequence::from_raw(payload.get_u64_le());
            let extent = Extent::new(payload.get_u64_le(), payload.get_u64_le())
                .filter(|extent| size.contains(*extent))
                .ok_or(malformed(NAME, "range outside the volume"))?;
            in_flight.push(InFlight { sequence, extent });
        }
        Ok(Self {
            size,
            head,
            previous_epoch,
            lease_remaining_ms,
            memory,
            rebuilding,
            layers,
            in_flight,
        })
    }
}

pub(super) fn put_layers(out: &mut BytesMut, layers: &[LayerLink]) {
    for link in layers {
        out.put_u64_le(link.layer.raw());
        out.put_u64_le(link.parent.map_or(0, LayerId::raw));
    }
}

pub(super) fn take_layers(
    operation: &'static str,
    payload: &mut &[u8],
    count: usize,
) -> Result<Vec<LayerLink>, BodyError> {
    let mut layers = Vec::with_capacity(count);
    for _ in 0..count {
        let layer = layer(operation, payload.get_u64_le())?;
        layers.push(LayerLink {
            layer,
            parent: LayerId::from_raw(payload.get_u64_le()),
        });
    }
    Ok(layers)
}

/// Two layers: what Seal and Revert carry.
///
/// ```text
///  0  u64  first layer     8  u64  second layer
/// ```
fn encode_pair(first: LayerId, second: LayerId) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u64_le(first.raw());
    out.put_u64_le(second.raw());
    out.freeze()
}

fn decode_pair(
    operation: &'static str,
    mut payload: &[u8],
) -> Result<(LayerId, LayerId), BodyError> {
    expect_bytes(operation, payload, 16)?;
    Ok((
        layer(operation, payload.get_u64_le())?,
        layer(operation, payload.get_u64_le())?,
    ))
}

/// Seals the head. Repeated after it was done, it answers as the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The head to be sealed.
    pub head: LayerId,
    /// The empty head that goes on top of it.
    pub new_head: LayerId,
}

impl Seal {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        encode_pair(self.head, self.new_head)
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(payload: &[u8]) -> Result<Self, BodyError> {
        let (head, new_head) = decode_pair("Seal", payload)?;
        Ok(Self { head, new_head })
    }
}

/// Puts a new empty head on a sealed layer; the old head is given up. Repeated after it was done,
/// it answers as the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revert {
    /// The sealed layer to go back to.
    pub to: LayerId,
    /// The empty head that goes on top of it.
    pub new_head: LayerId,
}

impl Revert {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        encode_pair(self.to, self.new_head)
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(payload: &[u8]) -> Result<Self, BodyError> {
        let (to, new_head) = decode_pair("Revert", payload)?;
        Ok(Self { to, new_head })
    }
}

/// Grows the replica to this size. Repeated after it was done, or asked of a larger one, it answers
/// as the first time; nothing ever shrinks.
///
/// ```text
///  0  u64  volume bytes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expand {
    /// To be had at least.
    pub size: VolumeSize,
}

impl Expand {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.size.bytes().to_le_bytes())
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when it is not one.
    pub fn decode(mut payload: &[u8]) -> Result<Self, BodyError> {
        expect_bytes("Expand", payload, 8)?;
        let size = VolumeSize::from_bytes(payload.get_u64_le())
            .map_err(|_| malformed("Expand", "no volume size"))?;
        Ok(Self { size })
    }
}
