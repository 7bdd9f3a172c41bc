//! What clients saw, and whether some order of the operations explains it.
//!
//! Every write puts its number into each of its sectors, so a read tells which write each sector
//! came from. A write W is *superseded* for a read R when another write S of that sector was known
//! to be in effect (acknowledged, or seen by a read) before R began, and W had ended before S
//! began: then no order of the operations lets R return W. This is checked sector by sector.
//!
//! A write that was not answered may take effect or not, but only until the next engine serves
//! the volume: what is in flight is settled before that. A power cut of every host turns
//! acknowledged writes that no flush covers into such undecided ones.

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_proto::{Extent, SECTOR_BYTES};

use super::engine::EngineId;

/// A write's number; 0 is the state before any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WriteId(pub(super) u64);

#[derive(Debug, Clone)]
struct Write {
    engine: EngineId,
    extent: Extent,
    zeros: bool,
    begin: Duration,
    /// When it was acknowledged, or when it was settled that nothing more comes of it.
    end: Option<Duration>,
    acknowledged: bool,
    flushed: bool,
    answered: bool,
    /// The first read that returned it ended then.
    seen: Option<Duration>,
}

impl Write {
    fn in_effect_before(&self, moment: Duration) -> bool {
        let acknowledged = self.acknowledged && self.end.is_some_and(|end| end < moment);
        acknowledged || self.seen.is_some_and(|seen| seen < moment)
    }
}

/// Everything that was asked and answered.
#[derive(Debug)]
pub(super) struct History {
    writes: Vec<Write>,
    /// The writes of each sector, in the order in which they began.
    by_sector: BTreeMap<u64, Vec<usize>>,
}

fn sectors(extent: Extent) -> std::ops::Range<u64> {
    extent.offset() / SECTOR_BYTES..extent.end() / SECTOR_BYTES
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            writes: Vec::new(),
            by_sector: BTreeMap::new(),
        }
    }

    /// A mutation was submitted to an engine.
    pub(super) fn begin(
        &mut self,
        engine: EngineId,
        extent: Extent,
        zeros: bool,
        now: Duration,
    ) -> WriteId {
        let index = self.writes.len();
        self.writes.push(Write {
            engine,
            extent,
            zeros,
            begin: now,
            end: None,
            acknowledged: false,
            flushed: false,
            answered: false,
            seen: None,
        });
        for sector in sectors(extent) {
            self.by_sector.entry(sector).or_default().push(index);
        }
        WriteId(index as u64 + 1)
    }

    fn index(id: WriteId) -> Option<usize> {
        usize::try_from(id.0).ok()?.checked_sub(1)
    }

    /// The data that a write puts on its extent.
    pub(super) fn data(id: WriteId, extent: Extent) -> Vec<u8> {
        sectors(extent)
            .flat_map(|sector| {
                let mut bytes = [0; SECTOR_BYTES as usize];
                bytes[..8].copy_from_slice(&id.0.to_le_bytes());
                bytes[8..16].copy_from_slice(&sector.to_le_bytes());
                let noise = (id.0 ^ sector.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                bytes[SECTOR_BYTES as usize - 8..].copy_from_slice(&noise.to_le_bytes());
                bytes
            })
            .collect()
    }

    /// A mutation was acknowledged; `durable` when it was asked to be durable.
    pub(super) fn acknowledge(&mut self, id: WriteId, durable: bool, now: Duration) {
        if let Some(write) = Self::index(id).and_then(|index| self.writes.get_mut(index)) {
            write.end = Some(now);
            write.acknowledged = true;
            write.answered = true;
            write.flushed |= durable;
        }
    }

    /// A mutation failed: nobody knows whether it took effect.
    pub(super) fn fail(&mut self, id: WriteId) {
        if let Some(write) = Self::index(id).and_then(|index| self.writes.get_mut(index)) {
            write.answered = true;
        }
    }

    /// A flush that was submitted at `begin` was acknowledged.
    pub(super) fn flush(&mut self, begin: Duration) {
        for write in &mut self.writes {
            let before = write.end.is_some_and(|end| end <= begin);
            write.flushed |= write.acknowledged && before;
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

    /// Every host lost its power: what no flush covers may be gone.
    pub(super) fn power_cut(&mut self) {
        for write in &mut self.writes {
            if !write.flushed && (write.acknowledged || write.seen.is_some()) {
                write.acknowledged = false;
                write.seen = None;
                write.end = None;
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
    ) -> Result<(), String> {
        for (sector, bytes) in sectors(extent).zip(data.chunks(SECTOR_BYTES as usize)) {
            let id = self.identify(sector, bytes)?;
            self.judge(engine, sector, id, begin)?;
            if let Some(write) = id
                .and_then(Self::index)
                .and_then(|index| self.writes.get_mut(index))
            {
                write.seen = Some(write.seen.map_or(now, |seen| seen.min(now)));
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
    ) -> Result<(), String> {
        let id = self.identify(sector, bytes)?;
        if let Some(write) = id
            .and_then(Self::index)
            .and_then(|index| self.writes.get(index))
            && write.begin > end
        {
            return Err(format!(
                "sector {sector}: {write:?} began only after {end:?}"
            ));
        }
        self.supersession(sector, id, begin)
    }

    /// Which write a sector's bytes are of; `None` for zeros.
    fn identify(&self, sector: u64, bytes: &[u8]) -> Result<Option<WriteId>, String> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let raw = bytes
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let id = WriteId(raw);
        let written = Self::index(id)
            .and_then(|index| self.writes.get(index))
            .filter(|write| !write.zeros && sectors(write.extent).contains(&sector))
            .ok_or_else(|| format!("sector {sector} holds what nobody wrote there ({raw:#x})"))?;
        let at = Extent::new(sector * SECTOR_BYTES, SECTOR_BYTES)
            .ok_or_else(|| format!("sector {sector} is beyond any volume"))?;
        if Self::data(id, at) == bytes {
            Ok(Some(id))
        } else {
            Err(format!(
                "sector {sector} is torn: it begins like {written:?}"
            ))
        }
    }

    fn judge(
        &self,
        engine: EngineId,
        sector: u64,
        id: Option<WriteId>,
        begin: Duration,
    ) -> Result<(), String> {
        let write = id
            .and_then(Self::index)
            .and_then(|index| self.writes.get(index));
        if let Some(write) = write
            && write.engine == engine
            && !write.answered
        {
            // INV-8: of an engine's own writes only acknowledged ones are read.
            return Err(format!(
                "sector {sector}: read a write not yet acknowledged: {write:?}"
            ));
        }
        self.supersession(sector, id, begin)
    }

    fn supersession(
        &self,
        sector: u64,
        id: Option<WriteId>,
        begin: Duration,
    ) -> Result<(), String> {
        let Some(of_sector) = self.by_sector.get(&sector) else {
            return Ok(());
        };
        let writes = || of_sector.iter().filter_map(|index| self.writes.get(*index));
        let newest_begin = writes()
            .filter(|write| write.in_effect_before(begin))
            .map(|write| write.begin)
            .max();
        let Some(newest_begin) = newest_begin else {
            return Ok(());
        };
        let possible = |write: &Write| write.end.is_none_or(|end| end >= newest_begin);
        let explained = match id {
            Some(id) => Self::index(id)
                .and_then(|index| self.writes.get(index))
                .is_some_and(possible),
            // Zeros may come from any write of zeros; before the first write ended long ago.
            None => writes().any(|write| write.zeros && possible(write)),
        };
        if explained {
            return Ok(());
        }
        let newest = writes().filter(|write| write.begin == newest_begin).last();
        let got = id
            .and_then(Self::index)
            .and_then(|index| self.writes.get(index));
        Err(format!(
            "sector {sector}: lost {newest:?}, got {got:?} (read began {begin:?})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EngineId = EngineId(1);
    const B: EngineId = EngineId(2);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn sector() -> Extent {
        Extent::new(0, 512).unwrap()
    }

    fn written(history: &mut History, begin: u64, end: Option<u64>) -> Vec<u8> {
        let id = history.begin(A, sector(), false, at(begin));
        if let Some(end) = end {
            history.acknowledge(id, false, at(end));
        }
        History::data(id, sector())
    }

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        let mut history = History::new();
        let old = written(&mut history, 1, Some(2));
        let new = written(&mut history, 3, Some(4));
        assert!(history.read(A, sector(), &new, at(5), at(6)).is_ok());
        assert!(history.read(A, sector(), &old, at(5), at(6)).is_err());
        assert!(history.read(A, sector(), &[0; 512], at(5), at(6)).is_err());
    }

    #[test]
    fn concurrent_writes_may_end_either_way() {
        let mut history = History::new();
        let first = written(&mut history, 1, Some(4));
        let second = written(&mut history, 2, Some(3));
        assert!(history.read(A, sector(), &first, at(5), at(6)).is_ok());
        assert!(history.read(A, sector(), &second, at(5), at(6)).is_ok());
    }

    #[test]
    fn a_read_does_not_go_back_behind_an_earlier_read() {
        let mut history = History::new();
        let old = written(&mut history, 1, Some(2));
        let undecided = written(&mut history, 3, None);
        history.settle(B, at(5));
        assert!(history.read(B, sector(), &old, at(6), at(7)).is_ok());
        assert!(history.read(B, sector(), &undecided, at(8), at(9)).is_ok());
        assert!(history.read(B, sector(), &old, at(10), at(11)).is_err());
    }

    #[test]
    fn an_undecided_write_does_not_come_back_after_it_was_settled() {
        let mut history = History::new();
        let undecided = written(&mut history, 1, None);
        history.settle(B, at(2));
        let new = written(&mut history, 3, Some(4));
        assert!(history.read(B, sector(), &new, at(5), at(6)).is_ok());
        assert!(history.read(B, sector(), &undecided, at(7), at(8)).is_err());
    }

    #[test]
    fn an_unacknowledged_write_of_the_same_engine_is_not_read() {
        let mut history = History::new();
        let data = written(&mut history, 1, None);
        assert!(history.read(A, sector(), &data, at(2), at(3)).is_err());
        assert!(history.read(B, sector(), &data, at(2), at(3)).is_ok());
    }

    #[test]
    fn after_a_power_cut_only_flushed_writes_must_be_there() {
        let mut history = History::new();
        let flushed = written(&mut history, 1, Some(2));
        history.flush(at(3));
        let cached = written(&mut history, 4, Some(5));
        history.power_cut();
        history.settle(B, at(6));
        assert!(history.read(B, sector(), &flushed, at(7), at(8)).is_ok());
        assert!(history.read(B, sector(), &cached, at(9), at(10)).is_ok());
        assert!(
            history
                .read(B, sector(), &[0; 512], at(11), at(12))
                .is_err()
        );
    }

    #[test]
    fn torn_and_misplaced_sectors_are_found() {
        let mut history = History::new();
        let mut data = written(&mut history, 1, Some(2));
        data[511] ^= 1;
        assert!(history.read(A, sector(), &data, at(3), at(4)).is_err());
        let elsewhere = Extent::new(512, 512).unwrap();
        let data = History::data(WriteId(1), elsewhere);
        assert!(history.read(A, elsewhere, &data, at(3), at(4)).is_err());
    }
}
