//! Copying a shared layer that somebody is about to write to, without holding its replica.

use ankole_proto::LayerId;

use super::Slot;
use super::flush_gate::Joined;
use crate::replica::Progress;

/// What one step copies at most: I/O to the replica waits for about 100 µs.
const STEP_BLOCKS: u64 = 32;

/// Somebody who waits until a layer can be written to.
pub struct CopyWaiter {
    /// The layer.
    pub layer: LayerId,
    /// Called once: it can, or it turned out that it cannot, and the write will say why.
    pub go_on: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for CopyWaiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CopyWaiter").field(&self.layer).finish()
    }
}

impl Slot {
    /// Waits for the copy of a layer. When this answers [`Joined::First`] the caller has to see to
    /// it that [`Slot::copy_all`] runs: one thread copies for all who wait.
    pub fn join_copy(&self, waiter: CopyWaiter) -> Joined {
        self.copies.join(waiter)
    }

    /// Copies, and lets everybody go on who waits, until nobody does.
    pub fn copy_all(&self) {
        while let Some(waiters) = self.copies.take() {
            for waiter in waiters {
                self.prepare(waiter.layer);
                (waiter.go_on)();
            }
        }
    }

    /// Gives a layer files of its own, step by step; to the end also when whoever asked has gone:
    /// the next one who asks finds it done. Returns when it is done or cannot be.
    pub fn prepare(&self, layer: LayerId) {
        loop {
            let Some(mut replica) = self.replica() else {
                return;
            };
            let progress = replica.prepare_step(layer, STEP_BLOCKS);
            drop(replica);
            match progress {
                Ok(Progress::Idle) => return,
                Ok(Progress::Working { .. }) => {}
                Ok(Progress::Sync(plan)) => {
                    let result = plan.run();
                    let finished = self
                        .replica()
                        .map(|mut replica| replica.finish_flush(plan, result));
                    if let Some(Err(error)) = finished {
                        tracing::error!(replica = %self.id(), "copying a shared layer: {error}");
                        self.tell();
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(replica = %self.id(), %layer,
                        "a shared layer is not copied: {error}");
                    return;
                }
            }
        }
    }

    /// Gives the space of removed layers back, which takes a while, without holding the replica.
    pub fn close_removed(&self) {
        let removed = self.replica().map(|mut replica| replica.take_removed());
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ankole_proto::wire::body::{OpenRequest, Seal};
    use ankole_proto::{Credential, Epoch, ReplicaId, VolumeId, VolumeSize};

    use super::*;
    use crate::store::{ConnectionId, Creation, Origin, Store};

    fn layer(raw: u64) -> LayerId {
        LayerId::from_raw(raw).unwrap()
    }

    fn creation(store: &Store, replica: u128, base: u64) -> Creation {
        Creation {
            replica: ReplicaId::from_bits(replica),
            volume: VolumeId::from_bits(replica + 100),
            disk: store.disks()[0].id(),
            size: VolumeSize::from_bytes(8 << 20).unwrap(),
            credential: Credential::from_bytes([3; 32]),
            base: layer(base),
        }
    }

    #[test]
    fn one_thread_copies_for_all_who_wait() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&[dir.path().to_path_buf()]).unwrap();
        let source = creation(&store, 1, 1);
        store.create(&source).unwrap();
        let slot = store.slot(source.replica).unwrap();
        let request = OpenRequest {
            volume: source.volume,
            replica: source.replica,
            epoch: Epoch::from_raw(1),
            size: source.size,
            credential: source.credential,
        };
        slot.open(&request, ConnectionId(1)).unwrap();
        let seal = Seal {
            head: layer(1),
            new_head: layer(2),
        };
        slot.replica().unwrap().seal(request.epoch, seal).unwrap();
        let clone = creation(&store, 2, 10);
        let origin = Origin {
            source: source.replica,
            layer: layer(1),
        };
        store.clone_replica(&clone, origin).unwrap();

        let slot = store.slot(clone.replica).unwrap();
        let needs_copy = |slot: &Slot| slot.replica().unwrap().needs_copy(layer(1)).unwrap();
        assert!(needs_copy(&slot));
        let gone_on = Arc::new(AtomicUsize::new(0));
        let waiter = |id| {
            let gone_on = Arc::clone(&gone_on);
            CopyWaiter {
                layer: layer(id),
                go_on: Box::new(move || {
                    gone_on.fetch_add(1, Ordering::Relaxed);
                }),
            }
        };
        assert_eq!(slot.join_copy(waiter(1)), Joined::First);
        assert_eq!(slot.join_copy(waiter(1)), Joined::Behind);
        // One that is not there holds nobody up.
        assert_eq!(slot.join_copy(waiter(77)), Joined::Behind);
        slot.copy_all();
        assert_eq!(gone_on.load(Ordering::Relaxed), 3);
        assert!(!needs_copy(&slot));
        assert_eq!(slot.join_copy(waiter(1)), Joined::First);
        slot.copy_all();
        assert_eq!(gone_on.load(Ordering::Relaxed), 4);
    }
}
