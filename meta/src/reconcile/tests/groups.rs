//! When the volumes of a group are to hold, to seal, and to be let go.

use ankole_proto::SnapshotGroupId;

use super::*;
use crate::state::{GROUP_GATHER_MS, GROUP_HOLD_MS, GROUP_SEAL_MS, GroupStage};

fn vid(volume: u128) -> String {
    VolumeId::from_bits(volume).to_string()
}

/// Volumes 1 and 2 are attached to n1 under epoch 1, and a group of their snapshots is asked for.
/// Of neither is there an engine that reports.
fn gathering() -> Leader {
    let mut leader = Leader::with_volume();
    leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
        volume_id: vid(2),
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
    nodes_report(&mut leader);
    leader.settle();
    for (volume, port) in [(1, 4000), (2, 4001)] {
        leader.act(Command::AttachVolume(rpc::AttachVolumeCommand {
            volume_id: vid(volume),
            node: "n1".into(),
            port,
            ..Default::default()
        }));
        grant(&mut leader, volume, 0);
    }
    leader.act(Command::CreateSnapshotGroup(
        rpc::CreateSnapshotGroupCommand {
            group_id: SnapshotGroupId::from_bits(1).to_string(),
            name: "cut".into(),
            members: [1, 2]
                .map(|volume| rpc::GroupMember {
                    volume_id: vid(volume),
                    snapshot_id: SnapshotId::from_bits(volume).to_string(),
                })
                .into(),
        },
    ));
    nodes_report(&mut leader);
    leader
}

fn nodes_report(leader: &mut Leader) {
    leader.report();
    leader.blockd("n1", vec![stored(11, &[1]), stored(21, &[2])]);
    leader.agent("n1", &[1, 2]);
}

fn grant(leader: &mut Leader, volume: u128, expected_epoch: u64) {
    leader.act(Command::GrantEpoch(rpc::GrantEpochCommand {
        volume_id: vid(volume),
        node: "n1".into(),
        expected_epoch,
    }));
}

fn engine(leader: &mut Leader, volume: u128, epoch: u64, serving: bool, held_task: u64) {
    leader.engine_says(rpc::EngineReport {
        volume_id: vid(volume),
        epoch,
        node: "n1".into(),
        serving,
        held_task,
        ..Default::default()
    });
}

fn stage(leader: &Leader) -> Option<GroupStage> {
    let groups = leader.state.groups();
    let group = groups.get(&SnapshotGroupId::from_bits(1))?;
    Some(group.stage.clone())
}

fn undone(leader: &Leader) -> Option<String> {
    match stage(leader)? {
        GroupStage::Undone { reason } => Some(reason),
        _ => None,
    }
}

#[test]
fn a_group_holds_when_every_engine_serves_and_has_the_seal_first() {
    let mut leader = gathering();
    leader.act(Command::ExpandVolume(rpc::ExpandVolumeCommand {
        volume_id: vid(2),
        size_bytes: 2 << 30,
        ..Default::default()
    }));
    engine(&mut leader, 1, 1, true, 0);
    assert_eq!(leader.settle(), vec![], "one has no engine that reports");
    engine(&mut leader, 2, 1, false, 0);
    assert_eq!(leader.settle(), vec![], "its target does not serve");
    engine(&mut leader, 2, 1, true, 0);
    leader.ms += SILENT_MS + 1;
    nodes_report(&mut leader);
    engine(&mut leader, 2, 1, true, 0);
    assert_eq!(leader.settle(), vec![], "the other is silent by now");
    engine(&mut leader, 1, 1, true, 0);
    assert!(matches!(
        &leader.settle()[..],
        [Command::HoldSnapshotGroup(_)]
    ));
}

#[test]
fn a_group_waits_while_a_volume_has_another_task_first() {
    let mut leader = Leader::with_attached();
    leader.act(Command::CreateSnapshot(rpc::CreateSnapshotCommand {
        volume_id: vid(1),
        snapshot_id: SnapshotId::from_bits(5).to_string(),
        name: "before".into(),
    }));
    leader.act(Command::CreateSnapshotGroup(
        rpc::CreateSnapshotGroupCommand {
            group_id: SnapshotGroupId::from_bits(1).to_string(),
            name: "cut".into(),
            members: vec![rpc::GroupMember {
                volume_id: vid(1),
                snapshot_id: SnapshotId::from_bits(1).to_string(),
            }],
        },
    ));
    assert_eq!(leader.settle(), vec![], "the engine seals something else");
    let task_id = leader.volume().tasks[0].id;
    leader.act(Command::TaskDone(rpc::TaskDoneCommand {
        volume_id: vid(1),
        epoch: 1,
        task_id,
        refusal: String::new(),
    }));
    assert!(matches!(
        &leader.settle()[..],
        [Command::HoldSnapshotGroup(_)]
    ));
}

#[test]
fn a_group_is_released_when_every_present_engine_holds() {
    let mut leader = gathering();
    for volume in [1, 2] {
        engine(&mut leader, volume, 1, true, 0);
    }
    leader.settle();
    assert_eq!(stage(&leader), Some(GroupStage::Hold));
    let task_of = |leader: &Leader, volume: u128| {
        let volume = &leader.state.volumes()[&VolumeId::from_bits(volume)];
        volume.tasks[0].id
    };
    let tasks = [1, 2].map(|volume| task_of(&leader, volume));
    engine(&mut leader, 1, 1, true, tasks[0]);
    assert_eq!(leader.settle(), vec![], "the other does not hold");
    engine(&mut leader, 2, 1, true, tasks[1] + 1);
    assert_eq!(leader.settle(), vec![], "it holds for another task");
    engine(&mut leader, 2, 1, true, tasks[1]);
    grant(&mut leader, 2, 1);
    assert_eq!(leader.settle(), vec![], "it was replaced meanwhile");
    engine(&mut leader, 2, 2, true, tasks[1]);
    let commands = leader.settle();
    let [Command::ReleaseSnapshotGroup(release)] = &commands[..] else {
        panic!("{commands:?}");
    };
    let mut epochs: Vec<u64> = release.held.iter().map(|one| one.epoch).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2], "it names the engines that hold");
    assert_eq!(leader.settle(), vec![], "now the engines seal");
}

#[test]
fn each_stage_has_its_time_and_the_reason_names_the_volume() {
    let mut leader = gathering();
    engine(&mut leader, 1, 1, true, 0);
    leader.ms += GROUP_GATHER_MS;
    nodes_report(&mut leader);
    engine(&mut leader, 1, 1, true, 0);
    assert_eq!(leader.settle(), vec![], "not yet");
    leader.ms += 1;
    leader.settle();
    let reason = undone(&leader).unwrap();
    assert!(
        reason.contains("second") && !reason.contains("data"),
        "{reason}"
    );

    let holding = || {
        let mut leader = gathering();
        for volume in [1, 2] {
            engine(&mut leader, volume, 1, true, 0);
        }
        leader.settle();
        let volume = &leader.state.volumes()[&VolumeId::from_bits(2)];
        let task = volume.tasks[0].id;
        engine(&mut leader, 2, 1, true, task);
        leader
    };
    let mut leader = holding();
    leader.ms += GROUP_HOLD_MS;
    assert_eq!(leader.settle(), vec![], "not yet");
    leader.ms += 1;
    nodes_report(&mut leader);
    let task = leader.state.volumes()[&VolumeId::from_bits(2)].tasks[0].id;
    engine(&mut leader, 2, 1, true, task);
    leader.settle();
    let reason = undone(&leader).unwrap();
    assert!(
        reason.contains("data") && !reason.contains("second"),
        "{reason}"
    );

    let mut leader = holding();
    let task = leader.volume().tasks[0].id;
    engine(&mut leader, 1, 1, true, task);
    leader.settle();
    assert_eq!(stage(&leader), Some(GroupStage::Release));
    leader.ms += GROUP_SEAL_MS + 1;
    leader.settle();
    let reason = undone(&leader).unwrap();
    assert!(
        reason.contains("sealed") && reason.contains("data"),
        "{reason}"
    );
    assert_eq!(leader.volume().tasks.len(), 1, "it may have begun");
}
