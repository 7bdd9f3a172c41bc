//! What can strike, and what it may cost.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::wires::Disturbance;
use crate::cluster::Volume;

/// The nodes of a dev cluster.
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];
const STOP_MS_MAX: u64 = 10_000;
/// One blow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL of the blockd of these nodes at once.
    KillBlockd(Vec<&'static str>),
    /// SIGSTOP of a node's blockd for a while.
    StopBlockd(&'static str, Duration),
    /// SIGKILL of the engine.
    KillEngine,
    /// SIGSTOP of the engine for a while.
    StopEngine(Duration),
    /// SIGKILL of one manager.
    KillManager(u8),
    /// SIGKILL of the leading manager.
    KillLeader,
    /// SIGKILL of the leading manager and of a blockd: the loss waits for the next leader.
    KillLeaderAndBlockd(&'static str),
    /// SIGKILL of all managers.
    KillManagers,
    /// SIGKILL of the agent.
    KillAgent,
    /// SIGKILL of the initiator, with writes in flight.
    KillLoad,
    /// SIGKILL of every process of the cluster.
    KillEverything,
    /// A snapshot while the engine is killed.
    SnapshotAndKillEngine,
    /// A snapshot, and the oldest one deleted.
    Snapshot,
    /// Snapshots of the pair at one moment, while both engines are killed so long after the request.
    GroupAndKillEngines(Duration),
    /// The volume is taken to another node by force; with its agent dead nobody there ends the old
    /// engine.
    MoveByForce { dead_agent: bool },
    /// The same with the volume that is reserved for its initiator.
    MoveReserved { dead_agent: bool },
    /// The disk of the last node is full for a while, from just after a snapshot, so that every
    /// block needs new room.
    FillDisk(Duration),
    /// The network between two kinds of processes, for a while.
    Network(Disturbance),
    /// The same, and SIGKILL of the engine meanwhile.
    NetworkAndKillEngine(Disturbance),
    /// The same, and SIGKILL of a node's blockd meanwhile.
    NetworkAndKillBlockd(Disturbance, &'static str),
}

impl Fault {
    /// What every run shows, in an order that chance fixes.
    pub(super) fn each_run(random: &mut StdRng) -> Vec<Self> {
        let victim = NODES[random.random_range(0..NODES.len())];
        let mut faults = vec![
            Self::KillBlockd(vec![victim]),
            Self::KillEngine,
            Self::KillLeader,
            Self::choose_group(random),
            Self::choose_full(random),
            Self::MoveByForce { dead_agent: true },
            Self::MoveReserved {
                dead_agent: random.random_range(0..2) == 0,
            },
        ];
        faults.shuffle(random);
        faults
    }

    fn choose_group(random: &mut StdRng) -> Self {
        Self::GroupAndKillEngines(Duration::from_millis(random.random_range(0..200)))
    }

    fn choose_full(random: &mut StdRng) -> Self {
        Self::FillDisk(Duration::from_millis(random.random_range(2000..5000)))
    }

    /// A fault that leaves an in-sync replica of every volume alone.
    pub(super) fn choose(random: &mut StdRng, volumes: &[Volume]) -> Self {
        let victim = NODES[random.random_range(0..NODES.len())];
        let spares = |gone: &[&str]| {
            volumes.iter().all(|volume| {
                let left = |replica: &crate::cluster::Replica| {
                    replica.mode == "in-sync" && !gone.contains(&replica.node.as_str())
                };
                volume.replicas.iter().any(left)
            })
        };
        let pause = Duration::from_millis(random.random_range(500..STOP_MS_MAX));
        let number = random.random_range(1..=3);
        match random.random_range(0..32) {
            14..24 => Self::Network(Disturbance::choose(random)),
            24 | 25 => Self::NetworkAndKillEngine(Disturbance::choose(random)),
            26 | 27 => {
                let disturbance = Disturbance::choose(random);
                let mut gone = disturbance.nodes_at_risk().to_vec();
                gone.push(victim);
                if spares(&gone) {
                    Self::NetworkAndKillBlockd(disturbance, victim)
                } else {
                    Self::Network(disturbance)
                }
            }
            28 => Self::choose_group(random),
            29 => Self::choose_full(random),
            30 => Self::MoveByForce {
                dead_agent: number == 1,
            },
            31 => Self::MoveReserved {
                dead_agent: number == 1,
            },
            0 | 1 => Self::KillBlockd(vec![victim]),
            2 => {
                let two: Vec<_> = NODES.into_iter().filter(|node| *node != victim).collect();
                if spares(&two) {
                    Self::KillBlockd(two)
                } else {
                    Self::KillBlockd(vec![victim])
                }
            }
            3 => Self::StopBlockd(victim, pause),
            4 | 5 => Self::KillEngine,
            6 => Self::StopEngine(pause),
            7 if random.random_range(0..2) == 0 => Self::KillManager(number),
            7 => Self::KillLeader,
            8 => Self::KillLeaderAndBlockd(victim),
            9 => Self::KillManagers,
            10 => Self::KillAgent,
            11 => Self::KillLoad,
            12 => Self::KillEverything,
            _ if random.random_range(0..2) == 0 => Self::SnapshotAndKillEngine,
            _ => Self::Snapshot,
        }
    }

    /// Its name in reports.
    pub(super) fn kind(&self) -> String {
        let name = match self {
            Self::Network(disturbance) => return disturbance.kind(),
            Self::NetworkAndKillEngine(disturbance) => {
                return format!("{}-and-kill-engine", disturbance.kind());
            }
            Self::NetworkAndKillBlockd(disturbance, _) => {
                return format!("{}-and-kill-blockd", disturbance.kind());
            }
            Self::KillBlockd(nodes) if nodes.len() > 1 => "kill-two-blockds",
            Self::KillBlockd(_) => "kill-blockd",
            Self::StopBlockd(..) => "stop-blockd",
            Self::KillEngine => "kill-engine",
            Self::StopEngine(_) => "stop-engine",
            Self::KillManager(_) => "kill-manager",
            Self::KillLeader => "kill-leader",
            Self::KillLeaderAndBlockd(_) => "kill-leader-and-blockd",
            Self::KillManagers => "kill-managers",
            Self::KillAgent => "kill-agent",
            Self::KillLoad => "kill-load",
            Self::KillEverything => "kill-everything",
            Self::SnapshotAndKillEngine => "snapshot-and-kill-engine",
            Self::Snapshot => "snapshot",
            Self::GroupAndKillEngines(_) => "group-snapshot-and-kill-engines",
            Self::MoveByForce { dead_agent: false } => "move-by-force",
            Self::MoveByForce { dead_agent: true } => "move-by-force-from-a-dead-agent",
            Self::MoveReserved { dead_agent: false } => "move-reserved",
            Self::MoveReserved { dead_agent: true } => "move-reserved-from-a-dead-agent",
            Self::FillDisk(_) => "fill-disk",
        };
        name.to_owned()
    }

    /// What the initiator may add by itself: after the first refused login libiscsi waits until the
    /// next full second, after the second one for two more, and the engine is back in between.
    pub(super) const fn initiator_pause(&self) -> Duration {
        match self {
            Self::KillEngine | Self::SnapshotAndKillEngine | Self::NetworkAndKillEngine(_) => {
                Duration::from_secs(1)
            }
            _ => Duration::ZERO,
        }
    }

    /// The longest gap in I/O that is promised on an idle machine.
    pub(super) fn goal(&self) -> Duration {
        match self {
            Self::KillBlockd(_) => Duration::from_millis(500),
            Self::StopBlockd(..) => Duration::from_secs(6),
            Self::KillEngine | Self::SnapshotAndKillEngine => Duration::from_secs(2),
            Self::StopEngine(pause) => *pause + Duration::from_millis(500),
            Self::KillManager(_) | Self::KillLeader | Self::KillManagers | Self::KillAgent => {
                Duration::from_millis(300)
            }
            // Until another manager leads.
            Self::KillLeaderAndBlockd(_) => Duration::from_secs(5),
            Self::Snapshot | Self::FillDisk(_) => Duration::from_secs(1),
            // Another volume's doing.
            Self::GroupAndKillEngines(_) | Self::MoveReserved { .. } => Duration::from_millis(300),
            // From the request to the first answer at the new portal.
            Self::MoveByForce { .. } => Duration::from_secs(10),
            // The initiator logs in again with pauses of its own.
            Self::KillLoad | Self::KillEverything => Duration::from_secs(15),
            Self::Network(disturbance) => disturbance.goal(),
            // The next engine waits for what the last one waited for, and for the managers.
            Self::NetworkAndKillEngine(disturbance) => {
                disturbance.goal() + disturbance.pause + Duration::from_secs(2)
            }
            Self::NetworkAndKillBlockd(disturbance, _) => {
                let waits = if disturbance.keeps_managers_away() {
                    disturbance.pause + Duration::from_secs(5)
                } else {
                    Duration::from_millis(500)
                };
                disturbance.goal() + waits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::cluster::Replica;

    fn volume(modes: [&str; 3]) -> Volume {
        let replica = |(node, mode): (&str, &str)| Replica {
            id: node.to_owned(),
            node: node.to_owned(),
            mode: mode.to_owned(),
        };
        Volume {
            id: String::new(),
            state: "attached".to_owned(),
            health: String::new(),
            node: "n1".to_owned(),
            url: String::new(),
            epoch: 1,
            message: String::new(),
            replicas: NODES.into_iter().zip(modes).map(replica).collect(),
            comparison: None,
        }
    }

    #[test]
    fn of_the_in_sync_replicas_one_is_always_left_alone() {
        let mut random = StdRng::seed_from_u64(1);
        for modes in [
            ["in-sync", "in-sync", "in-sync"],
            ["in-sync", "rebuilding", "in-sync"],
        ] {
            let volumes = [volume(["in-sync"; 3]), volume(modes)];
            for _ in 0..2000 {
                if let Fault::KillBlockd(gone) = Fault::choose(&mut random, &volumes) {
                    let left = volumes[1].replicas.iter().any(|replica| {
                        replica.mode == "in-sync" && !gone.contains(&replica.node.as_str())
                    });
                    assert!(left, "{gone:?} of {modes:?}");
                }
            }
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same_faults() {
        let choose = || {
            let mut random = StdRng::seed_from_u64(9);
            let volumes = [volume(["in-sync"; 3])];
            let mut faults = Fault::each_run(&mut random);
            faults.extend((0..50).map(|_| Fault::choose(&mut random, &volumes)));
            faults
        };
        assert_eq!(choose(), choose());
    }
}
