//! What can be changed of a volume that exists.

use std::sync::atomic::Ordering;

use ankole_proto::rpc::v1::admin_client::AdminClient;
use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::{self as rpc};
use tonic::Code;
use tonic::transport::Channel;

use crate::cluster::{DEADLINE, attach, cluster, create, snapshot};

async fn get(admin: &mut AdminClient<Channel>) -> rpc::Volume {
    let volume = "data".into();
    let answer = admin.get_volume(rpc::GetVolumeRequest { volume }).await;
    answer.unwrap().into_inner()
}

/// Looks at the volume until it is as wanted.
async fn becomes(
    admin: &mut AdminClient<Channel>,
    wanted: impl Fn(&rpc::Volume) -> bool,
) -> rpc::Volume {
    let looks = async {
        loop {
            let volume = get(admin).await;
            if wanted(&volume) {
                return volume;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, looks).await.unwrap()
}

fn chap() -> rpc::Chap {
    rpc::Chap {
        user: "alice".into(),
        secret: "open sesame 1".into(),
        mutual_user: "target".into(),
        mutual_secret: "open sesame 2".into(),
    }
}

fn update() -> rpc::UpdateVolumeRequest {
    rpc::UpdateVolumeRequest {
        volume: "data".into(),
        ..Default::default()
    }
}

fn expand(size_bytes: u64, request_id: &str) -> rpc::ExpandVolumeRequest {
    rpc::ExpandVolumeRequest {
        volume: "data".into(),
        size_bytes,
        request_id: request_id.into(),
        revision: 0,
    }
}

#[tokio::test]
async fn secrets_go_to_the_engine_and_are_never_told_back() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel.clone());
    let request = rpc::CreateVolumeRequest {
        chap: Some(chap()),
        write_cache: rpc::WriteCache::Off.into(),
        rebuild_bytes_per_second: 3 << 20,
        ..create("data", "c")
    };
    let volume = admin.create_volume(request).await.unwrap().into_inner();
    assert_eq!(volume.write_cache(), rpc::WriteCache::Off);
    assert_eq!(
        (volume.chap_user.as_str(), volume.chap_mutual_user.as_str()),
        ("alice", "target")
    );
    assert!(!format!("{volume:?}").contains("sesame"));
    let attached = admin.attach_volume(attach("data", "n1")).await.unwrap();
    let orders = FleetClient::new(channel)
        .engine_heartbeat(rpc::EngineReport {
            volume_id: attached.into_inner().id,
            epoch: 1,
            node: "n1".into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(orders.chap, Some(chap()));
    assert_eq!(orders.write_cache(), rpc::WriteCache::Off);
    let open = rpc::UpdateVolumeRequest {
        chap: Some(rpc::ChapChange { chap: None }),
        ..update()
    };
    let volume = admin.update_volume(open).await.unwrap().into_inner();
    assert_eq!(volume.chap_user, "");
    assert_eq!(volume.write_cache(), rpc::WriteCache::Off, "left as it was");
    assert_eq!(volume.rebuild_bytes_per_second, 3 << 20, "left as it was");
    let unlimited = rpc::UpdateVolumeRequest {
        rebuild_bytes_per_second: Some(0),
        ..update()
    };
    let volume = admin.update_volume(unlimited).await.unwrap().into_inner();
    assert_eq!(volume.rebuild_bytes_per_second, 0);
    let slower_than_useful = rpc::UpdateVolumeRequest {
        rebuild_bytes_per_second: Some(4096),
        ..update()
    };
    let refused = admin.update_volume(slower_than_useful).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("1 MiB"), "{refused}");
}

#[tokio::test]
async fn bad_settings_are_refused_with_advice_and_without_the_secret() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "c")).await.unwrap();
    type Damage = fn(&mut rpc::Chap);
    let damages: [Damage; 4] = [
        |chap| chap.secret = "sesame".into(),
        |chap| chap.mutual_secret.clone_from(&chap.secret),
        |chap| chap.mutual_user.clear(),
        |chap| chap.user.clear(),
    ];
    for damage in damages {
        let mut chap = chap();
        damage(&mut chap);
        let request = rpc::UpdateVolumeRequest {
            chap: Some(rpc::ChapChange { chap: Some(chap) }),
            ..update()
        };
        let status = admin.update_volume(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(!status.message().contains("sesame"), "{status}");
    }
    for (count, code) in [(9, Code::InvalidArgument), (4, Code::ResourceExhausted)] {
        let request = rpc::UpdateVolumeRequest {
            replica_count: count,
            ..update()
        };
        let status = admin.update_volume(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    let stale = rpc::UpdateVolumeRequest {
        replica_count: 2,
        revision: 1,
        ..update()
    };
    assert_eq!(
        admin.update_volume(stale).await.unwrap_err().code(),
        Code::Aborted
    );
}

#[tokio::test]
async fn a_volume_has_fewer_and_more_replicas_while_it_is_attached() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "c")).await.unwrap();
    admin.attach_volume(attach("data", "n1")).await.unwrap();
    for count in [1, 3] {
        let request = rpc::UpdateVolumeRequest {
            replica_count: count,
            request_id: format!("to {count}").replace(' ', "-"),
            ..update()
        };
        admin.update_volume(request.clone()).await.unwrap();
        let volume = becomes(&mut admin, |volume| {
            let in_sync = |one: &&rpc::Replica| one.mode() == rpc::ReplicaMode::InSync;
            let healthy = volume.health() == rpc::Health::Healthy;
            let all = volume.replicas.iter().filter(in_sync).count();
            healthy && all == count as usize && volume.replicas.len() == all
        })
        .await;
        assert_eq!(volume.replica_count, count);
        admin.update_volume(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_volume_grows_attached_and_detached_and_never_shrinks() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "c")).await.unwrap();
    let grown = admin
        .expand_volume(expand(2 << 30, "e"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(grown.size_bytes, 2 << 30);
    admin.attach_volume(attach("data", "n2")).await.unwrap();
    let grown = admin
        .expand_volume(expand(3 << 30, "f"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(grown.size_bytes, 3 << 30);
    admin.expand_volume(expand(2 << 30, "e")).await.unwrap();
    admin.expand_volume(expand(3 << 30, "g")).await.unwrap();
    for (size, code) in [
        (1 << 30, Code::InvalidArgument),
        (4097, Code::InvalidArgument),
        (1 << 40, Code::ResourceExhausted),
    ] {
        let status = admin.expand_volume(expand(size, "")).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    assert_eq!(get(&mut admin).await.size_bytes, 3 << 30);
}

#[tokio::test]
async fn a_scrub_begins_everywhere_and_what_it_finds_is_repaired_and_counted() {
    let (channel, world) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "c")).await.unwrap();
    let request = rpc::ScrubVolumeRequest {
        volume: "data".into(),
        request_id: "s".into(),
    };
    let volume = admin.scrub_volume(request).await.unwrap().into_inner();
    assert!(volume.replicas.iter().all(|one| one.scrub.is_some()));
    let taken = admin.create_snapshot(snapshot("data", "s1")).await.unwrap();
    world.idle.store(true, Ordering::SeqCst);
    world.damaged.store(20, Ordering::SeqCst);
    let on_n2 = |volume: &rpc::Volume| {
        let mut replicas = volume.replicas.iter();
        replicas.find(|one| one.node == "n2").unwrap().clone()
    };
    let volume = becomes(&mut admin, |volume| on_n2(volume).damaged_blocks == 20).await;
    let message = on_n2(&volume).message;
    assert!(
        message.contains("merging stands still: bad block"),
        "{message}"
    );
    assert_eq!(on_n2(&volume).resummed_blocks, 5);
    let listed = on_n2(&volume).damages;
    assert_eq!(listed.len(), 16);
    let second = rpc::DamagedBlock {
        layer: taken.into_inner().layer,
        snapshot: "s1".into(),
        offset: 4096,
        length: 4096,
        flaw: rpc::Flaw::Unreadable.into(),
        found_at_ms: 7,
    };
    assert_eq!(listed[1], second);
    let others = volume.replicas.iter().filter(|one| one.node != "n2");
    assert!(others.flat_map(|one| &one.damages).next().is_none());
    world.damaged.store(2, Ordering::SeqCst);
    world.idle.store(false, Ordering::SeqCst);
    let repaired = |volume: &rpc::Volume| {
        let mut replicas = volume.replicas.iter();
        let sound = replicas.all(|one| one.damaged_blocks == 0 && one.damages.is_empty());
        volume.repaired_blocks == 2 && sound
    };
    let volume = becomes(&mut admin, repaired).await;
    let of_replicas: Vec<u64> = volume
        .replicas
        .iter()
        .map(|one| one.repaired_blocks)
        .collect();
    assert_eq!(of_replicas.iter().sum::<u64>(), 2, "{of_replicas:?}");
    let request = rpc::ListEventsRequest { after: 0, limit: 0 };
    let events = admin
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let found = events.iter().find(|event| event.kind == "DamageFound");
    let place = format!("first layer {} at byte 0", second.layer);
    assert!(found.unwrap().message.contains(&place), "{found:?}");
    for kind in ["ScrubOrdered", "DamageFound", "BlocksRepaired"] {
        assert!(events.iter().any(|event| event.kind == kind), "{kind}");
    }
}

#[tokio::test]
async fn a_volume_is_taken_by_force_and_the_engine_before_is_fenced() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel.clone());
    admin.create_volume(create("data", "c")).await.unwrap();
    let volume = admin
        .attach_volume(attach("data", "n1"))
        .await
        .unwrap()
        .into_inner();
    let refused = admin.attach_volume(attach("data", "n2")).await.unwrap_err();
    assert!(refused.message().contains("by force"), "{refused}");
    let request = rpc::AttachVolumeRequest {
        mode: rpc::AttachMode::Force.into(),
        ..attach("data", "n2")
    };
    let taken = admin.attach_volume(request).await.unwrap().into_inner();
    assert_eq!((taken.node.as_str(), taken.epoch), ("n2", 2));
    let late = FleetClient::new(channel)
        .record_replica_lost(rpc::RecordReplicaLostRequest {
            volume_id: volume.id,
            epoch: 1,
            replica_id: volume.replicas[0].id.clone(),
            reason: "it missed a write".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(late.metadata().get("ankole-refusal").unwrap(), "fenced");
    let request = rpc::AttachVolumeRequest {
        mode: rpc::AttachMode::Force.into(),
        ..attach("data", "")
    };
    let taken = admin.attach_volume(request).await.unwrap().into_inner();
    assert_ne!(taken.node, "n2", "by force it goes elsewhere");
}

#[tokio::test]
async fn a_restarted_engine_is_followed_by_one_at_the_same_portal() {
    let (channel, _) = cluster().await;
    let mut admin = AdminClient::new(channel);
    admin.create_volume(create("data", "c")).await.unwrap();
    let restart = || rpc::RestartVolumeRequest {
        volume: "data".into(),
        request_id: "r".into(),
        revision: 0,
    };
    let early = admin.restart_volume(restart()).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    let before = admin
        .attach_volume(attach("data", "n1"))
        .await
        .unwrap()
        .into_inner();
    let after = admin.restart_volume(restart()).await.unwrap().into_inner();
    assert_eq!((after.epoch, after.target), (2, before.target));
    let again = admin.restart_volume(restart()).await.unwrap().into_inner();
    assert_eq!(again.epoch, 2, "the same request acts once");
}
