//! The services over a real gRPC connection, with one manager and scripted daemons.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ankole_meta::api::{Group, Reports, Seat, SeatError, Turn, routes};
use ankole_meta::raft::Leadership;
use ankole_meta::reconcile::drive;
use ankole_meta::state::{Replicated, State};
use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand, watch_item::Item};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};

const DEADLINE: Duration = Duration::from_secs(20);

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
async fn manager(leader: Option<Channel>) -> Channel {
    let seat = Alone::new(leader);
    let reports = Arc::new(Reports::default());
    tokio::spawn(drive::run(seat.clone(), Arc::clone(&reports)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_routes(routes(seat, reports));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Stores what it is told to store.
async fn blockd(channel: Channel, node: &'static str, disk: u128) {
    let mut fleet = FleetClient::new(channel);
    let mut replicas: Vec<rpc::ReplicaReport> = Vec::new();
    let (mut seen_revision, mut cluster_id) = (0, String::new());
    loop {
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
                Some(known) => known
                    .layers
                    .retain(|one| !order.remove_layers.contains(one)),
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

/// Runs scripted engines where it is told to.
async fn agent(channel: Channel, node: &'static str, logged_in: Arc<AtomicBool>) {
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
            let wanted = orders
                .engines
                .iter()
                .any(|one| one.volume_id == process.volume_id);
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
            let task = tokio::spawn(engine(channel.clone(), node, orders, logged_in.clone()));
            running.push((process, task));
        }
    }
}

async fn engine(
    channel: Channel,
    node: &'static str,
    mut orders: rpc::EngineOrders,
    logged_in: Arc<AtomicBool>,
) {
    let mut fleet = FleetClient::new(channel);
    let (volume_id, epoch) = (orders.volume_id.clone(), orders.epoch);
    loop {
        if let Some(task) = orders.tasks.first() {
            let refusal = if logged_in.load(Ordering::SeqCst) {
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
            initiators: u32::from(logged_in.load(Ordering::SeqCst)),
            seen_revision: orders.revision,
            hold_ms: 100,
            ..Default::default()
        };
        match fleet.engine_heartbeat(report).await {
            Ok(next) => orders = next.into_inner(),
            Err(_) => return,
        }
    }
}

/// A manager with three nodes, and whether an initiator is logged in.
async fn cluster() -> (Channel, Arc<AtomicBool>) {
    let channel = manager(None).await;
    let logged_in = Arc::new(AtomicBool::new(false));
    for (node, disk) in [("n1", 1), ("n2", 2), ("n3", 3)] {
        tokio::spawn(blockd(channel.clone(), node, disk));
        tokio::spawn(agent(channel.clone(), node, logged_in.clone()));
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
    (channel, logged_in)
}

fn create(name: &str, request_id: &str) -> rpc::CreateVolumeRequest {
    rpc::CreateVolumeRequest {
        name: name.into(),
        size_bytes: 1 << 30,
        replica_count: 0,
        request_id: request_id.into(),
        ..Default::default()
    }
}

fn attach(name: &str, node: &str) -> rpc::AttachVolumeRequest {
    let (volume, node) = (name.into(), node.into());
    rpc::AttachVolumeRequest {
        volume,
        node,
        request_id: String::new(),
        revision: 0,
        ..Default::default()
    }
}

fn detach(name: &str) -> rpc::DetachVolumeRequest {
    rpc::DetachVolumeRequest {
        volume: name.into(),
        request_id: String::new(),
        revision: 0,
    }
}

fn snapshot(volume: &str, name: &str) -> rpc::CreateSnapshotRequest {
    let (volume, name) = (volume.into(), name.into());
    rpc::CreateSnapshotRequest {
        volume,
        name,
        request_id: String::new(),
    }
}

fn revert(volume: &str, snapshot: &str) -> rpc::RevertVolumeRequest {
    let (volume, snapshot) = (volume.into(), snapshot.into());
    rpc::RevertVolumeRequest {
        volume,
        snapshot,
        request_id: String::new(),
    }
}

fn delete(volume: &str, request_id: &str) -> rpc::DeleteVolumeRequest {
    let (volume, request_id) = (volume.into(), request_id.into());
    rpc::DeleteVolumeRequest {
        volume,
        request_id,
        revision: 0,
    }
}

#[tokio::test]
async fn a_volume_lives_from_its_creation_to_its_deletion() {
    let (channel, logged_in) = cluster().await;
    let mut admin = AdminClient::new(channel);
    let volume = admin
        .create_volume(create("data", "c"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volume.state(), rpc::VolumeState::Detached);
    assert_eq!(
        (volume.health(), volume.message.as_str()),
        (rpc::Health::Healthy, "")
    );
    assert_eq!(volume.replicas.len(), 3);

    let volume = admin
        .attach_volume(attach("data", "n2"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volume.state(), rpc::VolumeState::Attached);
    assert_eq!((volume.node.as_str(), volume.epoch), ("n2", 1));
    let target = volume.target.unwrap();
    assert_eq!(target.portal, "127.0.0.1:4000");
    assert_eq!(target.iqn, format!("iqn.2026-01.io.ankole:{}", volume.id));
    let elsewhere = admin.attach_volume(attach("data", "n1")).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::FailedPrecondition);

    let taken = admin
        .create_snapshot(snapshot("data", "s1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(taken.state(), rpc::SnapshotState::Ready);
    assert_eq!(taken.layer, volume.head_layer);
    logged_in.store(true, Ordering::SeqCst);
    let busy = async { while admin.revert_volume(revert("data", "s1")).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, busy).await.unwrap();
    logged_in.store(false, Ordering::SeqCst);
    let free = async { while admin.revert_volume(revert("data", "s1")).await.is_err() {} };
    tokio::time::timeout(DEADLINE, free).await.unwrap();

    let refused = admin.delete_volume(delete("data", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let volume = admin
        .detach_volume(detach("data"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volume.state(), rpc::VolumeState::Detached);
    assert_eq!(volume.target, None);
    admin.delete_volume(delete("data", "d")).await.unwrap();
    let volumes = admin
        .list_volumes(rpc::ListVolumesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volumes.volumes, vec![]);
    admin.delete_volume(delete("data", "d")).await.unwrap();
    let gone = admin.delete_volume(delete("data", "")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_detached_volume_is_snapshotted_by_an_engine_without_target() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "")).await.unwrap();
    let taken = admin
        .create_snapshot(snapshot("data", "s1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(taken.state(), rpc::SnapshotState::Ready);
    let volume = admin
        .attach_volume(attach("data", ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volume.state(), rpc::VolumeState::Attached);
    assert_eq!(volume.epoch, 2);
}

#[tokio::test]
async fn volumes_attached_all_at_once_get_a_port_each() {
    let (channel, _) = cluster().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..16 {
        let mut admin = AdminClient::new(channel.clone());
        calls.spawn(async move {
            let name = format!("v{number}");
            admin.create_volume(create(&name, "")).await.unwrap();
            admin.attach_volume(attach(&name, "n1")).await
        });
    }
    while let Some(attached) = calls.join_next().await {
        let volume = attached.unwrap().unwrap().into_inner();
        assert_eq!(volume.state(), rpc::VolumeState::Attached);
    }
}

#[tokio::test]
async fn a_retried_call_acts_once() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    let first = admin
        .create_volume(create("data", "same"))
        .await
        .unwrap()
        .into_inner();
    let again = admin
        .create_volume(create("data", "same"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.id, again.id);
    let other = admin
        .create_volume(create("data", "other"))
        .await
        .unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let volumes = admin
        .list_volumes(rpc::ListVolumesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volumes.volumes.len(), 1);
}

#[tokio::test]
async fn records_of_an_old_epoch_and_of_the_last_replica_are_refused_by_name() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel.clone());
    let mut fleet = FleetClient::new(channel);
    admin.create_volume(create("data", "")).await.unwrap();
    let volume = admin
        .attach_volume(attach("data", "n1"))
        .await
        .unwrap()
        .into_inner();
    let lost = |epoch, replica: usize| rpc::RecordReplicaLostRequest {
        volume_id: volume.id.clone(),
        epoch,
        replica_id: volume.replicas[replica].id.clone(),
        reason: "it missed a write".into(),
    };
    let kind = |status: &tonic::Status| {
        let value = status.metadata().get("ankole-refusal").unwrap();
        value.to_str().unwrap().to_owned()
    };
    let stale = fleet.record_replica_lost(lost(0, 0)).await.unwrap_err();
    assert_eq!(
        (stale.code(), kind(&stale)),
        (Code::FailedPrecondition, "fenced".into())
    );
    let orders = fleet
        .record_replica_lost(lost(1, 0))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(orders.replicas.len(), 2);
    fleet.record_replica_lost(lost(1, 1)).await.unwrap();
    let last = fleet.record_replica_lost(lost(1, 2)).await.unwrap_err();
    assert_eq!(
        (last.code(), kind(&last)),
        (Code::FailedPrecondition, "last-in-sync".into())
    );
    let request = rpc::GetVolumeRequest {
        volume: "data".into(),
    };
    let volume = admin.get_volume(request).await.unwrap().into_inner();
    assert_eq!(volume.health(), rpc::Health::Degraded);
    assert!(
        volume.message.contains("out of sync since"),
        "{}",
        volume.message
    );
}

#[tokio::test]
async fn nonsense_is_refused_with_advice() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel.clone());
    for request in [
        create("", ""),
        create("Data", ""),
        create(&"x".repeat(64), ""),
        create("data", &"x".repeat(65)),
        rpc::CreateVolumeRequest {
            size_bytes: 4097,
            ..create("data", "")
        },
        rpc::CreateVolumeRequest {
            size_bytes: 0,
            ..create("data", "")
        },
        rpc::CreateVolumeRequest {
            replica_count: 9,
            ..create("data", "")
        },
    ] {
        let status = admin.create_volume(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let many = rpc::CreateVolumeRequest {
        replica_count: 4,
        ..create("data", "")
    };
    let status = admin.create_volume(many).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("4 replicas need 4 nodes"),
        "{}",
        status.message()
    );
    let report = rpc::BlockdReport {
        node: "../etc".into(),
        ..Default::default()
    };
    let status = FleetClient::new(channel.clone())
        .blockd_heartbeat(report)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let cluster_id = ClusterId::from_bits(7).to_string();
    let foreign = rpc::BlockdReport {
        node: "n9".into(),
        cluster_id,
        ..Default::default()
    };
    let status = FleetClient::new(channel)
        .blockd_heartbeat(foreign)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_then_what_changes() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    let mut items = admin
        .watch(rpc::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut nodes = 0;
    loop {
        match items.message().await.unwrap().unwrap().item.unwrap() {
            Item::Node(_) => nodes += 1,
            Item::CaughtUp(_) => break,
            _ => {}
        }
    }
    assert_eq!(nodes, 3);
    admin.create_volume(create("data", "")).await.unwrap();
    let appears = async {
        loop {
            if let Item::Volume(volume) = items.message().await.unwrap().unwrap().item.unwrap() {
                return volume.name;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(DEADLINE, appears).await.unwrap(),
        "data"
    );
    admin.delete_volume(delete("data", "")).await.unwrap();
    let disappears = async {
        loop {
            if let Item::Deleted(_) = items.message().await.unwrap().unwrap().item.unwrap() {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, disappears).await.unwrap();
    let request = rpc::ListEventsRequest { after: 0, limit: 5 };
    let events = admin
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    assert_eq!(events.len(), 5);
    assert_eq!(events[4].kind, "VolumeDeleted");
}

#[tokio::test]
async fn a_follower_passes_calls_streams_and_refusals_of_the_leader_on() {
    let (leader, _) = cluster().await;
    let follower = manager(Some(leader)).await;
    let mut admin = AdminClient::new(follower.clone());
    let mut items = admin
        .watch(rpc::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(items.message().await.unwrap().is_some());
    let volume = admin
        .create_volume(create("data", "c"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volume.replicas.len(), 3);
    let lost = rpc::RecordReplicaLostRequest {
        volume_id: volume.id,
        epoch: 0,
        replica_id: volume.replicas[0].id.clone(),
        reason: String::new(),
    };
    let refused = FleetClient::new(follower)
        .record_replica_lost(lost)
        .await
        .unwrap_err();
    let named = refused.metadata().get("ankole-refusal").unwrap();
    assert_eq!(named, "fenced");
}
