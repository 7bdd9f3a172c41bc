use std::collections::BTreeSet;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogCommand};
use ankole_proto::{ReplicaId, SnapshotId, VolumeId, VolumeSize};

use super::*;
use crate::state::{Replicated, State};

mod clones;
mod count;
mod groups;
mod medium;
mod replicas;

/// A leader with what it agreed on and heard.
struct Leader {
    state: State,
    observed: Observed,
    ms: u64,
    index: u64,
}

const WALL: u64 = 1_700_000_000_000;

fn disk_id(node: &str) -> String {
    format!("{:032x}", node.bytes().map(u128::from).sum::<u128>())
}

fn stored(replica: u128, layers: &[u64]) -> rpc::ReplicaReport {
    rpc::ReplicaReport {
        id: ReplicaId::from_bits(replica).to_string(),
        state: rpc::StoredState::Ready.into(),
        layers: layers.iter().map(|layer| format!("{layer:016x}")).collect(),
        ..Default::default()
    }
}

impl Leader {
    fn new() -> Self {
        Self {
            state: State::default(),
            observed: Observed::new(Tick(0)),
            ms: 0,
            index: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            tick: Tick(self.ms),
            wall_ms: WALL + self.ms,
        }
    }

    fn blockd(&mut self, node: &str, replicas: Vec<rpc::ReplicaReport>) {
        self.blockd_with(node, 90, replicas);
    }

    fn blockd_with(&mut self, node: &str, free_gib: u64, replicas: Vec<rpc::ReplicaReport>) {
        let name = node.parse().unwrap();
        let report = rpc::BlockdReport {
            node: node.into(),
            block_address: format!("{node}:4100"),
            seen_revision: blockd_orders(&self.state, &name).revision,
            disks: vec![rpc::DiskReport {
                id: disk_id(node),
                path: "/data".into(),
                capacity_bytes: 100 << 30,
                free_bytes: free_gib << 30,
                fault: String::new(),
                replicas,
                ..Default::default()
            }],
            ..Default::default()
        };
        let now = self.now();
        self.observed.blockd(now, &report).unwrap();
    }

    fn agent(&mut self, node: &str, volumes: &[u128]) {
        let name = node.parse().unwrap();
        let report = rpc::AgentReport {
            node: node.into(),
            engine_host: "127.0.0.1".into(),
            port_first: 4000,
            port_last: 4010,
            seen_revision: agent_orders(&self.state, &name).revision,
            engines: volumes
                .iter()
                .map(|id| rpc::EngineProcess {
                    volume_id: VolumeId::from_bits(*id).to_string(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let now = self.now();
        self.observed.agent(now, &report).unwrap();
    }

    fn engine(&mut self, node: &str, epoch: u64) {
        let report = rpc::EngineReport {
            volume_id: VolumeId::from_bits(1).to_string(),
            epoch,
            node: node.into(),
            serving: true,
            ..Default::default()
        };
        self.engine_says(report);
    }

    fn engine_says(&mut self, report: rpc::EngineReport) {
        let now = self.now();
        self.observed.engine(now, &report).unwrap();
    }

    fn act(&mut self, command: Command) -> rpc::LogAnswer {
        self.index += 1;
        let at_ms = self.now().wall_ms;
        let entry = LogCommand {
            request_id: String::new(),
            at_ms,
            command: Some(command),
        };
        let (answer, _) = self.state.apply(self.index, &entry);
        assert_eq!(answer.refusal, None);
        answer
    }

    fn plan(&self) -> Vec<Command> {
        let mut next = 900_u128;
        let mut fresh = || {
            next += 1;
            next
        };
        let entries = plan(&self.state, &self.observed, self.now(), &mut fresh);
        entries
            .into_iter()
            .filter_map(|entry| entry.command)
            .collect()
    }

    /// Carries plans out until there is nothing left to do.
    fn settle(&mut self) -> Vec<Command> {
        let mut all = Vec::new();
        for _ in 0..10 {
            let commands = self.plan();
            if commands.is_empty() {
                return all;
            }
            for command in commands {
                all.push(command.clone());
                self.act(command);
            }
        }
        panic!("the plans do not settle: {all:?}");
    }

    fn place(&self, count: usize) -> Result<Vec<String>, Unplaceable> {
        let size = VolumeSize::from_bytes(1 << 30).unwrap();
        let want = Want {
            count,
            size,
            taken: BTreeSet::new(),
        };
        let places = place(&self.state, &self.observed, self.now(), &want)?;
        Ok(places
            .into_iter()
            .map(|(node, _)| node.to_string())
            .collect())
    }

    /// Three nodes with a detached volume 1, whose replicas are 11 to 13.
    fn with_volume() -> Self {
        let mut leader = Self::new();
        leader.report();
        leader.settle();
        leader.act(Command::CreateVolume(rpc::CreateVolumeCommand {
            volume_id: VolumeId::from_bits(1).to_string(),
            name: "data".into(),
            size_bytes: 1 << 30,
            placements: (1..=3)
                .map(|node| rpc::Placement {
                    replica_id: ReplicaId::from_bits(10 + node).to_string(),
                    node: format!("n{node}"),
                    disk_id: disk_id(&format!("n{node}")),
                    ..Default::default()
                })
                .collect(),
            credential: vec![7; 32],
            ..Default::default()
        }));
        leader.report();
        leader.settle();
        assert_eq!(leader.volume().phase, crate::state::Phase::Detached);
        leader
    }

    /// Attached to n1 under epoch 1, its engine reporting.
    fn with_attached() -> Self {
        let mut leader = Self::with_volume();
        let volume_id = VolumeId::from_bits(1).to_string();
        leader.act(Command::AttachVolume(rpc::AttachVolumeCommand {
            volume_id: volume_id.clone(),
            node: "n1".into(),
            port: 4000,
            ..Default::default()
        }));
        leader.act(Command::GrantEpoch(rpc::GrantEpochCommand {
            volume_id,
            node: "n1".into(),
            expected_epoch: 0,
        }));
        leader.report();
        leader.agent("n1", &[1]);
        leader.engine("n1", 1);
        leader
    }

    /// Every node reports with a replica of volume 1.
    fn report(&mut self) {
        for node in 1..=3 {
            self.blockd(&format!("n{node}"), vec![stored(10 + node, &[1])]);
            self.agent(&format!("n{node}"), &[]);
        }
    }

    fn volume(&self) -> &crate::state::Volume {
        &self.state.volumes()[&VolumeId::from_bits(1)]
    }

    fn lose(&mut self, replica: u128) {
        self.act(Command::ReplicaLost(rpc::ReplicaLostCommand {
            volume_id: VolumeId::from_bits(1).to_string(),
            epoch: self.volume().epoch.raw(),
            replica_id: ReplicaId::from_bits(replica).to_string(),
            reason: "it missed a write".into(),
            by_managers: false,
        }));
    }
}

#[test]
fn replicas_go_to_different_nodes_or_the_refusal_says_why_not() {
    let mut leader = Leader::new();
    leader.blockd("n1", vec![]);
    leader.blockd("n2", vec![]);
    leader.settle();
    let why = leader.place(3).unwrap_err();
    assert_eq!((why.wanted, why.found), (3, 2));
    leader.blockd("n3", vec![]);
    assert_eq!(leader.place(3).unwrap(), ["n1", "n2", "n3"]);
    leader.ms = SILENT_MS + 1;
    leader.blockd("n1", vec![]);
    let text = leader.place(3).unwrap_err().to_string();
    assert!(text.contains("n2: its blockd does not report"), "{text}");
}

#[test]
fn a_young_leader_calls_no_node_down() {
    let mut leader = Leader::with_volume();
    leader.ms = 100_000;
    leader.observed = Observed::new(Tick(99_000));
    let node = "n1".parse().unwrap();
    let judge = |leader: &Leader| liveness(&leader.state, &leader.observed, leader.now(), &node);
    assert_eq!(judge(&leader), Liveness::Unknown);
    assert_eq!(leader.plan(), vec![]);
    leader.ms = 99_000 + SILENT_MS + 1;
    assert!(matches!(judge(&leader), Liveness::Down { .. }));
    let marks = leader.settle();
    assert!(
        marks
            .iter()
            .all(|one| matches!(one, Command::MarkNode(mark) if mark.down))
    );
    assert_eq!(marks.len(), 3, "each node is reported down once");
    leader.report();
    assert_eq!(leader.settle().len(), 3, "and up once");
}

#[test]
fn a_missing_replica_is_neither_created_again_nor_deleted() {
    let mut leader = Leader::with_volume();
    leader.blockd("n1", vec![]);
    let orders = blockd_orders(&leader.state, &"n1".parse().unwrap());
    assert!(orders.replicas.iter().all(|order| !order.create));
    assert!(orders.delete_replicas.is_empty());
}

#[test]
fn orders_change_their_revision_exactly_with_their_content() {
    let mut leader = Leader::with_volume();
    let node = "n1".parse().unwrap();
    let before = (
        blockd_orders(&leader.state, &node),
        agent_orders(&leader.state, &node),
    );
    leader.blockd("n4", vec![]);
    leader.settle();
    let after = (
        blockd_orders(&leader.state, &node),
        agent_orders(&leader.state, &node),
    );
    assert_eq!(before, after);
    let attached = Leader::with_attached();
    let orders = agent_orders(&attached.state, &node);
    assert_ne!(orders.revision, after.1.revision);
    assert_eq!(
        (orders.engines[0].port, orders.engines[0].without_target),
        (4000, false)
    );
    assert_ne!(after.1.revision, 0);
}

#[test]
fn engine_orders_grow_in_revision_when_a_blockd_moves() {
    let mut leader = Leader::with_attached();
    let before = engine_orders(&leader.state, leader.volume());
    assert_eq!(before.replicas.len(), 3);
    assert_eq!(before.replicas[0].address, "n1:4100");
    let mut moved = leader.observed.blockds[&"n2".parse().unwrap()].clone();
    moved.said.block_address = "n2:4200".into();
    leader.observed.blockds.insert("n2".parse().unwrap(), moved);
    leader.settle();
    let after = engine_orders(&leader.state, leader.volume());
    assert!(after.revision > before.revision);
    assert_eq!(after.replicas[1].address, "n2:4200");
}

#[test]
fn a_rebuild_keeps_to_the_volumes_limit_and_to_its_share_of_the_nodes() {
    let mut leader = Leader::with_attached();
    let limits = |leader: &Leader| {
        let orders = engine_orders(&leader.state, leader.volume());
        let limits = orders.replicas.iter();
        (
            orders.revision,
            limits
                .map(|one| one.rebuild_bytes_per_second)
                .collect::<Vec<_>>(),
        )
    };
    let (first, none) = limits(&leader);
    assert_eq!(none, [0, 0, 0]);
    let n2 = "n2".parse().unwrap();
    let mut limited = leader.observed.blockds[&n2].clone();
    limited.said.rebuild_bytes_per_second = 10 << 20;
    leader.observed.blockds.insert(n2, limited);
    leader.settle();
    let (second, by_node) = limits(&leader);
    assert!(second > first);
    assert_eq!(by_node, [0, 5 << 20, 0], "of two at a time");
    let update = rpc::UpdateVolumeCommand {
        volume_id: leader.volume().id.to_string(),
        rebuild_bytes_per_second: Some(7 << 20),
        ..Default::default()
    };
    leader.act(Command::UpdateVolume(update));
    let (third, by_both) = limits(&leader);
    assert!(third > second);
    assert_eq!(by_both, [7 << 20, 5 << 20, 7 << 20]);
}

#[test]
fn a_lost_replica_is_rebuilt_once_its_blockd_has_reported_again() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.lose(12);
    assert_eq!(leader.plan(), vec![]);
    leader.ms += 4_000;
    leader.agent("n1", &[1]);
    leader.engine("n1", 1);
    assert_eq!(leader.plan(), vec![], "n2 has not reported since");
    leader.report();
    leader.agent("n1", &[1]);
    assert!(matches!(&leader.plan()[..], [Command::StartRebuild(_)]));
}

#[test]
fn a_replica_whose_node_stays_away_is_replaced_elsewhere() {
    let mut leader = Leader::with_attached();
    leader.settle();
    leader.lose(12);
    let silent_from = leader.ms;
    leader.ms += AWAY_MS;
    let rest = |leader: &mut Leader| {
        leader.blockd("n1", vec![stored(11, &[1])]);
        leader.blockd("n3", vec![stored(13, &[1])]);
        leader.agent("n1", &[1]);
        leader.engine("n1", 1);
    };
    rest(&mut leader);
    assert!(
        matches!(&leader.settle()[..], [Command::MarkNode(_)]),
        "not yet, and nowhere to go"
    );
    leader.ms = silent_from + AWAY_MS + 1;
    rest(&mut leader);
    leader.blockd("n4", vec![]);
    let commands = leader.settle();
    let replaced = commands.iter().any(|command| {
        matches!(command, Command::ReplaceReplica(one)
            if one.placement.as_ref().is_some_and(|place| place.node == "n4"))
    });
    assert!(replaced, "{commands:?}");
    assert_eq!(
        leader.state.doomed().len(),
        1,
        "n2 is told to delete its replica when it is back"
    );
    let orders = blockd_orders(&leader.state, &"n2".parse().unwrap());
    assert_eq!(orders.delete_replicas.len(), 1);
}

#[test]
fn a_deletion_counts_only_in_a_report_that_answers_it() {
    let mut leader = Leader::with_volume();
    leader.blockd("n1", vec![]);
    let volume_id = VolumeId::from_bits(1).to_string();
    leader.act(Command::DeleteVolume(rpc::DeleteVolumeCommand {
        volume_id,
        revision: 0,
    }));
    assert_eq!(leader.plan(), vec![], "n1 has not seen the order");
    for node in ["n1", "n2", "n3"] {
        leader.blockd(node, vec![]);
    }
    leader.settle();
    assert!(leader.state.volumes().is_empty());
}

#[test]
fn a_snapshot_of_a_detached_volume_gets_an_engine_without_target() {
    let mut leader = Leader::with_volume();
    let task = leader.act(Command::CreateSnapshot(rpc::CreateSnapshotCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        snapshot_id: SnapshotId::from_bits(1).to_string(),
        name: "s1".into(),
    }));
    assert!(matches!(&leader.settle()[..], [Command::StartWorker(_)]));
    let orders = agent_orders(&leader.state, &"n1".parse().unwrap());
    assert!(orders.engines[0].without_target);
    leader.act(Command::GrantEpoch(rpc::GrantEpochCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        node: "n1".into(),
        expected_epoch: 0,
    }));
    let orders = engine_orders(&leader.state, leader.volume());
    assert_eq!(orders.tasks.len(), 1);
    leader.act(Command::TaskDone(rpc::TaskDoneCommand {
        volume_id: VolumeId::from_bits(1).to_string(),
        epoch: 1,
        task_id: task.task_id,
        refusal: String::new(),
    }));
    leader.agent("n1", &[1]);
    assert!(matches!(&leader.settle()[..], [Command::StopWorker(_)]));
    assert!(
        agent_orders(&leader.state, &"n1".parse().unwrap())
            .engines
            .is_empty()
    );
    leader.agent("n1", &[]);
    assert!(matches!(&leader.settle()[..], [Command::EngineEnded(_)]));
    assert_eq!(leader.volume().engine_node(), None);
}

#[test]
fn a_deleted_snapshot_goes_when_every_replica_lacks_its_layer_and_not_during_a_rebuild() {
    let mut leader = Leader::with_attached();
    let volume_id = VolumeId::from_bits(1).to_string();
    let snapshot_id = SnapshotId::from_bits(1).to_string();
    let task = leader.act(Command::CreateSnapshot(rpc::CreateSnapshotCommand {
        volume_id: volume_id.clone(),
        snapshot_id: snapshot_id.clone(),
        name: "s1".into(),
    }));
    leader.act(Command::TaskDone(rpc::TaskDoneCommand {
        volume_id: volume_id.clone(),
        epoch: 1,
        task_id: task.task_id,
        refusal: String::new(),
    }));
    leader.lose(12);
    let replica_id = ReplicaId::from_bits(12).to_string();
    leader.act(Command::StartRebuild(rpc::StartRebuildCommand {
        volume_id: volume_id.clone(),
        replica_id: replica_id.clone(),
    }));
    leader.act(Command::DeleteSnapshot(rpc::DeleteSnapshotCommand {
        snapshot_id,
    }));
    let ordered = |leader: &Leader| {
        let orders = blockd_orders(&leader.state, &"n1".parse().unwrap());
        orders.replicas[0].remove_layers.clone()
    };
    assert!(ordered(&leader).is_empty(), "a rebuild is under way");
    let epoch = 1;
    leader.act(Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
        volume_id,
        epoch,
        replica_id,
    }));
    assert_eq!(ordered(&leader).len(), 1);
    for (node, layers) in [("n1", &[2][..]), ("n2", &[2]), ("n3", &[1, 2])] {
        let replica = 10 + u128::from(node.as_bytes()[1] - b'0');
        leader.blockd(node, vec![stored(replica, layers)]);
    }
    assert_eq!(leader.plan(), vec![], "n3 has it still");
    leader.blockd("n3", vec![stored(13, &[2])]);
    assert!(matches!(&leader.settle()[..], [Command::LayerGone(_)]));
    assert!(leader.state.snapshots().is_empty());
}

#[test]
fn a_detach_ends_when_the_agent_says_so_or_the_node_is_silent() {
    for silent in [false, true] {
        let mut leader = Leader::with_attached();
        leader.settle();
        let volume_id = VolumeId::from_bits(1).to_string();
        leader.act(Command::DetachVolume(rpc::DetachVolumeCommand {
            volume_id,
            revision: 0,
        }));
        leader.agent("n1", &[1]);
        assert_eq!(leader.plan(), vec![], "the engine runs still");
        if silent {
            leader.ms += SILENT_MS + 1;
        } else {
            leader.agent("n1", &[]);
        }
        leader.settle();
        assert_eq!(leader.volume().engine_node(), None);
    }
}

#[test]
fn an_absence_in_a_superseded_report_does_not_count() {
    let mut leader = Leader::with_attached();
    leader.settle();
    let volume_id = VolumeId::from_bits(1).to_string();
    leader.act(Command::DetachVolume(rpc::DetachVolumeCommand {
        volume_id,
        revision: 0,
    }));
    leader.agent("n1", &[]);
    leader
        .observed
        .agents
        .get_mut(&"n1".parse().unwrap())
        .unwrap()
        .superseded = true;
    assert_eq!(leader.plan(), vec![]);
}

#[test]
fn what_layers_take_is_known_from_the_last_report_that_told_it() {
    let mut leader = Leader::new();
    let told = |used_bytes| rpc::ReplicaReport {
        usage: vec![rpc::LayerUsage {
            layer: format!("{:016x}", 1),
            used_bytes,
            ..Default::default()
        }],
        ..stored(11, &[1])
    };
    let known = |leader: &Leader| {
        let node = "n1".parse().unwrap();
        let disk = disk_id("n1").parse().unwrap();
        match leader.observed.sight(&node, disk, ReplicaId::from_bits(11)) {
            Sight::Stored(stored) => stored.usage.iter().map(|one| one.used_bytes).sum(),
            _ => 0_u64,
        }
    };
    for (report, bytes) in [
        (stored(11, &[1]), 0),
        (told(4096), 4096),
        (stored(11, &[1]), 4096),
        (told(8192), 8192),
    ] {
        leader.blockd("n1", vec![report]);
        assert_eq!(known(&leader), bytes);
    }
}
