//! The vital product data pages (SPC-4 7.8, SBC-3 6.6).

use bytes::{BufMut, Bytes, BytesMut};

use crate::scsi::TRANSFER_BYTES_MAX;
use crate::scsi::block::capacity::{PHYSICAL_EXPONENT, SECTOR_BYTES_32};
use crate::scsi::block::compare::COMPARE_BLOCKS_MAX;
use crate::scsi::block::unmap::{UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX};
use crate::scsi::block::write_same::WRITE_SAME_BLOCKS_MAX;
use crate::scsi::identity::Identity;

const SUPPORTED_PAGES: u8 = 0x00;
const SERIAL_NUMBER: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;
const PAGES: [u8; 6] = [
    SUPPORTED_PAGES,
    SERIAL_NUMBER,
    IDENTIFICATION,
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

/// The block limits page (SBC-3 6.6.4). All are enforced.
///
/// ```text
///  0  WSNZ                          12  maximum prefetch, 0: none told
///  1  maximum compare and write     16  maximum unmap blocks
///  2  optimal transfer granularity  20  maximum unmap descriptors
///  4  maximum transfer              24  optimal unmap granularity
///  8  optimal transfer              28  unmap alignment, UGAVALID in bit 31
///                                   32  u64 maximum write same, then zeros to 60
/// ```
fn block_limits() -> BytesMut {
    const BYTES: usize = 0x3c;
    const WRITE_SAME_NON_ZERO: u8 = 1;
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
    out.put_bytes(0, BYTES - out.len());
    out
}

/// The block device characteristics page (SBC-3 6.6.3): nothing rotates.
fn characteristics() -> BytesMut {
    const BYTES: usize = 0x3c;
    const NON_ROTATING: u16 = 1;
    let mut out = BytesMut::with_capacity(BYTES);
    out.put_u16(NON_ROTATING);
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
