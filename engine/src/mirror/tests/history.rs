//! What was asked and answered, and whether it can be explained.
//!
//! Per block: a read may return a write that was invoked before the read ended, unless another
//! write surely came after that one and before the read (INV-8, no read goes back in time). What a
//! read has returned counts as done from then on. An unknown outcome may have happened or not.

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::{BLOCK_BYTES, Extent};

use super::replica::{FakeReplica, Store};
use crate::volume::{Failure, Moment, Operation, OperationId, Outcome};

/// One write of one block, in a count of events that is finer than time.
#[derive(Debug, Clone)]
struct Write {
    stamp: u64,
    invoked: u64,
    done: Option<u64>,
}

#[derive(Debug)]
struct Asked {
    operation: Operation,
    invoked: u64,
}

#[derive(Debug, Default)]
pub(super) struct History {
    clock: u64,
    asked: BTreeMap<OperationId, Asked>,
    writes: BTreeMap<u64, Vec<Write>>,
    pub(super) outcomes: BTreeMap<OperationId, Outcome>,
    /// Asked of an engine that died: in doubt until the end.
    abandoned: BTreeSet<u64>,
}

fn blocks(extent: Extent) -> Vec<u64> {
    extent.blocks().map(|block| block.raw()).collect()
}

fn stamp_of(block: &[u8]) -> Option<u64> {
    let first: [u8; 8] = block.get(..8)?.try_into().ok()?;
    block
        .chunks(8)
        .all(|bytes| bytes == first)
        .then(|| u64::from_le_bytes(first))
}

fn mutated(operation: &Operation, id: OperationId) -> Option<(Extent, u64)> {
    match operation {
        Operation::Write { extent, .. } => Some((*extent, id.0)),
        Operation::Unmap { extent } | Operation::WriteZeroes { extent, .. } => Some((*extent, 0)),
        _ => None,
    }
}

impl History {
    pub(super) fn invoked(&mut self, id: OperationId, operation: &Operation, _now: Moment) {
        self.clock += 1;
        let invoked = self.clock;
        if let Some((extent, stamp)) = mutated(operation, id) {
            for block in blocks(extent) {
                let write = Write {
                    stamp,
                    invoked,
                    done: None,
                };
                self.of_block(block).push(write);
            }
        }
        let operation = operation.clone();
        self.asked.insert(id, Asked { operation, invoked });
    }

    fn of_block(&mut self, block: u64) -> &mut Vec<Write> {
        let zero = Write {
            stamp: 0,
            invoked: 0,
            done: Some(0),
        };
        self.writes.entry(block).or_insert_with(|| vec![zero])
    }

    pub(super) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// Blocks that a write is under way to, or was when its outcome became unknown.
    pub(super) fn in_flight_blocks(&self) -> BTreeSet<u64> {
        self.writes
            .iter()
            .filter(|(_, writes)| writes.iter().any(|write| write.done.is_none()))
            .map(|(block, _)| *block)
            .collect()
    }

    pub(super) fn engine_died(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.abandoned.extend(asked.keys().map(|id| id.0));
    }

    /// Checks and notes an outcome.
    pub(super) fn completed(
        &mut self,
        id: OperationId,
        outcome: &Outcome,
        _now: Moment,
        in_sync: &[&FakeReplica],
    ) -> Result<(), String> {
        self.clock += 1;
        let asked = self
            .asked
            .remove(&id)
            .ok_or_else(|| format!("{id:?} was answered twice"))?;
        self.outcomes.insert(id, outcome.clone());
        if let (Some((extent, stamp)), Outcome::Failed(Failure::NoSpace)) =
            (mutated(&asked.operation, id), outcome)
        {
            // Nothing was changed.
            for block in blocks(extent) {
                let invoked = asked.invoked;
                self.of_block(block)
                    .retain(|w| w.stamp != stamp || w.invoked != invoked);
            }
        }
        let Outcome::Done(data) = outcome else {
            return Ok(());
        };
        match &asked.operation {
            Operation::Read { extent } => self.check_read(*extent, data, asked.invoked),
            Operation::Flush => self.check_durable(asked.invoked, in_sync),
            other => match mutated(other, id) {
                Some((extent, _)) => self.acknowledge(id, extent, &asked, in_sync),
                None => Ok(()),
            },
        }
    }

    /// Whether the value may be read by one that began at `from`.
    fn explains(writes: &[Write], stamp: u64, from: u64) -> bool {
        writes
            .iter()
            .filter(|write| write.stamp == stamp)
            .any(|write| {
                let Some(done) = write.done else {
                    return true;
                };
                !writes
                    .iter()
                    .any(|later| later.invoked > done && later.done.is_some_and(|end| end < from))
            })
    }

    fn check_read(&mut self, extent: Extent, data: &[u8], invoked: u64) -> Result<(), String> {
        let clock = self.clock;
        let block_bytes = usize::try_from(BLOCK_BYTES).unwrap();
        for (block, bytes) in blocks(extent).into_iter().zip(data.chunks(block_bytes)) {
            let stamp = stamp_of(bytes).ok_or_else(|| format!("block {block} is torn"))?;
            let writes = self.of_block(block);
            if !Self::explains(writes, stamp, invoked) {
                return Err(format!("block {block} reads {stamp}; written: {writes:?}"));
            }
            let candidates: Vec<usize> = (0..writes.len())
                .filter(|at| writes[*at].stamp == stamp)
                .collect();
            // A zero may have come from any of several; only an unambiguous one is surely done.
            if let [only] = candidates[..] {
                writes[only].done.get_or_insert(clock);
            }
        }
        Ok(())
    }

    /// INV-2: it is on every in-sync replica, unless a later write is under way there.
    fn acknowledge(
        &mut self,
        id: OperationId,
        extent: Extent,
        asked: &Asked,
        in_sync: &[&FakeReplica],
    ) -> Result<(), String> {
        let clock = self.clock;
        if in_sync.is_empty() {
            return Err("nobody is in sync".to_owned());
        }
        let fua = matches!(
            asked.operation,
            Operation::Write { fua: true, .. } | Operation::WriteZeroes { fua: true, .. }
        );
        for block in blocks(extent) {
            let invoked = asked.invoked;
            for write in self
                .of_block(block)
                .iter_mut()
                .filter(|w| w.invoked == invoked)
            {
                write.done.get_or_insert(clock);
            }
            for replica in in_sync {
                self.check_has(block, &replica.store, clock, replica, "lacks")?;
                if fua {
                    self.check_has(block, &replica.durable, clock, replica, "has not on media")?;
                }
            }
        }
        let _ = id;
        Ok(())
    }

    fn check_has(
        &mut self,
        block: u64,
        store: &Store,
        from: u64,
        replica: &FakeReplica,
        what: &str,
    ) -> Result<(), String> {
        let extent = Extent::new(block * BLOCK_BYTES, BLOCK_BYTES).unwrap();
        let bytes = store.read(extent);
        let stamp = stamp_of(&bytes).ok_or_else(|| format!("block {block} is torn"))?;
        let writes = self.of_block(block);
        // Everything acknowledged up to `from` counts, `from` included.
        if Self::explains(writes, stamp, from + 1) {
            return Ok(());
        }
        let id = replica.id;
        Err(format!(
            "replica {id} {what} block {block}: it has {stamp}; written: {writes:?}"
        ))
    }

    /// INV-5.
    fn check_durable(&mut self, invoked: u64, in_sync: &[&FakeReplica]) -> Result<(), String> {
        let all: Vec<u64> = self.writes.keys().copied().collect();
        for block in all {
            for replica in in_sync {
                self.check_has(block, &replica.durable, invoked, replica, "has not flushed")?;
            }
        }
        Ok(())
    }
}
