use super::*;

fn damaged(replica: u128, blocks: u64) -> rpc::ReplicaReport {
    let damages = (0..blocks.min(64)).map(|block| rpc::Damage {
        layer: format!("{:016x}", 1),
        offset: 4096 * block,
        ..Default::default()
    });
    rpc::ReplicaReport {
        damaged_blocks: blocks,
        damages: damages.collect(),
        ..stored(replica, &[1])
    }
}

fn told(leader: &Leader) -> usize {
    let orders = engine_orders(&leader.state, leader.volume());
    orders.replicas.iter().map(|one| one.damages.len()).sum()
}

#[test]
fn what_a_blockd_finds_is_told_to_the_engine_until_it_is_gone() {
    let mut leader = Leader::with_attached();
    leader.settle();
    let before = engine_orders(&leader.state, leader.volume()).revision;
    leader.blockd("n2", vec![damaged(12, 40)]);
    assert!(matches!(&leader.settle()[..], [Command::RecordDamages(_)]));
    let orders = engine_orders(&leader.state, leader.volume());
    assert!(orders.revision > before);
    assert_eq!(told(&leader), 16, "the first of them");
    leader.blockd("n2", vec![damaged(12, 24)]);
    leader.settle();
    let events = leader.state.events();
    let found = events
        .after(0)
        .filter(|(_, event)| event.kind == "DamageFound");
    assert_eq!(found.count(), 1, "fewer are no news");
    leader.blockd("n2", vec![stored(12, &[1])]);
    leader.settle();
    assert_eq!(told(&leader), 0);
    assert_eq!(leader.plan(), vec![]);
}

#[test]
fn a_detached_volume_gets_an_engine_to_repair_what_a_peer_has() {
    let mut leader = Leader::with_volume();
    leader.blockd("n2", vec![damaged(12, 1)]);
    let commands = leader.settle();
    assert!(
        matches!(
            &commands[..],
            [Command::RecordDamages(_), Command::StartWorker(_)]
        ),
        "{commands:?}"
    );
    leader.agent("n1", &[1]);
    leader.blockd("n2", vec![stored(12, &[1])]);
    let commands = leader.settle();
    assert!(
        matches!(
            &commands[..],
            [Command::RecordDamages(_), Command::StopWorker(_)]
        ),
        "{commands:?}"
    );
}

#[test]
fn repairs_are_recorded_once_and_only_of_the_present_engine() {
    let mut leader = Leader::with_attached();
    leader.settle();
    let report = |epoch, blocks| rpc::EngineReport {
        volume_id: VolumeId::from_bits(1).to_string(),
        epoch,
        node: "n1".into(),
        repairs: vec![rpc::RepairReport {
            replica_id: ReplicaId::from_bits(12).to_string(),
            blocks,
        }],
        ..Default::default()
    };
    for (epoch, blocks, recorded) in [(1, 0, 0), (1, 2, 1), (1, 2, 0), (1, 5, 1)] {
        leader.engine_says(report(epoch, blocks));
        assert_eq!(leader.settle().len(), recorded);
    }
    assert_eq!(leader.volume().repaired_blocks, 5);
}

#[test]
fn a_worn_replica_is_replaced_when_there_is_room() {
    let mut leader = Leader::with_attached();
    leader.settle();
    for blocks in [300, 0] {
        leader.blockd("n2", vec![damaged(12, blocks)]);
        leader.settle();
    }
    assert_eq!(leader.volume().replicas.len(), 3, "there is no room");
    leader.blockd("n4", vec![]);
    let commands = leader.settle();
    let added = commands.iter().any(|command| {
        matches!(command, Command::AddReplica(one)
            if one.placement.as_ref().is_some_and(|place| place.node == "n4"))
    });
    assert!(added, "{commands:?}");
}

#[test]
fn a_scrub_is_ordered_when_somebody_asks_and_never_by_the_managers_themselves() {
    let mut leader = Leader::with_volume();
    let ordered = |leader: &Leader| {
        let orders = blockd_orders(&leader.state, &"n2".parse().unwrap());
        orders.replicas[0].scrub_request
    };
    // What a blockd has begun by itself is left alone, however long ago the last one ended.
    let runs = rpc::ReplicaReport {
        scrub: Some(rpc::ScrubProgress {
            started_at_ms: 1,
            ..Default::default()
        }),
        ..stored(12, &[1])
    };
    leader.ms += 30 * 24 * 60 * 60 * 1000;
    leader.report();
    leader.blockd("n2", vec![runs]);
    assert_eq!(leader.settle(), vec![]);
    assert_eq!(ordered(&leader), 0);
    leader.act(Command::ScrubVolume(rpc::ScrubVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        ..Default::default()
    }));
    assert_eq!(ordered(&leader), 1);
}

fn compare_report(request: u64, finished: bool, differing_chunks: u64) -> rpc::EngineReport {
    rpc::EngineReport {
        volume_id: VolumeId::from_bits(1).to_string(),
        epoch: 1,
        node: "n1".into(),
        comparison: Some(rpc::ComparisonReport {
            request,
            finished,
            alike_replicas: Vec::new(),
            progress: Some(rpc::ComparisonProgress {
                total_bytes: 1 << 30,
                differing_chunks,
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn comparison_ordered(leader: &Leader) -> u64 {
    engine_orders(&leader.state, leader.volume()).comparison_request
}

#[test]
fn replicas_are_compared_every_week_and_when_somebody_asks() {
    let mut leader = Leader::with_attached();
    leader.settle();
    assert_eq!(comparison_ordered(&leader), 0);
    leader.ms += 7 * 24 * 60 * 60 * 1000;
    leader.report();
    leader.agent("n1", &[1]);
    leader.engine_says(compare_report(0, false, 0));
    let commands = leader.settle();
    assert!(matches!(&commands[..], [Command::OrderComparison(_)]));
    assert_eq!(comparison_ordered(&leader), 1);
    for (report, recorded) in [
        (compare_report(1, false, 0), 0),
        (compare_report(1, true, 2), 1),
        (compare_report(1, true, 2), 0),
    ] {
        leader.engine_says(report);
        assert_eq!(leader.settle().len(), recorded);
    }
    assert_eq!(comparison_ordered(&leader), 0, "it is made");
    let made = leader.volume().comparison;
    assert_eq!((made.made, made.differing_chunks), (1, 2));
    leader.act(Command::ScrubVolume(rpc::ScrubVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        ..Default::default()
    }));
    assert_eq!(comparison_ordered(&leader), 2);
    // What an engine of another epoch says, or of an earlier comparison, is not it.
    let stale = rpc::EngineReport {
        epoch: 0,
        ..compare_report(2, true, 0)
    };
    for report in [compare_report(1, true, 2), stale] {
        leader.engine_says(report);
        assert_eq!(leader.settle(), vec![]);
    }
    leader.engine_says(compare_report(2, true, 0));
    leader.settle();
    let events = leader.state.events();
    let kinds: Vec<_> = events
        .after(0)
        .map(|(_, event)| event.kind.clone())
        .collect();
    for kind in ["ReplicasDiffered", "ReplicasCompared"] {
        let count = kinds.iter().filter(|one| *one == kind).count();
        assert_eq!(count, 1, "{kind} in {kinds:?}");
    }
}

#[test]
fn a_comparison_that_was_made_counts_although_the_next_is_ordered() {
    let mut leader = Leader::with_attached();
    leader.settle();
    for _ in 0..2 {
        leader.act(Command::ScrubVolume(rpc::ScrubVolumeCommand {
            volume_id: VolumeId::from_bits(1).to_string(),
            ..Default::default()
        }));
    }
    leader.engine_says(compare_report(1, true, 0));
    assert_eq!(leader.settle().len(), 1);
    let comparison = leader.volume().comparison;
    assert_eq!((comparison.made, comparison.wanted()), (1, Some(2)));
    assert_eq!(comparison_ordered(&leader), 2);
}

fn independent(leader: &Leader) -> Vec<u128> {
    let orders = engine_orders(&leader.state, leader.volume());
    let replicas = orders.replicas.iter().filter(|one| one.independent);
    replicas
        .map(|one| one.id.parse::<ReplicaId>().unwrap().bits())
        .collect()
}

#[test]
fn a_copy_of_another_replica_is_no_second_witness_until_all_are_found_alike() {
    let mut leader = Leader::with_attached();
    leader.settle();
    assert_eq!(independent(&leader), [11, 12, 13]);
    leader.lose(12);
    let (volume_id, replica_id) = (
        VolumeId::from_bits(1).to_string(),
        ReplicaId::from_bits(12).to_string(),
    );
    leader.act(Command::StartRebuild(rpc::StartRebuildCommand {
        volume_id: volume_id.clone(),
        replica_id: replica_id.clone(),
    }));
    leader.act(Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
        volume_id: volume_id.clone(),
        epoch: 1,
        replica_id,
    }));
    // A block of another one was copied, too.
    leader.act(Command::RecordRepairs(rpc::RecordRepairsCommand {
        volume_id: volume_id.clone(),
        epoch: 1,
        replica_id: ReplicaId::from_bits(13).to_string(),
        blocks: 1,
    }));
    assert_eq!(independent(&leader), [11]);
    leader.act(Command::ScrubVolume(rpc::ScrubVolumeCommand {
        volume_id,
        ..Default::default()
    }));
    leader.act(Command::ScrubVolume(rpc::ScrubVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        ..Default::default()
    }));
    for (request, alike, wanted) in [
        // 13 was not compared as a whole.
        (1, vec![11, 12], vec![11]),
        (2, vec![11, 12, 13], vec![11, 12, 13]),
    ] {
        let mut report = compare_report(request, true, 0);
        if let Some(comparison) = &mut report.comparison {
            let alike = alike.iter().map(|id| ReplicaId::from_bits(*id).to_string());
            comparison.alike_replicas = alike.collect();
        }
        leader.engine_says(report);
        leader.settle();
        assert_eq!(independent(&leader), wanted);
    }
}

#[test]
fn comparisons_that_are_due_at_once_take_turns() {
    let mut leader = count::four_volumes();
    leader.ms += 7 * 24 * 60 * 60 * 1000;
    let ordered = |commands: &[Command]| {
        let orders = commands
            .iter()
            .filter(|one| matches!(one, Command::OrderComparison(_)));
        orders.count()
    };
    count::report_four(&mut leader, 1..=3);
    assert_eq!(ordered(&leader.settle()), 2);
    leader.engine_says(compare_report(1, true, 0));
    assert_eq!(ordered(&leader.settle()), 1, "the next has its turn");
    assert_eq!(ordered(&leader.settle()), 0);
    // Two engines of an older version never say anything of theirs.
    leader.ms += 60_000;
    count::report_four(&mut leader, 1..=3);
    assert_eq!(ordered(&leader.settle()), 1);
}

#[test]
fn a_detached_volume_gets_an_engine_for_a_comparison_that_was_asked_for() {
    let mut leader = Leader::with_volume();
    leader.agent("n1", &[]);
    leader.settle();
    leader.act(Command::ScrubVolume(rpc::ScrubVolumeCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        ..Default::default()
    }));
    let commands = leader.settle();
    assert!(matches!(&commands[..], [Command::StartWorker(_)]));
}
