//! The mirror and its hands: events in, effects carried out in order, everything that is ready in
//! one write per replica.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use ankole_proto::{NodeName, VolumeSize};

use super::inbox::Inbox;
use super::submissions::Submissions;
use crate::link::{Deliver, Link, LinkSpec};
use crate::managers::Control;
use crate::mirror::event::{
    Effect, Event, LinkId, Orders, Record, RecordRefusal, StopReason, TaskId,
};
use crate::mirror::{Mirror, MirrorConfig, Status};
use crate::volume::Moment;

/// One volume's data path, on one thread.
pub(super) struct Engine {
    mirror: Mirror,
    inbox: Rc<Inbox>,
    submissions: Rc<Submissions>,
    deliver: Deliver,
    links: BTreeMap<LinkId, Link>,
    control: Control,
    own_node: NodeName,
    clock_start: Instant,
    effects: Vec<Effect>,
    /// The buffer that the inbox does not use at the moment.
    spare: VecDeque<Event>,
    news: News,
}

/// What a turn brought that concerns more than the data path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct News {
    /// Initiators may come in.
    pub(super) serve: bool,
    /// The volume has grown to this size.
    pub(super) resized: Option<VolumeSize>,
    /// Nothing is left to do.
    pub(super) stopped: Option<StopReason>,
}

impl Engine {
    pub(super) fn new(
        config: MirrorConfig,
        orders: Orders,
        control: Control,
        submissions: Submissions,
        inbox: Rc<Inbox>,
    ) -> Self {
        let own_node = config.node.clone();
        let links_inbox = Rc::clone(&inbox);
        // The mirror begins with its first step.
        inbox.push(Event::Tick);
        Self {
            mirror: Mirror::new(config, orders),
            submissions: Rc::new(submissions),
            deliver: Rc::new(move |event| links_inbox.push(event)),
            inbox,
            links: BTreeMap::new(),
            control,
            own_node,
            clock_start: Instant::now(),
            effects: Vec::new(),
            spare: VecDeque::new(),
            news: News::default(),
        }
    }

    /// The volume, for the portal.
    pub(super) fn submissions(&self) -> Rc<Submissions> {
        Rc::clone(&self.submissions)
    }

    /// Operations of the initiators that have not been answered.
    pub(super) fn in_flight(&self) -> usize {
        self.submissions.in_flight()
    }

    /// How the mirror does.
    pub(super) fn status(&self) -> Status {
        self.mirror.status()
    }

    /// A group's seal for which everything is held: its group waits for that to be told.
    pub(super) fn held_task(&self) -> Option<TaskId> {
        self.mirror.held_task()
    }

    /// The way to the managers.
    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    fn now(&self) -> Moment {
        Moment::after_start(self.clock_start.elapsed())
    }

    /// When [`Engine::turn`] is to be called at the latest.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.mirror
            .wake_at()
            .map(|at| self.clock_start + at.since_start())
    }

    /// Takes in all that has happened, then sends what came of it.
    pub(super) fn turn(&mut self) -> News {
        let now = self.now();
        if self.mirror.wake_at().is_some_and(|at| at <= now) {
            self.inbox.push(Event::Tick);
        }
        let mut events = self.inbox.swap(std::mem::take(&mut self.spare));
        for event in events.drain(..) {
            if let Event::LinkClosed { link, .. } = &event {
                self.links.remove(link);
            }
            self.mirror.step(now, event, &mut self.effects);
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
            self.effects = effects;
        }
        self.spare = events;
        for link in self.links.values() {
            link.flush();
        }
        std::mem::take(&mut self.news)
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { link, frame, .. } => {
                // A link that is gone has told the mirror so, or is about to.
                if let Some(link) = self.links.get(&link) {
                    link.queue(frame);
                }
            }
            Effect::Complete { id, outcome } => self.submissions.complete(id, outcome),
            Effect::Connect {
                replica,
                link,
                address,
                node,
                open,
            } => {
                let spec = LinkSpec {
                    replica,
                    link,
                    address,
                    node,
                    own_node: self.own_node.clone(),
                    open,
                    clock_start: self.clock_start,
                };
                self.links
                    .insert(link, Link::open(spec, Rc::clone(&self.deliver)));
            }
            Effect::Disconnect { link, .. } => {
                self.links.remove(&link);
            }
            Effect::Record(record) => self.record(record),
            Effect::Serve => self.news.serve = true,
            Effect::Resized(size) => {
                tracing::info!(%size, "the volume has grown");
                self.news.resized = Some(size);
            }
            Effect::Stopped(reason) => self.news.stopped = Some(reason),
        }
    }

    fn record(&self, record: Record) {
        tracing::info!(?record, "asking the managers to record");
        if let Err(record) = self.control.record(record) {
            let refusal = RecordRefusal::Unreachable("too many records wait already".to_owned());
            self.inbox.push(Event::Recorded {
                record,
                result: Err(refusal),
            });
        }
    }
}
