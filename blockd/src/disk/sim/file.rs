//! The files of a simulated disk.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fate::Dice;
use super::inject::CallKind;
use super::{Honesty, PAGE_BYTES, SimDisk};
use crate::disk::{DiskFile, Sharing};

const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);
const SECTOR: usize = 512;

/// A page that holds data; absent ones are holes.
type Page = Arc<[u8; PAGE]>;

/// The page of a byte and its place there.
fn place(offset: u64) -> (u64, usize) {
    let within = usize::try_from(offset % PAGE_BYTES).unwrap_or_default();
    (offset / PAGE_BYTES, within)
}

/// One file: its present state, and for everything that changed since the last sync the states
/// that the medium may have, oldest (durable) first, without the present one.
#[derive(Debug, Clone, Default)]
struct File {
    len: u64,
    lens: Vec<u64>,
    pages: BTreeMap<u64, Page>,
    older: BTreeMap<u64, Vec<Option<Page>>>,
    /// A sync has failed: what was not durable then will not become so.
    abandoned: bool,
}

impl File {
    fn remember_page(&mut self, number: u64) {
        let now = self.pages.get(&number).cloned();
        self.older.entry(number).or_default().push(now);
    }

    fn set_page(&mut self, number: u64, page: Option<Page>) {
        self.remember_page(number);
        match page {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
    }

    fn sync(&mut self) {
        if self.abandoned {
            return;
        }
        self.lens.clear();
        self.older.clear();
    }

    fn after_crash(&self, dice: &mut Dice) -> Self {
        let mut found = Self {
            pages: self.pages.clone(),
            len: match dice.pick(self.lens.len()) {
                state if state < self.lens.len() => self.lens[state],
                _ => self.len,
            },
            ..Self::default()
        };
        for (&number, older) in &self.older {
            let now = self.pages.get(&number).cloned();
            let states: Vec<Option<Page>> = older.iter().cloned().chain([now]).collect();
            let mut page = states[dice.pick(older.len())].clone();
            // Only a page that has a place on the medium can be torn; a new one becomes visible
            // once it is whole.
            if dice.tears()
                && let (Some(first), Some(_)) = (&states[0], &page)
            {
                page = Some(torn(first, &states, dice));
            }
            match page {
                Some(page) => found.pages.insert(number, page),
                None => found.pages.remove(&number),
            };
        }
        let len = found.len;
        found.pages.retain(|number, _| number * PAGE_BYTES < len);
        found
    }
}

/// Each sector from any of the states.
fn torn(first: &Page, states: &[Option<Page>], dice: &mut Dice) -> Page {
    let mut out = **first;
    for sector in 0..PAGE / SECTOR {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        if let Some(page) = &states[dice.pick(states.len() - 1)] {
            out[range.clone()].copy_from_slice(&page[range]);
        }
    }
    Arc::new(out)
}

/// Every file of a disk, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    files: BTreeMap<u64, File>,
    next: u64,
}

impl Files {
    pub(super) fn create(&mut self) -> u64 {
        self.next += 1;
        self.files.insert(self.next, File::default());
        self.next
    }

    fn file(&self, file: u64) -> io::Result<&File> {
        self.files.get(&file).ok_or(io::ErrorKind::NotFound.into())
    }

    fn file_mut(&mut self, file: u64) -> io::Result<&mut File> {
        self.files
            .get_mut(&file)
            .ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn len(&self, file: u64) -> io::Result<u64> {
        Ok(self.file(file)?.len)
    }

    /// Pages that hold data.
    pub(super) fn pages(&self) -> u64 {
        self.files
            .values()
            .map(|file| file.pages.len() as u64)
            .sum()
    }

    /// Forgets files that have no name any more.
    pub(super) fn keep_only(&mut self, named: &BTreeSet<u64>) {
        self.files.retain(|file, _| named.contains(file));
    }

    pub(super) fn read(&self, file: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.file(file)?;
        let left = usize::try_from(file.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let mut done = 0;
        while done < wanted {
            let (page, within) = place(offset + done as u64);
            let bytes = (PAGE - within).min(wanted - done);
            let target = &mut buffer[done..done + bytes];
            match file.pages.get(&page) {
                Some(page) => target.copy_from_slice(&page[within..within + bytes]),
                None => target.fill(0),
            }
            done += bytes;
        }
        Ok(done)
    }

    /// Writes, page by page, until `free_pages` new ones are used up.
    fn write(
        &mut self,
        file: u64,
        data: &[u8],
        offset: u64,
        mut free_pages: u64,
    ) -> io::Result<()> {
        let file = self.file_mut(file)?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (number, within) = place(at);
            let bytes = (PAGE - within).min(data.len() - done);
            let mut page = match file.pages.get(&number) {
                Some(page) => **page,
                None if free_pages == 0 => return Err(io::ErrorKind::StorageFull.into()),
                None => {
                    free_pages -= 1;
                    [0; PAGE]
                }
            };
            page[within..within + bytes].copy_from_slice(&data[done..done + bytes]);
            file.set_page(number, Some(Arc::new(page)));
            done += bytes;
            if at + bytes as u64 > file.len {
                file.lens.push(file.len);
                file.len = at + bytes as u64;
            }
        }
        Ok(())
    }

    /// As a read and a write of the range, in one call: what is copied is not synced, and may be
    /// lost, torn or reordered like what is written.
    fn copy(&mut self, from: u64, to: u64, range: Range<u64>, free_pages: u64) -> io::Result<()> {
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut data = vec![0; bytes];
        if self.read(from, &mut data, range.start)? < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.write(to, &data, range.start, free_pages)
    }

    pub(super) fn set_len(&mut self, file: u64, bytes: u64) -> io::Result<()> {
        let file = self.file_mut(file)?;
        file.lens.push(file.len);
        file.len = bytes;
        let beyond: Vec<u64> = file
            .pages
            .range(bytes.div_ceil(PAGE_BYTES)..)
            .map(|(number, _)| *number)
            .collect();
        for number in beyond {
            file.set_page(number, None);
        }
        Ok(())
    }

    fn punch(&mut self, file: u64, range: Range<u64>) -> io::Result<()> {
        let file = self.file_mut(file)?;
        let (first, end) = (range.start.div_ceil(PAGE_BYTES), range.end / PAGE_BYTES);
        let inside: Vec<u64> = file.pages.range(first..end).map(|(n, _)| *n).collect();
        for number in inside {
            file.set_page(number, None);
        }
        Ok(())
    }

    fn next_data(&self, file: u64, offset: u64) -> io::Result<Option<Range<u64>>> {
        let file = self.file(file)?;
        let mut pages = file.pages.range(offset / PAGE_BYTES..).map(|(n, _)| *n);
        let Some(first) = pages.next() else {
            return Ok(None);
        };
        let mut end = first + 1;
        while pages.next() == Some(end) {
            end += 1;
        }
        let end = (end * PAGE_BYTES).min(file.len);
        Ok(Some((first * PAGE_BYTES).max(offset)..end))
    }

    pub(super) fn peek_page(&self, file: u64, byte: u64) -> Option<Vec<u8>> {
        let file = self.file(file).ok().filter(|file| byte < file.len)?;
        let page = file.pages.get(&(byte / PAGE_BYTES));
        Some(page.map_or_else(|| vec![0; PAGE], |page| page.to_vec()))
    }

    pub(super) fn flip_bit(&mut self, file: u64, byte: u64, bit: u8) -> io::Result<()> {
        let file = self.file_mut(file)?;
        if byte >= file.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut page = file
            .pages
            .get(&(byte / PAGE_BYTES))
            .map_or([0; PAGE], |page| **page);
        page[place(byte).1] ^= 1 << (bit % 8);
        file.pages.insert(byte / PAGE_BYTES, Arc::new(page));
        Ok(())
    }

    pub(super) fn take_back_flip(&mut self, file: u64, byte: u64, bit: u8, flipped: &[u8]) {
        let (number, within) = place(byte);
        let Ok(file) = self.file_mut(file) else {
            return;
        };
        let older = file.older.get_mut(&number).into_iter().flatten().flatten();
        for page in older.chain(file.pages.get_mut(&number)) {
            if page.as_slice() == flipped {
                Arc::make_mut(page)[within] ^= 1 << (bit % 8);
            }
        }
    }

    pub(super) fn after_crash(&self, dice: &mut Dice) -> Self {
        let files = self
            .files
            .iter()
            .map(|(number, file)| (*number, file.after_crash(dice)))
            .collect();
        Self {
            files,
            next: self.next,
        }
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug, Clone)]
pub struct SimFile {
    disk: SimDisk,
    file: u64,
    has_failed: Arc<AtomicBool>,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, file: u64) -> Self {
        Self {
            disk,
            file,
            has_failed: Arc::default(),
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.with(CallKind::Look, |state| {
            state.files.read(self.file, buffer, offset)
        })
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.disk.with(CallKind::Change, |state| {
            let data: Cow<'_, [u8]> = match buffers {
                [whole] => Cow::Borrowed(whole),
                parts => parts
                    .iter()
                    .map(|part| &part[..])
                    .collect::<Vec<_>>()
                    .concat()
                    .into(),
            };
            let free_pages = state.free_bytes() / PAGE_BYTES;
            state.files.write(self.file, &data, offset, free_pages)
        })
    }

    fn share_range(&self, range: Range<u64>, to: &Self) -> io::Result<Sharing> {
        self.disk.with(CallKind::Change, |state| {
            if state.injector.calls().is_multiple_of(2) {
                return Ok(Sharing::Unsupported);
            }
            let free_pages = state.free_bytes() / PAGE_BYTES;
            state.files.copy(self.file, to.file, range, free_pages)?;
            Ok(Sharing::Shared)
        })
    }

    fn copy_range(&self, range: Range<u64>, to: &Self) -> io::Result<()> {
        self.disk.with(CallKind::Change, |state| {
            let free_pages = state.free_bytes() / PAGE_BYTES;
            state.files.copy(self.file, to.file, range, free_pages)
        })
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        self.disk.with(CallKind::Change, |state| {
            state.files.punch(self.file, range)
        })
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.with(CallKind::Look, |state| {
            state.files.next_data(self.file, offset)
        })
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.disk.with(CallKind::Sync, |state| {
            if self.has_failed.load(Ordering::Relaxed) {
                return Err(io::Error::other("an earlier sync of the file has failed"));
            }
            if let (Honesty::Honest, Ok(file)) = (state.honesty, state.files.file_mut(self.file)) {
                file.sync();
            }
            Ok(())
        });
        if synced.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
            let mut state = self.disk.state.lock();
            let has_stopped = state.injector.is_stopped();
            if let (false, Ok(file)) = (has_stopped, state.files.file_mut(self.file)) {
                file.abandoned = true;
            }
        }
        synced
    }

    fn len(&self) -> io::Result<u64> {
        self.disk
            .with(CallKind::Look, |state| state.files.len(self.file))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.with(CallKind::Change, |state| {
            state.files.set_len(self.file, bytes)
        })
    }

    fn links(&self) -> io::Result<u64> {
        self.disk.with(CallKind::Look, |state| {
            Ok(state.directories.links(self.file))
        })
    }

    fn label(&self) -> String {
        format!("file {}", self.file)
    }
}
