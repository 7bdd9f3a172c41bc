//! Where clones go, when their replicas count, and when one is given up.

use super::*;
use crate::state::{PhaseKind, ReplicaMode};

const MADE_BESIDE_OTHERS_MS: u64 = 15_000;
const MADE_ALONE_MS: u64 = 120_000;

/// Volume 1 is attached and has the ready snapshot 1.
fn source() -> Leader {
    let mut leader = Leader::with_attached();
    leader.settle();
    let volume_id = VolumeId::from_bits(1).to_string();
    let task = leader.act(Command::CreateSnapshot(rpc::CreateSnapshotCommand {
        volume_id: volume_id.clone(),
        snapshot_id: SnapshotId::from_bits(1).to_string(),
        name: "s1".into(),
    }));
    leader.act(Command::TaskDone(rpc::TaskDoneCommand {
        volume_id,
        epoch: 1,
        task_id: task.task_id,
        refusal: String::new(),
    }));
    leader
}

/// Volume 2 is to be a clone of that on n1 and n2: replicas 21 of 11, and 22 of 12.
fn cloning() -> Leader {
    let mut leader = source();
    leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
        volume_id: VolumeId::from_bits(2).to_string(),
        name: "copy".into(),
        size_bytes: 1 << 30,
        placements: [1_u128, 2]
            .map(|node| rpc::Placement {
                replica_id: ReplicaId::from_bits(20 + node).to_string(),
                node: format!("n{node}"),
                disk_id: disk_id(&format!("n{node}")),
                source_replica_id: ReplicaId::from_bits(10 + node).to_string(),
            })
            .into(),
        credential: vec![7; 32],
        source_snapshot_id: SnapshotId::from_bits(1).to_string(),
        ..Default::default()
    }));
    leader
}

/// Everything reports; of the clone these replicas are stored.
fn report(leader: &mut Leader, made: &[u128]) {
    for node in 1..=3_u128 {
        let clone = made.iter().filter(|id| **id == 20 + node);
        let own = [stored(10 + node, &[1, 2])].into_iter();
        let all = own.chain(clone.map(|id| stored(*id, &[1, 3])));
        leader.blockd(&format!("n{node}"), all.collect());
        leader.agent(&format!("n{node}"), &[]);
    }
    leader.agent("n1", &[1]);
    leader.engine("n1", 1);
}

fn given_up(commands: &[Command]) -> Vec<(u128, String)> {
    let found = commands.iter().filter_map(|command| match command {
        Command::GiveUpClone(one) => {
            let id = one.replica_id.parse::<ReplicaId>().unwrap();
            Some((id.bits(), one.reason.clone()))
        }
        _ => None,
    });
    found.collect()
}

fn clone_phase(leader: &Leader) -> Option<PhaseKind> {
    let volume = leader.state.volumes().get(&VolumeId::from_bits(2))?;
    Some(volume.phase.kind())
}

fn chosen(leader: &Leader, count: usize) -> Result<Vec<u128>, String> {
    let size = VolumeSize::from_bytes(1 << 30).unwrap();
    let found = place_clone(
        &leader.state,
        &leader.observed,
        leader.now(),
        leader.volume(),
        size,
        count,
    );
    let found = found.map_err(|why| why.to_string())?;
    Ok(found.into_iter().map(|one| one.replica.bits()).collect())
}

#[test]
fn a_clone_goes_beside_the_replicas_on_the_least_promised_disks() {
    let mut leader = source();
    report(&mut leader, &[]);
    assert_eq!(chosen(&leader, 3).unwrap(), [11, 12, 13]);
    leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
        volume_id: VolumeId::from_bits(3).to_string(),
        name: "crowd".into(),
        size_bytes: 8 << 30,
        placements: vec![rpc::Placement {
            replica_id: ReplicaId::from_bits(31).to_string(),
            node: "n1".into(),
            disk_id: disk_id("n1"),
            ..Default::default()
        }],
        credential: vec![7; 32],
        ..Default::default()
    }));
    assert_eq!(chosen(&leader, 2).unwrap(), [12, 13]);
    assert_eq!(
        chosen(&leader, 5).unwrap(),
        [12, 13, 11],
        "fewer than wanted are no refusal"
    );
}

#[test]
fn a_clone_shares_only_with_what_is_in_sync_seen_and_has_room() {
    let mut leader = source();
    report(&mut leader, &[]);
    leader.lose(11);
    let faulted = rpc::ReplicaReport {
        state: rpc::StoredState::Faulted.into(),
        message: "its head is torn".into(),
        ..stored(12, &[1, 2])
    };
    leader.blockd("n2", vec![faulted]);
    assert_eq!(chosen(&leader, 3).unwrap(), [13]);
    leader.blockd_with("n3", 1, vec![stored(13, &[1, 2])]);
    let why = chosen(&leader, 3).unwrap_err();
    for part in ["n1: its replica is", "n2: its replica: its head is torn"] {
        assert!(why.contains(part), "{why}");
    }
    assert!(why.contains("is full"), "{why}");
    leader.blockd("n3", vec![]);
    let why = chosen(&leader, 3).unwrap_err();
    assert!(why.contains("n3: its replica cannot be seen"), "{why}");
    leader.ms += SILENT_MS + 1;
    let why = chosen(&leader, 3).unwrap_err();
    assert!(why.contains("n3: its blockd does not report"), "{why}");
}

#[test]
fn a_clone_exists_when_every_replica_is_stored() {
    let mut leader = cloning();
    report(&mut leader, &[21]);
    let commands = leader.settle();
    assert!(
        matches!(&commands[..], [Command::ReplicaCreated(_)]),
        "{commands:?}"
    );
    assert_eq!(clone_phase(&leader), Some(PhaseKind::Creating));
    report(&mut leader, &[21, 22]);
    leader.settle();
    assert_eq!(clone_phase(&leader), Some(PhaseKind::Detached));
}

#[test]
fn a_replica_that_is_late_is_given_up_sooner_beside_others_than_alone() {
    for (made, limit_ms) in [(&[21][..], MADE_BESIDE_OTHERS_MS), (&[][..], MADE_ALONE_MS)] {
        let mut leader = cloning();
        report(&mut leader, made);
        leader.settle();
        leader.ms += limit_ms;
        report(&mut leader, made);
        assert_eq!(given_up(&leader.settle()), [], "after {limit_ms} ms");
        leader.ms += 1;
        report(&mut leader, made);
        let late: Vec<u128> = given_up(&leader.plan()).iter().map(|one| one.0).collect();
        let waited: Vec<u128> = [21, 22]
            .into_iter()
            .filter(|id| !made.contains(id))
            .collect();
        assert_eq!(late, waited);
    }
}

#[test]
fn a_replica_that_cannot_come_about_is_given_up_at_once_and_built_from_the_others() {
    let down = |leader: &mut Leader| {
        leader.ms += SILENT_MS + 1;
        report(leader, &[21]);
        leader.observed.blockds.remove(&"n2".parse().unwrap());
    };
    let lost = |leader: &mut Leader| leader.lose(12);
    let refused = |leader: &mut Leader| {
        let refused = rpc::ReplicaReport {
            state: rpc::StoredState::Faulted.into(),
            message: "the disk holds no such layer".into(),
            ..stored(22, &[])
        };
        leader.blockd("n2", vec![stored(12, &[1, 2]), refused]);
    };
    let happenings: [&dyn Fn(&mut Leader); 3] = [&down, &lost, &refused];
    let reasons = [
        "its node is down",
        "its source is not in sync any more",
        "the disk holds no such layer",
    ];
    for (reason, happens) in reasons.into_iter().zip(happenings) {
        let mut leader = cloning();
        report(&mut leader, &[21]);
        leader.settle();
        happens(&mut leader);
        assert_eq!(given_up(&leader.settle()), [(22, reason.to_owned())]);
        assert_eq!(clone_phase(&leader), Some(PhaseKind::Detached));
        let copy = &leader.state.volumes()[&VolumeId::from_bits(2)];
        assert_eq!(copy.in_mode(ReplicaMode::InSync).count(), 1);
    }
}

#[test]
fn a_clone_in_the_making_never_gets_an_empty_replica() {
    let mut leader = cloning();
    leader.ms += SILENT_MS + 1;
    report(&mut leader, &[21]);
    leader.blockd("n4", vec![]);
    leader.observed.blockds.remove(&"n2".parse().unwrap());
    let commands = leader.plan();
    let replaced = commands.iter().any(|one| {
        matches!(one, Command::ReplaceReplica(one)
            if one.replica_id == ReplicaId::from_bits(22).to_string())
    });
    assert!(!replaced, "{commands:?}");
    assert_eq!(given_up(&commands).len(), 1);
}

#[test]
fn what_a_clone_was_born_with_is_merged_away_once_its_source_is_gone() {
    let mut leader = cloning();
    report(&mut leader, &[21, 22]);
    leader.settle();
    leader.ms += 4_000;
    let clone = VolumeId::from_bits(2);
    let ordered = |leader: &Leader| {
        let orders = blockd_orders(&leader.state, &"n1".parse().unwrap());
        let of_clone = orders.replicas.iter();
        let mut of_clone = of_clone.filter(|one| one.volume_id == clone.to_string());
        of_clone.next().unwrap().remove_layers.clone()
    };
    let base = leader.state.volumes()[&clone].origin.unwrap().layer;
    assert_eq!(ordered(&leader), [] as [String; 0], "it is shared");
    leader.act(Command::DeleteSnapshot(rpc::DeleteSnapshotCommand {
        snapshot_id: SnapshotId::from_bits(1).to_string(),
    }));
    for node in 1..=3_u128 {
        let own = [stored(10 + node, &[2])].into_iter();
        let clones = (node < 3).then(|| stored(20 + node, &[1, 3]));
        leader.blockd(&format!("n{node}"), own.chain(clones).collect());
    }
    leader.settle();
    assert!(
        leader.state.snapshots().is_empty(),
        "the source has merged it"
    );
    assert_eq!(ordered(&leader), [base.to_string()]);
    let clones = |leader: &mut Leader, first: &[u64], second: &[u64]| {
        leader.blockd("n1", vec![stored(11, &[2]), stored(21, first)]);
        leader.blockd("n2", vec![stored(12, &[2]), stored(22, second)]);
    };
    clones(&mut leader, &[3], &[1, 3]);
    leader.settle();
    assert_eq!(ordered(&leader), [base.to_string()], "one has it still");
    clones(&mut leader, &[3], &[3]);
    let commands = leader.settle();
    assert!(
        matches!(&commands[..], [Command::LayerGone(_)]),
        "{commands:?}"
    );
    assert_eq!(leader.state.volumes()[&clone].layers.len(), 1);
    assert_eq!(ordered(&leader), [] as [String; 0]);
}
