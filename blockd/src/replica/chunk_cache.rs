//! What is known of a chunk in memory: the slots and sums of its blocks as a read finds them, and the
//! head's map record.
//!
//! Both are those of the block's newest copy, in whatever layer that is, so a chain of many layers
//! takes no more room than one. The slot is always the index's, see `Replica::set_newest`. Sums of
//! blocks that were written to the head may be newer than those in its `.sum` file (*unwritten*).
//! Bounded by a budget that all replicas of a daemon share. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ankole_proto::{ChunkNumber, VolumeSize};

use super::index::HOLE;
use crate::layer::{MapRecord, PLACES};

/// Blocks that a [`Line`] tells of.
const PER_LINE: usize = 12;
/// Lines of a page.
const LINES: usize = PLACES.div_ceil(PER_LINE);
/// What a replica may hold however many there are: one chunk's sums for each of its busiest places.
const PAGES_MIN: usize = 64;
/// Memory that a page takes.
const PAGE_BYTES: usize = size_of::<Page>();

/// How much memory the caches of all replicas of a daemon may take together.
#[derive(Debug)]
pub struct CacheBudget {
    bytes: usize,
    replicas: AtomicUsize,
}

impl CacheBudget {
    /// What a daemon takes when nobody says otherwise.
    pub const DEFAULT_BYTES: usize = 64 << 20;

    /// Of so many bytes, divided evenly among the replicas; each gets 64 chunks (184 KiB) at least.
    pub fn of(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            replicas: AtomicUsize::new(0),
        })
    }

    fn pages_each(&self) -> usize {
        let replicas = self.replicas.load(Ordering::Relaxed).max(1);
        (self.bytes / PAGE_BYTES / replicas).max(PAGES_MIN)
    }
}

/// A replica's part in a budget.
#[derive(Debug)]
struct Share(Arc<CacheBudget>);

impl Share {
    fn of(budget: &Arc<CacheBudget>) -> Self {
        budget.replicas.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(budget))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.replicas.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of one chunk.
#[derive(Debug, Clone)]
pub(super) struct Page {
    lines: [Line; LINES],
    record: Option<MapRecord>,
    /// Of the head that `record` and `is_backed` are about.
    head: u64,
    is_backed: bool,
    /// It is among those that are to be written.
    is_queued: bool,
    recently_used: bool,
}

/// What is known of a few blocks one behind the other: all that a read needs to know of a block is in
/// one line of the processor's caches.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line {
    sums: [u32; PER_LINE],
    slots: [u8; PER_LINE],
    /// A bit for each block whose sum and slot are known.
    known: u16,
    unwritten: u16,
}

const _: () = assert!(size_of::<Line>() == 64);

/// A block's line, and where it is in it.
const fn split(place: usize) -> (usize, usize) {
    (place / PER_LINE % LINES, place % PER_LINE)
}

impl Page {
    fn new(head: u64) -> Self {
        Self {
            lines: [Line::default(); LINES],
            record: None,
            head,
            is_backed: false,
            is_queued: false,
            recently_used: true,
        }
    }

    /// The sum of the block in this place, if it is known.
    pub(super) fn sum(&self, place: usize) -> Option<u32> {
        self.newest(place).map(|(_, sum)| sum)
    }

    /// The slot and the sum of the block in this place, if they are known.
    pub(super) fn newest(&self, place: usize) -> Option<(u8, u32)> {
        let (line, at) = split(place);
        let line = &self.lines[line];
        (line.known & 1 << at != 0).then(|| (line.slots[at], line.sums[at]))
    }

    /// Takes a sum that the file of the block's layer has too.
    pub(super) fn learn(&mut self, place: usize, slot: u8, sum: u32) {
        let (line, at) = split(place);
        let line = &mut self.lines[line];
        line.known |= 1 << at;
        (line.slots[at], line.sums[at]) = (slot, sum);
    }

    /// The block's newest copy is in another slot now.
    fn move_to(&mut self, place: usize, slot: u8) {
        let (line, at) = split(place);
        self.lines[line].slots[at] = slot;
    }

    /// Forgets a block's sum, written or not: the block is another now, or none.
    pub(super) fn forget(&mut self, place: usize) {
        let (line, at) = split(place);
        let line = &mut self.lines[line];
        line.known &= !(1 << at);
        line.unwritten &= !(1 << at);
    }

    /// Whether sums are to be written to the head's file.
    pub(super) fn has_unwritten(&self) -> bool {
        self.lines.iter().any(|line| line.unwritten != 0)
    }

    fn is_unwritten(&self, place: usize) -> bool {
        let (line, at) = split(place);
        self.lines[line].unwritten & 1 << at != 0
    }

    fn set_unwritten(&mut self, place: usize) {
        let (line, at) = split(place);
        self.lines[line].unwritten |= 1 << at;
    }

    /// The runs of known sums that hold unwritten ones: their first place, and the bytes for the
    /// file. Known ones that are not unwritten are in the file already, or belong to blocks that
    /// the head does not hold, whose places in its file say nothing.
    pub(super) fn unwritten_runs(&self) -> Vec<(usize, Vec<u8>)> {
        let mut runs = Vec::new();
        let mut place = 0;
        while place < PLACES {
            if !self.is_unwritten(place) {
                place += 1;
                continue;
            }
            let first = place;
            let (mut bytes, mut length) = (Vec::new(), 0);
            while place < PLACES
                && let Some(sum) = self.sum(place)
            {
                bytes.extend(sum.to_le_bytes());
                if self.is_unwritten(place) {
                    length = bytes.len();
                }
                place += 1;
            }
            bytes.truncate(length);
            runs.push((first, bytes));
        }
        runs
    }
}

/// The pages of a replica.
#[derive(Debug)]
pub(super) struct ChunkCache {
    share: Share,
    pages: Vec<Option<Box<Page>>>,
    /// Chunks with pages, in the order in which they are looked at when room is needed.
    order: VecDeque<u64>,
    /// Chunks whose pages became unwritten; among them some whose pages have gone since.
    unwritten: VecDeque<u64>,
    /// Pages that are queued there.
    queued: usize,
    /// Counts heads.
    head: u64,
}

impl ChunkCache {
    /// An empty one.
    pub(super) fn new(size: VolumeSize, budget: &Arc<CacheBudget>) -> Self {
        let mut cache = Self {
            share: Share::of(budget),
            pages: Vec::new(),
            order: VecDeque::new(),
            unwritten: VecDeque::new(),
            queued: 0,
            head: 0,
        };
        cache.grow(size);
        cache
    }

    /// Takes part in another budget from now on.
    pub(super) fn share(&mut self, budget: &Arc<CacheBudget>) {
        self.share = Share::of(budget);
    }

    /// Makes room for a larger volume.
    pub(super) fn grow(&mut self, size: VolumeSize) {
        let chunks = usize::try_from(size.chunks()).unwrap_or(usize::MAX);
        self.pages
            .resize_with(chunks.max(self.pages.len()), || None);
    }

    fn place(chunk: ChunkNumber) -> usize {
        usize::try_from(chunk.raw()).unwrap_or(usize::MAX)
    }

    /// A chunk's page, if there is one.
    pub(super) fn page(&self, chunk: ChunkNumber) -> Option<&Page> {
        self.pages.get(Self::place(chunk))?.as_deref()
    }

    /// A chunk's page, if there is one; it does not become younger by that.
    fn unused_page(&mut self, chunk: ChunkNumber) -> Option<&mut Page> {
        self.pages.get_mut(Self::place(chunk))?.as_deref_mut()
    }

    /// A chunk's page, if there is one.
    pub(super) fn page_mut(&mut self, chunk: ChunkNumber) -> Option<&mut Page> {
        let page = self.unused_page(chunk)?;
        page.recently_used = true;
        Some(page)
    }

    /// Whether a page has to go before another may come.
    pub(super) fn is_full(&self) -> bool {
        self.order.len() >= self.share.0.pages_each()
    }

    /// The chunk whose page should go: one that was not used for a while.
    pub(super) fn victim(&mut self) -> Option<ChunkNumber> {
        // The second time round all count as not used.
        for _ in 0..2 * self.order.len() {
            let number = self.order.pop_front()?;
            self.order.push_back(number);
            let chunk = ChunkNumber::from_raw(number);
            match self.pages.get_mut(Self::place(chunk)) {
                Some(Some(page)) if page.recently_used => page.recently_used = false,
                _ => return Some(chunk),
            }
        }
        None
    }

    /// Lets a page go, with whatever is unwritten of it.
    pub(super) fn drop_page(&mut self, chunk: ChunkNumber) {
        if let Some(page) = self.pages.get_mut(Self::place(chunk))
            && let Some(page) = page.take()
        {
            self.queued -= usize::from(page.is_queued);
            // A victim stands last.
            if self.order.back() == Some(&chunk.raw()) {
                self.order.pop_back();
            } else {
                self.order.retain(|number| *number != chunk.raw());
            }
        }
    }

    /// A chunk's page, made when there is none.
    pub(super) fn make_page(&mut self, chunk: ChunkNumber) -> Option<&mut Page> {
        let page = self.pages.get_mut(Self::place(chunk))?;
        if page.is_none() {
            self.order.push_back(chunk.raw());
        }
        Some(page.get_or_insert_with(|| Box::new(Page::new(self.head))))
    }

    /// The newest copy of a block, if it has one, is in this slot now. When it is another copy, its sum
    /// has to be told or forgotten too.
    pub(super) fn moved(&mut self, chunk: ChunkNumber, place: usize, slot: u8) {
        if let Some(page) = self.page_mut(chunk) {
            if slot == HOLE {
                page.forget(place);
            } else {
                page.move_to(place, slot);
            }
        }
    }

    /// Takes the sum of a block that was written to the head and is not in its file.
    pub(super) fn put_unwritten(&mut self, chunk: ChunkNumber, place: usize, slot: u8, sum: u32) {
        let Some(page) = self.page_mut(chunk) else {
            return;
        };
        page.learn(place, slot, sum);
        page.set_unwritten(place);
        self.queue(chunk);
    }

    /// Puts a chunk that has a page among those that are to be written.
    fn queue(&mut self, chunk: ChunkNumber) {
        if let Some(page) = self.page_mut(chunk)
            && !std::mem::replace(&mut page.is_queued, true)
        {
            self.unwritten.push_back(chunk.raw());
            self.queued += 1;
            if self.unwritten.len() > 2 * self.queued + PAGES_MIN {
                self.forget_gone();
            }
        }
    }

    /// Takes chunks off the queue whose pages have gone; those that are queued twice, once.
    fn forget_gone(&mut self) {
        let mut waiting = std::mem::take(&mut self.unwritten);
        waiting.retain(|number| self.unqueue(ChunkNumber::from_raw(*number)));
        for number in &waiting {
            if let Some(page) = self.unused_page(ChunkNumber::from_raw(*number)) {
                page.is_queued = true;
            }
        }
        self.queued = waiting.len();
        self.unwritten = waiting;
    }

    /// Whether the chunk's page was queued until now.
    fn unqueue(&mut self, chunk: ChunkNumber) -> bool {
        let page = self.unused_page(chunk);
        let was_queued = page.is_some_and(|page| std::mem::take(&mut page.is_queued));
        self.queued -= usize::from(was_queued);
        was_queued
    }

    /// A chunk that may have unwritten sums; `None` when there is none.
    pub(super) fn next_unwritten(&mut self) -> Option<ChunkNumber> {
        loop {
            let chunk = ChunkNumber::from_raw(self.unwritten.pop_front()?);
            if self.unqueue(chunk) {
                return Some(chunk);
            }
        }
    }

    /// The sums of a chunk could not be written now.
    pub(super) fn still_unwritten(&mut self, chunk: ChunkNumber) {
        self.queue(chunk);
    }

    /// Whether any sums are unwritten.
    pub(super) const fn has_unwritten(&self) -> bool {
        self.queued > 0
    }

    /// All sums of the chunk are in the files.
    pub(super) fn written(&mut self, chunk: ChunkNumber) {
        let head = self.head;
        if let Some(page) = self.page_mut(chunk) {
            page.lines.iter_mut().for_each(|line| line.unwritten = 0);
            page.head_is(head);
            page.is_backed = true;
        }
    }

    /// Whether the head's file has space for the sums of the chunk.
    pub(super) fn is_backed(&self, chunk: ChunkNumber) -> bool {
        self.page(chunk)
            .is_some_and(|page| page.head == self.head && page.is_backed)
    }

    /// The head's file has space for the sums of the chunk.
    pub(super) fn set_backed(&mut self, chunk: ChunkNumber) {
        let head = self.head;
        if let Some(page) = self.page_mut(chunk) {
            page.head_is(head);
            page.is_backed = true;
        }
    }

    /// The head's map record of the chunk, if it is known.
    pub(super) fn record(&self, chunk: ChunkNumber) -> Option<MapRecord> {
        let page = self.page(chunk)?;
        page.record.filter(|_| page.head == self.head)
    }

    /// Takes the head's map record, if the chunk has a page.
    pub(super) fn put_record(&mut self, chunk: ChunkNumber, record: &MapRecord) {
        let head = self.head;
        if let Some(page) = self.page_mut(chunk) {
            page.head_is(head);
            page.record = Some(*record);
        }
    }

    /// Another layer is the head; blocks are where they were.
    pub(super) const fn next_head(&mut self) {
        self.head += 1;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        for number in self.order.drain(..) {
            if let Some(page) = self
                .pages
                .get_mut(Self::place(ChunkNumber::from_raw(number)))
            {
                *page = None;
            }
        }
        self.unwritten.clear();
        self.queued = 0;
    }
}

impl Page {
    fn head_is(&mut self, head: u64) {
        if self.head != head {
            self.head = head;
            self.record = None;
            self.is_backed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(budget: &Arc<CacheBudget>) -> ChunkCache {
        ChunkCache::new(VolumeSize::from_bytes(1 << 30).unwrap(), budget)
    }

    fn chunk(raw: u64) -> ChunkNumber {
        ChunkNumber::from_raw(raw)
    }

    #[test]
    fn chunks_whose_pages_have_gone_do_not_pile_up_among_the_unwritten() {
        let mut cache = cache(&CacheBudget::of(0));
        for round in 0..10_000 {
            let chunk = chunk(round % 500);
            if cache.is_full() {
                let victim = cache.victim().unwrap();
                cache.drop_page(victim);
            }
            cache.make_page(chunk).unwrap();
            cache.put_unwritten(chunk, 1, 2, 3);
            assert!(cache.unwritten.len() <= 4 * PAGES_MIN);
        }
        let mut told = std::iter::from_fn(|| cache.next_unwritten()).collect::<Vec<_>>();
        assert!(!cache.has_unwritten());
        told.sort_unstable();
        let pages: Vec<_> = (436..500).map(chunk).collect();
        assert_eq!(told, pages);
    }

    #[test]
    fn unwritten_sums_are_told_in_runs_over_known_ones() {
        let mut cache = cache(&CacheBudget::of(1 << 20));
        let page = cache.make_page(chunk(3)).unwrap();
        page.learn(6, 1, 60);
        page.learn(8, 2, 80);
        for (place, sum) in [(5, 50), (7, 70), (9, 90), (511, 1)] {
            cache.put_unwritten(chunk(3), place, 3, sum);
        }
        cache.page_mut(chunk(3)).unwrap().forget(9);
        let runs = cache.page(chunk(3)).unwrap().unwritten_runs();
        let wanted: Vec<u8> = [50_u32, 60, 70]
            .iter()
            .flat_map(|sum| sum.to_le_bytes())
            .collect();
        assert_eq!(runs, [(5, wanted), (511, vec![1, 0, 0, 0])]);
        assert_eq!(cache.next_unwritten(), Some(chunk(3)));
        cache.written(chunk(3));
        assert!(!cache.has_unwritten() && cache.is_backed(chunk(3)));
        assert_eq!(cache.page(chunk(3)).unwrap().sum(7), Some(70));
    }

    #[test]
    fn the_record_and_the_space_are_of_one_head_only() {
        let mut cache = cache(&CacheBudget::of(1 << 20));
        cache.make_page(chunk(0)).unwrap().learn(1, 1, 10);
        cache.put_record(chunk(0), &MapRecord::default());
        cache.set_backed(chunk(0));
        cache.next_head();
        assert!(cache.record(chunk(0)).is_none() && !cache.is_backed(chunk(0)));
        assert_eq!(cache.page(chunk(0)).unwrap().sum(1), Some(10));
    }

    #[test]
    fn replicas_share_a_budget_and_let_go_what_was_not_used() {
        let budget = CacheBudget::of(PAGE_BYTES * PAGES_MIN * 4);
        let mut first = cache(&budget);
        for number in 0..PAGES_MIN as u64 * 2 {
            assert!(!first.is_full());
            first.make_page(chunk(number)).unwrap();
        }
        let second = cache(&budget);
        assert!(first.is_full() && !second.is_full());
        // All are as new; the second time round the first is the oldest that was not used.
        assert_eq!(first.victim(), Some(chunk(0)));
        first.page_mut(chunk(1)).unwrap();
        assert_eq!(first.victim(), Some(chunk(2)));
        first.drop_page(chunk(2));
        assert!(!first.is_full() && first.page(chunk(2)).is_none());
    }
}
