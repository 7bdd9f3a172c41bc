//! MODE SENSE and MODE SELECT 6, 10 (SPC-4 6.11 to 6.14): the caching and control pages.

use ankole_proto::{SECTOR_BYTES, VolumeSize};
use bytes::{Buf, BufMut, BytesMut};

use super::block::capacity::SECTOR_BYTES_32;
use super::cdb::Cdb;
use super::handle::{After, Handled, Refusal, Step, Task};
use super::primary::cut;
use super::sense::{AdditionalSense, Sense, SenseFormat};
use super::unit::LogicalUnit;
use crate::volume::Operation;

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
/// In the order in which "all pages" tells them.
const PAGES: [u8; 2] = [CACHING, CONTROL];
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// What can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Values {
    /// WCE: writes are acknowledged before they are on the media.
    write_cache: bool,
    /// D_SENSE: sense data in descriptor format.
    descriptor_sense: bool,
    /// SWP: writes are refused.
    write_protect: bool,
}

/// The mode parameters.
#[derive(Debug)]
pub(super) struct Mode {
    current: Values,
    default: Values,
}

impl Mode {
    pub(super) fn new(write_cache: bool) -> Self {
        let default = Values {
            write_cache,
            descriptor_sense: false,
            write_protect: false,
        };
        Self {
            current: default,
            default,
        }
    }

    /// Another default of the cache, which holds at once. Says whether anything changed.
    pub(super) fn set_default_write_cache(&mut self, write_cache: bool) -> bool {
        let changed = self.default.write_cache != write_cache;
        if changed {
            self.default.write_cache = write_cache;
            self.current.write_cache = write_cache;
        }
        changed
    }

    pub(super) fn reset(&mut self) {
        self.current = self.default;
    }

    /// Whether every write must be durable when it is answered.
    pub(super) const fn writes_through(&self) -> bool {
        !self.current.write_cache
    }

    pub(super) const fn is_write_protected(&self) -> bool {
        self.current.write_protect
    }

    pub(super) const fn sense_format(&self) -> SenseFormat {
        if self.current.descriptor_sense {
            SenseFormat::Descriptor
        } else {
            SenseFormat::Fixed
        }
    }
}

const WCE: u8 = 0x04;
const D_SENSE: u8 = 0x04;
const SWP: u8 = 0x08;
/// TST=001b: each session has a task set of its own.
const SEPARATE_TASK_SETS: u8 = 0x20;
/// Commands may be reordered; their initiator orders them where it matters.
const UNRESTRICTED_REORDERING: u8 = 0x10;

/// The page with its two bytes of header, or nothing when there is no such page.
fn page(code: u8, values: Values) -> Option<Vec<u8>> {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    match code {
        CACHING => {
            let mut page = vec![0; 20];
            page[..3].copy_from_slice(&[CACHING, 18, flag(values.write_cache, WCE)]);
            Some(page)
        }
        CONTROL => {
            let mut page = vec![0; 12];
            page[..5].copy_from_slice(&[
                CONTROL,
                10,
                SEPARATE_TASK_SETS | flag(values.descriptor_sense, D_SENSE),
                UNRESTRICTED_REORDERING,
                flag(values.write_protect, SWP),
            ]);
            Some(page)
        }
        _ => None,
    }
}

/// The page with every bit set that MODE SELECT may change. The cache of a volume that is to have none
/// cannot be turned on.
fn changeable(code: u8, default: Values) -> Option<Vec<u8>> {
    let all = Values {
        write_cache: default.write_cache,
        descriptor_sense: true,
        write_protect: true,
    };
    let mut page = page(code, all)?;
    if code == CONTROL {
        page[2] &= !SEPARATE_TASK_SETS;
        page[3] = 0;
    }
    Some(page)
}

/// The two shapes of the header before the pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Six,
    Ten,
}

impl Header {
    fn of(cdb: &Cdb) -> Self {
        if Cdb::length(cdb.opcode()) == 6 {
            Self::Six
        } else {
            Self::Ten
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Six => 4,
            Self::Ten => 8,
        }
    }
}

/// MODE SENSE.
pub(super) fn mode_sense(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const DISABLE_BLOCK_DESCRIPTORS: u8 = 3;
    const LONG_LBA_ACCEPTED: u8 = 4;
    let header = Header::of(&task.cdb);
    let pages = pages(&unit.mode, &task.cdb)?;
    let long = header == Header::Ten && task.cdb.bit(1, LONG_LBA_ACCEPTED);
    let descriptor = if task.cdb.bit(1, DISABLE_BLOCK_DESCRIPTORS) {
        BytesMut::new()
    } else {
        block_descriptor(unit.size, long)
    };
    let data = encode(header, &unit.mode, long, &descriptor, &pages);
    let allocation_bytes = match header {
        Header::Six => usize::from(task.cdb.u8(4)),
        Header::Ten => usize::from(task.cdb.u16(7)),
    };
    cut(data, allocation_bytes)
}

/// The pages that the CDB asks for.
fn pages(mode: &Mode, cdb: &Cdb) -> Result<BytesMut, Refusal> {
    let (control, code, subpage) = (cdb.u8(2) >> 6, cdb.u8(2) & 0x3f, cdb.u8(3));
    let one = |code: u8| match control {
        0 => page(code, mode.current),
        1 => changeable(code, mode.default),
        _ => page(code, mode.default),
    };
    if control == 3 {
        return Err(Sense::illegal(AdditionalSense::SAVING_NOT_SUPPORTED).into());
    }
    if subpage != 0 && subpage != ALL_SUBPAGES {
        return Err(Sense::invalid_cdb(3).into());
    }
    let mut out = BytesMut::new();
    if code == ALL_PAGES {
        for page in PAGES.into_iter().filter_map(one) {
            out.put_slice(&page);
        }
        return Ok(out);
    }
    let page = one(code).ok_or(Sense::invalid_cdb(2))?;
    out.put_slice(&page);
    Ok(out)
}

/// The block descriptor (SBC-3 6.4.2): the number of blocks and their length.
fn block_descriptor(size: VolumeSize, long: bool) -> BytesMut {
    let mut out = BytesMut::with_capacity(16);
    if long {
        out.put_u64(size.sectors());
        out.put_u32(0);
    } else {
        out.put_u32(u32::try_from(size.sectors()).unwrap_or(u32::MAX));
    }
    out.put_u32(SECTOR_BYTES_32);
    out
}

fn encode(header: Header, mode: &Mode, long: bool, descriptor: &[u8], pages: &[u8]) -> BytesMut {
    const WRITE_PROTECTED: u8 = 0x80;
    const DPO_FUA: u8 = 0x10;
    let device = if mode.is_write_protected() {
        WRITE_PROTECTED | DPO_FUA
    } else {
        DPO_FUA
    };
    let total = header.bytes() + descriptor.len() + pages.len();
    let mut out = BytesMut::with_capacity(total);
    match header {
        Header::Six => {
            out.put_u8(u8::try_from(total - 1).unwrap_or(u8::MAX));
            out.put_slice(&[0, device]);
            out.put_u8(u8::try_from(descriptor.len()).unwrap_or(u8::MAX));
        }
        Header::Ten => {
            out.put_u16(u16::try_from(total - 2).unwrap_or(u16::MAX));
            out.put_slice(&[0, device, u8::from(long), 0]);
            out.put_u16(u16::try_from(descriptor.len()).unwrap_or(u16::MAX));
        }
    }
    out.put_slice(descriptor);
    out.put_slice(pages);
    out
}

/// MODE SELECT: all of the list is checked before anything changes. Turning the write cache off
/// makes durable what is in it.
pub(super) fn mode_select(unit: &mut LogicalUnit, task: &Task) -> Handled {
    const PAGE_FORMAT_BIT: u8 = 4;
    const SAVE_BIT: u8 = 0;
    if task.cdb.bit(1, SAVE_BIT) {
        return Err(Sense::invalid_cdb_bit(1, SAVE_BIT).into());
    }
    let header = Header::of(&task.cdb);
    let bytes = match header {
        Header::Six => usize::from(task.cdb.u8(4)),
        Header::Ten => usize::from(task.cdb.u16(7)),
    };
    if bytes == 0 {
        return Ok(Step::Good);
    }
    if !task.cdb.bit(1, PAGE_FORMAT_BIT) {
        return Err(Sense::invalid_cdb_bit(1, PAGE_FORMAT_BIT).into());
    }
    let list = task.parameters(bytes)?;
    let selected = select(&list, header, unit.size, &unit.mode)?;
    if selected == unit.mode.current {
        return Ok(Step::Good);
    }
    let turned_off = unit.mode.current.write_cache && !selected.write_cache;
    unit.mode.current = selected;
    unit.attend_others(task.nexus, AdditionalSense::MODE_PARAMETERS_CHANGED);
    if turned_off {
        return Ok(Step::Run(vec![Operation::Flush], After::Good));
    }
    Ok(Step::Good)
}

fn select(list: &[u8], header: Header, size: VolumeSize, mode: &Mode) -> Result<Values, Refusal> {
    let mut values = mode.current;
    let cut_short = || Refusal::from(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    let (head, rest) = list
        .split_at_checked(header.bytes())
        .ok_or_else(cut_short)?;
    let (long, descriptor_bytes, length_at) = match header {
        Header::Six => (false, usize::from(head[3]), 3),
        Header::Ten => (
            head[4] & 1 != 0,
            usize::from(u16::from_be_bytes([head[6], head[7]])),
            6,
        ),
    };
    let (descriptor, mut pages) = rest
        .split_at_checked(descriptor_bytes)
        .ok_or_else(cut_short)?;
    check_descriptor(descriptor, long, size, header.bytes(), length_at)?;
    while !pages.is_empty() {
        let at = list.len() - pages.len();
        let bytes = match pages {
            [_, length, rest @ ..] if rest.len() >= usize::from(*length) => {
                2 + usize::from(*length)
            }
            _ => return Err(cut_short()),
        };
        let (page, rest) = pages.split_at(bytes);
        select_page(page, at, mode.default, &mut values)?;
        pages = rest;
    }
    Ok(values)
}

/// The block descriptor may repeat what is; nothing of it can be changed.
fn check_descriptor(
    mut descriptor: &[u8],
    long: bool,
    size: VolumeSize,
    at: usize,
    length_at: usize,
) -> Result<(), Sense> {
    if descriptor.is_empty() {
        return Ok(());
    }
    if descriptor.len() != if long { 16 } else { 8 } {
        return Err(Sense::invalid_parameter(length_at));
    }
    let (blocks, most) = if long {
        let blocks = descriptor.get_u64();
        descriptor.advance(4);
        (blocks, u64::MAX)
    } else {
        (u64::from(descriptor.get_u32()), u64::from(u32::MAX))
    };
    if blocks != 0 && blocks != most && blocks != size.sectors() {
        return Err(Sense::invalid_parameter(at));
    }
    let block_bytes = u64::from(descriptor.get_u32() & 0xff_ffff);
    if block_bytes != 0 && block_bytes != SECTOR_BYTES {
        return Err(Sense::invalid_parameter(at + if long { 12 } else { 5 }));
    }
    Ok(())
}

fn select_page(
    wanted: &[u8],
    at: usize,
    default: Values,
    values: &mut Values,
) -> Result<(), Refusal> {
    const PARAMETERS_SAVABLE: u8 = 0x80;
    let code = wanted.first().map_or(0, |byte| byte & !PARAMETERS_SAVABLE);
    let (Some(current), Some(mask)) = (page(code, *values), changeable(code, default)) else {
        return Err(Sense::invalid_parameter(at).into());
    };
    if wanted.len() != current.len() {
        return Err(Sense::invalid_parameter(at + 1).into());
    }
    for (index, ((wanted, current), mask)) in
        wanted.iter().zip(&current).zip(&mask).enumerate().skip(2)
    {
        if (wanted ^ current) & !mask != 0 {
            return Err(Sense::invalid_parameter(at + index).into());
        }
    }
    let byte = |index: usize| wanted.get(index).copied().unwrap_or(0);
    if code == CACHING {
        values.write_cache = byte(2) & WCE != 0;
    } else {
        values.descriptor_sense = byte(2) & D_SENSE != 0;
        values.write_protect = byte(4) & SWP != 0;
    }
    Ok(())
}
