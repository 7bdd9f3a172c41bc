//! The watch stream: everything that exists, then every change.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::watch_item::Item;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Desk, Seat, view};

/// What a watcher reads.
pub(super) type Items = Pin<Box<dyn Stream<Item = Result<rpc::WatchItem, Status>> + Send>>;

/// How many items wait for a watcher (INV-12).
const ITEMS_MAX: usize = 64;

/// How long a watcher may leave its items unread before it is cut off; it can start over.
const READ_WAIT: Duration = Duration::from_secs(30);

/// The shortest time between two looks, so that a burst of changes costs one.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two looks: a silence changes what is told, too.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a watcher was told last.
#[derive(Default)]
struct Told {
    volumes: BTreeMap<String, rpc::Volume>,
    snapshots: BTreeMap<String, rpc::Snapshot>,
    nodes: BTreeMap<String, rpc::Node>,
    event: u64,
}

impl<S: Seat> Desk<S> {
    /// Starts a watcher.
    pub(super) async fn watch_here(&self) -> Result<Items, Status> {
        self.seat.read().await?;
        let watchers = std::sync::Arc::clone(&self.watchers);
        let permit = watchers.try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("too many watchers; end one, or ask another manager")
        })?;
        let (sender, receiver) = mpsc::channel(ITEMS_MAX);
        tokio::spawn(self.clone().follow(sender, permit));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn follow(
        self,
        sender: mpsc::Sender<Result<rpc::WatchItem, Status>>,
        _permit: OwnedSemaphorePermit,
    ) {
        let (mut state, mut reports) = (self.seat.changed(), self.reports.changed());
        let leads = self.seat.leadership();
        let mut told = Told::default();
        let mut caught_up = false;
        loop {
            if !leads.borrow().is_leader {
                let moved = Status::unavailable("this manager leads no more; watch again");
                let _ = sender.try_send(Err(moved));
                return;
            }
            state.borrow_and_update();
            reports.borrow_and_update();
            let mut items = self.news(&mut told);
            if !caught_up {
                items.push(Item::CaughtUp(rpc::CaughtUp {}));
                caught_up = true;
            }
            for item in items {
                let item = Ok(rpc::WatchItem { item: Some(item) });
                if sender.send_timeout(item, READ_WAIT).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                () = sender.closed() => return,
                _ = state.changed() => {}
                _ = reports.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// What has changed since the last look.
    fn news(&self, told: &mut Told) -> Vec<Item> {
        let now = self.reports.now();
        let (volumes, snapshots, nodes, events) = self.seat.with_state(|state| {
            self.reports.look(|observed| {
                let volumes = state.volumes().values();
                let volumes = volumes.map(|one| view::volume(state, observed, now, one));
                let volumes: BTreeMap<_, _> = volumes.map(|one| (one.id.clone(), one)).collect();
                let snapshots = state
                    .snapshots()
                    .values()
                    .map(|one| view::snapshot(state, one));
                let snapshots: BTreeMap<_, _> =
                    snapshots.map(|one| (one.id.clone(), one)).collect();
                let nodes = view::nodes(state, observed, now).into_iter();
                let nodes: BTreeMap<_, _> = nodes.map(|one| (one.name.clone(), one)).collect();
                let events = state.events().after(told.event);
                let events: Vec<_> = events.map(|(n, one)| view::event(n, one)).collect();
                (volumes, snapshots, nodes, events)
            })
        });
        let mut items = Vec::new();
        changed(&told.volumes, &volumes, Item::Volume, &mut items);
        changed(&told.snapshots, &snapshots, Item::Snapshot, &mut items);
        // A heartbeat alone is no news.
        changed(&told.nodes, &quiet(nodes.clone()), Item::Node, &mut items);
        for id in told
            .snapshots
            .keys()
            .filter(|id| !snapshots.contains_key(*id))
        {
            let (volume_id, snapshot_id) = (String::new(), id.clone());
            items.push(Item::Deleted(rpc::Deleted {
                volume_id,
                snapshot_id,
            }));
        }
        for id in told.volumes.keys().filter(|id| !volumes.contains_key(*id)) {
            let (volume_id, snapshot_id) = (id.clone(), String::new());
            items.push(Item::Deleted(rpc::Deleted {
                volume_id,
                snapshot_id,
            }));
        }
        told.event = events.last().map_or(told.event, |event| event.number);
        items.extend(events.into_iter().map(Item::Event));
        *told = Told {
            volumes,
            snapshots,
            nodes: quiet(nodes),
            event: told.event,
        };
        items
    }
}

fn changed<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    item: impl Fn(T) -> Item,
    items: &mut Vec<Item>,
) {
    let news = new.iter().filter(|(id, one)| old.get(*id) != Some(one));
    items.extend(news.map(|(_, one)| item(one.clone())));
}

/// The nodes without the moment of their last heartbeat.
fn quiet(mut nodes: BTreeMap<String, rpc::Node>) -> BTreeMap<String, rpc::Node> {
    for node in nodes.values_mut() {
        node.last_heartbeat_ms = 0;
    }
    nodes
}
