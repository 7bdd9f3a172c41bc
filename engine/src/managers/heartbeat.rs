//! An engine's heartbeats: long polls that report how it does and bring its orders.

use std::time::Duration;

use ankole_proto::ReplicaId;
use ankole_proto::rpc::v1;
use tokio::sync::{mpsc, watch};

use super::control::{ControlConfig, ControlEvent};
use super::orders::VolumeOrders;
use super::{CallError, Managers, Patience};
use crate::mirror::ComparisonStatus;
use crate::mirror::event::TaskId;

/// How long a manager may hold a heartbeat whose answer would not differ from the last.
const HOLD: Duration = Duration::from_secs(2);
/// A heartbeat is answered after [`HOLD`] at the latest; a second more is a manager that hangs.
/// The total only says when the trouble is logged: heartbeats go on for ever.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(3),
    total: Duration::from_secs(10),
};
/// The pause after an answer that cannot be followed, or was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineStatus {
    /// The target accepts logins and I/O goes on.
    pub serving: bool,
    /// Sessions logged in.
    pub initiators: u32,
    /// Why it does not serve, or holds I/O; empty otherwise.
    pub message: String,
    /// Replicas being made equal.
    pub rebuilds: Vec<Rebuild>,
    /// Bad blocks that this engine rewrote, for each replica that had some.
    pub repairs: Vec<(ReplicaId, u64)>,
    /// A group's seal for which everything is drained and held.
    pub held_task: Option<TaskId>,
    /// The comparison of the replicas that is under way, or the last one.
    pub comparison: Option<ComparisonStatus>,
}

/// How far the rebuild of a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// Which.
    pub replica: ReplicaId,
    /// Compared or copied.
    pub done_bytes: u64,
    /// To be compared or copied.
    pub total_bytes: u64,
    /// Of late.
    pub bytes_per_second: u64,
}

/// The message that tells the managers of an engine.
pub fn report(
    config: &ControlConfig,
    status: &EngineStatus,
    seen_revision: u64,
) -> v1::EngineReport {
    v1::EngineReport {
        volume_id: config.volume.to_string(),
        epoch: config.epoch.raw(),
        node: config.node.to_string(),
        serving: status.serving,
        initiators: status.initiators,
        rebuilds: status
            .rebuilds
            .iter()
            .map(|rebuild| v1::RebuildReport {
                replica_id: rebuild.replica.to_string(),
                progress: Some(v1::RebuildProgress {
                    done_bytes: rebuild.done_bytes,
                    total_bytes: rebuild.total_bytes,
                    bytes_per_second: rebuild.bytes_per_second,
                }),
            })
            .collect(),
        message: status.message.clone(),
        seen_revision,
        hold_ms: u32::try_from(HOLD.as_millis()).unwrap_or(0),
        repairs: status
            .repairs
            .iter()
            .map(|(replica, blocks)| v1::RepairReport {
                replica_id: replica.to_string(),
                blocks: *blocks,
            })
            .collect(),
        held_task: status.held_task.map_or(0, |task| task.0),
        comparison: status.comparison.as_ref().map(comparison),
    }
}

fn comparison(status: &ComparisonStatus) -> v1::ComparisonReport {
    v1::ComparisonReport {
        request: status.request,
        finished: status.is_finished,
        alike_replicas: status.alike.iter().map(ToString::to_string).collect(),
        progress: Some(v1::ComparisonProgress {
            done_bytes: status.done_bytes,
            total_bytes: status.total_bytes,
            bytes_per_second: status.bytes_per_second,
            differing_chunks: status.differing_chunks,
            undecided_chunks: status.undecided_chunks,
            skipped_chunks: status.skipped_chunks,
            finished_at_ms: 0,
        }),
    }
}

/// Reports until nobody wants the orders any more.
pub(super) async fn heartbeats(
    managers: &Managers,
    config: &ControlConfig,
    mut status: watch::Receiver<EngineStatus>,
    events: mpsc::Sender<ControlEvent>,
) {
    let mut seen_revision = 0;
    loop {
        let message = report(config, &status.borrow_and_update(), seen_revision);
        let answer = managers.call(PATIENCE, async |fleet| {
            fleet.engine_heartbeat(message.clone()).await
        });
        let answer = tokio::select! {
            answer = answer => answer,
            // What changed is to be known now, not when the long poll ends.
            changed = status.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = events.closed() => return,
        };
        match understood(answer) {
            Ok(orders) => {
                let news = orders.orders.revision != seen_revision;
                seen_revision = orders.orders.revision;
                if news
                    && events
                        .send(ControlEvent::Orders(Box::new(orders)))
                        .await
                        .is_err()
                {
                    return;
                }
            }
            Err(trouble) => {
                tracing::warn!(%trouble, "heartbeat failed");
                if events.send(ControlEvent::Trouble(trouble)).await.is_err() {
                    return;
                }
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

fn understood(answer: Result<v1::EngineOrders, CallError>) -> Result<VolumeOrders, String> {
    let message = answer.map_err(|error| error.to_string())?;
    VolumeOrders::try_from(message).map_err(|error| error.to_string())
}
