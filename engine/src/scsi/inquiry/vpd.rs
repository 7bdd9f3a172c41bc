//! The vital product data pages (SPC-4 7.8, SBC-3 6.6).

use bytes::{BufMut, Bytes, BytesMut};

use crate::scsi::TRANSFER_BYTES_MAX;
use crate::scsi::block::capacity::{PHYSICAL_EXPONENT, SECTOR_BYTES_32};
use crate::scsi::block::compare::COMPARE_BLOCKS_MAX;
use crate::scsi::block::unmap::{UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX};
use crate::scsi::block::write_atomic::ATOMIC_BLOCKS;
use crate::scsi::block::write_same::WRITE_SAME_BLOCKS_MAX;
use crate::scsi::copy;
use crate::scsi::identity::Identity;

const SUPPORTED_PAGES: u8 = 0x00;
const SERIAL_NUMBER: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const EXTENDED: u8 = 0x86;
const THIRD_PARTY_COPY: u8 = 0x8f;
const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;
const PAGES: [u8; 8] = [
    SUPPORTED_PAGES,
    SERIAL_NUMBER,
    IDENTIFICATION,
    EXTENDED,
    THIRD_PARTY_COPY,
    BLOCK_LIMITS,
    CHARACTERISTICS,
    PROVISIONING,
];

/// The relative target port, and the portal group tag: an engine has one of each.
const PORT: u16 = 1;

/// The page, when there is such.
pub(super) fn page(identity: &Identity, code: u8) -> Option<Bytes> {
    let body = match code {
        SUPPORTED_PAGES => BytesMut::from(&PAGES[..]),
        SERIAL_NUMBER => BytesMut::from(identity.serial().as_bytes()),
        IDENTIFICATION => identification(identity),
        EXTENDED => extended(),
        THIRD_PARTY_COPY => copy::third_party_copy_page(),
        BLOCK_LIMITS => block_limits(),
        CHARACTERISTICS => characteristics(),
        PROVISIONING => provisioning(),
        _ => return None,
    };
    let mut out = BytesMut::with_capacity(4 + body.len());
    out.put_slice(&[0, code]);
    out.put_u16(u16::try_from(body.len()).unwrap_or(u16::MAX));
    out.put_slice(&body);
    Some(out.freeze())
}

/// What a designator names.
#[derive(Clone, Copy)]
enum Association {
    LogicalUnit = 0,
    TargetPort = 1,
    TargetDevice = 2,
}

/// How a designator is encoded.
#[derive(Clone, Copy)]
enum CodeSet {
    Binary = 1,
    Ascii = 2,
    Utf8 = 3,
}

/// The kind of a designator.
#[derive(Clone, Copy)]
enum Kind {
    T10Vendor = 1,
    Naa = 3,
    RelativePort = 4,
    ScsiName = 8,
}

fn put_designator(
    out: &mut BytesMut,
    association: Association,
    code_set: CodeSet,
    kind: Kind,
    body: &[u8],
) {
    const ISCSI: u8 = 0x50;
    const PROTOCOL_VALID: u8 = 0x80;
    let (protocol, valid) = match association {
        Association::LogicalUnit => (0, 0),
        Association::TargetPort | Association::TargetDevice => (ISCSI, PROTOCOL_VALID),
    };
    out.put_u8(protocol | code_set as u8);
    out.put_u8(valid | ((association as u8) << 4) | kind as u8);
    out.put_u8(0);
    out.put_u8(u8::try_from(body.len()).unwrap_or(u8::MAX));
    out.put_slice(body);
}

/// A SCSI name string: UTF-8, ended and padded with zeros to a multiple of four (SPC-4 7.8.6.10).
fn scsi_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes
}

/// The device identification page (SPC-4 7.8.6).
fn identification(identity: &Identity) -> BytesMut {
    let mut out = BytesMut::new();
    let naa = identity.naa().to_bytes();
    let mut vendor = Identity::VENDOR.to_vec();
    vendor.extend_from_slice(identity.serial().as_bytes());
    let unit_name = scsi_name(&format!("naa.{:016x}", u64::from_be_bytes(naa)));
    let port_name = scsi_name(&format!("{},t,0x{PORT:04x}", identity.target_name()));
    let device_name = scsi_name(identity.target_name());
    let unit = Association::LogicalUnit;
    let port = Association::TargetPort;
    put_designator(&mut out, unit, CodeSet::Binary, Kind::Naa, &naa);
    put_designator(&mut out, unit, CodeSet::Ascii, Kind::T10Vendor, &vendor);
    put_designator(&mut out, unit, CodeSet::Utf8, Kind::ScsiName, &unit_name);
    let [high, low] = PORT.to_be_bytes();
    put_designator(
        &mut out,
        port,
        CodeSet::Binary,
        Kind::RelativePort,
        &[0, 0, high, low],
    );
    put_designator(&mut out, port, CodeSet::Utf8, Kind::ScsiName, &port_name);
    put_designator(
        &mut out,
        Association::TargetDevice,
        CodeSet::Utf8,
        Kind::ScsiName,
        &device_name,
    );
    out
}

/// The extended INQUIRY data page (SPC-4 7.8.7): the task attributes, and that there is a cache that
/// can be lost.
fn extended() -> BytesMut {
    const BYTES: usize = 0x3c;
    const HEAD_OF_QUEUE: u8 = 0x04;
    const ORDERED: u8 = 0x02;
    const SIMPLE: u8 = 0x01;
    const VOLATILE_CACHE: u8 = 0x01;
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_slice(&[0, HEAD_OF_QUEUE | ORDERED | SIMPLE, VOLATILE_CACHE]);
    out.put_bytes(0, BYTES - out.len());
    out
}

/// The block limits page (SBC-4 6.6.4). All are enforced.
///
/// ```text
///  0  WSNZ = 0                      20  maximum unmap descriptors
///  1  maximum compare and write     24  optimal unmap granularity
///  2  optimal transfer granularity  28  unmap alignment, UGAVALID in bit 31
///  4  maximum transfer              32  u64 maximum write same
///  8  optimal transfer              40  maximum atomic transfer
/// 12  maximum prefetch, 0: none     44  atomic alignment
/// 16  maximum unmap blocks          48  atomic granularity
///                                   52  with boundary, 56 boundary: 0, there are none
/// ```
fn block_limits() -> BytesMut {
    const BYTES: usize = 0x3c;
    const WRITE_SAME_NON_ZERO: u8 = 0;
    const OPTIMAL_TRANSFER_BYTES: u32 = 1 << 20;
    const UNMAP_ALIGNMENT_VALID: u32 = 1 << 31;
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_slice(&[WRITE_SAME_NON_ZERO, COMPARE_BLOCKS_MAX]);
    out.put_u16(1 << PHYSICAL_EXPONENT);
    out.put_u32(TRANSFER_BYTES_MAX / SECTOR_BYTES_32);
    out.put_u32(OPTIMAL_TRANSFER_BYTES / SECTOR_BYTES_32);
    out.put_u32(0);
    out.put_u32(UNMAP_BLOCKS_MAX);
    out.put_u32(UNMAP_DESCRIPTORS_MAX);
    out.put_u32(1 << PHYSICAL_EXPONENT);
    out.put_u32(UNMAP_ALIGNMENT_VALID);
    out.put_u64(u64::from(WRITE_SAME_BLOCKS_MAX));
    for _maximum_alignment_granularity in 0..3 {
        out.put_u32(ATOMIC_BLOCKS);
    }
    out.put_bytes(0, BYTES - out.len());
    out
}

/// The block device characteristics page (SBC-4 6.6.3): nothing rotates; what was erased can be read.
fn characteristics() -> BytesMut {
    const BYTES: usize = 0x3c;
    const NON_ROTATING: u16 = 1;
    /// WABEREQ=01b.
    const ERASED_READS_WELL: u8 = 0x40;
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_u16(NON_ROTATING);
    out.put_slice(&[0, ERASED_READS_WELL]);
    out.put_bytes(0, BYTES - out.len());
    out
}

/// The logical block provisioning page (SBC-3 6.6.6): thin; UNMAP and WRITE SAME 10 and 16 unmap;
/// what is unmapped reads as zeros.
fn provisioning() -> BytesMut {
    const LBPU: u8 = 0x80;
    const LBPWS: u8 = 0x40;
    const LBPWS10: u8 = 0x20;
    const LBPRZ: u8 = 0x04;
    const THIN: u8 = 0x02;
    BytesMut::from(&[0, LBPU | LBPWS | LBPWS10 | LBPRZ, THIN, 0][..])
}
