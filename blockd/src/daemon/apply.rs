//! Carrying out the managers' orders: whatever is not as ordered is made so, again with each answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ankole_proto::{LayerId, ReplicaId};

use super::orders::{Orders, ReplicaOrder, WhenAbsent};
use crate::store::{Creation, Missing, Origin, Store};

/// Complaints remembered at most, so that each is logged once and not with every heartbeat.
const COMPLAINTS_MAX: usize = 10_000;

fn creation(order: &ReplicaOrder, base: LayerId) -> Creation {
    Creation {
        replica: order.replica,
        volume: order.volume,
        disk: order.disk,
        size: order.size,
        credential: order.credential,
        base,
    }
}

/// Makes the store as ordered.
#[derive(Debug)]
pub(super) struct Applier {
    store: Arc<Store>,
    complaints: BTreeMap<ReplicaId, String>,
    rejected: Vec<String>,
}

impl Applier {
    /// For this store.
    pub(super) const fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            complaints: BTreeMap::new(),
            rejected: Vec::new(),
        }
    }

    /// Carries the orders out. What fails is logged once and tried again with the next orders.
    pub(super) fn apply(&mut self, orders: &Orders) {
        if self.rejected != orders.rejected {
            for reason in &orders.rejected {
                tracing::error!("not carried out: {reason}");
            }
            self.rejected.clone_from(&orders.rejected);
        }
        for id in &orders.delete {
            let deleted = self.store.delete(*id);
            self.note(
                *id,
                deleted
                    .err()
                    .map(|error| format!("cannot be deleted: {error}")),
            );
        }
        for order in &orders.replicas {
            let failure = self.carry_out(order);
            self.note(order.replica, failure);
        }
    }

    fn carry_out(&self, order: &ReplicaOrder) -> Option<String> {
        let id = order.replica;
        if let Some(slot) = self.store.slot(id) {
            if slot.volume().is_some_and(|volume| volume != order.volume) {
                return Some(format!("is not of volume {} as ordered", order.volume));
            }
            slot.ask_scrub(order.scrub_request);
            return slot.remove_layers(&order.remove_layers).err();
        }
        match order.absent {
            WhenAbsent::ReportMissing => {
                let missing = Missing::lost(order.volume, order.disk);
                self.store.report_missing(id, missing);
                None
            }
            WhenAbsent::Create { base } => self
                .store
                .create(&creation(order, base))
                .err()
                .map(|error| error.to_string()),
            WhenAbsent::Clone {
                base,
                source,
                layer,
            } => self.clone_from(&creation(order, base), Origin { source, layer }),
        }
    }

    /// What the managers cannot mend by waiting is told to them, too.
    fn clone_from(&self, creation: &Creation, origin: Origin) -> Option<String> {
        let refused = self.store.clone_replica(creation, origin).err()?;
        let reason = refused.to_string();
        if !refused.is_passing() {
            let missing = Missing {
                volume: creation.volume,
                disk: creation.disk,
                reason: reason.clone(),
            };
            self.store.report_missing(creation.replica, missing);
        }
        Some(reason)
    }

    fn note(&mut self, id: ReplicaId, failure: Option<String>) {
        let Some(failure) = failure else {
            self.complaints.remove(&id);
            return;
        };
        if self.complaints.get(&id) == Some(&failure) {
            return;
        }
        tracing::error!(replica = %id, "{failure}");
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.insert(id, failure);
        }
    }
}
