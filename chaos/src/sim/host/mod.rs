//! One host: its disk, and the blockd and the agent that may run on it.
//!
//! The blockd is the real replica code behind the real parsing of requests and of the managers'
//! orders; what stands in for the daemon's threads is that requests of one connection are carried
//! out in any order, and that syncs take a while in which others are.

mod flips;
mod perform;
mod slot;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ankole_blockd::daemon::orders::{Orders, ReplicaOrder, WhenAbsent};
use ankole_blockd::disk::Disk;
use ankole_blockd::disk::sim::{Fate, Fault, SimDisk};
use ankole_blockd::replica::{self, CloneSpec, ReplicaSpec};
use ankole_blockd::session::Denial;
use ankole_proto::rpc::v1::{BlockdOrders, BlockdReport, DiskReport, ReplicaReport, StoredState};
use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::wire::{ErrorCode, Frame};
use ankole_proto::{ClusterId, DiskId, NodeName, ReplicaId};

pub(super) use slot::{Answer, Slot, Syncs};

use super::agent::Agent;
use super::mutation::Mutation;
use super::network::LinkKey;

/// A host.
pub(super) struct Host {
    pub(super) node: NodeName,
    number: usize,
    pub(super) disk: SimDisk,
    pub(super) slots: BTreeMap<ReplicaId, Slot>,
    blockd: Option<Blockd>,
    pub(super) agent: Agent,
    /// How often it was switched on.
    boot: u64,
    /// Until when answers take longer, and by how much.
    pub(super) slow: Option<(Duration, Duration)>,
    /// Until when the managers hear nothing from its daemons, nor they from them.
    pub(super) deaf_until: Duration,
    mutation: Option<Mutation>,
}

/// What a running blockd remembers.
#[derive(Default)]
struct Blockd {
    seen_revision: u64,
    /// Replicas that are to be here and are not.
    missing: BTreeMap<ReplicaId, ReplicaReport>,
}

impl Host {
    pub(super) fn new(number: usize, disk: SimDisk, mutation: Option<Mutation>) -> Self {
        let name = format!("n{}", number + 1);
        // A disk that cannot take an empty directory is a bug of the simulator.
        disk.create_dir(Path::new("replicas"))
            .and_then(|()| disk.sync_dir(Path::new("")))
            .unwrap_or_else(|error| unreachable!("{error}"));
        Self {
            node: name.parse().unwrap_or_else(|error| unreachable!("{error}")),
            number,
            disk,
            slots: BTreeMap::new(),
            blockd: None,
            agent: Agent::default(),
            boot: 1,
            slow: None,
            deaf_until: Duration::ZERO,
            mutation,
        }
    }

    /// Whether its blockd runs.
    pub(super) fn is_up(&self) -> bool {
        self.blockd.is_some()
    }

    /// Starts the blockd.
    pub(super) fn start(&mut self, now: Duration) {
        if self.mutation == Some(Mutation::DropSynced) && !self.slots.is_empty() {
            // From now on: what was created is there.
            self.disk.drop_synced();
        }
        self.blockd = Some(Blockd::default());
        // A blockd that cannot look at its disk ends, and is started again.
        let replicas = Path::new("replicas");
        let there = self.disk.list(replicas);
        let there = there.or_else(|_| self.disk.list(replicas));
        // One whose creation did not outlive the power is not there.
        if let Ok(there) = there {
            self.slots.retain(|id, _| there.contains(&id.to_string()));
        }
        for slot in self.slots.values_mut() {
            slot.load(self.boot, now);
        }
    }

    /// Kills the blockd; the page cache lives on.
    pub(super) fn kill(&mut self) {
        self.blockd = None;
        self.slots.values_mut().for_each(Slot::unload);
    }

    /// Cuts the power: what was not synced may be gone.
    pub(super) fn cut_power(&mut self, fate: Fate, seed: u64) {
        self.blockd = None;
        self.boot += 1;
        self.slots.values_mut().for_each(Slot::hide_flips);
        self.disk = self.disk.crash(fate, seed);
        for slot in self.slots.values_mut() {
            slot.lose_power(&self.disk);
        }
    }

    /// What the blockd tells the managers.
    pub(super) fn report(&self, now: Duration) -> Option<BlockdReport> {
        let blockd = self.blockd.as_ref()?;
        let space = self.disk.space();
        let fault = space.as_ref().err().map(ToString::to_string);
        let stored = self.slots.values().map(|slot| slot.report(now));
        let disk = DiskReport {
            id: DiskId::from_bits(self.number as u128 + 1).to_string(),
            path: "disk".to_owned(),
            capacity_bytes: space.as_ref().map_or(0, |space| space.capacity_bytes),
            free_bytes: space.as_ref().map_or(0, |space| space.free_bytes),
            fault: fault.unwrap_or_default(),
            replicas: stored.chain(blockd.missing.values().cloned()).collect(),
            ..DiskReport::default()
        };
        Some(BlockdReport {
            node: self.node.to_string(),
            boot_id: self.boot.to_string(),
            block_address: format!("127.0.0.1:{}", 9700 + self.number),
            disks: vec![disk],
            seen_revision: blockd.seen_revision,
            cluster_id: ClusterId::from_bits(0xc).to_string(),
            ..BlockdReport::default()
        })
    }

    /// Carries out the managers' orders; what was done, in words, and whether it is to be told.
    pub(super) fn follow(&mut self, message: BlockdOrders, now: Duration) -> (bool, Vec<String>) {
        let (mut changed, mut notes) = (false, Vec::new());
        let orders = match Orders::from_message(message) {
            Ok(orders) => orders,
            Err(error) => return (false, vec![error.to_string()]),
        };
        let Some(blockd) = self.blockd.as_mut() else {
            return (false, notes);
        };
        blockd.seen_revision = orders.revision;
        for id in &orders.delete {
            blockd.missing.remove(id);
            if !self.slots.contains_key(id) {
                continue;
            }
            match replica::destroy(&self.disk, &slot::directory(*id)) {
                Ok(()) => {
                    self.slots.remove(id);
                    changed = true;
                    notes.push(format!("replica {id} deleted"));
                }
                Err(error) => notes.push(format!("replica {id} cannot be deleted: {error}")),
            }
        }
        for order in &orders.replicas {
            match self.carry_out(order, now) {
                Ok(None) => {}
                Ok(Some(done)) => {
                    changed = true;
                    notes.push(done);
                }
                Err(error) => notes.push(error),
            }
        }
        (changed, notes)
    }

    fn carry_out(&mut self, order: &ReplicaOrder, now: Duration) -> Result<Option<String>, String> {
        let id = order.replica;
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.ask_scrub(order.scrub_request, now);
            slot.remove_layers(&order.remove_layers);
            return Ok(None);
        }
        let Some(blockd) = self.blockd.as_mut() else {
            return Ok(None);
        };
        let spec = |base| ReplicaSpec {
            replica: id,
            volume: order.volume,
            size: order.size,
            base_layer: base,
            credential: order.credential,
        };
        let made = match order.absent {
            WhenAbsent::ReportMissing => Err("missing from its disk".to_owned()),
            WhenAbsent::Create { base } => {
                match replica::create(&self.disk, &slot::directory(id), &spec(base)) {
                    Ok(()) | Err(replica::CreateError::Exists) => Ok(()),
                    Err(error) => return Err(format!("replica {id} cannot be created: {error}")),
                }
            }
            WhenAbsent::Clone {
                base,
                source,
                layer,
            } => {
                let replica = spec(base);
                let slot = self.slots.get_mut(&source);
                match slot.map(|slot| slot.clone_into(CloneSpec { replica, layer })) {
                    None => Err("its source is not here".to_owned()),
                    Some(Ok(())) => Ok(()),
                    Some(Err(error)) if error.is_passing() => {
                        return Err(format!("replica {id} cannot be cloned: {error}"));
                    }
                    Some(Err(error)) => Err(error.to_string()),
                }
            }
        };
        if let Err(message) = made {
            let report = ReplicaReport {
                id: id.to_string(),
                volume_id: order.volume.to_string(),
                state: StoredState::Faulted.into(),
                message,
                ..ReplicaReport::default()
            };
            let news = blockd.missing.insert(id, report).is_none();
            return Ok(news.then(|| format!("replica {id} is missing")));
        }
        let mut slot = Slot::new(
            id,
            order.volume,
            &self.disk,
            self.number == 0,
            self.mutation,
        );
        slot.load(self.boot, now);
        self.slots.insert(id, slot);
        blockd.missing.remove(&id);
        Ok(Some(format!("replica {id} created")))
    }

    /// The replica that a connection is for.
    pub(super) fn slot(&mut self, id: ReplicaId) -> Option<&mut Slot> {
        self.slots.get_mut(&id)
    }

    /// Takes the first frame of a connection.
    pub(super) fn open(
        &mut self,
        link: LinkKey,
        request: &OpenRequest,
        now: Duration,
    ) -> Result<Opened, Denial> {
        match self.slots.get_mut(&link.replica) {
            Some(slot) => slot.open(link, request, now),
            None => Err(Denial::new(ErrorCode::NoSuchReplica, "not here")),
        }
    }

    /// Carries out a request; `None` when its connection speaks for the replica no more.
    pub(super) fn execute(
        &mut self,
        link: LinkKey,
        frame: &Frame,
        now: Duration,
    ) -> Option<Answer> {
        let before = self.disk.failed_syncs();
        let slot = self.slots.get_mut(&link.replica)?;
        let answer = slot.execute(link, frame, now);
        slot.sync_failed |= self.disk.failed_syncs() > before;
        answer
    }

    /// Ends a sync of a replica, and begins the next.
    pub(super) fn sync(&mut self, replica: ReplicaId, number: u64) -> Syncs {
        let before = self.disk.failed_syncs();
        let Some(slot) = self.slots.get_mut(&replica) else {
            return Syncs::default();
        };
        let syncs = slot.sync(number);
        slot.sync_failed |= self.disk.failed_syncs() > before;
        syncs
    }

    /// Takes some steps of the background work of every replica.
    pub(super) fn work(&mut self, now: Duration) {
        for slot in self.slots.values_mut() {
            let before = self.disk.failed_syncs();
            slot.work(now);
            slot.sync_failed |= self.disk.failed_syncs() > before;
        }
    }

    /// Lets one of the disk's next calls fail.
    pub(super) fn fail_call(&self, ahead: u64) {
        self.disk.fail(self.disk.calls() + ahead, Fault::Io);
    }

    /// Lets the disk be full but for this many pages.
    pub(super) fn fill_disk(&self, pages: u64) {
        const PAGE: u64 = 4096;
        if let Ok(space) = self.disk.space() {
            let used = space.capacity_bytes - space.free_bytes;
            self.disk.set_capacity(used + pages * PAGE);
        }
    }

    /// Flips a bit of a block of some replica; whether there is one.
    pub(super) fn flip_bit(&mut self, random: u64) -> bool {
        let count = self.slots.len().max(1) as u64;
        let at = usize::try_from(random % count).unwrap_or_default();
        let slot = self.slots.values_mut().nth(at);
        slot.is_some_and(|slot| slot.flip_bit(random / count))
    }
}
