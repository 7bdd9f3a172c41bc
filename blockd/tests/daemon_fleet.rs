//! The conversation with the managers, who are played here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it finds something wrong"
)]

mod daemon_support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_blockd::daemon::{Config, Daemon, ScrubPace};
use ankole_blockd::store::Store;
use ankole_proto::rpc::v1::fleet_server::{Fleet, FleetServer};
use ankole_proto::rpc::v1::{
    AgentOrders, AgentReport, BlockdOrders, BlockdReport, CloneSource, Damage, EngineOrders,
    EngineReport, EpochGrant, Flaw, GrantEpochRequest, RecordReplicaInSyncRequest,
    RecordReplicaLostRequest, RecordReservationsRequest, RecordTaskDoneRequest, ReplicaOrder,
    ReplicaReport, StoredState,
};
use ankole_proto::wire::body::{OpenRequest, Seal};
use ankole_proto::wire::rebuild::{LayerBlocks, LayerOf, WriteLayer};
use ankole_proto::wire::{ErrorCode, Opcode};
use ankole_proto::{ClusterId, ReplicaId, VolumeId};
use daemon_support::{CREDENTIAL, Client, REPLICA, VOLUME, VOLUME_BYTES, layer, open_request};
use parking_lot::{Condvar, Mutex};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const CLUSTER: ClusterId = ClusterId::from_bits(0xc1);

/// What a played manager is asked to say, and what it has heard.
#[derive(Default)]
struct Script {
    orders: Mutex<Option<BlockdOrders>>,
    heard: Mutex<Vec<BlockdReport>>,
    news: Condvar,
}

#[derive(Clone)]
struct Played(Arc<Script>);

#[tonic::async_trait]
impl Fleet for Played {
    async fn blockd_heartbeat(
        &self,
        request: Request<BlockdReport>,
    ) -> Result<Response<BlockdOrders>, Status> {
        let report = request.into_inner();
        let (seen, hold) = (report.seen_revision, u64::from(report.hold_ms));
        self.0.heard.lock().push(report);
        self.0.news.notify_all();
        let until = Instant::now() + Duration::from_millis(hold);
        loop {
            let orders = self.0.orders.lock().clone();
            match orders {
                None => return Err(Status::unavailable("no leader")),
                Some(orders) if orders.revision != seen || Instant::now() >= until => {
                    return Ok(Response::new(orders));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn agent_heartbeat(
        &self,
        _: Request<AgentReport>,
    ) -> Result<Response<AgentOrders>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn engine_heartbeat(
        &self,
        _: Request<EngineReport>,
    ) -> Result<Response<EngineOrders>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn grant_epoch(
        &self,
        _: Request<GrantEpochRequest>,
    ) -> Result<Response<EpochGrant>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn record_replica_lost(
        &self,
        _: Request<RecordReplicaLostRequest>,
    ) -> Result<Response<EngineOrders>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn record_replica_in_sync(
        &self,
        _: Request<RecordReplicaInSyncRequest>,
    ) -> Result<Response<EngineOrders>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn record_task_done(
        &self,
        _: Request<RecordTaskDoneRequest>,
    ) -> Result<Response<EngineOrders>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn record_reservations(
        &self,
        _: Request<RecordReservationsRequest>,
    ) -> Result<Response<EngineOrders>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A manager that is played: its script and its runtime.
struct Manager {
    script: Arc<Script>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Manager {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let script = Arc::new(Script::default());
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let service = FleetServer::new(Played(Arc::clone(&script)));
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self {
            script,
            address,
            _runtime: runtime,
        }
    }

    fn order(&self, orders: Option<BlockdOrders>) {
        *self.script.orders.lock() = orders;
    }

    /// Waits for a report that comes after the call and is as wanted.
    fn hears<T>(&self, what: &str, wanted: impl Fn(&BlockdReport) -> Option<T>) -> T {
        let until = Instant::now() + daemon_support::PATIENCE;
        let mut heard = self.script.heard.lock();
        let mut next = heard.len();
        loop {
            while next < heard.len() {
                if let Some(found) = wanted(&heard[next]) {
                    return found;
                }
                next += 1;
            }
            let late = self.script.news.wait_until(&mut heard, until).timed_out();
            assert!(!late, "never heard of {what}; last: {:?}", heard.last());
        }
    }
}

fn start(disk: &Path, managers: &[&Manager]) -> Daemon {
    Daemon::start(&Config {
        node: "n1".parse().unwrap(),
        zone: "z".to_owned(),
        disks: vec![disk.to_path_buf()],
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        unix: None,
        advertise: None,
        managers: managers.iter().map(|m| m.address.to_string()).collect(),
        rebuild_rate: 64 << 20,
        scrub: ScrubPace {
            bytes_per_second: 1 << 30,
            period: Duration::ZERO,
        },
    })
    .unwrap()
}

fn orders(revision: u64, replicas: Vec<ReplicaOrder>) -> BlockdOrders {
    BlockdOrders {
        revision,
        cluster_id: CLUSTER.to_string(),
        replicas,
        delete_replicas: vec![],
    }
}

fn replica_order(disk_id: &str) -> ReplicaOrder {
    ReplicaOrder {
        id: REPLICA.to_string(),
        volume_id: VOLUME.to_string(),
        disk_id: disk_id.to_owned(),
        size_bytes: VOLUME_BYTES,
        base_layer: layer(1).to_string(),
        credential: CREDENTIAL.as_bytes().to_vec(),
        create: true,
        remove_layers: vec![],
        ..Default::default()
    }
}

fn replica(report: &BlockdReport) -> Option<&ReplicaReport> {
    report.disks.first()?.replicas.first()
}

/// The disk's id, as the daemon says it.
fn disk_id(manager: &Manager) -> String {
    manager.hears("the first report", |report| {
        assert_eq!((report.node.as_str(), report.zone.as_str()), ("n1", "z"));
        let disk = report.disks.first()?;
        assert!(disk.capacity_bytes >= disk.free_bytes && disk.free_bytes > 0);
        Some(disk.id.clone())
    })
}

#[test]
fn a_replica_is_created_served_merged_and_deleted_as_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start();
    manager.order(Some(orders(1, vec![])));
    let daemon = start(dir.path(), &[&manager]);
    let order = replica_order(&disk_id(&manager));
    manager.order(Some(orders(2, vec![order.clone()])));
    manager.hears("the created replica", |report| {
        let replica = replica(report)?;
        assert_eq!(replica.id, REPLICA.to_string());
        assert_eq!(report.cluster_id, CLUSTER.to_string());
        (replica.state() == StoredState::Ready).then_some(())
    });
    let mut client = Client::tcp(daemon.address());
    client.open(&open_request(1)).unwrap();
    client.write(0, &[7; 4096]);
    for head in [1, 2] {
        let seal = Seal {
            head: layer(head),
            new_head: layer(head + 1),
        };
        let header = client.header(Opcode::Seal, 0, 0);
        client.done(header, &seal.encode());
    }
    let three: Vec<String> = [1, 2, 3].map(|raw| layer(raw).to_string()).to_vec();
    manager.hears("the sealed layers", |report| {
        (replica(report)?.layers == three).then_some(())
    });
    let remove = ReplicaOrder {
        remove_layers: vec![layer(1).to_string()],
        ..order
    };
    manager.order(Some(orders(3, vec![remove])));
    manager.hears("the merged layer", |report| {
        (replica(report)?.layers == three[1..]).then_some(())
    });
    assert!(client.read(0, 4096).iter().all(|byte| *byte == 7));
    manager.order(Some(BlockdOrders {
        delete_replicas: vec![REPLICA.to_string()],
        ..orders(4, vec![])
    }));
    manager.hears("the deletion", |report| {
        report.disks[0].replicas.is_empty().then_some(())
    });
    let at = dir.path().join("ankole/replicas").join(REPLICA.to_string());
    assert!(!at.exists());
    daemon.stop();
}

#[test]
fn a_replica_that_should_be_there_is_reported_missing_and_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start();
    manager.order(Some(orders(1, vec![])));
    let daemon = start(dir.path(), &[&manager]);
    let order = ReplicaOrder {
        create: false,
        ..replica_order(&disk_id(&manager))
    };
    manager.order(Some(orders(2, vec![order])));
    manager.hears("the missing replica", |report| {
        let replica = replica(report)?;
        assert_eq!(replica.state(), StoredState::Faulted);
        assert!(replica.message.contains("missing"), "{replica:?}");
        let warning = &report.disks.first()?.warning;
        assert!(warning.contains("1 of 1 replicas faulted"), "{warning}");
        Some(())
    });
    daemon.stop();
    let store = Store::open(&[dir.path().to_path_buf()]).unwrap();
    assert!(store.slots().is_empty());
}

#[test]
fn the_next_manager_is_asked_when_one_has_no_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Manager::start(), Manager::start());
    second.order(Some(orders(1, vec![])));
    let daemon = start(dir.path(), &[&first, &second]);
    second.hears("the daemon, sent away by the first", |_| Some(()));
    // The leader changes: the second has none now.
    first.order(Some(orders(2, vec![])));
    second.order(None);
    first.hears("the daemon again, with what the second said", |report| {
        (report.seen_revision >= 1).then_some(())
    });
    first.hears("orders taken from the new leader", |report| {
        (report.seen_revision == 2).then_some(())
    });
    daemon.stop();
}

#[test]
fn orders_of_another_cluster_are_not_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start();
    manager.order(Some(orders(1, vec![])));
    let daemon = start(dir.path(), &[&manager]);
    let order = replica_order(&disk_id(&manager));
    manager.hears("the cluster", |report| {
        (report.cluster_id == CLUSTER.to_string()).then_some(())
    });
    manager.order(Some(BlockdOrders {
        cluster_id: ClusterId::from_bits(0xbad).to_string(),
        ..orders(9, vec![order])
    }));
    for _ in 0..3 {
        manager.hears("a report after the foreign orders", |report| {
            assert_eq!(report.cluster_id, CLUSTER.to_string());
            assert_ne!(report.seen_revision, 9);
            assert!(replica(report).is_none());
            Some(())
        });
    }
    daemon.stop();
}

#[test]
fn a_disk_keeps_its_cluster_and_its_replicas_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start();
    manager.order(Some(orders(1, vec![])));
    let daemon = start(dir.path(), &[&manager]);
    let disk = disk_id(&manager);
    let foreign = ReplicaId::from_bits(0xf0).to_string();
    let mut unknown = replica_order(&disk);
    unknown.id = foreign.clone();
    manager.order(Some(orders(2, vec![unknown])));
    manager.hears("the replica", |report| replica(report).map(|_| ()));
    daemon.stop();
    // The managers have forgotten the replica: it is kept and reported.
    manager.order(Some(orders(3, vec![])));
    let daemon = start(dir.path(), &[&manager]);
    manager.hears("everything as before", |report| {
        if report.cluster_id != CLUSTER.to_string() {
            return None;
        }
        assert_eq!(report.disks[0].id, disk);
        assert_eq!(replica(report)?.id, foreign);
        Some(())
    });
    daemon.stop();
}

/// Seals the head `head` of the replica and puts the next layer on it.
fn seal(client: &mut Client, head: u64) {
    let seal = Seal {
        head: layer(head),
        new_head: layer(head + 1),
    };
    let header = client.header(Opcode::Seal, 0, 0);
    client.done(header, &seal.encode());
}

fn clone_order(disk_id: &str, source: &str, of: u64) -> ReplicaOrder {
    ReplicaOrder {
        id: ReplicaId::from_bits(0xc10e).to_string(),
        volume_id: VolumeId::from_bits(0xc10).to_string(),
        size_bytes: 2 * VOLUME_BYTES,
        base_layer: layer(50).to_string(),
        clone: Some(CloneSource {
            replica_id: source.to_owned(),
            layer: layer(of).to_string(),
        }),
        ..replica_order(disk_id)
    }
}

fn reported(report: &BlockdReport, id: &str) -> Option<ReplicaReport> {
    let replicas = &report.disks.first()?.replicas;
    replicas.iter().find(|replica| replica.id == id).cloned()
}

#[test]
fn a_clone_is_made_as_ordered_and_one_that_cannot_be_made_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start();
    manager.order(Some(orders(1, vec![])));
    let daemon = start(dir.path(), &[&manager]);
    let disk = disk_id(&manager);
    let source = replica_order(&disk);
    manager.order(Some(orders(2, vec![source.clone()])));
    manager.hears("the source", |report| replica(report).map(|_| ()));
    let mut client = Client::tcp(daemon.address());
    client.open(&open_request(1)).unwrap();
    client.write(8192, &[5; 4096]);
    let unsealed = clone_order(&disk, &source.id, 1);
    let id = unsealed.id.clone();
    manager.order(Some(orders(3, vec![source.clone(), unsealed.clone()])));
    manager.hears("why there is no clone", |report| {
        let clone = reported(report, &id)?;
        assert_eq!(clone.state(), StoredState::Faulted);
        assert!(clone.message.contains("not sealed"), "{clone:?}");
        Some(())
    });
    let unknown = clone_order(&disk, &ReplicaId::from_bits(0xdead).to_string(), 1);
    manager.order(Some(orders(4, vec![source.clone(), unknown])));
    manager.hears("that there is no source", |report| {
        let clone = reported(report, &id)?;
        clone.message.contains("not on this node").then_some(())
    });
    let at = dir.path().join("ankole/replicas").join(&id);
    assert!(!at.exists());
    seal(&mut client, 1);
    client.write(8192, &[6; 4096]);
    manager.order(Some(orders(5, vec![source.clone(), unsealed])));
    let clone = manager.hears("the clone", |report| {
        reported(report, &id).filter(|clone| clone.state() == StoredState::Ready)
    });
    assert_eq!(clone.size_bytes, 2 * VOLUME_BYTES);
    assert_eq!(clone.layers, [layer(1), layer(50)].map(|l| l.to_string()));
    // The source goes; the clone serves what the snapshot held.
    manager.order(Some(BlockdOrders {
        delete_replicas: vec![source.id],
        ..orders(6, vec![])
    }));
    let request = OpenRequest {
        volume: VolumeId::from_bits(0xc10),
        replica: ReplicaId::from_bits(0xc10e),
        ..open_request(1)
    };
    manager.hears("the deletion", |report| {
        (report.disks[0].replicas.len() == 1).then_some(())
    });
    let mut client = Client::tcp(daemon.address());
    let opened = client.open(&request).unwrap();
    assert_eq!(opened.size.bytes(), 2 * VOLUME_BYTES);
    assert!(client.read(8192, 4096).iter().all(|byte| *byte == 5));
    client.write(VOLUME_BYTES + 4096, &[7; 4096]);
    daemon.stop();
}

/// A replica of two layers whose lower one has a bad block, and what a peer has there.
struct Spoiled {
    manager: Manager,
    daemon: Daemon,
    client: Client,
    order: ReplicaOrder,
    body: WriteLayer,
}

fn spoiled(dir: &Path) -> Spoiled {
    let manager = Manager::start();
    manager.order(Some(orders(1, vec![])));
    let daemon = start(dir, &[&manager]);
    let order = replica_order(&disk_id(&manager));
    manager.order(Some(orders(2, vec![order.clone()])));
    manager.hears("the replica", |report| replica(report).map(|_| ()));
    let mut client = Client::tcp(daemon.address());
    client.open(&open_request(1)).unwrap();
    client.write(0, &[5; 8192]);
    seal(&mut client, 1);
    client.write(4096, &[6; 4096]);
    let header = client.header(Opcode::ReadLayer, 0, 2 << 20);
    let healthy = client.done(header, &LayerOf(layer(1)).encode());
    let image = dir
        .join("ankole/replicas")
        .join(REPLICA.to_string())
        .join(format!("layers/{}.img", layer(1)));
    let file = std::fs::File::options().write(true).open(image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xee; 9], 100).unwrap();
    let body = WriteLayer {
        layer: layer(1),
        blocks: LayerBlocks::decode(healthy).unwrap(),
    };
    Spoiled {
        manager,
        daemon,
        client,
        order,
        body,
    }
}

#[test]
fn a_scrub_that_is_asked_for_finds_a_bad_block_which_a_peer_repairs() {
    let dir = tempfile::tempdir().unwrap();
    let Spoiled {
        manager,
        daemon,
        mut client,
        order,
        body,
    } = spoiled(dir.path());
    let scrub = ReplicaOrder {
        scrub_request: 3,
        ..order
    };
    manager.order(Some(orders(3, vec![scrub])));
    let found = manager.hears("the end of the scrub", |report| {
        let replica = replica(report)?.clone();
        let over = replica.scrub.is_some_and(|scrub| scrub.finished_at_ms != 0);
        (replica.scrub_request == 3 && over).then_some(replica)
    });
    let scrub = found.scrub.unwrap();
    assert_eq!((scrub.done_bytes, scrub.total_bytes), (3 * 4096, 3 * 4096));
    assert_eq!((scrub.findings, found.damaged_blocks), (1, 1));
    let damage = Damage {
        layer: layer(1).to_string(),
        offset: 0,
        flaw: Flaw::Mismatch.into(),
        found_at_ms: found.damages[0].found_at_ms,
    };
    assert_eq!(found.damages, [damage]);
    let since = found.damages[0].found_at_ms;
    assert!((scrub.started_at_ms..=scrub.finished_at_ms).contains(&since));
    let usage = manager.hears("what can be reclaimed", |report| {
        let usage = replica(report)?.usage.clone();
        (usage.first()?.reclaimable_bytes > 0).then_some(usage)
    });
    assert_eq!(
        (usage[0].used_bytes, usage[0].reclaimable_bytes),
        (8192, 4096)
    );
    let header = client.header(Opcode::Read, 0, 4096);
    let refused = client.call(header, &[]).unwrap().header;
    assert_eq!(refused.error, Some(ErrorCode::Checksum));
    assert_eq!((refused.offset, refused.sequence), (0, layer(1).raw()));
    let header = client.header(Opcode::RepairLayer, 0, 2 << 20);
    client.done(header, &body.encode());
    assert!(client.read(0, 4096).iter().all(|byte| *byte == 5));
    manager.hears("that nothing is damaged any more", |report| {
        let replica = replica(report)?;
        (replica.damaged_blocks == 0 && replica.damages.is_empty()).then_some(())
    });
    let mut other = body;
    other.blocks.present.set(7, true);
    let data = [&other.blocks.data[..], &[0; 4096]].concat();
    other.blocks.data = data.into();
    let header = client.header(Opcode::RepairLayer, 0, 2 << 20);
    let refused = client.refused(header, &other.encode());
    assert_eq!(refused, ErrorCode::TreeConflict);
    daemon.stop();
}

#[test]
fn a_merge_that_waits_for_a_repair_says_so_until_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Spoiled {
        manager,
        daemon,
        mut client,
        order,
        body,
    } = spoiled(dir.path());
    let remove = ReplicaOrder {
        remove_layers: vec![layer(1).to_string()],
        ..order
    };
    manager.order(Some(orders(3, vec![remove])));
    manager.hears("why the snapshot is still there", |report| {
        let said = &replica(report)?.standstill;
        let why = "block 0 of layer 0000000000000001 does not match its checksum";
        (said.contains("deleted snapshot") && said.contains(why)).then_some(())
    });
    let header = client.header(Opcode::RepairLayer, 0, 2 << 20);
    client.done(header, &body.encode());
    manager.hears("the layer of the deleted snapshot is gone", |report| {
        let replica = replica(report)?;
        let gone = replica.layers == [layer(2).to_string()];
        (gone && replica.standstill.is_empty()).then_some(())
    });
    assert!(client.read(0, 4096).iter().all(|byte| *byte == 5));
    daemon.stop();
}
