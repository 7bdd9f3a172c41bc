//! The third-party copy VPD page (SPC-4 7.8.17): what [`super::operating_parameters`] tells, in the
//! form that newer initiators ask for.

use bytes::{BufMut, BytesMut};

use super::parameters::{
    BLOCK_TO_BLOCK, DESCRIPTOR_BYTES_MAX, IDENTIFICATION, SEGMENT_BLOCKS_MAX, SEGMENTS_MAX,
    TARGETS_MAX,
};
use ankole_proto::SECTOR_BYTES;

const SUPPORTED_COMMANDS: u16 = 0x0001;
const PARAMETER_DATA: u16 = 0x0004;
const SUPPORTED_DESCRIPTORS: u16 = 0x0008;
const GENERAL_COPY: u16 = 0x8001;

/// The page behind its header: a list of descriptors.
///
/// ```text
/// 0  u16 type    2  u16 length, a multiple of 4    4  as the type has it
/// ```
pub(in crate::scsi) fn third_party_copy_page() -> BytesMut {
    let mut out = BytesMut::new();
    put_descriptor(&mut out, SUPPORTED_COMMANDS, &supported_commands());
    put_descriptor(&mut out, PARAMETER_DATA, &parameter_data());
    put_descriptor(&mut out, SUPPORTED_DESCRIPTORS, &supported_descriptors());
    put_descriptor(&mut out, GENERAL_COPY, &general_copy());
    out
}

fn put_descriptor(out: &mut BytesMut, kind: u16, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    out.put_u16(kind);
    out.put_u16(u16::try_from(padded).unwrap_or(u16::MAX));
    out.put_slice(body);
    out.put_bytes(0, padded - body.len());
}

/// ```text
/// 0  u8 bytes that follow    1  n × { operation code, u8 service actions, themselves }
/// ```
fn supported_commands() -> Vec<u8> {
    const EXTENDED_COPY: [u8; 3] = [0x83, 1, 0x00];
    const RECEIVE_COPY_RESULTS: [u8; 4] = [0x84, 2, 0x00, 0x03];
    let list = [&EXTENDED_COPY[..], &RECEIVE_COPY_RESULTS].concat();
    with_length(&list)
}

/// ```text
/// 4  u16 targets    6  u16 segments    8  u32 descriptor bytes    12  u32 inline bytes, 0
/// ```
fn parameter_data() -> BytesMut {
    const BYTES: usize = 28;
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_u32(0);
    out.put_u16(TARGETS_MAX);
    out.put_u16(SEGMENTS_MAX);
    out.put_u32(DESCRIPTOR_BYTES_MAX);
    out.put_bytes(0, BYTES - out.len());
    out
}

fn supported_descriptors() -> Vec<u8> {
    with_length(&[BLOCK_TO_BLOCK, IDENTIFICATION])
}

/// ```text
/// 0  u32 copies at a time    4  u32 of which named    8  u32 segment bytes
/// 12 data granularity, 2^n  13  inline granularity, then zeros to 32
/// ```
fn general_copy() -> BytesMut {
    const BYTES: usize = 32;
    const CONCURRENT: u32 = 255;
    let segment_bytes = u64::from(SEGMENT_BLOCKS_MAX) * SECTOR_BYTES;
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_u32(CONCURRENT);
    out.put_u32(CONCURRENT);
    out.put_u32(u32::try_from(segment_bytes).unwrap_or(u32::MAX));
    out.put_u8(u8::try_from(SECTOR_BYTES.ilog2()).unwrap_or(0));
    out.put_bytes(0, BYTES - out.len());
    out
}

fn with_length(list: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(list.len()).unwrap_or(u8::MAX)];
    out.extend_from_slice(list);
    out
}
