use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::body::{Expand, InFlight, LayerLink, Memory, OpenRequest, Opened, Revert, Seal};
use super::cursor::RebuildCursor;
use super::rebuild::{
    BeginRebuild, ChunkBitmap, ChunkDigest, ContentsDigest, ContentsOf, LayerBlocks, LayerOf,
    WriteLayer,
};
use super::*;
use crate::{Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};

fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_write_header_has_these_bytes() {
    let header = Header {
        flags: flags::FUA,
        offset: 0x1000,
        length: 4,
        sequence: 9,
        watermark: 7,
        ..Header::request(Opcode::Write, 0x0102_0304)
    }
    .with_payload(b"abcd");
    assert_eq!(
        hex(&header.encode()),
        concat!(
            "414e4b42",
            "02",
            "03",
            "0200",
            "0403020100000000",
            "0010000000000000",
            "04000000",
            "04000000",
            "0900000000000000",
            "0700000000000000",
            "0000",
            "000000000000",
            "310ac892",
            "25821e80"
        )
    );
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let good = Header::request(Opcode::Read, 1).encode();
    for bit in 0..HEADER_BYTES * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn a_payload_longer_than_allowed_is_refused_before_it_is_read() {
    let mut bytes = Header::request(Opcode::Write, 1).encode();
    bytes[28..32].copy_from_slice(&(PAYLOAD_BYTES_MAX + 1).to_le_bytes());
    let crc = crate::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(
        Header::decode(&bytes),
        Err(FrameError::PayloadTooLong(PAYLOAD_BYTES_MAX + 1))
    );
}

#[test]
fn codes_are_distinct_and_read_back() {
    for opcode in Opcode::ALL {
        assert_eq!(Opcode::from_code(opcode.code()), Some(opcode));
    }
    for error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(error.code()), Some(error));
    }
    assert_eq!(Opcode::from_code(0), None);
    assert_eq!(ErrorCode::from_code(0), None);
}

#[test]
fn an_open_body_has_these_bytes() {
    let open = OpenRequest {
        volume: VolumeId::from_bits(1),
        replica: ReplicaId::from_bits(2),
        epoch: Epoch::from_raw(3),
        size: VolumeSize::from_bytes(1 << 30).unwrap(),
        credential: Credential::from_bytes([0xaa; 32]),
    };
    let bytes = open.encode();
    let expected = format!(
        "01{}02{}0300000000000000{}{}",
        "00".repeat(15),
        "00".repeat(15),
        "0000004000000000",
        "aa".repeat(32)
    );
    assert_eq!(hex(&bytes), expected);
    assert_eq!(OpenRequest::decode(&bytes), Ok(open));
}

#[test]
fn an_opened_body_reads_back_and_is_bounded() {
    let opened = Opened {
        size: VolumeSize::from_bytes(1 << 20).unwrap(),
        head: layer(2),
        previous_epoch: Epoch::from_raw(4),
        lease_remaining_ms: 250,
        memory: Memory::Kept,
        rebuilding: false,
        layers: vec![
            LayerLink {
                layer: layer(1),
                parent: None,
            },
            LayerLink {
                layer: layer(2),
                parent: Some(layer(1)),
            },
        ],
        in_flight: vec![InFlight {
            sequence: Sequence::from_raw(8),
            extent: Extent::new(4096, 512).unwrap(),
        }],
    };
    let bytes = opened.encode();
    assert_eq!(bytes.len(), 40 + 32 + 24);
    assert_eq!(Opened::decode(&bytes), Ok(opened));
    let mut lying = bytes.to_vec();
    lying[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Opened::decode(&lying).is_err());
}

#[test]
fn layer_bodies_read_back() {
    let mut present = ChunkBitmap::default();
    present.set(3, true);
    let mut zero = ChunkBitmap::default();
    zero.set(4, true);
    let blocks = LayerBlocks {
        present,
        zero,
        data: Bytes::from(vec![7; 4096]),
    };
    assert_eq!(LayerBlocks::decode(blocks.encode()), Ok(blocks.clone()));
    let write = WriteLayer {
        layer: layer(5),
        blocks,
    };
    assert_eq!(WriteLayer::decode(write.encode()), Ok(write));
    let digest = ChunkDigest {
        present,
        zero,
        data: [9; 32],
    };
    assert_eq!(ChunkDigest::decode(&digest.encode()), Ok(digest));
    let both = ChunkDigest {
        zero: present,
        ..digest
    };
    assert!(ChunkDigest::decode(&both.encode()).is_err());
    let begin = BeginRebuild {
        head: layer(9),
        size: VolumeSize::from_bytes(1 << 30).unwrap(),
        layers: vec![LayerLink {
            layer: layer(9),
            parent: None,
        }],
    };
    assert_eq!(BeginRebuild::decode(&begin.encode()), Ok(begin));
}

#[test]
fn the_bodies_of_a_comparison_have_these_bytes() {
    let of = ContentsOf(layer(5));
    assert_eq!(
        of.encode(),
        &[5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..]
    );
    assert_eq!(ContentsOf::decode(&of.encode()), Ok(of));
    // Neither is taken for the other.
    assert!(LayerOf::decode(&of.encode()).is_err());
    assert!(ContentsOf::decode(&LayerOf(layer(5)).encode()).is_err());
    let mut unknown = of.encode().to_vec();
    unknown[8] = 2;
    assert!(ContentsOf::decode(&unknown).is_err());
    for base in [None, Some(layer(4))] {
        let digest = ContentsDigest {
            base,
            blocks: 512,
            data: [9; 32],
        };
        let bytes = digest.encode();
        assert_eq!(bytes[0], if base.is_some() { 4 } else { 0 });
        assert_eq!(bytes[8..16], [0, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..], [9; 32]);
        assert_eq!(ContentsDigest::decode(&bytes), Ok(digest));
        let mut many = bytes.to_vec();
        many[8] = 1;
        assert!(ContentsDigest::decode(&many).is_err());
    }
}

#[test]
fn an_expand_body_has_these_bytes() {
    let expand = Expand {
        size: VolumeSize::from_bytes(2 << 30).unwrap(),
    };
    assert_eq!(hex(&expand.encode()), "0000008000000000");
    assert_eq!(Expand::decode(&expand.encode()), Ok(expand));
    assert!(Expand::decode(&[0; 8]).is_err());
    assert!(Expand::decode(&[0; 9]).is_err());
}

#[test]
fn seal_and_revert_bodies_refuse_layer_zero() {
    let seal = Seal {
        head: layer(1),
        new_head: layer(2),
    };
    assert_eq!(Seal::decode(&seal.encode()), Ok(seal));
    let revert = Revert {
        to: layer(1),
        new_head: layer(2),
    };
    assert_eq!(Revert::decode(&revert.encode()), Ok(revert));
    assert!(Seal::decode(&[0; 16]).is_err());
}

fn any_header() -> impl Strategy<Value = Header> {
    (
        0..Opcode::ALL.len(),
        0..=flags::ALL,
        any::<[u64; 4]>(),
        any::<u32>(),
        0..=ErrorCode::ALL.len(),
    )
        .prop_map(|(opcode, flag_bits, numbers, length, error)| Header {
            opcode: Opcode::ALL[opcode],
            flags: flag_bits,
            request_id: numbers[0],
            offset: numbers[1],
            length,
            payload_bytes: 0,
            sequence: numbers[2],
            watermark: numbers[3],
            error: (flag_bits & flags::REPLY != 0)
                .then(|| ErrorCode::ALL.get(error).copied())
                .flatten(),
            payload_crc: 0,
        })
}

proptest! {
    #[test]
    fn frames_survive_any_cutting_of_the_stream(
        frames in prop::collection::vec((any_header(), prop::collection::vec(any::<u8>(), 0..200)), 1..6),
        cut in 1_usize..97,
    ) {
        let frames: Vec<Frame> =
            frames.into_iter().map(|(header, payload)| Frame::new(header, payload.into())).collect();
        let stream: Vec<u8> = frames
            .iter()
            .flat_map(|frame| frame.header.encode().into_iter().chain(frame.payload.to_vec()))
            .collect();
        let (mut decoder, mut buffer, mut decoded) = (Decoder::new(), BytesMut::new(), Vec::new());
        for piece in stream.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert_eq!(decoded, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut decoder = Decoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
        let _ = OpenRequest::decode(&bytes);
        let _ = Opened::decode(&bytes);
        let _ = Seal::decode(&bytes);
        let _ = Revert::decode(&bytes);
        let _ = ChunkDigest::decode(&bytes);
        let _ = ContentsOf::decode(&bytes);
        let _ = ContentsDigest::decode(&bytes);
        let _ = WriteLayer::decode(Bytes::from(bytes.clone()));
        let _ = BeginRebuild::decode(&bytes);
        let _ = RebuildCursor::decode(&bytes);
    }
}
