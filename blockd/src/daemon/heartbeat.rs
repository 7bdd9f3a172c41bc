//! The conversation with the managers: report, wait for orders, carry them out, report again.
//!
//! A plain loop on its own thread. It enters its runtime only to wait, so that nothing that touches
//! a disk runs among asynchronous tasks. Orders say all that is to be (never a change), so one that
//! is lost, late or doubled does no harm.

use std::sync::Arc;
use std::time::Duration;

use ankole_proto::rpc::v1::{BlockdOrders, BlockdReport};
use tokio::sync::Notify;
use tonic::Status;

use super::apply::Applier;
use super::identity::Identity;
use super::managers::{AddressError, Managers};
use super::orders::Orders;
use super::stop::Stop;
use super::usage_turns::UsageTurns;
use crate::store::Store;

/// How long the managers may hold a report that asks for nothing new: the pace of heartbeats.
const HOLD: Duration = Duration::from_millis(1000);
/// The shortest time between two reports, should the managers answer at once each time.
const PACE_MIN: Duration = Duration::from_millis(20);

/// What ended a wait for the managers.
enum Wake {
    /// They answered, or did not.
    Answered(Result<BlockdOrders, Status>),
    /// Something changed here that they should hear of.
    Changed,
    /// The daemon is stopping.
    Stopping,
}

/// Reports to the managers until the daemon stops.
pub(super) struct Heartbeat {
    store: Arc<Store>,
    identity: Identity,
    stop: Arc<Stop>,
    changed: Arc<Notify>,
    applier: Applier,
    seen_revision: u64,
    foreign_told: bool,
    usage_turns: UsageTurns,
}

impl Heartbeat {
    /// For this store, under this identity.
    pub(super) fn new(store: Arc<Store>, identity: Identity, stop: Arc<Stop>) -> Self {
        let changed = store.changed();
        let applier = Applier::new(Arc::clone(&store));
        Self {
            store,
            identity,
            stop,
            changed,
            applier,
            seen_revision: 0,
            foreign_told: false,
            usage_turns: UsageTurns::default(),
        }
    }

    /// Reports until the daemon stops.
    ///
    /// # Errors
    ///
    /// [`AddressError`] at once when an address is none.
    pub(super) fn run(
        mut self,
        runtime: &tokio::runtime::Runtime,
        addresses: &[String],
    ) -> Result<(), AddressError> {
        let mut managers = {
            let _inside = runtime.enter();
            Managers::new(addresses)?
        };
        loop {
            let report = self.report();
            match runtime.block_on(self.wait(&mut managers, report)) {
                Wake::Stopping => return Ok(()),
                Wake::Changed => {}
                Wake::Answered(Ok(message)) => self.take_orders(message),
                Wake::Answered(Err(status)) => {
                    tracing::debug!(code = ?status.code(), "no orders: {}", status.message());
                    let pause = managers.pause(status.code());
                    runtime.block_on(self.rest(pause));
                }
            }
        }
    }

    fn report(&mut self) -> BlockdReport {
        let mut disks = self.store.report();
        self.usage_turns.thin(&mut disks);
        let identity = &self.identity;
        BlockdReport {
            node: identity.node.to_string(),
            zone: identity.zone.clone(),
            boot_id: identity.boot_id.clone(),
            instance: identity.instance.clone(),
            block_address: identity.block_address.clone(),
            block_socket: identity.block_socket.clone(),
            rebuild_bytes_per_second: identity.rebuild_rate,
            disks,
            seen_revision: self.seen_revision,
            hold_ms: u32::try_from(HOLD.as_millis()).unwrap_or(u32::MAX),
            cluster_id: self
                .store
                .cluster()
                .map_or_else(String::new, |cluster| cluster.to_string()),
        }
    }

    async fn wait(&self, managers: &mut Managers, report: BlockdReport) -> Wake {
        let pace = tokio::time::sleep(PACE_MIN);
        let wake = tokio::select! {
            biased;
            () = self.stop.asked() => Wake::Stopping,
            () = self.changed.notified() => Wake::Changed,
            answer = managers.heartbeat(report) => Wake::Answered(answer),
        };
        pace.await;
        wake
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.asked() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    fn take_orders(&mut self, message: BlockdOrders) {
        let orders = match Orders::from_message(message) {
            Ok(orders) => orders,
            Err(error) => {
                tracing::error!("{error}");
                return;
            }
        };
        if let Err(error) = self.store.join_cluster(orders.cluster) {
            if !self.foreign_told {
                tracing::error!("orders are not carried out: {error}");
                self.foreign_told = true;
            }
            return;
        }
        self.foreign_told = false;
        self.seen_revision = orders.revision;
        self.applier.apply(&orders);
    }
}
