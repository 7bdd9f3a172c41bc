//! The loop that plans while this manager leads. The only part of `reconcile` that waits.

use std::sync::Arc;
use std::time::Duration;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{LogCommand, SetClusterCommand};
use tokio::sync::watch;
use tokio::time::sleep;

use super::plan;
use crate::api::{Reports, Seat};
use crate::raft::Leadership;

/// The longest time between two plans: silences are noticed by planning.
const INTERVAL: Duration = Duration::from_millis(500);

/// The shortest: a burst of reports costs one plan.
const PAUSE: Duration = Duration::from_millis(20);

/// Plans and proposes whenever this manager leads. Ends when the group has ended here.
pub async fn run<S: Seat>(seat: S, reports: Arc<Reports>) {
    let mut leads = seat.leadership();
    loop {
        if leads.wait_for(|now| now.is_leader).await.is_err() {
            return;
        }
        reports.start_over();
        tracing::info!("this manager leads and reconciles");
        lead(&seat, &reports, &mut leads).await;
        tracing::info!("this manager leads no more");
    }
}

async fn lead<S: Seat>(seat: &S, reports: &Reports, leads: &mut watch::Receiver<Leadership>) {
    let (mut state, mut news) = (seat.changed(), reports.changed());
    while leads.borrow_and_update().is_leader {
        state.borrow_and_update();
        news.borrow_and_update();
        // A plan made from a state that lacks what was agreed before would repeat it.
        if seat.read().await.is_ok() {
            propose_all(seat, reports).await;
        }
        sleep(PAUSE).await;
        tokio::select! {
            _ = state.changed() => {}
            _ = news.changed() => {}
            _ = leads.changed() => {}
            () = sleep(INTERVAL) => {}
        }
    }
}

async fn propose_all<S: Seat>(seat: &S, reports: &Reports) {
    let now = reports.now();
    let named = seat.with_state(|state| state.cluster_id().is_some());
    let naming = seat.cluster_id().filter(|_| !named).map(|id| LogCommand {
        request_id: String::new(),
        at_ms: now.wall_ms,
        command: Some(Command::SetCluster(SetClusterCommand {
            cluster_id: id.to_string(),
        })),
    });
    seat.with_state(|state| {
        reports.keep_engines(|volume| state.volumes().contains_key(volume));
    });
    let planned = seat
        .with_state(|state| reports.look(|observed| plan(state, observed, now, &mut rand::random)));
    for command in naming.into_iter().chain(planned) {
        match seat.propose(command).await {
            Ok(answer) => {
                if let Some(refusal) = answer.refusal {
                    // The state moved between plan and apply; the next plan knows.
                    tracing::debug!(refusal = refusal.message, "a planned command was refused");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a planned command was not agreed on");
                return;
            }
        }
    }
}
