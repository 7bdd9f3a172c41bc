//! What a frame on an open connection asks for, checked as far as the frame alone allows. Pure.

use ankole_proto::geometry::{CHUNK_BYTES, SECTOR_BYTES};
use ankole_proto::wire::body::{BodyError, Expand, Revert, Seal};
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::{BeginRebuild, ContentsOf, LayerOf, WriteLayer};
use ankole_proto::wire::{DATA_BYTES_MAX, ErrorCode, Header, Opcode, RANGE_BYTES_MAX};
use ankole_proto::{ChunkNumber, Extent, LayerId};
use bytes::Bytes;

use super::link::Denial;

/// When a mutation may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As soon as it is carried out.
    Cached,
    /// Once it is on the media (FUA).
    Synced,
}

/// A request on an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Keeps the lease.
    Ping,
    /// Read the extent.
    Read(Extent),
    /// Write the payload there.
    Write(Extent, Durability),
    /// Unmap the extent.
    Unmap(Extent, Durability),
    /// Zero the extent.
    WriteZeroes(Extent, Durability),
    /// Sync what was acknowledged.
    Flush,
    /// Tell the state of a layer's chunk.
    Digest(LayerId, ChunkNumber),
    /// Tell in what a chunk reads otherwise at a layer than below it.
    DigestContents(LayerId, ChunkNumber),
    /// Read blocks of a layer.
    ReadLayer(LayerId, Extent),
    /// Set blocks of a layer.
    WriteLayer(Extent, WriteLayer),
    /// Write bad blocks of a layer anew.
    RepairLayer(Extent, WriteLayer),
    /// Note what a rebuild has made equal. It syncs, so a disk thread does it.
    MarkRebuilt(RebuildCursor),
    /// Change the tree of layers.
    Tree(TreeRequest),
}

/// A request that changes the tree of layers. It syncs, so a disk thread does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeRequest {
    /// Seal the head.
    Seal(Seal),
    /// Go back to a sealed layer.
    Revert(Revert),
    /// Take over the source's tree.
    BeginRebuild(BeginRebuild),
    /// Become complete.
    FinishRebuild,
    /// Become at least this large.
    Expand(Expand),
}

impl Request {
    /// Reads a request other than Open and Close.
    ///
    /// # Errors
    ///
    /// The denial it is to be answered with.
    pub fn parse(header: &Header, payload: &[u8]) -> Result<Self, Denial> {
        let durability = if header.is_fua() {
            Durability::Synced
        } else {
            Durability::Cached
        };
        if header.is_fua() && !header.opcode.is_mutation() {
            return Err(malformed("FUA stands on an operation that writes nothing"));
        }
        if header.opcode.is_mutation() && header.sequence == 0 {
            return Err(malformed("a mutation has no sequence number"));
        }
        match header.opcode {
            Opcode::Write => {
                let extent = extent(header, DATA_BYTES_MAX)?;
                if payload.len() as u64 != extent.length() {
                    return Err(malformed("the payload is not as long as the extent"));
                }
                Ok(Self::Write(extent, durability))
            }
            Opcode::Digest => {
                if !header.offset.is_multiple_of(CHUNK_BYTES) {
                    return Err(malformed("the offset is no chunk's"));
                }
                let chunk = ChunkNumber::at(header.offset);
                if payload.len() == ContentsOf::BYTES {
                    let ContentsOf(layer) = ContentsOf::decode(payload).map_err(body)?;
                    return Ok(Self::DigestContents(layer, chunk));
                }
                let LayerOf(layer) = LayerOf::decode(payload).map_err(body)?;
                Ok(Self::Digest(layer, chunk))
            }
            Opcode::ReadLayer => {
                let LayerOf(layer) = LayerOf::decode(payload).map_err(body)?;
                Ok(Self::ReadLayer(layer, extent(header, DATA_BYTES_MAX)?))
            }
            Opcode::WriteLayer | Opcode::RepairLayer => {
                let extent = extent(header, DATA_BYTES_MAX)?;
                let blocks = WriteLayer::decode(Bytes::copy_from_slice(payload)).map_err(body)?;
                Ok(if header.opcode == Opcode::WriteLayer {
                    Self::WriteLayer(extent, blocks)
                } else {
                    Self::RepairLayer(extent, blocks)
                })
            }
            Opcode::MarkRebuilt => {
                let cursor = RebuildCursor::decode(payload).map_err(body)?;
                Ok(Self::MarkRebuilt(cursor))
            }
            Opcode::Seal | Opcode::Revert | Opcode::BeginRebuild | Opcode::Expand => {
                tree(header.opcode, payload)
            }
            _ if !payload.is_empty() => Err(malformed("the operation has no payload")),
            Opcode::Read => Ok(Self::Read(extent(header, DATA_BYTES_MAX)?)),
            Opcode::Unmap => Ok(Self::Unmap(extent(header, RANGE_BYTES_MAX)?, durability)),
            Opcode::WriteZeroes => Ok(Self::WriteZeroes(
                extent(header, RANGE_BYTES_MAX)?,
                durability,
            )),
            Opcode::Flush => Ok(Self::Flush),
            Opcode::Ping => Ok(Self::Ping),
            Opcode::FinishRebuild => Ok(Self::Tree(TreeRequest::FinishRebuild)),
            Opcode::Open | Opcode::Close => Err(malformed("out of place")),
        }
    }
}

fn tree(opcode: Opcode, payload: &[u8]) -> Result<Request, Denial> {
    let request = match opcode {
        Opcode::Seal => TreeRequest::Seal(Seal::decode(payload).map_err(body)?),
        Opcode::Revert => TreeRequest::Revert(Revert::decode(payload).map_err(body)?),
        Opcode::Expand => TreeRequest::Expand(Expand::decode(payload).map_err(body)?),
        _ => TreeRequest::BeginRebuild(BeginRebuild::decode(payload).map_err(body)?),
    };
    Ok(Request::Tree(request))
}

/// The extent of the header. Whether it lies inside the volume is the replica's to check.
fn extent(header: &Header, length_max: u32) -> Result<Extent, Denial> {
    let out_of_range = |reason: &str| Denial::new(ErrorCode::OutOfRange, reason);
    if header.length > length_max {
        return Err(out_of_range(
            "the extent is longer than an operation may be",
        ));
    }
    let length = u64::from(header.length);
    if length == 0
        || !length.is_multiple_of(SECTOR_BYTES)
        || !header.offset.is_multiple_of(SECTOR_BYTES)
    {
        return Err(malformed("the extent is not of whole sectors"));
    }
    Extent::new(header.offset, length)
        .ok_or_else(|| out_of_range("the extent ends beyond 2^64 bytes"))
}

fn malformed(reason: &str) -> Denial {
    Denial::new(ErrorCode::Malformed, reason)
}

fn body(error: BodyError) -> Denial {
    Denial::new(ErrorCode::Malformed, error.to_string())
}

#[cfg(test)]
mod tests {
    use ankole_proto::wire::flags;
    use proptest::prelude::*;

    use super::*;

    fn header(opcode: Opcode, offset: u64, length: u32) -> Header {
        Header {
            offset,
            length,
            sequence: u64::from(opcode.is_mutation()),
            ..Header::request(opcode, 1)
        }
    }

    fn code(header: &Header, payload: &[u8]) -> Option<ErrorCode> {
        Request::parse(header, payload)
            .err()
            .map(|denial| denial.code)
    }

    #[test]
    fn lengths_are_bounded_per_operation() {
        use ErrorCode::OutOfRange;
        for (opcode, max) in [
            (Opcode::Read, DATA_BYTES_MAX),
            (Opcode::Unmap, RANGE_BYTES_MAX),
            (Opcode::WriteZeroes, RANGE_BYTES_MAX),
        ] {
            assert_eq!(code(&header(opcode, 0, max), &[]), None);
            assert_eq!(code(&header(opcode, 0, max + 512), &[]), Some(OutOfRange));
            let at_the_end = u64::MAX - 511;
            assert_eq!(
                code(&header(opcode, at_the_end, 512), &[]),
                Some(OutOfRange)
            );
        }
    }

    #[test]
    fn what_is_not_whole_sectors_or_has_a_wrong_payload_is_malformed() {
        use ErrorCode::Malformed;
        for (offset, length) in [(1, 512), (0, 511), (0, 0)] {
            assert_eq!(
                code(&header(Opcode::Read, offset, length), &[]),
                Some(Malformed)
            );
        }
        assert_eq!(code(&header(Opcode::Read, 0, 512), &[1]), Some(Malformed));
        assert_eq!(
            code(&header(Opcode::Write, 0, 512), &[0; 511]),
            Some(Malformed)
        );
        assert_eq!(code(&header(Opcode::Write, 0, 512), &[0; 512]), None);
        assert_eq!(
            code(&header(Opcode::Digest, 4096, 0), &[1; 8]),
            Some(Malformed)
        );
        assert_eq!(code(&header(Opcode::Seal, 0, 0), &[0; 16]), Some(Malformed));
    }

    #[test]
    fn fua_is_for_mutations() {
        for opcode in Opcode::ALL {
            let mut request = header(opcode, 0, 512);
            request.flags = flags::FUA;
            let payload: &[u8] = if opcode == Opcode::Write {
                &[0; 512]
            } else {
                &[]
            };
            match Request::parse(&request, payload) {
                Ok(
                    Request::Write(_, durability)
                    | Request::Unmap(_, durability)
                    | Request::WriteZeroes(_, durability),
                ) => assert_eq!(durability, Durability::Synced),
                Ok(other) => panic!("{other:?} took FUA"),
                Err(denial) => assert_eq!(denial.code, ErrorCode::Malformed),
            }
        }
    }

    #[test]
    fn a_mutation_has_a_sequence_number() {
        let mut unmap = header(Opcode::Unmap, 0, 512);
        assert_eq!(code(&unmap, &[]), None);
        unmap.sequence = 0;
        assert_eq!(code(&unmap, &[]), Some(ErrorCode::Malformed));
    }

    proptest! {
        #[test]
        fn any_frame_is_a_request_or_a_denial(
            opcode in 0..Opcode::ALL.len(),
            offset: u64,
            length: u32,
            fua: bool,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut header = header(Opcode::ALL[opcode], offset, length);
            header.flags = if fua { flags::FUA } else { 0 };
            if let Ok(Request::Read(extent) | Request::Write(extent, _)) =
                Request::parse(&header, &payload)
            {
                prop_assert!(extent.length() <= u64::from(DATA_BYTES_MAX));
            }
        }
    }
}
