//! The orders: who is a member, in which role, and what is to be done.

use ankole_proto::ReplicaId;

use super::event::{Effect, Member, Orders, Role};
use super::job::Stage;
use super::loss::Grace;
use super::replica::{Down, Kind, Promotion, Replica, SLOTS_MAX, Slot, State};
use super::{Mirror, Phase};
use crate::volume::Moment;

impl Mirror {
    /// Takes in the first orders.
    pub(super) fn begin(&mut self, orders: Orders) {
        let mut nothing = Vec::new();
        self.apply_orders(orders, Moment::default(), &mut nothing);
    }

    /// Takes in orders that are newer than those at hand.
    pub(super) fn apply_orders(
        &mut self,
        mut orders: Orders,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if orders.epoch > self.config.epoch {
            self.fence(orders.epoch, effects);
            return;
        }
        let bounded = orders.replicas.len() < usize::from(SLOTS_MAX) / 2;
        if orders.volume != self.orders.volume
            || orders.revision <= self.orders.revision
            || !bounded
        {
            return;
        }
        self.attention = true;
        let gone: Vec<ReplicaId> = self
            .replicas
            .keys()
            .filter(|id| !orders.replicas.iter().any(|member| member.replica == **id))
            .copied()
            .collect();
        for id in gone {
            self.forget(id, effects);
        }
        for member in &orders.replicas {
            self.take_member(member.clone(), now, effects);
        }
        if matches!(self.phase, Phase::Starting(_)) && self.task.is_none() {
            self.head = orders.head;
        }
        // A volume never shrinks.
        orders.size = orders.size.max(self.orders.size);
        if orders.size > self.orders.size {
            effects.push(Effect::Resized(orders.size));
        }
        self.orders = orders;
        self.pace_rebuilds(now);
        self.forget_repairs_not_listed();
        self.believe_the_last(now, effects);
    }

    /// When nobody on record as in sync is believed, the record is: it never loses the last replica
    /// that holds everything (INV-4), and nothing was acknowledged that one on record lacks
    /// (INV-3). So it came about when a loss was recorded whose answer was lost, while the replica
    /// that was chosen meanwhile is the one that left.
    fn believe_the_last(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let mut in_sync = self
            .replicas
            .values()
            .filter(|replica| replica.is_in_sync());
        if !in_sync.all(|replica| replica.missed) {
            return;
        }
        let missed: Vec<ReplicaId> = self
            .replicas
            .values()
            .filter(|replica| replica.is_in_sync())
            .map(Replica::id)
            .collect();
        for id in missed {
            if let Some(replica) = self.replicas.get_mut(&id) {
                replica.missed = false;
            }
            let reason = "it is the last on record: opened again".to_owned();
            self.lose(id, reason, Grace::Restart, now, effects);
        }
    }

    fn take_member(&mut self, member: Member, now: Moment, effects: &mut Vec<Effect>) {
        let starting = matches!(self.phase, Phase::Starting(_));
        let id = member.replica;
        let Some(replica) = self.replicas.get_mut(&id) else {
            let Some(slot) = self.free_slot() else {
                return;
            };
            let drop_at = now + self.config.limits.open_grace;
            let down = Down::new(now, drop_at, "it has not been reached yet");
            let mut replica = Replica::new(member, slot, down);
            replica.missed = replica.is_in_sync() && !starting;
            self.replicas.insert(id, replica);
            return;
        };
        let (before, after) = (replica.member.role, member.role);
        replica.member = member;
        match (before, after) {
            (Role::Rebuilding, Role::InSync) => self.promoted(id, now, effects),
            (Role::InSync, Role::Rebuilding) => self.demoted(id, now, effects),
            _ => {}
        }
    }

    /// No set of a job or task may still mean the replica that has left.
    fn clear_slot(&mut self, slot: Slot) {
        for (_, job) in self.jobs.iter_mut() {
            match &mut job.stage {
                Stage::Reading { tried, .. } | Stage::Repairing { tried, .. } => tried.remove(slot),
                Stage::Flushing { done } => done.remove(slot),
                _ => {}
            }
        }
        self.clear_task_slot(slot);
    }

    fn free_slot(&self) -> Option<Slot> {
        (0..SLOTS_MAX)
            .map(Slot)
            .find(|slot| self.replicas.values().all(|replica| replica.slot != *slot))
    }

    /// The record says in sync. Only what this engine has made equal is believed.
    fn promoted(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if !replica.may_be_in_sync() {
            replica.missed = true;
            let reason = "it is on record as in sync but missed writes".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
            return;
        }
        replica.promotion = Promotion::None;
        if replica.state().kind() == Kind::Rebuilding {
            replica.become_live(now);
        }
        self.comparisons.is_copied(id);
    }

    /// Its loss is on record and it is to be made equal again.
    fn demoted(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        self.lose(
            id,
            "it is to be rebuilt".to_owned(),
            Grace::None,
            now,
            effects,
        );
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        replica.promotion = Promotion::None;
        replica.missed = false;
        if let State::Connecting { link, .. } = replica.state() {
            let link = *link;
            effects.push(Effect::Disconnect { replica: id, link });
        }
        if replica.state().kind() != Kind::Down {
            replica.enter(State::Down(Down::new(now, now, "it is to be rebuilt")));
        }
    }

    /// The replica is no longer on record: nothing is sent to it, nothing waits for it.
    pub(super) fn forget(&mut self, id: ReplicaId, effects: &mut Vec<Effect>) {
        self.attention = true;
        self.lose(
            id,
            "it is no longer on record".to_owned(),
            Grace::None,
            Moment::default(),
            effects,
        );
        let Some(replica) = self.replicas.remove(&id) else {
            return;
        };
        if let State::Connecting { link, .. } = replica.state() {
            let link = *link;
            effects.push(Effect::Disconnect { replica: id, link });
        }
        // The slot may be given to another one.
        for (_, mutation) in self.window.iter_mut() {
            mutation.acked.remove(replica.slot);
            mutation.refused.remove(replica.slot);
        }
        self.clear_slot(replica.slot);
    }
}
