//! What has happened and the mirror has not heard of yet.

use std::cell::RefCell;
use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::mirror::event::Event;

/// Events in the order in which they came, on one thread. Bounded by what its sources may have
/// outstanding (INV-12): the portal's commands, each link's requests in flight, the records asked
/// for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: RefCell<VecDeque<Event>>,
    arrived: Notify,
}

impl Inbox {
    /// Puts an event behind the others.
    pub(super) fn push(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
        self.arrived.notify_one();
    }

    /// Takes all events, leaving `empty` in their place.
    pub(super) fn swap(&self, empty: VecDeque<Event>) -> VecDeque<Event> {
        self.events.replace(empty)
    }

    /// Whether nothing has happened.
    pub(super) fn is_empty(&self) -> bool {
        self.events.borrow().is_empty()
    }

    /// Waits until something was pushed since the last wait.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
