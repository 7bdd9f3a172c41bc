//! The engine's loop: it waits, and has done what happened.

use std::rc::Rc;
use std::time::Duration;

use ankole_proto::Epoch;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::directory::Phase;
use super::engine::{Engine, News};
use super::inbox::Inbox;
use super::report::Reporter;
use super::spin::Spin;
use super::stop::StopSignals;
use super::target::{TargetError, TargetServer};
use super::{RunError, forget_stored};
use crate::managers::ControlEvent;
use crate::mirror::event::{Event, StopReason, TaskId};

/// How long an engine that was told to end may take: its initiators log out, what is in flight
/// drains, its replicas are closed. Below the agent's patience.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How an engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to; the message says what could not be closed in order, if anything.
    Closed(String),
    /// By a newer engine.
    Fenced(Epoch),
}

/// A running engine and everything that it waits for.
pub(super) struct Service {
    engine: Engine,
    target: Option<TargetServer>,
    inbox: Rc<Inbox>,
    control: mpsc::Receiver<ControlEvent>,
    spin: Spin,
    phase: Phase,
    held_task: Option<TaskId>,
    /// When it must have ended, once it was told to.
    stop_by: Option<Instant>,
    served: bool,
}

/// What the loop woke up for.
enum Wake {
    Signal,
    Control(Option<ControlEvent>),
    Target(TargetError),
    StopLimit,
    Work,
}

impl Service {
    pub(super) fn new(
        engine: Engine,
        target: Option<TargetServer>,
        inbox: Rc<Inbox>,
        control: mpsc::Receiver<ControlEvent>,
    ) -> Self {
        Self {
            engine,
            target,
            inbox,
            control,
            spin: Spin::new(cpus(), std::time::Instant::now()),
            phase: Phase::Starting,
            held_task: None,
            stop_by: None,
            served: false,
        }
    }

    /// Works until the engine ends.
    pub(super) async fn work(
        mut self,
        signals: &mut StopSignals,
        reporter: &mut Reporter,
    ) -> Result<End, RunError> {
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            let wake_at = self.wake_at(reporter);
            // A timer that is early costs one empty turn, moving it at every turn costs more.
            if timer.is_elapsed() || wake_at < timer.deadline() {
                timer.as_mut().reset(wake_at);
            }
            self.look_again().await;
            let wake = tokio::select! {
                biased;
                () = signals.next() => Wake::Signal,
                event = self.control.recv() => Wake::Control(event),
                error = ended(&mut self.target) => Wake::Target(error),
                () = limit(self.stop_by) => Wake::StopLimit,
                () = self.inbox.arrived() => Wake::Work,
                () = &mut timer => Wake::Work,
            };
            self.spin.end(std::time::Instant::now());
            self.take(wake, reporter)?;
            let news = self.engine.turn();
            if let Some(end) = self.act(news) {
                return Ok(end);
            }
            self.report(reporter);
        }
    }

    /// Looks for what comes soon, before the thread sleeps.
    async fn look_again(&mut self) {
        let in_flight = self.engine.in_flight();
        self.spin.begin(std::time::Instant::now(), in_flight);
        while self.inbox.is_empty() && self.spin.goes_on(std::time::Instant::now()) {
            tokio::task::yield_now().await;
            // Whoever waits for this CPU goes first: it may be the one that is waited for.
            std::thread::yield_now();
        }
    }

    fn wake_at(&self, reporter: &Reporter) -> Instant {
        let report = reporter.due_at();
        let wake_at = self.engine.wake_at().map_or(report, |at| at.min(report));
        Instant::from_std(wake_at)
    }

    fn take(&mut self, wake: Wake, reporter: &Reporter) -> Result<(), RunError> {
        match wake {
            Wake::Work => Ok(()),
            Wake::Signal if self.stop_by.is_none() => {
                self.begin_stop();
                Ok(())
            }
            Wake::Signal => Err(RunError::Stop("it was told to end at once")),
            Wake::StopLimit => Err(RunError::Stop("what was in flight did not drain")),
            Wake::Control(None) => Err(RunError::ControlEnded),
            Wake::Control(Some(ControlEvent::Orders(orders))) => {
                if let Some(target) = &mut self.target {
                    target.change(orders.settings);
                }
                self.inbox.push(Event::Orders(orders.orders));
                Ok(())
            }
            Wake::Control(Some(ControlEvent::Recorded { record, result })) => {
                tracing::info!(?record, ?result, "the managers answered");
                self.inbox.push(Event::Recorded { record, result });
                Ok(())
            }
            Wake::Control(Some(ControlEvent::Kept(result))) => {
                self.engine.submissions().kept(result);
                Ok(())
            }
            Wake::Control(Some(ControlEvent::Settled)) => {
                forget_stored(reporter.held());
                Ok(())
            }
            // Already logged; it serves on without managers.
            Wake::Control(Some(ControlEvent::Trouble(_))) => Ok(()),
            Wake::Target(error) if self.stop_by.is_none() => Err(error.into()),
            Wake::Target(_) => {
                self.target = None;
                Ok(())
            }
        }
    }

    fn begin_stop(&mut self) {
        tracing::info!("told to end");
        self.stop_by = Some(Instant::now() + STOP_LIMIT);
        match &self.target {
            Some(target) => target.stop(),
            None => self.inbox.push(Event::Stop),
        }
    }

    fn act(&mut self, news: News) -> Option<End> {
        if news.serve {
            self.served = true;
            if let (Some(target), None) = (&mut self.target, self.stop_by) {
                target.start();
            }
        }
        if let (Some(target), Some(size)) = (&self.target, news.resized) {
            target.resize(size);
        }
        news.stopped.map(|reason| match reason {
            StopReason::Closed => End::Closed(String::new()),
            StopReason::ClosedPartly(message) => End::Closed(message),
            StopReason::Fenced(epoch) => End::Fenced(epoch),
        })
    }

    /// Reports when it is time to, or when somebody waits for it.
    fn report(&mut self, reporter: &mut Reporter) {
        let phase = self.phase_now();
        let held = self.engine.held_task();
        let news = phase != self.phase || held != self.held_task;
        if news || reporter.due_at() <= std::time::Instant::now() {
            (self.phase, self.held_task) = (phase, held);
            let initiators = self.target.as_ref().map_or(0, TargetServer::initiators);
            reporter.report(&self.engine, phase, initiators);
        }
    }

    fn phase_now(&self) -> Phase {
        let reachable = match &self.target {
            Some(target) => target.is_listening(),
            None => self.served,
        };
        match (self.stop_by, reachable) {
            (Some(_), _) => Phase::Stopping,
            (None, true) => Phase::Serving,
            (None, false) => Phase::Starting,
        }
    }
}

/// That this process may use.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn ended(target: &mut Option<TargetServer>) -> TargetError {
    match target {
        Some(target) => target.ended().await,
        None => std::future::pending().await,
    }
}

async fn limit(stop_by: Option<Instant>) {
    match stop_by {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
