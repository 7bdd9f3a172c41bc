//! The control thread of an engine: all its gRPC, joined to the data thread by bounded channels.

use std::thread::JoinHandle;
use std::time::Duration;

use ankole_proto::rpc::v1;
use ankole_proto::{Epoch, NodeName, VolumeId};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::heartbeat::{EngineStatus, heartbeats};
use super::keeper::{Adoption, Keeper, keep_reservations};
use super::orders::VolumeOrders;
use super::refusal::record_refusal;
use super::{CallError, ManagerAddress, Managers, Patience};
use crate::mirror::event::{Orders, Record, RecordRefusal};

/// Records asked for and not yet answered: the mirror asks for at most one per replica and task.
const RECORDS_MAX: usize = 64;
/// Answers that the data thread has not yet taken; the control thread waits when they are full.
const EVENTS_MAX: usize = 64;
/// A record holds up acknowledgements (INV-3). An attempt passes the leader's commit; the total
/// outlasts an election, and then the mirror asks again.
const RECORD_PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(2),
    total: Duration::from_secs(5),
};

/// Whose control thread it is, and whom it talks to.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// All managers that are known.
    pub managers: Vec<ManagerAddress>,
    /// The engine's volume.
    pub volume: VolumeId,
    /// The engine's epoch: records are made under it.
    pub epoch: Epoch,
    /// Where the engine runs.
    pub node: NodeName,
}

/// What the managers said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// Orders that differ from the last.
    Orders(Box<VolumeOrders>),
    /// The answer to a record.
    Recorded {
        /// To which.
        record: Record,
        /// The answer.
        result: Result<Orders, RecordRefusal>,
    },
    /// The answer to a change of the reservations: kept, or why it is void.
    Kept(Result<(), String>),
    /// The managers have what was kept before the last change, or by an earlier version.
    Settled,
    /// A heartbeat failed, for people; it is tried again.
    Trouble(String),
}

/// Why there is no control thread.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody to talk to.
    #[error("no manager is given: name at least one with --manager host:port")]
    NoManager,
    /// The system refused a runtime or a thread.
    #[error("the control thread cannot be started: {0}")]
    Start(#[from] std::io::Error),
}

/// The data thread's end. Dropping it ends the control thread.
#[derive(Debug)]
pub struct Control {
    records: mpsc::Sender<Record>,
    status: watch::Sender<EngineStatus>,
    keeper: Keeper,
    adoptions: mpsc::Sender<Adoption>,
    _thread: JoinHandle<()>,
}

impl Control {
    /// Starts the thread; heartbeats begin at once.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn start(
        config: ControlConfig,
    ) -> Result<(Self, mpsc::Receiver<ControlEvent>), ControlError> {
        if config.managers.is_empty() {
            return Err(ControlError::NoManager);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (records, record_receiver) = mpsc::channel(RECORDS_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (status, status_receiver) = watch::channel(EngineStatus::default());
        let (keeper, changes) = Keeper::new();
        let (adoptions, adopted) = mpsc::channel(1);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let work = work(
                    config,
                    Asked {
                        records: record_receiver,
                        status: status_receiver,
                        changes,
                        adopted,
                    },
                    event_sender,
                );
                LocalSet::new().block_on(&runtime, work);
            })?;
        let control = Self {
            records,
            status,
            keeper,
            adoptions,
            _thread: thread,
        };
        Ok((control, events))
    }

    /// Asks the managers to record something; answered with [`ControlEvent::Recorded`].
    ///
    /// # Errors
    ///
    /// The record again, when too many wait already or the thread is gone: it was not asked for.
    pub fn record(&self, record: Record) -> Result<(), Record> {
        self.records.try_send(record).map_err(|error| match error {
            mpsc::error::TrySendError::Full(record) | mpsc::error::TrySendError::Closed(record) => {
                record
            }
        })
    }

    /// The way of the reservations to the managers.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Tells what the managers had of the reservations when the engine began: what is told to them
    /// anew when a change is void.
    pub fn reservations_known(&self, state: Bytes) {
        // Only ever told once, so there is room.
        let _ = self.adoptions.try_send(Adoption::Known(state));
    }

    /// Has the managers take over what an engine of an earlier version kept; answered with
    /// [`ControlEvent::Settled`].
    pub fn adopt_reservations(&self, state: Bytes) {
        let _ = self.adoptions.try_send(Adoption::Untold(state));
    }

    /// Says how the engine does; the managers hear of it when it differs from before.
    pub fn report(&self, status: EngineStatus) {
        self.status.send_if_modified(|current| {
            let differs = *current != status;
            if differs {
                *current = status;
            }
            differs
        });
    }
}

/// What the data thread asks for.
struct Asked {
    records: mpsc::Receiver<Record>,
    status: watch::Receiver<EngineStatus>,
    changes: mpsc::Receiver<Bytes>,
    adopted: mpsc::Receiver<Adoption>,
}

async fn work(config: ControlConfig, asked: Asked, events: mpsc::Sender<ControlEvent>) {
    let Some(managers) = Managers::new(&config.managers) else {
        return;
    };
    // Separate connections' order does not matter: each record stands for itself.
    let beats = heartbeats(&managers, &config, asked.status, events.clone());
    let recording = answer_records(&managers, &config, asked.records, events.clone());
    let keeping = keep_reservations(&managers, &config, asked.changes, asked.adopted, events);
    tokio::join!(beats, recording, keeping);
}

/// Makes the records in the order in which they were asked for, one after the other.
async fn answer_records(
    managers: &Managers,
    config: &ControlConfig,
    mut records: mpsc::Receiver<Record>,
    events: mpsc::Sender<ControlEvent>,
) {
    while let Some(record) = records.recv().await {
        let result = match make_record(managers, config, &record).await {
            Ok(message) => VolumeOrders::try_from(message)
                .map(|orders| orders.orders)
                .map_err(|error| RecordRefusal::Unreachable(error.to_string())),
            Err(error) => Err(record_refusal(&error)),
        };
        if events
            .send(ControlEvent::Recorded { record, result })
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn make_record(
    managers: &Managers,
    config: &ControlConfig,
    record: &Record,
) -> Result<v1::EngineOrders, CallError> {
    let volume_id = config.volume.to_string();
    let epoch = config.epoch.raw();
    match record {
        Record::ReplicaLost { replica, reason } => {
            let request = v1::RecordReplicaLostRequest {
                volume_id,
                epoch,
                replica_id: replica.to_string(),
                reason: reason.clone(),
            };
            let call = async |fleet: &mut Fleet| fleet.record_replica_lost(request.clone()).await;
            managers.call(RECORD_PATIENCE, call).await
        }
        Record::ReplicaInSync { replica } => {
            let request = v1::RecordReplicaInSyncRequest {
                volume_id,
                epoch,
                replica_id: replica.to_string(),
            };
            let call =
                async |fleet: &mut Fleet| fleet.record_replica_in_sync(request.clone()).await;
            managers.call(RECORD_PATIENCE, call).await
        }
        Record::TaskDone { task, refusal } => {
            let request = v1::RecordTaskDoneRequest {
                volume_id,
                epoch,
                task_id: task.0,
                refusal: refusal.clone().unwrap_or_default(),
            };
            let call = async |fleet: &mut Fleet| fleet.record_task_done(request.clone()).await;
            managers.call(RECORD_PATIENCE, call).await
        }
    }
}

type Fleet = v1::fleet_client::FleetClient<tonic::transport::Channel>;
