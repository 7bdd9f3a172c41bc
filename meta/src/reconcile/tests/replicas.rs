//! Replicas that are given up, replaced, waited for, or let go of.

use super::*;
use crate::state::{PhaseKind, ReplicaMode};

fn faulted(replica: u128) -> rpc::ReplicaReport {
    rpc::ReplicaReport {
        state: rpc::StoredState::Faulted.into(),
        message: "its head is torn".into(),
        ..stored(replica, &[1])
    }
}

fn mode(leader: &Leader, replica: u128) -> Option<ReplicaMode> {
    let found = leader.volume().replicas.get(&ReplicaId::from_bits(replica));
    found.map(|one| one.mode)
}

fn replaced(commands: &[Command]) -> Vec<(u128, String)> {
    let found = commands.iter().filter_map(|command| match command {
        Command::ReplaceReplica(one) => {
            let id = one.replica_id.parse::<ReplicaId>().unwrap();
            Some((id.bits(), one.placement.clone()?.node))
        }
        _ => None,
    });
    found.collect()
}

/// All but n2 report, the engine on n1 among them.
fn rest(leader: &mut Leader) {
    leader.blockd("n1", vec![stored(11, &[1])]);
    leader.blockd("n3", vec![stored(13, &[1])]);
    leader.agent("n1", &[1]);
    leader.engine("n1", 1);
}

/// Replica 12 is being rebuilt.
fn rebuilding() -> Leader {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.lose(12);
    leader.ms += 4_000;
    rest(&mut leader);
    leader.blockd("n2", vec![stored(12, &[1])]);
    assert!(matches!(&leader.settle()[..], [Command::StartRebuild(_)]));
    leader
}

#[test]
fn a_rebuilding_replica_that_is_faulted_or_gone_is_given_up_and_replaced() {
    for there in [vec![faulted(12)], vec![]] {
        let mut leader = rebuilding();
        assert_eq!(leader.settle(), vec![], "as long as it is fine");
        leader.blockd("n4", vec![]);
        leader.blockd("n2", there.clone());
        leader.settle();
        assert_eq!(mode(&leader, 12), Some(ReplicaMode::OutOfSync));
        assert_eq!(mode(&leader, 11), Some(ReplicaMode::InSync));
        leader.ms += 29_999;
        rest(&mut leader);
        leader.blockd("n2", there.clone());
        leader.blockd("n4", vec![]);
        assert_eq!(replaced(&leader.settle()), [], "it may come back");
        leader.ms += 1;
        assert_eq!(replaced(&leader.settle()), [(12, "n4".to_owned())]);
    }
}

#[test]
fn a_rebuilding_replica_whose_node_stays_away_is_given_up_and_replaced() {
    let mut leader = rebuilding();
    leader.ms += AWAY_MS;
    rest(&mut leader);
    leader.blockd("n4", vec![]);
    leader.settle();
    assert_eq!(
        mode(&leader, 12),
        Some(ReplicaMode::Rebuilding),
        "within the grace of its node"
    );
    leader.ms += 1;
    rest(&mut leader);
    leader.settle();
    assert_eq!(mode(&leader, 12), Some(ReplicaMode::OutOfSync));
    leader.ms += 30_000;
    rest(&mut leader);
    leader.blockd("n4", vec![]);
    assert_eq!(replaced(&leader.settle()), [(12, "n4".to_owned())]);
}

#[test]
fn a_lost_replica_stays_where_it_is_while_there_is_no_room_elsewhere() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.lose(12);
    leader.ms += AWAY_MS + 1;
    rest(&mut leader);
    leader.blockd_with("n4", 1, vec![]);
    assert_eq!(replaced(&leader.settle()), [], "n4 is full");
    assert_eq!(mode(&leader, 12), Some(ReplicaMode::OutOfSync));
    leader.blockd("n2", vec![stored(12, &[1])]);
    assert!(
        leader
            .settle()
            .iter()
            .any(|one| matches!(one, Command::StartRebuild(_))),
        "it is used again, however long it was away"
    );
}

#[test]
fn of_a_detached_volume_the_managers_say_what_is_lost_but_never_the_last() {
    let mut leader = Leader::with_volume();
    leader.blockd("n1", vec![faulted(11)]);
    leader.blockd("n2", vec![]);
    leader.settle();
    assert_eq!(mode(&leader, 11), Some(ReplicaMode::OutOfSync));
    assert_eq!(mode(&leader, 12), Some(ReplicaMode::OutOfSync));
    leader.blockd("n3", vec![faulted(13)]);
    leader.settle();
    assert_eq!(mode(&leader, 13), Some(ReplicaMode::InSync), "INV-4");
}

#[test]
fn of_an_attached_volume_the_engine_says_what_is_lost() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.blockd("n2", vec![faulted(12)]);
    assert_eq!(leader.settle(), vec![]);
    assert_eq!(mode(&leader, 12), Some(ReplicaMode::InSync));
}

#[test]
fn a_worn_replica_goes_when_the_one_in_its_stead_is_in_sync() {
    let mut leader = Leader::with_attached();
    leader.settle();
    for damaged_blocks in [300, 0] {
        let report = rpc::ReplicaReport {
            damaged_blocks,
            ..stored(12, &[1])
        };
        leader.blockd("n2", vec![report]);
        leader.settle();
    }
    leader.blockd("n4", vec![]);
    leader.settle();
    let mut replicas = leader.volume().replicas.keys();
    let new = replicas.find(|id| id.bits() > 13).unwrap().bits();
    leader.blockd("n4", vec![stored(new, &[1])]);
    leader.settle();
    leader.ms += 4_000;
    rest(&mut leader);
    leader.blockd("n2", vec![stored(12, &[1])]);
    leader.blockd("n4", vec![stored(new, &[1])]);
    leader.settle();
    assert_eq!(mode(&leader, new), Some(ReplicaMode::Rebuilding));
    assert_eq!(
        mode(&leader, 12),
        Some(ReplicaMode::InSync),
        "it serves until then"
    );
    leader.act(Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        epoch: 1,
        replica_id: ReplicaId::from_bits(new).to_string(),
    }));
    let commands = leader.settle();
    let [Command::RemoveReplica(removal)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert!(removal.reason.contains("faults"), "{}", removal.reason);
    assert_eq!(mode(&leader, 12), Some(ReplicaMode::OutOfSync));
    for healthy in [11, 13, new] {
        assert_eq!(mode(&leader, healthy), Some(ReplicaMode::InSync));
    }
}

#[test]
fn a_replica_that_cannot_be_stored_is_stored_elsewhere_after_a_while() {
    let mut leader = Leader::new();
    leader.report();
    leader.settle();
    leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        name: "data".into(),
        size_bytes: 1 << 30,
        placements: vec![rpc::Placement {
            replica_id: ReplicaId::from_bits(11).to_string(),
            node: "n1".into(),
            disk_id: disk_id("n1"),
            ..Default::default()
        }],
        credential: vec![7; 32],
        ..Default::default()
    }));
    leader.blockd("n1", vec![faulted(11)]);
    assert_eq!(leader.settle(), vec![], "not at once");
    leader.ms += 30_000;
    leader.blockd("n1", vec![faulted(11)]);
    leader.blockd("n2", vec![]);
    let commands = leader.settle();
    assert_eq!(replaced(&commands), [(11, "n2".to_owned())]);
    assert_eq!(leader.volume().phase.kind(), PhaseKind::Creating);
}

#[test]
fn a_replica_to_be_deleted_on_a_node_that_is_down_is_let_go_of_and_deleted_when_it_is_back() {
    let mut leader = Leader::with_volume();
    leader.ms += SILENT_MS + 1;
    leader.act(Command::DeleteVolume(rpc::DeleteVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        revision: 0,
    }));
    for node in ["n1", "n3"] {
        leader.blockd(node, vec![]);
    }
    leader.settle();
    assert!(leader.state.volumes().is_empty());
    leader.blockd("n2", vec![stored(12, &[1])]);
    leader.settle();
    let node = "n2".parse().unwrap();
    let order = blockd_orders(&leader.state, &node).delete_replicas;
    assert_eq!(order, [ReplicaId::from_bits(12).to_string()]);
    leader.blockd("n2", vec![]);
    leader.settle();
    assert!(leader.state.doomed().is_empty());
}

#[test]
fn no_more_rebuilds_run_than_the_cluster_may_have() {
    let mut leader = Leader::new();
    let nodes = 2 * u128::try_from(REBUILDS_MAX).unwrap();
    let volumes = |leader: &mut Leader| {
        for node in 1..=nodes {
            let mut all = vec![stored(100 + node, &[u64::try_from(node).unwrap()])];
            if node == 1 {
                let firsts = (1..=nodes).map(|n| stored(200 + n, &[u64::try_from(n).unwrap()]));
                all.extend(firsts);
            }
            leader.blockd(&format!("m{node}"), all);
        }
        leader.agent("m1", &(1..=nodes).collect::<Vec<_>>());
        for volume in 1..=nodes {
            leader.engine_says(rpc::EngineReport {
                volume_id: VolumeId::from_bits(volume).to_string(),
                epoch: 1,
                node: "m1".into(),
                ..Default::default()
            });
        }
    };
    volumes(&mut leader);
    leader.settle();
    let place = |replica: u128, node: u128| rpc::Placement {
        replica_id: ReplicaId::from_bits(replica).to_string(),
        node: format!("m{node}"),
        disk_id: disk_id(&format!("m{node}")),
        ..Default::default()
    };
    for volume in 2..=nodes {
        leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
            volume_id: VolumeId::from_bits(volume).to_string(),
            name: format!("v{volume}"),
            size_bytes: 1 << 30,
            placements: vec![place(200 + volume, 1), place(100 + volume, volume)],
            credential: vec![7; 32],
            ..Default::default()
        }));
    }
    volumes(&mut leader);
    leader.settle();
    for volume in 2..=nodes {
        let volume_id = VolumeId::from_bits(volume).to_string();
        leader.act(Command::AttachVolume(rpc::AttachVolumeCommand {
            volume_id: volume_id.clone(),
            node: "m1".into(),
            port: 4000 + u32::try_from(volume).unwrap(),
            ..Default::default()
        }));
        leader.act(Command::GrantEpoch(rpc::GrantEpochCommand {
            volume_id: volume_id.clone(),
            node: "m1".into(),
            expected_epoch: 0,
        }));
        leader.act(Command::ReplicaLost(rpc::ReplicaLostCommand {
            volume_id,
            epoch: 1,
            replica_id: ReplicaId::from_bits(100 + volume).to_string(),
            reason: "its node was down".into(),
            by_managers: false,
        }));
    }
    leader.ms += 4_000;
    volumes(&mut leader);
    assert_eq!(leader.settle().len(), REBUILDS_MAX);
}
