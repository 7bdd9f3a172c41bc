//! Drives the unit's sanitize operation: nobody's command, so nobody's connection.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::Shared;
use super::registry::Control;
use super::volume::{Completion, CompletionQueue};
use crate::iscsi::session::TaskId;
use crate::scsi::{SanitizeProgress, SanitizeStep};
use crate::volume::{Operation, Outcome};

/// What is written in a second: other volumes share the replicas' disks.
const BYTES_PER_S: u64 = 32 << 20;
/// Between two tries of what could not be carried out or kept.
const PAUSE: Duration = Duration::from_secs(1);

/// Until it has ended, or the engine stops.
pub(super) async fn run(shared: Rc<Shared>) {
    info!("the volume is being sanitized");
    let queue = Rc::new(CompletionQueue::default());
    loop {
        let step = shared.unit.borrow().sanitize_step();
        match step {
            SanitizeStep::Idle => break,
            SanitizeStep::Run(operations) => {
                let began = Instant::now();
                let pace = pace(&operations);
                let outcomes = carry_out(&shared, &queue, operations).await;
                let progress = shared.unit.borrow_mut().sanitize_outcomes(&outcomes);
                match progress {
                    SanitizeProgress::Advanced => sleep_until(began + pace).await,
                    SanitizeProgress::Retry => {
                        warn!("the volume cannot be sanitized now; trying again");
                        sleep(PAUSE).await;
                    }
                    SanitizeProgress::Stopped => break,
                }
            }
            SanitizeStep::Keep(state) => {
                shared.keeper.keep(state, completion(&queue, 0));
                match next(&queue).await {
                    Outcome::Done(_) => {
                        shared.unit.borrow_mut().sanitize_kept();
                        info!("the volume is not being sanitized any more");
                    }
                    Outcome::Failed(_) | Outcome::Miscompare { .. } => {
                        error!("the end of the sanitize operation cannot be kept; trying again");
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        if shared.registry.borrow().is_stopping() {
            break;
        }
    }
    shared.sanitizing.set(false);
    shared
        .registry
        .borrow()
        .tell_sessions(Control::SanitizeOver);
}

fn completion(queue: &Rc<CompletionQueue>, index: usize) -> Completion {
    Completion::new(queue.clone(), TaskId(0), index)
}

/// How long what is written should take at least.
fn pace(operations: &[Operation]) -> Duration {
    let written = operations.iter().map(|operation| match operation {
        Operation::Write { extent, .. } => extent.length(),
        _ => 0,
    });
    Duration::from_micros(written.sum::<u64>() * 1_000_000 / BYTES_PER_S)
}

async fn carry_out(
    shared: &Shared,
    queue: &Rc<CompletionQueue>,
    operations: Vec<Operation>,
) -> Vec<Outcome> {
    let count = operations.len();
    for (index, operation) in operations.into_iter().enumerate() {
        shared.volume.submit(operation, completion(queue, index));
    }
    shared.volume.submitted();
    let mut outcomes = Vec::with_capacity(count);
    while outcomes.len() < count {
        outcomes.push(next(queue).await);
    }
    outcomes
}

async fn next(queue: &CompletionQueue) -> Outcome {
    loop {
        if let Some(completed) = queue.pop() {
            return completed.outcome;
        }
        queue.wait().await;
    }
}
