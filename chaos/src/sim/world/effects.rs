//! Carrying out what an engine's mirror wants done.

use std::time::Duration;

use ankole_blockd::session::{Denial, Detail};
use ankole_engine::mirror::event::{Effect, Event, LinkFailure, LinkId};
use ankole_proto::wire::ErrorCode;
use ankole_proto::{Epoch, ReplicaId};

use super::super::checker::Verdict;
use super::super::engine::EngineId;
use super::super::network::{LinkKey, delay};
use super::{Happening, Predecessor, World};

/// How long an engine tries to reach a host that does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Between the end of the newest engine and the start of the next.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// What an engine's link makes of a refused Open.
pub(super) fn failure_of(denial: &Denial) -> LinkFailure {
    match (denial.code, denial.detail) {
        (ErrorCode::Fenced, Detail::Epoch(epoch)) => LinkFailure::Fenced(Epoch::from_raw(epoch)),
        (ErrorCode::Stopping | ErrorCode::Overloaded, _) => {
            LinkFailure::Transport(denial.message.clone())
        }
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
                ..
            } => {
                let key = LinkKey {
                    engine: id,
                    link,
                    replica,
                    epoch: open.epoch,
                };
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
            Effect::Record(record) => {
                let delay = delay(&mut self.random);
                self.schedule
                    .after(delay, Happening::Record { engine: id, record });
            }
            Effect::Serve => self.serve(id),
            Effect::Resized(_) => {}
            Effect::Stopped(reason) => {
                self.note(format_args!("{id:?} stops: {reason:?}"));
                self.ended(id);
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
            epoch: epoch.map_or(Epoch::ZERO, |engine| engine.epoch),
        }
    }

    fn serve(&mut self, id: EngineId) {
        let now = self.schedule.now();
        self.note(format_args!("{id:?} serves"));
        if let Some(engine) = self.engines.get_mut(&id) {
            engine.serving = true;
        }
        self.history.settle(id, now);
        if id.0 + 1 == self.next_engine {
            // It has waited out everybody's lease.
            self.predecessor.alone = true;
        }
    }

    /// An engine is gone.
    pub(super) fn ended(&mut self, id: EngineId) {
        self.engines.remove(&id);
        for key in self.network.connections(|key| key.engine == id) {
            self.network.disconnect(key);
        }
        if id.0 + 1 == self.next_engine {
            self.predecessor = Predecessor {
                ended: true,
                ..self.predecessor
            };
            self.schedule.after(RESTART_PAUSE, Happening::StartEngine);
        }
    }
}
