//! Snapshots of several volumes, clones, reservations.

use std::sync::atomic::Ordering;

use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::{self as rpc};
use tonic::Code;

use crate::cluster::{attach, cluster, create, delete, snapshot};

fn group(volumes: &[&str], name: &str, request_id: &str) -> rpc::CreateSnapshotGroupRequest {
    rpc::CreateSnapshotGroupRequest {
        volumes: volumes.iter().map(|&volume| volume.to_owned()).collect(),
        name: name.into(),
        request_id: request_id.into(),
    }
}

fn clone(name: &str, snapshot: &rpc::Snapshot, request_id: &str) -> rpc::CreateVolumeRequest {
    rpc::CreateVolumeRequest {
        size_bytes: 0,
        source_snapshot_id: snapshot.id.clone(),
        ..create(name, request_id)
    }
}

#[tokio::test]
async fn snapshots_of_an_attached_and_a_detached_volume_become_ready_together() {
    let (channel, world) = cluster().await;
    let mut admin = AdminClient::new(channel);
    for name in ["one", "two"] {
        admin.create_volume(create(name, name)).await.unwrap();
    }
    admin.attach_volume(attach("one", "n1")).await.unwrap();
    let mut last = Vec::new();
    for _ in 0..2 {
        let answer = admin
            .create_snapshot_group(group(&["one", "two"], "cut", "g"))
            .await
            .unwrap()
            .into_inner()
            .snapshots;
        assert_eq!(answer.len(), 2);
        assert!(
            answer
                .iter()
                .all(|one| one.state() == rpc::SnapshotState::Ready)
        );
        assert!(!answer[0].group_id.is_empty());
        assert_eq!(answer[0].group_id, answer[1].group_id);
        assert!(last.is_empty() || last == answer, "the same answer");
        last = answer;
    }
    for (volumes, name, code) in [
        (vec!["one", "one"], "b", Code::InvalidArgument),
        (vec!["one", "three"], "b", Code::NotFound),
        (vec!["one", "two"], "cut", Code::AlreadyExists),
        (vec![], "b", Code::InvalidArgument),
        (vec!["one"; 65], "b", Code::InvalidArgument),
    ] {
        let refused = admin.create_snapshot_group(group(&volumes, name, "")).await;
        assert_eq!(refused.unwrap_err().code(), code, "{volumes:?}");
    }
    world.logged_in.store(true, Ordering::SeqCst);
    let refused = admin
        .create_snapshot_group(group(&["one", "two"], "no", ""))
        .await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("logged in"),
        "{}",
        status.message()
    );
    let all = admin
        .list_snapshots(rpc::ListSnapshotsRequest::default())
        .await;
    let all = all.unwrap().into_inner().snapshots;
    let ready = all
        .iter()
        .filter(|one| one.state() == rpc::SnapshotState::Ready);
    assert_eq!(ready.count(), 2, "nothing of the second group: {all:?}");
}

#[tokio::test]
async fn a_clone_outlives_its_source() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "c")).await.unwrap();
    let taken = admin.create_snapshot(snapshot("data", "s")).await.unwrap();
    let taken = taken.into_inner();
    for _ in 0..2 {
        let copy = admin.create_volume(clone("copy", &taken, "copy")).await;
        let copy = copy.unwrap().into_inner();
        assert_eq!(copy.source_snapshot_id, taken.id);
        assert_eq!(copy.size_bytes, taken.size_bytes);
        assert_eq!(copy.health(), rpc::Health::Healthy, "{}", copy.message);
        assert_eq!(copy.replicas.len(), 3);
    }
    let mut small = clone("small", &taken, "");
    small.size_bytes = 4096;
    let refused = admin.create_volume(small).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let mut unknown = clone("unknown", &taken, "");
    unknown.source_snapshot_id = format!("{:032x}", 7);
    let refused = admin.create_volume(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    admin.delete_volume(delete("data", "")).await.unwrap();
    let copy = admin.attach_volume(attach("copy", "n2")).await.unwrap();
    assert_eq!(copy.into_inner().health(), rpc::Health::Healthy);
}

#[tokio::test]
async fn reservations_are_kept_for_the_next_engine() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel.clone());
    let mut fleet = FleetClient::new(channel);
    let volume = admin.create_volume(create("data", "c")).await.unwrap();
    let volume_id = volume.into_inner().id;
    let volume = admin.attach_volume(attach("data", "n1")).await.unwrap();
    let epoch = volume.into_inner().epoch;
    let reserve = |number: u64, bytes: usize| rpc::RecordReservationsRequest {
        volume_id: volume_id.clone(),
        epoch,
        reservations: vec![7; bytes],
        number,
    };
    let kept = fleet
        .record_reservations(reserve(1, 16 * 1024))
        .await
        .unwrap();
    assert_eq!(kept.into_inner().reservations.len(), 16 * 1024);
    let large = fleet.record_reservations(reserve(2, 16 * 1024 + 1)).await;
    assert_eq!(large.unwrap_err().code(), Code::InvalidArgument);
    let mut old = reserve(3, 4);
    old.epoch -= 1;
    let fenced = fleet.record_reservations(old).await.unwrap_err();
    let named = fenced.metadata().get("ankole-refusal").unwrap();
    assert_eq!(named, "fenced");
}
