//! One manager, and daemons that do what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ankole_meta::api::{Group, Reports, Seat, SeatError, Turn, routes};
use ankole_meta::raft::Leadership;
use ankole_meta::reconcile::drive;
use ankole_meta::state::{Replicated, State};
use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};

/// What a test makes happen.
#[derive(Clone, Default)]
pub(crate) struct World {
    /// Whether an initiator is logged in everywhere.
    pub(crate) logged_in: Arc<AtomicBool>,
    /// How many blocks of each replica on n2 are damaged, until an engine repairs them.
    pub(crate) damaged: Arc<AtomicU64>,
    /// Whether engines repair nothing.
    pub(crate) idle: Arc<AtomicBool>,
}

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A group of one that agrees with itself.
#[derive(Clone)]
struct Alone {
    state: Arc<Mutex<State>>,
    applied: Arc<watch::Sender<u64>>,
    leads: Arc<watch::Sender<Leadership>>,
    /// Of a follower: who leads.
    leader: Option<Channel>,
}

impl Alone {
    fn new(leader: Option<Channel>) -> Self {
        let leads = Leadership {
            is_leader: leader.is_none(),
            leader: None,
            term: 1,
        };
        Self {
            state: Arc::default(),
            applied: Arc::new(watch::Sender::new(0)),
            leads: Arc::new(watch::Sender::new(leads)),
            leader,
        }
    }
}

impl Seat for Alone {
    async fn propose(&self, command: LogCommand) -> Result<LogAnswer, SeatError> {
        // Agreeing takes a while in which others act.
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        let index = *self.applied.borrow() + 1;
        let (answer, _) = state.apply(index, &command);
        self.applied.send_replace(index);
        Ok(answer)
    }

    async fn read(&self) -> Result<(), SeatError> {
        Ok(())
    }

    fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.lock())
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leads.subscribe()
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        Some(ClusterId::from_bits(0xc1))
    }

    async fn turn(&self, _: &MetadataMap) -> Result<Turn, SeatError> {
        Ok(self.leader.clone().map_or(Turn::Mine, Turn::Leaders))
    }

    fn group(&self) -> Group {
        Group {
            leader: 1,
            term: 1,
            applied: *self.applied.borrow(),
            members: Vec::new(),
        }
    }
}

/// Serves one manager and tells how to reach it.
pub(crate) async fn manager(leader: Option<Channel>) -> Channel {
    let seat = Alone::new(leader);
    let reports = Arc::new(Reports::default());
    tokio::spawn(drive::run(seat.clone(), Arc::clone(&reports)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_routes(routes(seat, reports));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Stores what it is told to store.
async fn blockd(channel: Channel, node: &'static str, disk: u128, world: World) {
    let mut fleet = FleetClient::new(channel);
    let mut replicas: Vec<rpc::ReplicaReport> = Vec::new();
    let (mut seen_revision, mut cluster_id) = (0, String::new());
    loop {
        let damaged = match node {
            "n2" => world.damaged.load(Ordering::SeqCst),
            _ => 0,
        };
        for replica in &mut replicas {
            replica.damaged_blocks = damaged;
            replica.damages = (0..damaged).map(|block| damage(replica, block)).collect();
            replica.standstill = match damaged {
                0 => String::new(),
                _ => "merging stands still: bad block".to_owned(),
            };
            replica.resummed_blocks = 5;
        }
        let report = rpc::BlockdReport {
            node: node.into(),
            block_address: "127.0.0.1:4100".into(),
            disks: vec![rpc::DiskReport {
                id: format!("{disk:032x}"),
                path: "/data".into(),
                capacity_bytes: 100 << 30,
                free_bytes: 90 << 30,
                fault: String::new(),
                replicas: replicas.clone(),
                ..Default::default()
            }],
            seen_revision,
            hold_ms: 300,
            cluster_id: cluster_id.clone(),
            ..Default::default()
        };
        let Ok(orders) = fleet.blockd_heartbeat(report).await else {
            continue;
        };
        let orders = orders.into_inner();
        (seen_revision, cluster_id) = (orders.revision, orders.cluster_id);
        replicas.retain(|one| !orders.delete_replicas.contains(&one.id));
        for order in orders.replicas {
            let known = replicas.iter_mut().find(|one| one.id == order.id);
            match known {
                Some(known) => {
                    known
                        .layers
                        .retain(|one| !order.remove_layers.contains(one));
                    if order.scrub_request > known.scrub_request {
                        known.scrub_request = order.scrub_request;
                        known.scrub = Some(rpc::ScrubProgress {
                            started_at_ms: 1,
                            finished_at_ms: 2,
                            ..Default::default()
                        });
                    }
                }
                None if order.create => replicas.push(rpc::ReplicaReport {
                    id: order.id,
                    volume_id: order.volume_id,
                    state: rpc::StoredState::Ready.into(),
                    layers: vec![order.base_layer],
                    ..Default::default()
                }),
                None => {}
            }
        }
    }
}

fn damage(replica: &rpc::ReplicaReport, block: u64) -> rpc::Damage {
    rpc::Damage {
        layer: replica.layers.first().cloned().unwrap_or_default(),
        offset: 4096 * block,
        flaw: rpc::Flaw::Unreadable.into(),
        found_at_ms: 7,
    }
}

/// Runs scripted engines where it is told to.
async fn agent(channel: Channel, node: &'static str, world: World) {
    let mut fleet = FleetClient::new(channel.clone());
    let mut running: Vec<(rpc::EngineProcess, tokio::task::JoinHandle<()>)> = Vec::new();
    let mut seen_revision = 0;
    loop {
        let report = rpc::AgentReport {
            node: node.into(),
            engine_host: "127.0.0.1".into(),
            port_first: 4000,
            port_last: 4031,
            engines: running.iter().map(|(process, _)| process.clone()).collect(),
            seen_revision,
            hold_ms: 300,
            ..Default::default()
        };
        let Ok(orders) = fleet.agent_heartbeat(report).await else {
            continue;
        };
        let orders = orders.into_inner();
        seen_revision = orders.revision;
        running.retain(|(process, task)| {
            let wanted = orders.engines.iter().any(|one| {
                let stays = process.epoch > one.replace_through_epoch;
                one.volume_id == process.volume_id && stays
            });
            if !wanted {
                task.abort();
            }
            wanted
        });
        for order in orders.engines {
            if running
                .iter()
                .any(|(process, _)| process.volume_id == order.volume_id)
            {
                continue;
            }
            let request = rpc::GrantEpochRequest {
                volume_id: order.volume_id.clone(),
                node: node.into(),
                expected_epoch: order.epoch,
                request_id: String::new(),
            };
            let Ok(grant) = fleet.grant_epoch(request).await else {
                continue;
            };
            let grant = grant.into_inner();
            let process = rpc::EngineProcess {
                volume_id: order.volume_id,
                epoch: grant.epoch,
                ..Default::default()
            };
            let orders = grant.orders.unwrap();
            let task = tokio::spawn(engine(channel.clone(), node, orders, world.clone()));
            running.push((process, task));
        }
    }
}

async fn engine(channel: Channel, node: &'static str, mut orders: rpc::EngineOrders, world: World) {
    let mut fleet = FleetClient::new(channel);
    let (volume_id, epoch) = (orders.volume_id.clone(), orders.epoch);
    let mut repairs: Vec<rpc::RepairReport> = Vec::new();
    loop {
        let idle = world.idle.load(Ordering::SeqCst);
        let damaged = |one: &&rpc::ReplicaOfVolume| !idle && !one.damages.is_empty();
        for replica in orders.replicas.iter().filter(damaged) {
            let blocks = world.damaged.swap(0, Ordering::SeqCst);
            let replica_id = replica.id.clone();
            if blocks > 0 {
                repairs.push(rpc::RepairReport { replica_id, blocks });
            }
        }
        if let Some(record) = rebuilt(&orders)
            && let Ok(next) = fleet.record_replica_in_sync(record).await
        {
            orders = next.into_inner();
            continue;
        }
        let held_task = held(&orders);
        if let Some(task) = orders.tasks.first().filter(|_| held_task == 0) {
            let refusal = if world.logged_in.load(Ordering::SeqCst) {
                "initiators are logged in"
            } else {
                ""
            };
            let done = rpc::RecordTaskDoneRequest {
                volume_id: volume_id.clone(),
                epoch,
                task_id: task.id,
                refusal: refusal.into(),
            };
            if let Ok(next) = fleet.record_task_done(done).await {
                orders = next.into_inner();
                continue;
            }
        }
        let report = rpc::EngineReport {
            volume_id: volume_id.clone(),
            epoch,
            node: node.into(),
            serving: true,
            initiators: u32::from(world.logged_in.load(Ordering::SeqCst)),
            seen_revision: orders.revision,
            hold_ms: 100,
            repairs: repairs.clone(),
            held_task,
            ..Default::default()
        };
        match fleet.engine_heartbeat(report).await {
            Ok(next) => orders = next.into_inner(),
            Err(_) => return,
        }
    }
}

/// The first task, when it is to be held for a group.
fn held(orders: &rpc::EngineOrders) -> u64 {
    let Some(task) = orders.tasks.first() else {
        return 0;
    };
    let group = match &task.task {
        Some(rpc::engine_task::Task::Seal(seal)) => seal.group.as_ref(),
        _ => None,
    };
    let holds = group.is_some_and(|group| group.stage() == rpc::GroupStage::Hold);
    if holds { task.id } else { 0 }
}

/// That the first rebuilding replica of the orders is equal.
fn rebuilt(orders: &rpc::EngineOrders) -> Option<rpc::RecordReplicaInSyncRequest> {
    let rebuilding = |one: &&rpc::ReplicaOfVolume| one.mode() == rpc::ReplicaMode::Rebuilding;
    let replica = orders.replicas.iter().find(rebuilding)?;
    Some(rpc::RecordReplicaInSyncRequest {
        volume_id: orders.volume_id.clone(),
        epoch: orders.epoch,
        replica_id: replica.id.clone(),
    })
}

/// A manager with three nodes, and what can be made happen there.
pub(crate) async fn cluster() -> (Channel, World) {
    let channel = manager(None).await;
    let world = World::default();
    for (node, disk) in [("n1", 1), ("n2", 2), ("n3", 3)] {
        tokio::spawn(blockd(channel.clone(), node, disk, world.clone()));
        tokio::spawn(agent(channel.clone(), node, world.clone()));
    }
    let mut admin = AdminClient::new(channel.clone());
    let three_up = async {
        loop {
            let nodes = admin
                .list_nodes(rpc::ListNodesRequest {})
                .await
                .unwrap()
                .into_inner()
                .nodes;
            let up = |node: &rpc::Node| {
                node.state() == rpc::NodeState::Up && node.has_agent && !node.disks.is_empty()
            };
            if nodes.iter().filter(|node| up(node)).count() == 3 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, three_up).await.unwrap();
    (channel, world)
}

pub(crate) fn create(name: &str, request_id: &str) -> rpc::CreateVolumeRequest {
    rpc::CreateVolumeRequest {
        name: name.into(),
        size_bytes: 1 << 30,
        replica_count: 0,
        request_id: request_id.into(),
        ..Default::default()
    }
}

pub(crate) fn attach(name: &str, node: &str) -> rpc::AttachVolumeRequest {
    let (volume, node) = (name.into(), node.into());
    rpc::AttachVolumeRequest {
        volume,
        node,
        request_id: String::new(),
        revision: 0,
        ..Default::default()
    }
}

pub(crate) fn detach(name: &str) -> rpc::DetachVolumeRequest {
    rpc::DetachVolumeRequest {
        volume: name.into(),
        request_id: String::new(),
        revision: 0,
    }
}

pub(crate) fn snapshot(volume: &str, name: &str) -> rpc::CreateSnapshotRequest {
    let (volume, name) = (volume.into(), name.into());
    rpc::CreateSnapshotRequest {
        volume,
        name,
        request_id: String::new(),
    }
}

pub(crate) fn revert(volume: &str, snapshot: &str) -> rpc::RevertVolumeRequest {
    let (volume, snapshot) = (volume.into(), snapshot.into());
    rpc::RevertVolumeRequest {
        volume,
        snapshot,
        request_id: String::new(),
    }
}

pub(crate) fn delete(volume: &str, request_id: &str) -> rpc::DeleteVolumeRequest {
    let (volume, request_id) = (volume.into(), request_id.into());
    rpc::DeleteVolumeRequest {
        volume,
        request_id,
        revision: 0,
    }
}
