//! What clients saw, and whether some order of the operations explains it.
//!
//! Every write puts its number into each of its sectors, so a read tells which write each sector
//! came from. A write W is *superseded* for a read R when another write S of that sector was known
//! to be in effect (acknowledged, or seen there by a read) before R began, and W had ended before S
//! began: then no order of the operations lets R return W. This is checked sector by sector.
//!
//! A write that was not answered may take effect or not, but only until the next engine serves
//! the volume: what is in flight is settled before that. When every in-sync replica has lost its
//! power, acknowledged writes that no flush covers are *at risk*: they may be gone, unless a later
//! flush of the same engine claims to cover them (INV-5).
//!
//! Going back to a snapshot is a write of the whole volume, which shows any of the writes that
//! explain the snapshot.

mod clone;
mod cut;
mod unexplained;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ankole_proto::{Extent, SECTOR_BYTES};

use super::engine::EngineId;
use super::workload::{self, SECTOR};

pub(super) use cut::Bounds;
pub(super) use unexplained::{Superseded, Unexplained};

/// A write's number; 0 is the state before any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WriteId(pub(super) u64);

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not answered, or answered with a failure: nobody knows.
    Open,
    Acknowledged,
    /// Acknowledged, and the power failed before a flush covered it.
    AtRisk,
    /// Acknowledged and covered by a flush.
    Durable,
    /// It was refused whole.
    Refused,
}

#[derive(Debug, Clone)]
struct Write {
    /// The salt of the history in which it began.
    salt: u64,
    engine: EngineId,
    extent: Extent,
    content: Content,
    begin: Duration,
    /// When it was answered, or when it was settled that nothing more comes of it.
    end: Option<Duration>,
    fate: Fate,
    answered: bool,
}

/// What a write puts on its sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Its number.
    Number,
    Zeros,
    /// What a snapshot holds.
    Snapshot,
}

/// A write as one sector knows it.
#[derive(Debug, Clone)]
struct Version {
    write: usize,
    /// The first read that returned it here ended then.
    seen: Option<Duration>,
    /// Of a snapshot: the writes that may be read.
    shows: BTreeSet<Option<WriteId>>,
}

impl Version {
    fn id(&self) -> WriteId {
        WriteId(self.write as u64 + 1)
    }
}

impl Write {
    /// Whether it may still show when another one that began at `after` is in effect.
    fn is_possible(&self, after: Duration) -> bool {
        self.fate != Fate::Refused && self.end.is_none_or(|end| end >= after)
    }
}

/// Everything that was asked and answered.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// Sets the data of this volume's writes apart from those of another one with the same numbers.
    salt: u64,
    writes: Vec<Write>,
    /// The writes of each sector, in the order in which they began.
    by_sector: BTreeMap<u64, Vec<Version>>,
}

fn sectors(extent: Extent) -> std::ops::Range<u64> {
    extent.offset() / SECTOR_BYTES..extent.end() / SECTOR_BYTES
}

fn index(id: WriteId) -> Option<usize> {
    usize::try_from(id.0).ok()?.checked_sub(1)
}

impl History {
    /// Of a volume that begins empty.
    pub(super) fn new(salt: u64) -> Self {
        Self {
            salt,
            ..Self::default()
        }
    }

    fn write(&self, id: WriteId) -> Option<&Write> {
        self.writes.get(index(id)?)
    }

    fn write_mut(&mut self, id: WriteId) -> Option<&mut Write> {
        self.writes.get_mut(index(id)?)
    }

    fn add(
        &mut self,
        engine: EngineId,
        extent: Extent,
        content: Content,
        begin: Duration,
    ) -> WriteId {
        self.writes.push(Write {
            salt: self.salt,
            engine,
            extent,
            content,
            begin,
            end: None,
            fate: Fate::Open,
            answered: false,
        });
        WriteId(self.writes.len() as u64)
    }

    fn version(&mut self, sector: u64, id: WriteId, shows: BTreeSet<Option<WriteId>>) {
        let version = Version {
            write: index(id).unwrap_or_default(),
            seen: None,
            shows,
        };
        self.by_sector.entry(sector).or_default().push(version);
    }

    /// A mutation was submitted to an engine.
    pub(super) fn begin(
        &mut self,
        engine: EngineId,
        extent: Extent,
        content: Content,
        now: Duration,
    ) -> WriteId {
        let id = self.add(engine, extent, content, now);
        for sector in sectors(extent) {
            if !self.by_sector.contains_key(&sector) {
                self.revert_to_nothing(sector);
            }
            self.version(sector, id, BTreeSet::new());
        }
        id
    }

    /// Reverts under way leave a sector as it was before anything was written there.
    fn revert_to_nothing(&mut self, sector: u64) {
        let reverts = self.writes.iter().enumerate().filter(|(_, write)| {
            let open = write.end.is_none() && write.fate == Fate::Open;
            write.content == Content::Snapshot && open && sectors(write.extent).contains(&sector)
        });
        let open: Vec<u64> = reverts.map(|(place, _)| place as u64 + 1).collect();
        for id in open {
            self.version(sector, WriteId(id), BTreeSet::from([None]));
        }
    }

    /// The managers were asked to bring back a snapshot that was taken between `taken` and `done`.
    pub(super) fn begin_revert(
        &mut self,
        taken: Duration,
        done: Duration,
        now: Duration,
    ) -> WriteId {
        // Of no engine: whichever is there when the time has come carries it out. Until then the
        // volume may have grown.
        let engine = EngineId(u64::MAX);
        let id = self.add(engine, workload::everything(), Content::Snapshot, now);
        let known: Vec<u64> = self.by_sector.keys().copied().collect();
        for sector in known {
            let shows = self.explanations(sector, taken, done);
            self.version(sector, id, shows);
        }
        id
    }

    /// Everything that a sector may hold at one moment of a span of time.
    fn explanations(
        &self,
        sector: u64,
        begin: Duration,
        end: Duration,
    ) -> BTreeSet<Option<WriteId>> {
        let newest = self.newest(sector, begin, end).map(|(_, write)| write);
        let after = newest.map_or(Duration::ZERO, |write| write.begin);
        let mut found: BTreeSet<Option<WriteId>> = BTreeSet::new();
        for (version, write) in self.known(sector, end) {
            match write.content {
                _ if !write.is_possible(after) => {}
                Content::Number => drop(found.insert(Some(version.id()))),
                Content::Zeros => drop(found.insert(None)),
                Content::Snapshot => found.extend(&version.shows),
            }
        }
        if newest.is_none() {
            found.insert(None);
        }
        found
    }

    /// The data that a write puts on its extent.
    pub(super) fn data(&self, id: WriteId, extent: Extent) -> Vec<u8> {
        let salt = self.write(id).map_or(self.salt, |write| write.salt);
        let mut data = Vec::with_capacity(usize::try_from(extent.length()).unwrap_or_default());
        for sector in sectors(extent) {
            data.extend_from_slice(&Self::sector(salt, id, sector));
        }
        data
    }

    fn sector(salt: u64, id: WriteId, sector: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        bytes[..8].copy_from_slice(&id.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&sector.to_le_bytes());
        let noise = (salt ^ id.0 ^ sector.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes[SECTOR - 8..].copy_from_slice(&noise.to_le_bytes());
        bytes
    }

    /// A mutation was acknowledged; `durable` when it was asked to be durable.
    pub(super) fn acknowledge(&mut self, id: WriteId, durable: bool, now: Duration) {
        if let Some(write) = self.write_mut(id) {
            write.end = Some(now);
            write.answered = true;
            write.fate = if durable {
                Fate::Durable
            } else {
                Fate::Acknowledged
            };
        }
    }

    /// A mutation failed: nobody knows whether it took effect.
    pub(super) fn fail(&mut self, id: WriteId) {
        if let Some(write) = self.write_mut(id) {
            write.answered = true;
        }
    }

    /// A mutation was refused whole: it never takes effect.
    pub(super) fn refuse(&mut self, id: WriteId, now: Duration) {
        if let Some(write) = self.write_mut(id) {
            write.answered = true;
            write.end = Some(now);
            write.fate = Fate::Refused;
        }
    }

    /// A flush of an engine that was submitted at `begin` was acknowledged.
    pub(super) fn flush(&mut self, engine: EngineId, begin: Duration) {
        for write in &mut self.writes {
            let before = write.end.is_some_and(|end| end <= begin);
            let covered = match write.fate {
                Fate::Acknowledged => before,
                // What may be lost is not made good by a later engine's flush.
                Fate::AtRisk => before && write.engine == engine,
                Fate::Open | Fate::Durable | Fate::Refused => false,
            };
            if covered {
                write.fate = Fate::Durable;
            }
        }
    }

    /// A flush of an engine failed: its client knows that what is at risk may be gone.
    pub(super) fn flush_failed(&mut self, engine: EngineId) {
        for write in &mut self.writes {
            if write.fate == Fate::AtRisk && write.engine == engine {
                write.fate = Fate::Open;
            }
        }
    }

    /// An engine serves: writes of older engines that were not answered take effect no more.
    pub(super) fn settle(&mut self, serving: EngineId, now: Duration) {
        for write in &mut self.writes {
            if write.engine < serving && write.end.is_none() {
                write.end = Some(now);
            }
        }
    }

    /// Every replica that held all of it lost its power: what no flush covers may be gone.
    pub(super) fn power_cut(&mut self) {
        for write in &mut self.writes {
            if write.fate == Fate::Acknowledged {
                write.fate = Fate::AtRisk;
            }
        }
        for version in self.by_sector.values_mut().flatten() {
            let write = self.writes.get(version.write);
            if write.is_some_and(|write| write.fate != Fate::Durable) {
                version.seen = None;
            }
        }
    }

    /// Judges a read of `data` at `extent` by an engine, and remembers what it saw.
    ///
    /// # Errors
    ///
    /// Why no order of the operations explains it.
    pub(super) fn read(
        &mut self,
        engine: EngineId,
        extent: Extent,
        data: &[u8],
        begin: Duration,
        now: Duration,
    ) -> Result<(), Unexplained> {
        for (sector, bytes) in sectors(extent).zip(data.chunks(SECTOR)) {
            let id = self.identify(sector, bytes)?;
            self.judge(engine, sector, id, begin)?;
            let Some(place) = id.and_then(index) else {
                continue;
            };
            let versions = self.by_sector.get_mut(&sector).into_iter().flatten();
            // What a revert may have brought back says nothing of when.
            let mut later = versions.skip_while(|version| version.write != place);
            if let Some(own) = later.next()
                && !later.any(|version| version.shows.contains(&id))
            {
                own.seen = Some(own.seen.map_or(now, |seen| seen.min(now)));
            }
        }
        Ok(())
    }

    /// Judges the contents of a sector at one moment between `begin` and `end`, such as a
    /// snapshot's.
    pub(super) fn explain(
        &self,
        sector: u64,
        bytes: &[u8],
        begin: Duration,
        end: Duration,
    ) -> Result<(), Unexplained> {
        let id = self.identify(sector, bytes)?;
        self.supersession(sector, id, begin, end)
    }

    /// Judges what a sector would be if the power of its host failed now: nothing older than what a
    /// flush or FUA has covered. What has rotted is not judged.
    pub(super) fn outlives_power(&self, sector: u64, bytes: &[u8]) -> Result<(), Unexplained> {
        let Ok(id) = self.identify(sector, bytes) else {
            return Ok(());
        };
        let durable = self
            .known(sector, Duration::MAX)
            .filter(|(_, write)| write.fate == Fate::Durable)
            .max_by_key(|(_, write)| write.begin);
        self.explained_since(sector, id, durable, Duration::MAX)
    }

    /// Which write a sector's bytes are of; `None` for zeros.
    fn identify(&self, sector: u64, bytes: &[u8]) -> Result<Option<WriteId>, Unexplained> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let raw = bytes
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let id = WriteId(raw);
        let written = self
            .write(id)
            .filter(|write| write.content == Content::Number)
            .filter(|write| sectors(write.extent).contains(&sector))
            .ok_or_else(|| {
                let text = format!("sector {sector} holds what nobody wrote there ({raw:#x})");
                Unexplained::MadeUp(text)
            })?;
        if Self::sector(written.salt, id, sector) == bytes {
            Ok(Some(id))
        } else {
            let text = format!("sector {sector} is torn: it begins like {written:?}");
            Err(Unexplained::MadeUp(text))
        }
    }

    fn judge(
        &self,
        engine: EngineId,
        sector: u64,
        id: Option<WriteId>,
        begin: Duration,
    ) -> Result<(), Unexplained> {
        if let Some(write) = id.and_then(|id| self.write(id))
            && write.engine == engine
            && !write.answered
        {
            let text = format!("sector {sector}: read a write not yet acknowledged: {write:?}");
            return Err(Unexplained::Unacknowledged(text));
        }
        self.supersession(sector, id, begin, Duration::MAX)
    }

    /// The writes of a sector that had begun by `end`, in the order in which they began.
    fn known(
        &self,
        sector: u64,
        end: Duration,
    ) -> impl DoubleEndedIterator<Item = (&Version, &Write)> {
        let versions = self.by_sector.get(&sector).into_iter().flatten();
        versions
            .filter_map(|version| Some((version, self.writes.get(version.write)?)))
            .filter(move |(_, write)| write.begin <= end)
    }

    /// The last one of those that were known to be in effect before `begin`.
    fn newest(&self, sector: u64, begin: Duration, end: Duration) -> Option<(&Version, &Write)> {
        let in_effect = |(version, write): &(&Version, &Write)| {
            let acknowledged = matches!(write.fate, Fate::Acknowledged | Fate::Durable);
            let answered = acknowledged && write.end.is_some_and(|end| end < begin);
            answered || version.seen.is_some_and(|seen| seen < begin)
        };
        self.known(sector, end).rev().find(in_effect)
    }

    fn supersession(
        &self,
        sector: u64,
        id: Option<WriteId>,
        begin: Duration,
        end: Duration,
    ) -> Result<(), Unexplained> {
        let newest = self.newest(sector, begin, end);
        self.explained_since(sector, id, newest, end)
    }

    /// Whether a sector may hold this while nothing older than `newest` may show.
    fn explained_since(
        &self,
        sector: u64,
        id: Option<WriteId>,
        newest: Option<(&Version, &Write)>,
        end: Duration,
    ) -> Result<(), Unexplained> {
        let after = newest.map_or(Duration::ZERO, |(_, write)| write.begin);
        let explained = self.known(sector, end).rev().any(|(version, write)| {
            write.is_possible(after)
                && match write.content {
                    Content::Number => id == Some(version.id()),
                    Content::Zeros => id.is_none(),
                    Content::Snapshot => version.shows.contains(&id),
                }
        });
        if explained || (id.is_none() && newest.is_none()) {
            return Ok(());
        }
        let got = id.and_then(|id| Some((id, self.write(id)?.clone())));
        let missed = newest.map(|(version, write)| (version.id(), write.clone()));
        Err(Unexplained::Superseded(Box::new(Superseded {
            sector,
            got,
            missed,
        })))
    }
}

#[cfg(test)]
mod tests;
