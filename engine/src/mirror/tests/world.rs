//! One engine, replicas and managers under a seeded schedule of deliveries and faults, and the
//! checks of what the engine says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ankole_proto::wire::Frame;
use ankole_proto::wire::body::OpenRequest;
use ankole_proto::{
    BLOCK_BYTES, CHUNK_BYTES, Credential, Epoch, Extent, LayerId, NodeName, ReplicaAddress,
    ReplicaId, SnapshotId, VolumeId, VolumeSize,
};
use bytes::Bytes;

use super::super::event::{
    Effect, Event, LinkFailure, LinkId, Member, Orders, Record, RecordRefusal, Role, StopReason,
    Task, TaskId, TaskKind,
};
use super::super::{Mirror, MirrorConfig};
use super::history::History;
use super::replica::FakeReplica;
use crate::volume::{Moment, Operation, OperationId, Outcome};

pub(super) const LEASE: Duration = Duration::from_secs(3);

/// xorshift64*: the same seed, the same schedule.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A connection: frames arrive in order and are carried out in any.
#[derive(Debug)]
struct Connection {
    replica: ReplicaId,
    open: Option<OpenRequest>,
    opened_at: Moment,
    wire: VecDeque<Frame>,
    inbox: Vec<Frame>,
    replies: Vec<Frame>,
}

pub(super) struct World {
    pub(super) now: Moment,
    pub(super) random: Random,
    pub(super) mirror: Mirror,
    pub(super) orders: Orders,
    pub(super) replicas: BTreeMap<ReplicaId, FakeReplica>,
    /// Replicas whose daemon is not running, until then.
    pub(super) down: BTreeMap<ReplicaId, Moment>,
    connections: BTreeMap<LinkId, Connection>,
    records: Vec<Record>,
    pub(super) managers_away: bool,
    /// Nothing is recorded at all.
    pub(super) managers_gone: bool,
    pub(super) serving: bool,
    pub(super) resized: Option<VolumeSize>,
    pub(super) stopped: Option<StopReason>,
    pub(super) history: History,
    pub(super) next_operation: u64,
    next_layer: u64,
    next_task: u64,
    pub(super) losses: usize,
    pub(super) promotions: usize,
    pub(super) tasks_done: Vec<(TaskId, Option<String>)>,
    pub(super) trace: Vec<String>,
}

pub(super) fn size() -> VolumeSize {
    VolumeSize::from_bytes(CHUNK_BYTES + 4 * BLOCK_BYTES).unwrap()
}

pub(super) fn replica_id(number: u128) -> ReplicaId {
    ReplicaId::from_bits(number)
}

pub(super) fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).unwrap()
}

fn node(number: u128) -> NodeName {
    format!("n{number}").parse().unwrap()
}

pub(super) fn member(number: u128, role: Role) -> Member {
    Member {
        replica: replica_id(number),
        node: node(number),
        address: Some(ReplicaAddress {
            tcp: "127.0.0.1:1".parse().unwrap(),
            unix: None,
        }),
        role,
        damages: Vec::new(),
        independent: true,
        rebuild_bytes_per_second: None,
    }
}

pub(super) fn orders(in_sync: u128, rebuilding: u128) -> Orders {
    let members = (1..=in_sync)
        .map(|n| member(n, Role::InSync))
        .chain((in_sync + 1..=in_sync + rebuilding).map(|n| member(n, Role::Rebuilding)));
    Orders {
        revision: 1,
        volume: VolumeId::from_bits(1),
        epoch: Epoch::from_raw(1),
        size: size(),
        head: layer(1),
        replicas: members.collect(),
        credential: Credential::from_bytes([1; 32]),
        tasks: Vec::new(),
        comparison: 0,
    }
}

impl World {
    pub(super) fn new(seed: u64, in_sync: u128, rebuilding: u128) -> Self {
        let orders = orders(in_sync, rebuilding);
        let replicas = orders
            .replicas
            .iter()
            .map(|m| {
                (
                    m.replica,
                    FakeReplica::new(m.replica, size(), layer(1), LEASE),
                )
            })
            .collect();
        let mirror = Mirror::new(MirrorConfig::new(orders.epoch, node(1)), orders.clone());
        Self {
            now: Moment::default(),
            random: Random::new(seed),
            mirror,
            orders,
            replicas,
            down: BTreeMap::new(),
            connections: BTreeMap::new(),
            records: Vec::new(),
            managers_away: false,
            managers_gone: false,
            serving: false,
            resized: None,
            stopped: None,
            history: History::default(),
            next_operation: 0,
            next_layer: 1,
            next_task: 0,
            losses: 0,
            promotions: 0,
            tasks_done: Vec::new(),
            trace: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.mirror.step(self.now, event, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Connect {
                replica,
                link,
                open,
                ..
            } => {
                let connection = Connection {
                    replica,
                    open: Some(open),
                    opened_at: self.now,
                    wire: VecDeque::new(),
                    inbox: Vec::new(),
                    replies: Vec::new(),
                };
                self.connections.insert(link, connection);
            }
            Effect::Disconnect { link, .. } => {
                self.connections.remove(&link);
            }
            Effect::Send { link, frame, .. } => {
                if let Some(connection) = self.connections.get_mut(&link) {
                    connection.wire.push_back(frame);
                }
            }
            Effect::Complete { id, outcome } => self.completed(id, &outcome),
            Effect::Record(record) => self.records.push(record),
            Effect::Serve => {
                assert!(!self.serving, "Serve twice");
                self.serving = true;
            }
            Effect::Resized(size) => self.resized = Some(size),
            Effect::Stopped(reason) => self.stopped = Some(reason),
        }
    }

    /// The end of the trace.
    pub(super) fn told(&self) -> String {
        const LINES: usize = 40;
        let from = self.trace.len().saturating_sub(LINES);
        self.trace[from..].join("\n")
    }

    pub(super) fn in_sync(&self) -> Vec<ReplicaId> {
        let members = self.orders.replicas.iter();
        members
            .filter(|m| m.role == Role::InSync)
            .map(|m| m.replica)
            .collect()
    }

    /// The checks at the moment when the engine answers: INV-2, INV-3, INV-5, INV-8.
    fn completed(&mut self, id: OperationId, outcome: &Outcome) {
        assert!(
            self.serving || matches!(outcome, Outcome::Failed(_)),
            "answered before Serve"
        );
        let in_sync = self.in_sync();
        let stores: Vec<_> = in_sync.iter().map(|id| &self.replicas[id]).collect();
        if let Err(wrong) = self.history.completed(id, outcome, self.now, &stores) {
            panic!("{wrong}\n{}", self.told());
        }
    }

    pub(super) fn submit(&mut self, operation: Operation) -> OperationId {
        self.next_operation += 1;
        let id = OperationId(self.next_operation);
        self.trace.push(format!(
            "{:?} submit {id:?} {}",
            self.now,
            short(&operation)
        ));
        self.history.invoked(id, &operation, self.now);
        self.feed(Event::Submit { id, operation });
        id
    }

    /// A write whose every 8 bytes say which it is.
    pub(super) fn write(&mut self, block: u64, blocks: u64, fua: bool) -> OperationId {
        let stamp = self.next_operation + 1;
        let extent = Extent::new(block * BLOCK_BYTES, blocks * BLOCK_BYTES).unwrap();
        let bytes = usize::try_from(extent.length()).unwrap();
        let data = Bytes::from(stamp.to_le_bytes().repeat(bytes / 8));
        self.submit(Operation::Write { extent, data, fua })
    }

    pub(super) fn read(&mut self, block: u64, blocks: u64) -> OperationId {
        let extent = Extent::new(block * BLOCK_BYTES, blocks * BLOCK_BYTES).unwrap();
        self.submit(Operation::Read { extent })
    }

    pub(super) fn add_task(&mut self, revert: Option<LayerId>) {
        if !self.orders.tasks.is_empty() {
            return;
        }
        self.next_layer += 1;
        self.next_task += 1;
        let new_head = layer(self.next_layer);
        let kind = match revert {
            Some(to) => TaskKind::Revert { to, new_head },
            None => TaskKind::Seal {
                snapshot: SnapshotId::from_bits(1),
                head: self.orders.head,
                new_head,
                group: None,
            },
        };
        let id = TaskId(self.next_task);
        self.orders.tasks.push(Task { id, kind });
        self.publish();
    }

    pub(super) fn publish(&mut self) {
        self.orders.revision += 1;
        let orders = self.orders.clone();
        self.feed(Event::Orders(orders));
    }

    /// One delivery somewhere; `false` when nothing is under way.
    pub(super) fn deliver(&mut self) -> bool {
        let now = self.now;
        self.down.retain(|_, until| *until > now);
        let down = &self.down;
        let links: Vec<LinkId> = self
            .connections
            .iter()
            .filter(|(_, c)| {
                !(c.wire.is_empty()
                    && c.inbox.is_empty()
                    && c.replies.is_empty()
                    && c.open.is_none())
            })
            .filter(|(_, c)| c.open.is_some() || !down.contains_key(&c.replica))
            .map(|(link, _)| *link)
            .collect();
        let choices = links.len() + usize::from(!self.records.is_empty());
        if choices == 0 {
            return false;
        }
        let at = usize::try_from(self.random.below(choices as u64)).unwrap();
        match links.get(at) {
            Some(link) => self.deliver_on(*link),
            None => self.answer_record(),
        }
        true
    }

    fn deliver_on(&mut self, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        let id = connection.replica;
        if let Some(open) = connection.open.take() {
            self.open(link, id, &open);
            return;
        }
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if let Some(frame) = connection.wire.pop_front() {
            replica.arrived(&frame, self.now);
            connection.inbox.push(frame);
        }
        // Carried out in any order, and answered in any.
        let random = &mut self.random;
        if !connection.inbox.is_empty() && !random.one_in(3) {
            let at = usize::try_from(random.below(connection.inbox.len() as u64)).unwrap();
            let frame = connection.inbox.swap_remove(at);
            if replica.answers(&frame) {
                let reply = replica.execute(&frame);
                connection.replies.push(reply);
            }
        }
        if !connection.replies.is_empty() && !random.one_in(3) {
            let at = usize::try_from(random.below(connection.replies.len() as u64)).unwrap();
            let frame = connection.replies.swap_remove(at);
            self.feed(Event::Reply {
                replica: id,
                link,
                frame,
            });
        }
    }

    fn open(&mut self, link: LinkId, id: ReplicaId, open: &OpenRequest) {
        let sent_after_start = self.connections[&link].opened_at.since_start();
        let refused = self.down.contains_key(&id);
        let Some(replica) = self.replicas.get_mut(&id).filter(|_| !refused) else {
            self.close(
                link,
                LinkFailure::Transport("connection refused".to_owned()),
            );
            return;
        };
        let reason = match replica.open(open, self.now) {
            Ok(opened) => {
                // No other connection speaks for the replica any more; what has arrived on one
                // may be carried out before, or not.
                let opened_link = link;
                let others: Vec<LinkId> = self
                    .connections
                    .iter()
                    .filter(|(other, c)| **other != link && c.replica == id && c.open.is_none())
                    .map(|(other, _)| *other)
                    .collect();
                for other in others {
                    self.connections.remove(&other);
                }
                self.feed(Event::LinkOpened {
                    replica: id,
                    link: opened_link,
                    opened,
                    sent_after_start,
                });
                return;
            }
            Err(epoch) => LinkFailure::Fenced(epoch),
        };
        self.close(link, reason);
    }

    fn close(&mut self, link: LinkId, reason: LinkFailure) {
        if let Some(connection) = self.connections.remove(&link) {
            self.feed(Event::LinkClosed {
                replica: connection.replica,
                link,
                reason,
            });
        }
    }

    /// Breaks every connection of a replica. What has arrived may still be carried out.
    pub(super) fn cut(&mut self, id: ReplicaId) {
        self.trace.push(format!("{:?} cut {id}", self.now));
        let links: Vec<LinkId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.replica == id && connection.open.is_none())
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            let inbox = self
                .connections
                .get_mut(&link)
                .map(|c| std::mem::take(&mut c.inbox));
            for frame in inbox.unwrap_or_default() {
                if self.random.one_in(2)
                    && let Some(replica) = self.replicas.get_mut(&id)
                {
                    replica.execute(&frame);
                }
            }
            self.close(link, LinkFailure::Transport("connection reset".to_owned()));
        }
    }

    /// Ends a replica's daemon for a while.
    pub(super) fn crash(&mut self, id: ReplicaId, power: bool, away: Duration) {
        self.cut(id);
        self.trace
            .push(format!("{:?} crash {id} power {power}", self.now));
        if let Some(replica) = self.replicas.get_mut(&id) {
            if power {
                replica.power_cut();
            } else {
                replica.kill();
            }
        }
        self.down.insert(id, self.now + away);
    }

    /// The engine dies and the next one begins.
    pub(super) fn restart_engine(&mut self, in_order: bool) {
        self.trace.push(format!("{:?} engine restarts", self.now));
        self.check_comparison();
        for connection in std::mem::take(&mut self.connections).into_values() {
            let Some(replica) = self.replicas.get_mut(&connection.replica) else {
                continue;
            };
            for frame in connection.wire {
                // What was on its way may still arrive.
                if self.random.one_in(2) {
                    break;
                }
                replica.arrived(&frame, self.now);
                replica.execute(&frame);
            }
        }
        self.records.clear();
        self.history.engine_died();
        self.serving = false;
        self.stopped = None;
        self.orders.epoch = self.orders.epoch.next();
        self.orders.revision += 1;
        let mut config = MirrorConfig::new(self.orders.epoch, node(1));
        config.previous_engine_ended = in_order;
        self.mirror = Mirror::new(config, self.orders.clone());
        self.feed(Event::Tick);
    }

    fn answer_record(&mut self) {
        let at = usize::try_from(self.random.below(self.records.len() as u64)).unwrap();
        let record = self.records.swap_remove(at);
        let lost_answer = self.managers_away;
        if self.managers_gone || (lost_answer && self.random.one_in(2)) {
            let result = Err(RecordRefusal::Unreachable("no leader".to_owned()));
            self.feed(Event::Recorded { record, result });
            return;
        }
        self.trace.push(format!("{:?} {record:?}", self.now));
        let result = self.commit(&record).map(|()| self.orders.clone());
        let result = if lost_answer {
            Err(RecordRefusal::Unreachable("the answer was lost".to_owned()))
        } else {
            result
        };
        self.feed(Event::Recorded { record, result });
    }

    fn commit(&mut self, record: &Record) -> Result<(), RecordRefusal> {
        self.orders.revision += 1;
        match record {
            Record::ReplicaLost { replica, .. } => {
                let last = self.in_sync() == [*replica];
                let found = self
                    .orders
                    .replicas
                    .iter_mut()
                    .find(|m| m.replica == *replica);
                let member = found.ok_or(RecordRefusal::Unknown)?;
                if member.role == Role::Rebuilding {
                    return Ok(());
                }
                if last {
                    return Err(RecordRefusal::LastInSync);
                }
                // It is to be made equal again at once.
                member.role = Role::Rebuilding;
                member.independent = false;
                self.losses += 1;
            }
            Record::ReplicaInSync { replica } => {
                let found = self
                    .orders
                    .replicas
                    .iter_mut()
                    .find(|m| m.replica == *replica);
                let member = found.ok_or(RecordRefusal::Unknown)?;
                if member.role == Role::Rebuilding {
                    member.role = Role::InSync;
                    self.promotions += 1;
                    self.check_equal("a replica became in sync");
                }
            }
            Record::TaskDone { task, refusal } => {
                let at = self.orders.tasks.iter().position(|t| t.id == *task);
                let task = self.orders.tasks.remove(at.ok_or(RecordRefusal::Unknown)?);
                if let TaskKind::Expand { size } = task.kind
                    && refusal.is_none()
                {
                    self.orders.size = size;
                    for id in self.in_sync() {
                        assert!(self.replicas[&id].size >= size);
                    }
                }
                if let (Some(new_head), None) = (task.new_head(), refusal) {
                    self.orders.head = new_head;
                    let have: Vec<_> = self.in_sync();
                    for id in have {
                        assert_eq!(self.replicas[&id].store.head, self.orders.head);
                    }
                }
                self.tasks_done.push((task.id, refusal.clone()));
            }
        }
        Ok(())
    }

    /// Every in-sync replica reads alike, but for what is in flight.
    pub(super) fn check_equal(&self, when: &str) {
        let in_sync = self.in_sync();
        let busy = self.history.in_flight_blocks();
        for number in (0..8)
            .chain(512..516)
            .filter(|number| !busy.contains(number))
        {
            let extent = Extent::new(number * BLOCK_BYTES, BLOCK_BYTES).unwrap();
            let mut all = in_sync
                .iter()
                .map(|id| self.replicas[id].store.read(extent));
            let first = all.next().unwrap();
            assert!(
                all.all(|other| other == first),
                "{when}: block {number} differs\n{}",
                self.told()
            );
        }
    }

    /// No comparison has found a difference.
    pub(super) fn check_comparison(&self) {
        let told = self.mirror.status().comparison;
        let differing = told.map_or(0, |told| told.differing_chunks);
        assert_eq!(differing, 0, "the replicas differed\n{}", self.told());
    }

    /// Lets time pass until the engine wants to be woken, or for this long.
    pub(super) fn pass(&mut self, at_most: Duration) {
        let until = self.now + at_most;
        self.now = match self.mirror.wake_at() {
            Some(at) if at < until => at.max(self.now),
            _ => until,
        };
        let before = self.now;
        self.feed(Event::Tick);
        assert!(
            self.mirror.wake_at().is_none_or(|at| at > before),
            "wants to be woken at once again, at {before:?}"
        );
    }

    /// Delivers and lets time pass until the condition holds.
    pub(super) fn run_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if condition(self) {
                return;
            }
            if !self.deliver() {
                self.pass(Duration::from_millis(50));
            }
        }
        panic!(
            "{what} did not come about: {:#?}\n{}",
            self.mirror.status(),
            self.told()
        );
    }
}

fn short(operation: &Operation) -> String {
    match operation {
        Operation::Read { extent } => format!("read {extent}"),
        Operation::Write { extent, .. } => format!("write {extent}"),
        Operation::Unmap { extent } => format!("unmap {extent}"),
        Operation::WriteZeroes { extent, .. } => format!("zero {extent}"),
        Operation::CompareAndWrite { extent, .. } => format!("compare {extent}"),
        Operation::Or { extent, .. } => format!("or {extent}"),
        Operation::Copy { from, to, .. } => format!("copy {from} to {to}"),
        Operation::Flush => "flush".to_owned(),
    }
}
