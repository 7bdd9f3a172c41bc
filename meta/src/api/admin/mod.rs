//! `Admin`: what operators, the command line and CSI ask.

mod clones;
mod groups;
mod look;
mod service;
mod settings;
mod snapshots;
mod volumes;

use std::time::Duration;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{Desk, EFFECT_WAIT, Seat, status, validate};
use crate::reconcile::{Now, Observed};
use crate::state::State;

/// How often a command is made anew when the state moved between making and applying it. Each time
/// another call has won, so this is how many may be made at the same moment: attaching a node's
/// volumes all at once, each after the next free port.
const ATTEMPTS_MAX: usize = 64;

/// What a command is made from, and what an effect shows in.
struct Sight<'a> {
    state: &'a State,
    observed: &'a Observed,
    now: Now,
}

impl<S: Seat> Desk<S> {
    fn sight<R>(&self, look: impl FnOnce(&Sight<'_>) -> R) -> R {
        let now = self.reports.now();
        self.seat.with_state(|state| {
            self.reports.look(|observed| {
                look(&Sight {
                    state,
                    observed,
                    now,
                })
            })
        })
    }

    /// Proposes the command that `make` makes, unless the request was carried out before.
    async fn act(
        &self,
        call: &'static str,
        request_id: &str,
        make: impl Fn(&Sight<'_>) -> Result<Command, Status> + Send + Sync,
    ) -> Result<LogAnswer, Status> {
        validate::request_id(request_id)?;
        let mut last = Status::aborted("the state keeps changing; try again");
        for _ in 0..ATTEMPTS_MAX {
            self.seat.read().await?;
            if let Some(answer) = self.carried_out(call, request_id) {
                return Ok(answer);
            }
            let command = LogCommand {
                request_id: request_id.to_owned(),
                at_ms: self.reports.now().wall_ms,
                command: Some(self.sight(&make)?),
            };
            let answer = self.seat.propose(command).await?;
            match &answer.refusal {
                None => return Ok(answer),
                Some(refusal) => last = status::refused(refusal),
            }
            if last.code() != Code::Aborted {
                break;
            }
        }
        Err(last)
    }

    /// The answer of the same call under the same request id.
    fn carried_out(&self, call: &str, request_id: &str) -> Option<LogAnswer> {
        self.seat.with_state(|state| {
            let (earlier, answer) = state.requests().find(request_id)?;
            (earlier == call).then(|| answer.clone())
        })
    }

    /// Waits until `done` answers, for at most [`EFFECT_WAIT`].
    async fn effect<T>(
        &self,
        what: &str,
        done: impl Fn(&Sight<'_>) -> Option<Result<T, Status>> + Send + Sync,
    ) -> Result<T, Status> {
        self.effect_within(EFFECT_WAIT, what, done).await
    }

    async fn effect_within<T>(
        &self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Sight<'_>) -> Option<Result<T, Status>> + Send + Sync,
    ) -> Result<T, Status> {
        let deadline = Instant::now() + limit;
        let (mut state, mut reports) = (self.seat.changed(), self.reports.changed());
        loop {
            state.borrow_and_update();
            reports.borrow_and_update();
            if let Some(result) = self.sight(&done) {
                return result;
            }
            let news = async {
                tokio::select! {
                    alive = state.changed() => alive,
                    alive = reports.changed() => alive,
                }
            };
            match timeout_at(deadline, news).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::unavailable("this manager is stopping")),
                Err(_) => {
                    let text = format!("recorded, but {what} within {} s", limit.as_secs());
                    return Err(Status::deadline_exceeded(text));
                }
            }
        }
    }
}
