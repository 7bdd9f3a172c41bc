//! The managers: their real state machine, planner and orders, behind a simulated log.
//!
//! One log for all of them, which is what Raft amounts to: entries take effect one after the other
//! on a state that outlives every manager. What the leader knows besides, the daemons' reports, it
//! forgets when another one leads. What may happen to a proposal on its way is decided in
//! `world::proposals`.

mod tamper;

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_engine::managers::orders::VolumeOrders;
use ankole_engine::mirror::event::{Orders, RecordRefusal};
use ankole_meta::reconcile::{
    Liveness, Now, Observed, Tick, agent_alive, agent_orders, blockd_orders, engine_orders, plan,
};
use ankole_meta::state::{Refusal, Replica, ReplicaMode, Replicated, State, Volume};
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand, LogRefusal};
use ankole_proto::{ClusterId, Epoch, NodeName, ReplicaId, VolumeId};
use rand::Rng;
use rand::rngs::StdRng;

use super::mutation::Mutation;

/// When the simulation begins, for the managers' wall clock.
const WALL_MS: u64 = 1_700_000_000_000;

/// All managers.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) state: State,
    index: u64,
    /// Counts changes of the state.
    pub(super) changes: u64,
    pub(super) observed: Observed,
    /// Counts leaders.
    pub(super) term: u64,
    /// Nobody leads before then.
    pub(super) leaderless_until: Duration,
    mutation: Option<Mutation>,
    /// A loss that is to be forgotten, for what is broken on purpose.
    forgotten: Option<(String, String)>,
}

/// The managers' clocks at a moment of the simulation.
pub(super) fn clock(now: Duration) -> Now {
    let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Now {
        tick: Tick(ms),
        wall_ms: WALL_MS + ms,
    }
}

/// What a refused record means to an engine: what `managers::refusal` makes of the trailer.
pub(super) fn record_refusal(refusal: &LogRefusal) -> RecordRefusal {
    match refusal.kind.as_str() {
        "fenced" => RecordRefusal::Fenced,
        "last-in-sync" => RecordRefusal::LastInSync,
        "unknown-replica" | "unknown-task" => RecordRefusal::Unknown,
        _ => RecordRefusal::Unreachable(refusal.message.clone()),
    }
}

impl Fleet {
    pub(super) fn new(mutation: Option<Mutation>) -> Self {
        let mut fleet = Self {
            state: State::default(),
            index: 0,
            changes: 0,
            observed: Observed::default(),
            term: 1,
            leaderless_until: Duration::ZERO,
            mutation,
            forgotten: None,
        };
        let naming = rpc::SetClusterCommand {
            cluster_id: ClusterId::from_bits(0xc).to_string(),
        };
        let command = fleet.entry(Duration::ZERO, Command::SetCluster(naming));
        fleet.apply(&command);
        fleet
    }

    /// An entry for the log that acts each time.
    pub(super) fn entry(&self, now: Duration, command: Command) -> LogCommand {
        LogCommand {
            request_id: String::new(),
            at_ms: clock(now).wall_ms,
            command: Some(command),
        }
    }

    /// Whether some manager leads.
    pub(super) fn is_led(&self, now: Duration) -> bool {
        now >= self.leaderless_until
    }

    /// The leader is lost; another leads from `until` on, and knows no report.
    pub(super) fn lose_leader(&mut self, until: Duration) {
        self.term += 1;
        self.leaderless_until = self.leaderless_until.max(until);
        self.observed = Observed::new(clock(self.leaderless_until).tick);
    }

    /// An entry takes effect.
    pub(super) fn apply(&mut self, command: &LogCommand) -> LogAnswer {
        if let Some(answer) = self.grant_again(command) {
            return answer;
        }
        self.index += 1;
        self.changes += 1;
        let (answer, _) = self.state.apply(self.index, command);
        if answer.refusal.is_none() {
            self.tamper_after(command);
        }
        answer
    }

    /// What the leader wants done now.
    pub(super) fn plan(&mut self, now: Duration, random: &mut StdRng) -> Vec<LogCommand> {
        self.tamper_with_the_down(now);
        let volumes = self.state.volumes();
        self.observed
            .engines
            .retain(|volume, _| volumes.contains_key(volume));
        let mut fresh = || random.random();
        let mut commands = plan(&self.state, &self.observed, clock(now), &mut fresh);
        commands.extend(self.released_early(now));
        commands
    }

    pub(super) fn volume(&self, volume: VolumeId) -> Option<&Volume> {
        self.state.volumes().get(&volume)
    }

    /// The volume and the record of a replica.
    pub(super) fn replica(&self, id: ReplicaId) -> Option<(&Volume, &Replica)> {
        let mut volumes = self.state.volumes().values();
        volumes.find_map(|volume| Some((volume, volume.replicas.get(&id)?)))
    }

    /// The replicas of a volume on record as in sync.
    pub(super) fn in_sync(&self, volume: VolumeId) -> Vec<ReplicaId> {
        let volume = self.volume(volume).into_iter();
        volume
            .flat_map(|volume| volume.in_mode(ReplicaMode::InSync))
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn is_in_sync(&self, replica: ReplicaId) -> bool {
        self.replica(replica)
            .is_some_and(|(_, found)| found.mode == ReplicaMode::InSync)
    }

    /// What an engine is told; one of a volume that is gone is fenced.
    pub(super) fn engine_orders(&self, volume: VolumeId) -> Result<Orders, RecordRefusal> {
        let gone = Refusal::Fenced {
            engine: Epoch::ZERO,
            current: Epoch::ZERO,
        };
        let volume = self
            .volume(volume)
            .ok_or_else(|| record_refusal(&gone.to_log()))?;
        VolumeOrders::try_from(engine_orders(&self.state, volume))
            .map(|orders| orders.orders)
            .map_err(|error| RecordRefusal::Unreachable(error.to_string()))
    }

    pub(super) fn blockd_orders(&self, node: &NodeName) -> rpc::BlockdOrders {
        let mut orders = blockd_orders(&self.state, node);
        self.tamper_with_removals(&mut orders);
        orders
    }

    pub(super) fn agent_orders(&self, node: &NodeName) -> rpc::AgentOrders {
        agent_orders(&self.state, node)
    }

    /// The nodes whose agents answer the leader.
    pub(super) fn agents_up(&self, now: Duration) -> Vec<NodeName> {
        let now = clock(now);
        let agents = self.observed.agents.keys();
        agents
            .filter(|node| agent_alive(&self.observed, now, node) == Liveness::Up)
            .cloned()
            .collect()
    }

    /// Every replica of every volume and its mode, for people.
    pub(super) fn describe(&self) -> String {
        let volumes = self.state.volumes().values().map(|volume| {
            let replicas: BTreeMap<_, _> = volume
                .replicas
                .iter()
                .map(|(id, one)| (id.to_string(), (one.node.to_string(), one.mode)))
                .collect();
            format!(
                "{}: {:?} worker {:?} epoch {} tasks {:?} {replicas:?}",
                volume.name, volume.phase, volume.worker, volume.epoch, volume.tasks
            )
        });
        volumes.collect::<Vec<_>>().join("; ")
    }
}
