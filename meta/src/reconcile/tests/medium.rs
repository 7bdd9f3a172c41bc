use super::*;

fn damaged(replica: u128, blocks: u64) -> rpc::ReplicaReport {
    let damages = (0..blocks.min(64)).map(|block| rpc::Damage {
        layer: format!("{:016x}", 1),
        offset: 4096 * block,
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
fn volumes_are_scrubbed_every_week_one_at_a_time() {
    let mut leader = Leader::with_volume();
    leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
        volume_id: VolumeId::from_bits(2).to_string(),
        name: "second".into(),
        size_bytes: 1 << 30,
        placements: vec![rpc::Placement {
            replica_id: ReplicaId::from_bits(21).to_string(),
            node: "n1".into(),
            disk_id: disk_id("n1"),
            ..Default::default()
        }],
        credential: vec![7; 32],
        ..Default::default()
    }));
    let report = |leader: &mut Leader, scrub: rpc::ScrubProgress| {
        let of_volume = |leader: &Leader, volume: u128| {
            let volume = &leader.state.volumes()[&VolumeId::from_bits(volume)];
            volume.scrub.request
        };
        let (one, two) = (of_volume(leader, 1), of_volume(leader, 2));
        let replica = |id, layer, scrub_request| rpc::ReplicaReport {
            scrub: Some(scrub),
            scrub_request,
            ..stored(id, &[layer])
        };
        leader.blockd("n1", vec![replica(11, 1, one), replica(21, 2, two)]);
        leader.blockd("n2", vec![replica(12, 1, one)]);
        leader.blockd("n3", vec![replica(13, 1, one)]);
        for node in ["n1", "n2", "n3"] {
            leader.agent(node, &[]);
        }
    };
    let ended = rpc::ScrubProgress {
        started_at_ms: 1,
        finished_at_ms: 2,
        ..Default::default()
    };
    let runs = rpc::ScrubProgress {
        started_at_ms: 1,
        ..Default::default()
    };
    report(&mut leader, ended);
    leader.settle();
    leader.ms += SCRUB_INTERVAL_MS;
    report(&mut leader, ended);
    let ordered = |commands: &[Command]| {
        let scrubs = commands.iter().filter_map(|command| match command {
            Command::ScrubVolume(one) => Some(one.volume_id.parse::<VolumeId>().unwrap().bits()),
            _ => None,
        });
        scrubs.collect::<Vec<_>>()
    };
    let plan = leader.plan();
    assert_eq!(ordered(&plan), [1]);
    for command in plan {
        leader.act(command);
    }
    assert_eq!(
        ordered(&leader.plan()),
        [] as [u128; 0],
        "the first has not begun"
    );
    report(&mut leader, runs);
    assert_eq!(
        ordered(&leader.plan()),
        [] as [u128; 0],
        "the first is under way"
    );
    report(&mut leader, ended);
    assert_eq!(ordered(&leader.settle()), [2]);
    let orders = blockd_orders(&leader.state, &"n2".parse().unwrap());
    assert_eq!(orders.replicas[0].scrub_request, 1);
}
