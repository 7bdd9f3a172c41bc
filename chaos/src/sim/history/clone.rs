//! The history of a volume that begins as a snapshot of another one.

use std::time::Duration;

use super::{Content, History};
use crate::sim::engine::EngineId;
use crate::sim::workload;

impl History {
    /// Of a clone that came to be at `now`, of a snapshot that was taken between `taken` and `done`:
    /// all that was written before, covered by a write that shows what explains the snapshot. What
    /// is written to either afterwards has its own salt, so that it is noticed in the other.
    pub(in super::super) fn cloned(
        &self,
        salt: u64,
        taken: Duration,
        done: Duration,
        now: Duration,
    ) -> Self {
        let mut clone = self.clone();
        clone.salt = salt;
        let before = now.saturating_sub(Duration::from_nanos(1));
        for write in &mut clone.writes {
            write.end = Some(write.end.map_or(before, |end| end.min(before)));
        }
        let engine = EngineId(u64::MAX);
        let id = clone.add(engine, workload::everything(), Content::Snapshot, now);
        for sector in self.by_sector.keys() {
            let shows = self.explanations(*sector, taken, done);
            clone.version(*sector, id, shows);
        }
        clone.acknowledge(id, true, now);
        clone
    }
}
