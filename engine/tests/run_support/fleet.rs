//! A manager that says what a test tells it to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_proto::rpc::v1;
use ankole_proto::rpc::v1::fleet_server::{Fleet, FleetServer};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::PATIENCE;

/// What the manager knows and was told.
#[derive(Default)]
pub struct State {
    pub engine_orders: v1::EngineOrders,
    pub agent_orders: v1::AgentOrders,
    /// The last epoch granted, per volume.
    pub epochs: BTreeMap<String, u64>,
    /// Grants by request id.
    grants: BTreeMap<String, u64>,
    pub records: Vec<String>,
    pub engine_reports: Vec<v1::EngineReport>,
    pub agent_reports: Vec<v1::AgentReport>,
    /// Answers every call with UNAVAILABLE.
    pub leaderless: bool,
    /// Answers records with FAILED_PRECONDITION and this trailer.
    pub refusal: Option<&'static str>,
    pub calls: usize,
}

struct Shared {
    state: Mutex<State>,
    told: Condvar,
    changed: watch::Sender<u64>,
}

/// A running manager; ends when dropped.
pub struct FakeManager {
    shared: Arc<Shared>,
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl FakeManager {
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            told: Condvar::new(),
            changed: watch::channel(0).0,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = FleetServer::new(Service(Arc::clone(&shared)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serving = tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    result = serving => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            shared,
            address,
            _stop: stop,
        }
    }

    /// Changes what the manager says.
    pub fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state.lock());
        self.shared.changed.send_modify(|count| *count += 1);
        result
    }

    /// Waits until the condition holds and returns what it found.
    pub fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock();
        loop {
            if let Some(found) = found(&mut state) {
                return found;
            }
            let timed_out = self
                .shared
                .told
                .wait_until(&mut state, deadline)
                .timed_out();
            assert!(!timed_out, "waited in vain for {what}");
        }
    }
}

struct Service(Arc<Shared>);

impl Service {
    /// Waits as a long poll does: until `revision` differs from what was seen, or the time is over.
    async fn hold(&self, seen: u64, hold_ms: u32, revision: impl Fn(&State) -> u64) {
        let mut changed = self.0.changed.subscribe();
        let waiting = async {
            while revision(&self.0.state.lock()) == seen {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(hold_ms.into()), waiting).await;
    }

    fn called(&self, told: impl FnOnce(&mut State)) -> Result<(), Status> {
        let mut state = self.0.state.lock();
        state.calls += 1;
        if !state.leaderless {
            told(&mut state);
        }
        self.0.told.notify_all();
        if state.leaderless {
            return Err(Status::unavailable("no leader"));
        }
        Ok(())
    }

    fn record(&self, text: String) -> Result<Response<v1::EngineOrders>, Status> {
        self.called(|state| state.records.push(text))?;
        let state = self.0.state.lock();
        match state.refusal {
            None => Ok(Response::new(state.engine_orders.clone())),
            Some(refusal) => {
                let mut status = Status::failed_precondition("refused");
                let value = tonic::metadata::MetadataValue::from_static(refusal);
                status.metadata_mut().insert("ankole-refusal", value);
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl Fleet for Service {
    async fn blockd_heartbeat(
        &self,
        _: Request<v1::BlockdReport>,
    ) -> Result<Response<v1::BlockdOrders>, Status> {
        Err(Status::unimplemented("no blockd here"))
    }

    async fn agent_heartbeat(
        &self,
        request: Request<v1::AgentReport>,
    ) -> Result<Response<v1::AgentOrders>, Status> {
        let report = request.into_inner();
        let (seen, hold_ms) = (report.seen_revision, report.hold_ms);
        self.called(|state| state.agent_reports.push(report))?;
        self.hold(seen, hold_ms, |state| state.agent_orders.revision)
            .await;
        Ok(Response::new(self.0.state.lock().agent_orders.clone()))
    }

    async fn engine_heartbeat(
        &self,
        request: Request<v1::EngineReport>,
    ) -> Result<Response<v1::EngineOrders>, Status> {
        let report = request.into_inner();
        let (seen, hold_ms) = (report.seen_revision, report.hold_ms);
        self.called(|state| state.engine_reports.push(report))?;
        self.hold(seen, hold_ms, |state| state.engine_orders.revision)
            .await;
        Ok(Response::new(self.0.state.lock().engine_orders.clone()))
    }

    async fn grant_epoch(
        &self,
        request: Request<v1::GrantEpochRequest>,
    ) -> Result<Response<v1::EpochGrant>, Status> {
        let request = request.into_inner();
        self.called(|_| {})?;
        let mut state = self.0.state.lock();
        let last = state.epochs.get(&request.volume_id).copied().unwrap_or(0);
        let epoch = match state.grants.get(&request.request_id) {
            Some(granted) => *granted,
            None if request.expected_epoch == last => last + 1,
            None => return Err(Status::failed_precondition(format!("the epoch is {last}"))),
        };
        state.grants.insert(request.request_id, epoch);
        state.epochs.insert(request.volume_id.clone(), epoch);
        if state.engine_orders.volume_id == request.volume_id {
            state.engine_orders.epoch = epoch;
            state.engine_orders.revision += 1;
        }
        for order in &mut state.agent_orders.engines {
            if order.volume_id == request.volume_id {
                order.epoch = epoch;
            }
        }
        state.agent_orders.revision += 1;
        drop(state);
        self.0.told.notify_all();
        self.0.changed.send_modify(|count| *count += 1);
        Ok(Response::new(v1::EpochGrant {
            epoch,
            orders: None,
        }))
    }

    async fn record_replica_lost(
        &self,
        request: Request<v1::RecordReplicaLostRequest>,
    ) -> Result<Response<v1::EngineOrders>, Status> {
        let request = request.into_inner();
        self.record(format!("lost {} {}", request.replica_id, request.reason))
    }

    async fn record_replica_in_sync(
        &self,
        request: Request<v1::RecordReplicaInSyncRequest>,
    ) -> Result<Response<v1::EngineOrders>, Status> {
        self.record(format!("in-sync {}", request.into_inner().replica_id))
    }

    async fn record_task_done(
        &self,
        request: Request<v1::RecordTaskDoneRequest>,
    ) -> Result<Response<v1::EngineOrders>, Status> {
        let request = request.into_inner();
        self.record(format!("task {} {:?}", request.task_id, request.refusal))
    }

    async fn record_reservations(
        &self,
        request: Request<v1::RecordReservationsRequest>,
    ) -> Result<Response<v1::EngineOrders>, Status> {
        let request = request.into_inner();
        let text = String::from_utf8_lossy(&request.reservations).into_owned();
        let answer = self.record(format!("reservations {} {text}", request.number))?;
        self.0.state.lock().engine_orders.reservations = request.reservations;
        Ok(answer)
    }
}

/// Lists a replica as in sync.
pub fn add_replica(orders: &mut v1::EngineOrders, blockd: &super::blockd::FakeBlockd) {
    let number = orders.replicas.len() + 1;
    orders.replicas.push(v1::ReplicaOfVolume {
        id: format!("{number:032x}"),
        node: format!("node-{number}"),
        address: blockd.address.to_string(),
        socket: String::new(),
        mode: v1::ReplicaMode::InSync.into(),
        ..Default::default()
    });
}

/// Orders for a volume of 1 MiB without replicas.
pub fn orders(volume: ankole_proto::VolumeId, epoch: u64) -> v1::EngineOrders {
    v1::EngineOrders {
        revision: 1,
        volume_id: volume.to_string(),
        epoch,
        size_bytes: 1 << 20,
        head_layer: format!("{:016x}", 1),
        replicas: Vec::new(),
        credential: vec![7; 32],
        tasks: Vec::new(),
        volume_name: "data".to_owned(),
        iqn: "iqn.2026-01.io.ankole:data".to_owned(),
        ..Default::default()
    }
}
