//! Frames on their way between engines and hosts.

use std::time::Duration;

use ankole_engine::mirror::event::{Event, LinkFailure};
use ankole_proto::ReplicaId;
use ankole_proto::wire::Frame;
use ankole_proto::wire::body::{OpenRequest, Opened};
use rand::Rng;

use super::super::checker::Verdict;
use super::super::engine::EngineId;
use super::super::host::{Answer, Syncs};
use super::super::mutation::Mutation;
use super::super::network::{LinkKey, delay};
use super::{Happening, World, effects};

/// How long a sync takes at most.
const SYNC_MICROS_MAX: u64 = 2000;

impl World {
    pub(super) fn open(&mut self, key: LinkKey, open: &OpenRequest, sent: Duration) {
        let now = self.schedule.now();
        let host = &mut self.hosts[key.host];
        if !host.is_up() {
            self.close_later(key, LinkFailure::Transport("connection refused".to_owned()));
            return;
        }
        match host.open(key, open, now) {
            Ok(opened) => {
                self.note(format_args!("{key:?} opened: {opened:?}"));
                if let Some(at) = self.network.reaches_engine(key, now, &mut self.random) {
                    let opened = Box::new(opened);
                    self.schedule
                        .at(at, Happening::Opened { key, opened, sent });
                }
            }
            Err(denial) => {
                self.note(format_args!("{key:?} refused: {denial:?}"));
                self.close_later(key, effects::failure_of(&denial));
            }
        }
    }

    pub(super) fn opened(&mut self, key: LinkKey, opened: Opened, sent: Duration) -> Verdict {
        if !self.network.is_connected(key) {
            return Ok(());
        }
        let Some(engine) = self.engines.get(&key.engine) else {
            return Ok(());
        };
        let event = Event::LinkOpened {
            replica: key.replica,
            link: key.link,
            opened,
            sent_after_start: engine.after_start(sent),
        };
        self.step(key.engine, event)
    }

    pub(super) fn closed(&mut self, key: LinkKey, failure: LinkFailure) -> Verdict {
        if !self.network.disconnect(key) {
            return Ok(());
        }
        let event = Event::LinkClosed {
            replica: key.replica,
            link: key.link,
            reason: failure,
        };
        self.step(key.engine, event)
    }

    pub(super) fn replied(&mut self, key: LinkKey, frame: Frame) -> Verdict {
        if !self.network.is_connected(key) {
            return Ok(());
        }
        let event = Event::Reply {
            replica: key.replica,
            link: key.link,
            frame,
        };
        self.step(key.engine, event)
    }

    /// The engine will notice that the connection is gone.
    pub(super) fn close_later(&mut self, key: LinkKey, failure: LinkFailure) {
        let delay = delay(&mut self.random);
        self.schedule
            .after(delay, Happening::Closed { key, failure });
    }

    pub(super) fn arrive(&mut self, key: LinkKey, frame: Frame) {
        let now = self.schedule.now();
        let work = Duration::from_micros(self.random.random_range(0..200));
        let late_frames = self.mutation == Some(Mutation::LateFrames);
        let host = &mut self.hosts[key.host];
        let up = host.is_up();
        let tenant = host.slot(key.replica).and_then(|slot| slot.tenant());
        if up && tenant != Some(key) && !late_frames {
            // Its host does not know the connection any more.
            self.close_later(key, LinkFailure::Transport("connection reset".to_owned()));
            return;
        }
        let slow = self.hosts[key.host]
            .slow
            .filter(|(until, _)| now < *until)
            .map_or(Duration::ZERO, |(_, by)| by);
        self.schedule
            .after(work + slow, Happening::Execute { key, frame });
    }

    pub(super) fn execute(&mut self, key: LinkKey, frame: &Frame) {
        let now = self.schedule.now();
        match self.hosts[key.host].execute(key, frame, now) {
            None => {}
            Some(Answer::Reply(reply)) => self.reply(key, reply),
            Some(Answer::Waits(syncs)) => self.syncs(key.host, key.replica, syncs),
        }
    }

    /// A sync of a replica ends.
    pub(super) fn sync(&mut self, host: usize, replica: ReplicaId, number: u64) {
        let syncs = self.hosts[host].sync(replica, number);
        self.syncs(host, replica, syncs);
    }

    fn syncs(&mut self, host: usize, replica: ReplicaId, syncs: Syncs) {
        for (key, reply) in syncs.replies {
            self.reply(key, reply);
        }
        if let Some(number) = syncs.begun {
            let takes = Duration::from_micros(self.random.random_range(0..SYNC_MICROS_MAX));
            self.schedule.after(
                takes,
                Happening::Sync {
                    host,
                    replica,
                    number,
                },
            );
        }
    }

    fn reply(&mut self, key: LinkKey, reply: Frame) {
        let now = self.schedule.now();
        if let Some(code) = reply.header.error {
            let opcode = reply.header.opcode;
            self.note(format_args!("{key:?} {opcode:?} answered: {code:?}"));
        }
        if let Some(at) = self.network.reaches_engine(key, now, &mut self.random) {
            self.schedule.at(at, Happening::Reply { key, frame: reply });
        }
    }

    pub(super) fn join(&mut self, engine: EngineId, host: usize) {
        let node = &self.hosts[host].node;
        let text = format!("{engine:?} and {node} reach each other again");
        self.note(format_args!("{text}"));
        self.network.join(engine, host);
        for key in self
            .network
            .connections(|key| key.engine == engine && key.host == host)
        {
            // What was sent meanwhile is lost, so the connection cannot go on.
            self.close_later(key, LinkFailure::Transport("connection reset".to_owned()));
        }
    }
}
