//! `ankole-engine run`: one volume, from its orders to its end.
//!
//! Owns the process: one thread on which everything happens that I/O waits for (portal, mirror,
//! links), and the control thread beside it. The loop in [`service`] only waits; what has happened
//! goes into the [`inbox`] and from there, with everything else that is ready, through the mirror
//! ([`engine`]); then each replica gets one write. Also the engine's [`directory`]: what it says of
//! itself, and the lock that says that it lives.
//!
//! Promises: the target listens only once the mirror serves; effects are carried out in the order
//! given; a fenced engine ends with [`exit::FENCED`] (INV-1); told to end, it ends within
//! [`service::STOP_LIMIT`].

mod args;
pub mod directory;
mod engine;
pub mod exit;
mod inbox;
pub mod lock;
pub mod log;
mod report;
mod service;
mod spin;
mod start;
mod stop;
mod submissions;
mod target;

use std::rc::Rc;

use ankole_proto::VolumeId;
use bytes::Bytes;

pub use args::RunArgs;
use directory::{DirectoryError, EngineDirectory, HeldDirectory, Phase};
use engine::Engine;
use inbox::Inbox;
use report::Reporter;
use service::{End, Service};
use stop::StopSignals;
use submissions::Submissions;
pub use target::TargetError;
use target::{TargetServer, TargetSpec};

use crate::managers::orders::VolumeOrders;
use crate::managers::{Control, ControlConfig, ControlError};
use crate::mirror::MirrorConfig;
use crate::scsi::STATE_BYTES_MAX;

/// Why an engine could not begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its directory cannot be used, or another engine lives there.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It cannot talk to the managers.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The control thread is gone, which has its reason in the log.
    #[error("the control thread has ended")]
    ControlEnded,
    /// The managers gave no orders.
    #[error("no orders from the managers ({trouble}): are the --manager addresses right?")]
    NoOrders {
        /// What they said, or did not.
        trouble: String,
    },
    /// The managers' orders are for another volume.
    #[error("the managers answered with orders for volume {0}")]
    WrongVolume(VolumeId),
    /// The target cannot be served.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The system refused something that every process may have.
    #[error("the engine cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// It was told to end and could not do so in order.
    #[error("the engine did not end in time: {0}")]
    Stop(&'static str),
}

/// Serves the volume until it is told to end or is fenced, in the current `LocalSet`. Returns the
/// process's exit code.
///
/// # Errors
///
/// [`RunError`].
pub async fn run(args: RunArgs) -> Result<i32, RunError> {
    let mut signals = StopSignals::new()?;
    let held = EngineDirectory::new(&args.directory).hold().await?;
    let mut reporter = Reporter::new(Rc::new(held), &args)?;
    let result = serve(&args, &mut signals, &mut reporter).await;
    let (phase, message) = match &result {
        Ok(End::Closed(message)) => (Phase::Closed, message.clone()),
        Ok(End::Fenced(epoch)) => (Phase::Fenced, format!("fenced by epoch {epoch}")),
        Err(error) => (Phase::Failed, error.to_string()),
    };
    tracing::info!(?phase, message, "the engine ends");
    reporter.end(phase, message)?;
    match result? {
        End::Closed(_) => Ok(exit::CLOSED),
        End::Fenced(_) => Ok(exit::FENCED),
    }
}

async fn serve(
    args: &RunArgs,
    signals: &mut StopSignals,
    reporter: &mut Reporter,
) -> Result<End, RunError> {
    let (control, mut events) = Control::start(ControlConfig {
        managers: args.managers.clone(),
        volume: args.volume,
        epoch: args.epoch,
        node: args.node.clone(),
    })?;
    let first = tokio::select! {
        first = start::first_orders(args, &mut events) => first?,
        () = signals.next() => return Ok(End::Closed("told to end before it began".to_owned())),
    };
    if first.orders.epoch > args.epoch {
        return Ok(End::Fenced(first.orders.epoch));
    }
    let VolumeOrders {
        orders,
        name,
        iqn,
        settings,
        reservations,
    } = first;
    tracing::info!(name, iqn, size = %orders.size, replicas = orders.replicas.len(), "orders");
    let inbox = Rc::new(Inbox::default());
    let reservations = take_over(reservations, reporter.held(), &control);
    let submissions = Submissions::new(Rc::clone(&inbox), control.keeper());
    let engine = Engine::new(
        config(args),
        orders.clone(),
        control,
        submissions,
        Rc::clone(&inbox),
    );
    let target = match args.listen {
        Some(listen) => {
            let spec = TargetSpec {
                volume: args.volume,
                name: &name,
                iqn: &iqn,
                listen,
                advertise: args.advertise.unwrap_or(listen),
                orders: &orders,
                settings,
                reservations: &reservations,
            };
            let (submissions, inbox) = (engine.submissions(), Rc::clone(&inbox));
            Some(TargetServer::new(spec, submissions, inbox)?)
        }
        None => None,
    };
    Service::new(engine, target, inbox, events)
        .work(signals, reporter)
        .await
}

/// The reservations to begin with: those that the managers keep. When they never got any, those of
/// an engine of an earlier version, which kept them in its directory; the managers get them.
fn take_over(kept: Bytes, held: &HeldDirectory, control: &Control) -> Bytes {
    let stored = held.reservations().unwrap_or_else(|error| {
        tracing::warn!(%error, "the reservations of an earlier version cannot be read");
        None
    });
    match stored {
        Some(stored) if kept.is_empty() && stored.len() <= STATE_BYTES_MAX => {
            let stored = Bytes::from(stored);
            control.adopt_reservations(stored.clone());
            return stored;
        }
        Some(_) => forget_stored(held),
        None => {}
    }
    control.reservations_known(kept.clone());
    kept
}

/// The managers have newer reservations than the directory.
fn forget_stored(held: &HeldDirectory) {
    if let Err(error) = held.remove_reservations() {
        tracing::warn!(%error, "the reservations of an earlier version stay in the directory");
    }
}

fn config(args: &RunArgs) -> MirrorConfig {
    MirrorConfig {
        previous_engine_ended: args.previous_ended,
        ..MirrorConfig::new(args.epoch, args.node.clone())
    }
}
