//! What the engine says of itself: to the managers with each heartbeat, and in its directory.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ankole_proto::ReplicaId;

use super::RunArgs;
use super::directory::{DirectoryError, EngineRecord, HeldDirectory, Phase};
use super::engine::Engine;
use crate::managers::{EngineStatus, Rebuild};
use crate::mirror::Status;

/// How often the mirror is asked how it does. What must be known at once is reported at once.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// What is told until the engine ends once it had to go on with a replica that lost its power.
const UNFLUSHED_LOST: &str = "writes that were acknowledged and not flushed may be gone: every \
     replica's host lost its power; check what the volume holds";

/// Keeps what was said last.
#[derive(Debug)]
pub(super) struct Reporter {
    held: Rc<HeldDirectory>,
    record: EngineRecord,
    next: Instant,
    /// The loss of what was not flushed has been logged.
    told_loss: bool,
}

impl Reporter {
    /// Says that the engine starts.
    pub(super) fn new(held: Rc<HeldDirectory>, args: &RunArgs) -> Result<Self, DirectoryError> {
        let record = EngineRecord {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            volume: args.volume,
            epoch: args.epoch,
            portal: args.portal(),
            port: args.listen.map(|listen| listen.port()),
            phase: Phase::Starting,
            message: String::new(),
            alone: args.previous_ended,
        };
        held.write(&record)?;
        Ok(Self {
            held,
            record,
            next: Instant::now(),
            told_loss: false,
        })
    }

    /// The engine's directory.
    pub(super) fn held(&self) -> &Rc<HeldDirectory> {
        &self.held
    }

    /// When the next report is due.
    pub(super) const fn due_at(&self) -> Instant {
        self.next
    }

    /// Reports how the engine does, to whom it has changed for.
    pub(super) fn report(&mut self, engine: &Engine, phase: Phase, initiators: u32) {
        self.next = Instant::now() + REPORT_INTERVAL;
        let status = engine.status();
        let mut message = status.held_because.clone().unwrap_or_default();
        if status.unflushed_lost {
            if !std::mem::replace(&mut self.told_loss, true) {
                tracing::error!("{UNFLUSHED_LOST}");
            }
            if message.is_empty() {
                UNFLUSHED_LOST.clone_into(&mut message);
            }
        }
        engine.control().report(EngineStatus {
            serving: phase == Phase::Serving,
            initiators,
            rebuilds: rebuilds(&status),
            message: message.clone(),
            repairs: repairs(&status),
            held_task: status.held_task,
            comparison: status.comparison,
        });
        if let Err(error) = self.write(phase, message) {
            // Initiators are served all the same; only the agent knows less.
            tracing::warn!(%error, "cannot write the engine's record");
        }
    }

    /// Says how the engine ended.
    pub(super) fn end(&mut self, phase: Phase, message: String) -> Result<(), DirectoryError> {
        self.write(phase, message)
    }

    fn write(&mut self, phase: Phase, message: String) -> Result<(), DirectoryError> {
        if self.record.phase == phase && self.record.message == message {
            return Ok(());
        }
        self.record.phase = phase;
        self.record.alone |= phase == Phase::Serving;
        self.record.message = message;
        self.held.write(&self.record)
    }
}

fn repairs(status: &Status) -> Vec<(ReplicaId, u64)> {
    let replicas = status.replicas.iter();
    replicas
        .filter(|replica| replica.repaired_blocks > 0)
        .map(|replica| (replica.replica, replica.repaired_blocks))
        .collect()
}

fn rebuilds(status: &Status) -> Vec<Rebuild> {
    status
        .replicas
        .iter()
        .filter_map(|replica| {
            replica.rebuild.map(|progress| Rebuild {
                replica: replica.replica,
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
                bytes_per_second: progress.bytes_per_second,
            })
        })
        .collect()
}
