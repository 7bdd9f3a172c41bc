//! The services over a real gRPC connection, with one manager and scripted daemons.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod groups;
mod limits;
mod settings;

use std::sync::atomic::Ordering;

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::{self as rpc, watch_item::Item};
use tonic::Code;

use cluster::{DEADLINE, attach, cluster, create, delete, detach, manager, revert, snapshot};

#[tokio::test]
async fn a_volume_lives_from_its_creation_to_its_deletion() {
    let (channel, world) = cluster().await;
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
    world.logged_in.store(true, Ordering::SeqCst);
    let busy = async { while admin.revert_volume(revert("data", "s1")).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, busy).await.unwrap();
    world.logged_in.store(false, Ordering::SeqCst);
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
