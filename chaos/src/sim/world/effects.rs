//! Carrying out what an engine's mirror wants done.

use std::time::Duration;

use ankole_blockd::session::{Denial, Detail};
use ankole_engine::link::is_passing;
use ankole_engine::mirror::event::{Effect, Event, LinkFailure, LinkId, StopReason};
use ankole_proto::wire::ErrorCode;
use ankole_proto::{Epoch, ReplicaId};

use super::super::checker::Verdict;
use super::super::engine::EngineId;
use super::super::network::LinkKey;
use super::polls::Who;
use super::{Happening, World};

/// How long an engine tries to reach a host that does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What an engine's link makes of a refused Open.
pub(super) fn failure_of(denial: &Denial) -> LinkFailure {
    match (denial.code, denial.detail) {
        (ErrorCode::Fenced, Detail::Epoch(epoch)) => LinkFailure::Fenced(Epoch::from_raw(epoch)),
        (code, _) if is_passing(code) => LinkFailure::Transport(denial.message.clone()),
        _ => LinkFailure::Refused(denial.message.clone()),
    }
}

impl World {
    /// Lets an engine take in an event, and carries out what it wants.
    pub(super) fn step(&mut self, id: EngineId, event: Event) -> Verdict {
        let now = self.schedule.now();
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        let effects = engine.step(now, event);
        for effect in effects {
            self.carry_out(id, effect)?;
        }
        self.set_timer(id);
        Ok(())
    }

    fn set_timer(&mut self, id: EngineId) {
        let now = self.schedule.now();
        let Some(engine) = self.engines.get_mut(&id) else {
            return;
        };
        let Some(wake) = engine.wake_at().map(|wake| wake.max(now)) else {
            return;
        };
        if engine.tick_at.is_none_or(|tick| wake < tick) {
            engine.tick_at = Some(wake);
            self.schedule.at(wake, Happening::Tick { engine: id });
        }
    }

    fn carry_out(&mut self, id: EngineId, effect: Effect) -> Verdict {
        let now = self.schedule.now();
        match effect {
            Effect::Connect {
                replica,
                link,
                open,
                node,
                ..
            } => {
                let host = self.hosts.iter().position(|host| host.node == node);
                self.places.insert(replica, host.unwrap_or_default());
                let key = self.key(id, link, replica);
                self.network.connect(key);
                let open = Box::new(open);
                match self.network.reaches_host(key, now, &mut self.random) {
                    Some(at) => self.schedule.at(
                        at,
                        Happening::Open {
                            key,
                            open,
                            sent: now,
                        },
                    ),
                    None => {
                        let failure = LinkFailure::Transport("timed out".to_owned());
                        self.schedule
                            .after(CONNECT_LIMIT, Happening::Closed { key, failure });
                    }
                }
            }
            Effect::Disconnect { replica, link } => {
                let key = self.key(id, link, replica);
                self.network.disconnect(key);
            }
            Effect::Send {
                replica,
                link,
                frame,
            } => {
                let key = self.key(id, link, replica);
                if let Some(at) = self.network.reaches_host(key, now, &mut self.random) {
                    self.schedule.at(at, Happening::Arrive { key, frame });
                }
            }
            Effect::Complete {
                id: operation,
                outcome,
            } => {
                return self.complete(id, operation, outcome);
            }
            Effect::Record(record) => self.record(id, record),
            Effect::Serve => self.serve(id),
            Effect::Resized(size) => {
                self.note(format_args!("{id:?} tells that it has {size:?} now"));
                if let Some(engine) = self.engines.get_mut(&id) {
                    engine.resized(size);
                }
            }
            Effect::Stopped(reason) => {
                self.note(format_args!("{id:?} stops: {reason:?}"));
                self.ended(id, matches!(reason, StopReason::Fenced(_)));
            }
        }
        Ok(())
    }

    fn key(&self, engine: EngineId, link: LinkId, replica: ReplicaId) -> LinkKey {
        let epoch = self.engines.get(&engine);
        LinkKey {
            engine,
            link,
            replica,
            host: self.places.get(&replica).copied().unwrap_or_default(),
            epoch: epoch.map_or(Epoch::ZERO, |engine| engine.start.epoch),
        }
    }

    fn serve(&mut self, id: EngineId) {
        let now = self.schedule.now();
        self.note(format_args!("{id:?} serves"));
        let Some(engine) = self.engines.get_mut(&id) else {
            return;
        };
        engine.serving = true;
        let (volume, host) = (engine.volume(), engine.start.host);
        // It has waited out everybody's lease.
        let record = self.hosts[host].agent.records.get_mut(&volume);
        if let Some(record) = record.filter(|record| record.engine == id) {
            record.alone = true;
        }
        if let Some(model) = self.models.get_mut(&volume) {
            model.history.settle(id, now);
        }
        self.beat_now(Who::Engine(id));
    }
}
