//! A naive volume: every layer as a map of sectors, to compare a replica with.

use std::collections::BTreeMap;

/// Sectors of a volume are filled with one byte each in these tests.
pub(super) const SECTOR: u64 = 512;

/// Contents of one point in time: the byte of every sector.
pub(super) type Contents = Vec<u8>;

/// The tree of contents.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) head: u64,
    pub(super) now: Contents,
    /// Contents and parent of each sealed layer.
    pub(super) sealed: BTreeMap<u64, Contents>,
}

impl Model {
    pub(super) fn new(sectors: u64) -> Self {
        Self {
            head: 1,
            now: vec![0; usize::try_from(sectors).unwrap()],
            sealed: BTreeMap::new(),
        }
    }

    pub(super) fn fill(&mut self, first: u64, count: u64, byte: u8) {
        let (first, count) = self.inside(first, count);
        let first = usize::try_from(first).unwrap();
        self.now[first..first + usize::try_from(count).unwrap()].fill(byte);
    }

    /// The part of a range that the volume has now.
    pub(super) fn inside(&self, first: u64, count: u64) -> (u64, u64) {
        let end = self.now.len() as u64;
        (first.min(end), count.min(end.saturating_sub(first)))
    }

    pub(super) fn seal(&mut self, new_head: u64) {
        self.sealed.insert(self.head, self.now.clone());
        self.head = new_head;
    }

    pub(super) fn grow(&mut self, sectors: usize) {
        self.now.resize(sectors, 0);
    }

    pub(super) fn revert(&mut self, to: u64, new_head: u64) {
        let sectors = self.now.len();
        self.now = self.sealed[&to].clone();
        self.grow(sectors);
        self.head = new_head;
    }
}

/// The bytes as sectors; each must be of one value.
pub(super) fn sectors(bytes: &[u8]) -> Contents {
    bytes
        .chunks(usize::try_from(SECTOR).unwrap())
        .map(|sector| {
            assert_eq!(sector[1..], sector[..sector.len() - 1], "a torn sector");
            sector[0]
        })
        .collect()
}
