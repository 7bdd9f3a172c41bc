use super::*;
use crate::state::ReplicaMode;

fn wanted(count: u32) -> Command {
    Command::UpdateVolume(rpc::UpdateVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        replica_count: count,
        ..Default::default()
    })
}

fn removed(commands: &[Command]) -> Vec<u128> {
    let removals = commands.iter().filter_map(|command| match command {
        Command::RemoveReplica(one) => Some(one.replica_id.parse::<ReplicaId>().unwrap().bits()),
        _ => None,
    });
    removals.collect()
}

fn mode(leader: &Leader, replica: u128) -> ReplicaMode {
    leader.volume().replicas[&ReplicaId::from_bits(replica)].mode
}

/// As the engine of epoch 1 on n1, having seen the present orders or none.
fn engine_has_seen(leader: &mut Leader, seen_revision: u64) {
    leader.engine_says(rpc::EngineReport {
        volume_id: VolumeId::from_bits(1).to_string(),
        epoch: 1,
        node: "n1".into(),
        serving: true,
        seen_revision,
        ..Default::default()
    });
}

#[test]
fn the_replica_on_the_fullest_disk_goes_once_the_engine_knows() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.act(wanted(2));
    leader.blockd_with("n2", 40, vec![stored(12, &[1])]);
    assert_eq!(removed(&leader.settle()), [12]);
    assert_eq!(mode(&leader, 12), ReplicaMode::OutOfSync);
    let listed = engine_orders(&leader.state, leader.volume()).replicas;
    assert_eq!(listed.len(), 2, "the engine is told first");
    let orders = blockd_orders(&leader.state, &"n2".parse().unwrap());
    assert!(orders.delete_replicas.is_empty(), "{orders:?}");
    let revision = leader.volume().revision;
    engine_has_seen(&mut leader, revision - 1);
    assert_eq!(leader.plan(), vec![], "the engine has not seen it");
    engine_has_seen(&mut leader, revision);
    assert_eq!(removed(&leader.settle()), [12]);
    let orders = blockd_orders(&leader.state, &"n2".parse().unwrap());
    assert_eq!(orders.delete_replicas.len(), 1);
    leader.blockd("n2", vec![]);
    leader.settle();
    assert_eq!(leader.volume().replicas.len(), 2);
}

#[test]
fn one_that_is_out_of_sync_goes_before_one_that_is_in_sync() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.lose(11);
    leader.act(wanted(2));
    let revision = leader.volume().revision;
    engine_has_seen(&mut leader, revision);
    leader.blockd_with("n2", 40, vec![stored(12, &[1])]);
    assert_eq!(removed(&leader.settle()), [11]);
    assert_eq!(mode(&leader, 11), ReplicaMode::Deleting);
    leader.ms += 60_000;
    leader.report();
    assert_eq!(removed(&leader.plan()), [] as [u128; 0]);
}

#[test]
fn of_a_detached_volume_the_one_on_a_node_that_is_down_goes_at_once() {
    let mut leader = Leader::with_volume();
    leader.ms += SILENT_MS + 1;
    for (node, replica) in [("n1", 11), ("n2", 12)] {
        leader.blockd_with(node, 20, vec![stored(replica, &[1])]);
    }
    leader.act(wanted(2));
    let commands = leader.settle();
    assert_eq!(removed(&commands), [13, 13]);
    assert_eq!(leader.volume().replicas.len(), 2);
    assert_eq!(leader.state.doomed().len(), 1, "n3 is told when it is back");
}

#[test]
fn one_more_replica_is_placed_stored_and_rebuilt() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.act(wanted(4));
    assert_eq!(leader.plan(), vec![], "there is no room");
    leader.blockd("n4", vec![]);
    let commands = leader.settle();
    let added = commands.iter().find_map(|command| match command {
        Command::AddReplica(one) => one.placement.clone(),
        _ => None,
    });
    let placement = added.unwrap();
    assert_eq!(placement.node, "n4");
    let replica: ReplicaId = placement.replica_id.parse().unwrap();
    leader.blockd("n4", vec![stored(replica.bits(), &[1])]);
    leader.settle();
    leader.ms += 4_000;
    leader.report();
    leader.agent("n1", &[1]);
    leader.engine("n1", 1);
    leader.blockd("n4", vec![stored(replica.bits(), &[1])]);
    assert!(matches!(&leader.settle()[..], [Command::StartRebuild(_)]));
}

/// Attached volumes 1 to 4 with in-sync replicas on n1 and n2, the first on n3 too.
pub(super) fn four_volumes() -> Leader {
    let mut leader = Leader::with_attached();
    leader.settle();
    for volume in 2..=4_u128 {
        let volume_id = VolumeId::from_bits(volume).to_string();
        leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
            volume_id: volume_id.clone(),
            name: format!("v{volume}"),
            size_bytes: 1 << 30,
            placements: (1..=2)
                .map(|node| rpc::Placement {
                    replica_id: ReplicaId::from_bits(10 * volume + node).to_string(),
                    node: format!("n{node}"),
                    disk_id: disk_id(&format!("n{node}")),
                    ..Default::default()
                })
                .collect(),
            credential: vec![7; 32],
            ..Default::default()
        }));
    }
    report_four(&mut leader, 1..=3);
    leader.settle();
    for (volume, port) in [(2, 4002), (3, 4003), (4, 4004)] {
        let volume_id = VolumeId::from_bits(volume).to_string();
        leader.act(Command::AttachVolume(rpc::AttachVolumeCommand {
            volume_id: volume_id.clone(),
            node: "n1".into(),
            port,
            ..Default::default()
        }));
        leader.act(Command::GrantEpoch(rpc::GrantEpochCommand {
            volume_id,
            node: "n1".into(),
            expected_epoch: 0,
        }));
    }
    leader
}

/// The blockds of these nodes and all engines report.
pub(super) fn report_four(leader: &mut Leader, nodes: std::ops::RangeInclusive<u128>) {
    for node in nodes {
        let volumes = if node == 3 { 1..=1 } else { 1..=4 };
        let all = volumes.map(|layer| stored(10 * u128::from(layer) + node, &[layer]));
        leader.blockd(&format!("n{node}"), all.collect());
    }
    leader.agent("n1", &[1, 2, 3, 4]);
    for volume in 1..=4_u128 {
        leader.engine_says(rpc::EngineReport {
            volume_id: VolumeId::from_bits(volume).to_string(),
            epoch: 1,
            node: "n1".into(),
            ..Default::default()
        });
    }
}

/// The replica of this volume on n2 is lost.
fn lose_on_n2(leader: &mut Leader, volume: u128) {
    leader.act(Command::ReplicaLost(rpc::ReplicaLostCommand {
        volume_id: VolumeId::from_bits(volume).to_string(),
        epoch: 1,
        replica_id: ReplicaId::from_bits(10 * volume + 2).to_string(),
        reason: "its node was down".into(),
        by_managers: false,
    }));
}

#[test]
fn a_node_takes_two_rebuilds_at_a_time() {
    let mut leader = four_volumes();
    for volume in 1..=4 {
        lose_on_n2(&mut leader, volume);
    }
    leader.ms += 4_000;
    report_four(&mut leader, 1..=3);
    let started = leader.settle();
    assert_eq!(started.len(), REBUILDS_PER_NODE_MAX, "{started:?}");
    let Some(Command::StartRebuild(first)) = started.first() else {
        panic!("{started:?}");
    };
    leader.act(Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
        volume_id: first.volume_id.clone(),
        epoch: 1,
        replica_id: first.replica_id.clone(),
    }));
    assert_eq!(leader.settle().len(), 1, "the next has its turn");
}

#[test]
fn rebuilds_that_wait_for_their_sources_do_not_take_the_turns_of_others() {
    let mut leader = four_volumes();
    lose_on_n2(&mut leader, 2);
    lose_on_n2(&mut leader, 3);
    leader.ms += 4_000;
    report_four(&mut leader, 1..=3);
    assert_eq!(leader.settle().len(), 2);
    lose_on_n2(&mut leader, 1);
    leader.ms += 4_000;
    report_four(&mut leader, 1..=3);
    assert_eq!(leader.settle(), vec![], "both turns are taken");
    // Only n1 has what these two are made equal to; of volume 1 there is a replica on n3 as well.
    leader.ms += SILENT_MS;
    report_four(&mut leader, 2..=3);
    leader.ms += 1_000;
    report_four(&mut leader, 2..=3);
    let started: Vec<String> = leader
        .settle()
        .into_iter()
        .filter_map(|command| match command {
            Command::StartRebuild(one) => Some(one.replica_id),
            _ => None,
        })
        .collect();
    assert_eq!(started, [ReplicaId::from_bits(12).to_string()]);
}

#[test]
fn a_node_that_is_back_within_its_grace_is_used_again() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.lose(12);
    leader.ms += AWAY_MS - 1_000;
    leader.blockd("n4", vec![]);
    leader.report();
    leader.agent("n1", &[1]);
    leader.engine("n1", 1);
    let commands = leader.settle();
    let rebuilt = commands
        .iter()
        .filter(|one| matches!(one, Command::StartRebuild(_)));
    assert_eq!(rebuilt.count(), 1);
    assert!(
        !commands
            .iter()
            .any(|one| matches!(one, Command::ReplaceReplica(_)))
    );
}
