//! A store in memory that forgets like a real one: after a crash everything flushed is there, and
//! of the batches since then a prefix.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;

use super::{Batch, KvStore, Record, Scan, StoreError, Tree};

type Trees = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

/// See the module. For tests and the simulator.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    live: Trees,
    durable: Trees,
    unsynced: Vec<(Tree, Batch)>,
}

impl MemoryStore {
    /// How many batches a crash could lose.
    pub fn unsynced(&self) -> usize {
        self.inner.lock().unsynced.len()
    }

    /// The store as it would be found after a crash that kept the first `kept` of the batches that
    /// were not flushed.
    #[must_use]
    pub fn crashed(&self, kept: usize) -> Self {
        let inner = self.inner.lock();
        let mut durable = inner.durable.clone();
        for (tree, batch) in inner.unsynced.iter().take(kept) {
            apply(&mut durable, *tree, batch);
        }
        Self {
            inner: Mutex::new(Inner {
                live: durable.clone(),
                durable,
                unsynced: Vec::new(),
            }),
        }
    }
}

fn apply(trees: &mut Trees, tree: Tree, batch: &Batch) {
    for (key, value) in &batch.changes {
        match value {
            Some(value) => trees.insert((tree, key.clone()), value.clone()),
            None => trees.remove(&(tree, key.clone())),
        };
    }
}

impl KvStore for MemoryStore {
    fn read(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.lock().live.get(&(tree, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        tree: Tree,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), StoreError> {
        let inner = self.inner.lock();
        let bounds = (tree, from.to_vec())..(tree, to.to_vec());
        for ((_, key), value) in inner.live.range(bounds) {
            if visit(key, value) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last_below(&self, tree: Tree, to: &[u8]) -> Result<Option<Record>, StoreError> {
        let inner = self.inner.lock();
        let bounds = (
            Bound::Included((tree, Vec::new())),
            Bound::Excluded((tree, to.to_vec())),
        );
        let last = inner.live.range(bounds).next_back();
        Ok(last.map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn write(&self, tree: Tree, batch: Batch) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut inner = self.inner.lock();
        apply(&mut inner.live, tree, &batch);
        inner.unsynced.push((tree, batch));
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.durable = inner.live.clone();
        inner.unsynced.clear();
        Ok(())
    }
}
