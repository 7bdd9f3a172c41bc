//! Losing a replica: first it is suspended, then its loss is recorded, then what it missed is
//! acknowledged (INV-3). Only when another in-sync replica has answered what it was asked after the
//! loss came into question (INV-4): a lease may outlive its replica, and when all are silent, all
//! stay on record.

use ankole_proto::ReplicaId;

use super::event::{Effect, Orders, Record, RecordRefusal};
use super::replica::{Doubt, Down, Kind, Promotion, Replica, State};
use super::{Mirror, Phase};
use crate::volume::Moment;

/// How long a replica that failed may take to come back before its loss is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grace {
    /// It is known to be unequal or broken, or has been silent for its deadline.
    None,
    /// Its link broke.
    Reconnect,
    /// Its blockd said that it stops, most likely to start again.
    Restart,
}

impl Mirror {
    fn grace(&self, grace: Grace) -> std::time::Duration {
        match grace {
            Grace::None => std::time::Duration::ZERO,
            Grace::Reconnect => self.config.limits.reconnect_grace,
            Grace::Restart => self.config.limits.write_deadline,
        }
    }

    /// Gives up the replica's link. What it owes stays owed while it counts.
    pub(super) fn lose(
        &mut self,
        id: ReplicaId,
        reason: String,
        grace: Grace,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let drop_at = now + self.grace(grace);
        let retry_at = now + self.config.limits.reconnect_pause;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let Some(link) = replica.session().map(|session| session.link) else {
            return;
        };
        let slot = replica.slot;
        let down = Down::new(retry_at, drop_at, reason);
        let before = replica.enter(State::Down(down));
        if let State::Doubtful(_) = before {
            // It answered, but not as one that holds everything.
            replica.answered = None;
        }
        effects.push(Effect::Disconnect { replica: id, link });
        for (_, mutation) in self.window.iter_mut() {
            mutation.outstanding.remove(slot);
        }
        self.forget_reads(id);
        self.forget_repairs_of(id, now);
        if let State::Rebuilding(_, rebuild) = before {
            self.drop_copies(&rebuild);
        }
        self.forget_source(id);
        self.attention = true;
    }

    /// Whether the replica is in sync and answers.
    pub(super) fn is_answering(&self, replica: &Replica, now: Moment) -> bool {
        replica.is_readable() && self.has_lease(replica, now)
    }

    fn another_answers(&self, except: ReplicaId, now: Moment) -> bool {
        self.replicas
            .values()
            .filter(|other| other.id() != except && !self.is_wrong(other.id()))
            .any(|other| self.is_answering(other, now))
    }

    /// Whether another in-sync replica has answered what was sent after this one's loss came into
    /// question. Asks all of them when it comes into question.
    fn is_outlived(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) -> bool {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return false;
        };
        let is_new = replica.questioned.is_none();
        let since = *replica.questioned.get_or_insert(now);
        if is_new {
            self.ping_others(id, now, effects);
        }
        self.outlives(id, since, now)
    }

    /// Whether another in-sync replica has answered what was sent since. One that is known to be wrong is
    /// none to be left with.
    pub(super) fn outlives(&self, id: ReplicaId, since: Moment, now: Moment) -> bool {
        self.replicas.values().any(|other| {
            let fresh = other.answered.is_some_and(|sent| sent >= since);
            let stays = other.id() != id && !self.is_wrong(other.id());
            stays && fresh && self.is_answering(other, now)
        })
    }

    /// When the first is back of all that were silent, the others get their time, too.
    pub(super) fn spare_others(&mut self, back: ReplicaId, now: Moment) {
        if self.another_answers(back, now) {
            return;
        }
        let drop_at = now + self.config.limits.open_grace;
        for replica in self.replicas.values_mut() {
            if let Some(down) = replica.connecting_mut() {
                down.drop_at = down.drop_at.max(drop_at);
                replica.questioned = None;
            }
        }
    }

    /// Decides about replicas that are open but doubtful: lost as soon as a better one is there;
    /// when none is, the best of them counts.
    pub(super) fn judge_doubtful(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let kind =
            |kind| move |replica: &&Replica| replica.is_in_sync() && replica.state().kind() == kind;
        let any_live = self.replicas.values().any(|r| kind(Kind::Live)(&r));
        if !any_live {
            self.pick_doubtful(now, effects);
            return;
        }
        self.forgetful_since = None;
        let doubtful: Vec<(ReplicaId, String)> = self
            .replicas
            .values()
            .filter_map(|replica| match replica.state() {
                State::Doubtful(doubtful) => Some((replica.id(), doubtful.doubt.to_string())),
                _ => None,
            })
            .collect();
        for (id, reason) in doubtful {
            if self.is_outlived(id, now, effects) {
                self.lose(id, reason, Grace::None, now, effects);
            }
        }
    }

    /// All in-sync replicas are doubtful, or have been away for too long: choose the best. On this
    /// node first, then by id, so that every engine would choose alike. One whose host may have
    /// lost what was not flushed is chosen only when the others have been waited for for much
    /// longer: one of them may have it all.
    fn pick_doubtful(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let best = self
            .replicas
            .values()
            .filter_map(|replica| match replica.state() {
                State::Doubtful(doubtful) if !matches!(doubtful.doubt, Doubt::Unfit(_)) => {
                    let far = replica.member.node != self.config.node;
                    Some((doubtful.doubt.clone(), far, replica.id()))
                }
                _ => None,
            })
            .min();
        let Some((doubt, _, id)) = best else {
            return;
        };
        if doubt == Doubt::Forgetful {
            self.forgetful_since.get_or_insert(now);
        }
        let patient =
            doubt == Doubt::Forgetful && self.forgetful_until().is_some_and(|at| now < at);
        let undecided = self.replicas.values().any(|replica| {
            // The answer to a promotion tells whether that one has it all.
            (replica.is_in_sync() || replica.may_be_in_sync())
                && match replica.state() {
                    State::Doubtful(_) => false,
                    State::Down(down) | State::Connecting { before: down, .. } => {
                        now < down.drop_at || (patient && !down.refused && !replica.missed)
                    }
                    _ => true,
                }
        });
        if !undecided {
            self.forgetful_since = None;
            self.trust(id, doubt, now, effects);
        }
    }

    /// Until then a better replica than one that may have lost what was not flushed is waited for.
    pub(super) fn forgetful_until(&self) -> Option<Moment> {
        Some(self.forgetful_since? + self.config.limits.forgetful_grace)
    }

    /// Whether a loss waits for an answer of another replica.
    pub(super) fn is_any_questioned(&self) -> bool {
        let mut replicas = self.replicas.values();
        replicas.any(|replica| replica.questioned.is_some()) || self.is_any_wrong()
    }

    /// Records what may be recorded, and asks again where nobody answered.
    pub(super) fn ask_losses(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let due: Vec<ReplicaId> = self
            .replicas
            .values()
            .filter(|replica| replica.counts())
            .filter(|replica| match replica.state() {
                State::Down(down) => now >= down.drop_at,
                State::Connecting { before, .. } => now >= before.drop_at,
                _ => false,
            })
            .map(Replica::id)
            .collect();
        for id in due {
            if self.is_outlived(id, now, effects) {
                self.ask_loss(id, effects);
            }
        }
    }

    fn ask_loss(&mut self, id: ReplicaId, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if let State::Connecting { link, before, .. } = replica.state() {
            let (link, before) = (*link, before.clone());
            effects.push(Effect::Disconnect { replica: id, link });
            replica.enter(State::Down(before));
        }
        let State::Down(down) = replica.state() else {
            return;
        };
        if replica.promotion == Promotion::Asked {
            // The managers' answer to the promotion comes first: it tells whether there is
            // anything to be recorded.
            return;
        }
        let reason = down.reason.clone();
        replica.enter(State::Leaving {
            reason: reason.clone(),
        });
        let record = Record::ReplicaLost {
            replica: id,
            reason,
        };
        effects.push(Effect::Record(record));
    }

    /// The managers answered.
    pub(super) fn recorded(
        &mut self,
        record: Record,
        result: Result<Orders, RecordRefusal>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.attention = true;
        let refusal = match result {
            Ok(orders) => {
                self.apply_orders(orders, now, effects);
                None
            }
            Err(RecordRefusal::Fenced) => {
                let epoch = self.orders.epoch.max(self.config.epoch.next());
                self.fence(epoch, effects);
                return;
            }
            Err(refusal) => Some(refusal),
        };
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        match record {
            Record::ReplicaLost { replica, .. } => {
                self.difference_recorded(replica, refusal.as_ref(), now, effects);
                self.loss_recorded(replica, refusal, now, effects);
            }
            Record::ReplicaInSync { replica } => {
                self.promotion_recorded(replica, refusal, now, effects);
            }
            Record::TaskDone { task, .. } => self.task_recorded(task, refusal, now),
        }
    }

    fn loss_recorded(
        &mut self,
        id: ReplicaId,
        refusal: Option<RecordRefusal>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let pause = self.config.limits.record_pause;
        if refusal == Some(RecordRefusal::Unknown) {
            // It is not on record, so nothing waits for it.
            self.forget(id, effects);
            return;
        }
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if refusal.is_none() {
            replica.promotion = Promotion::None;
        }
        let State::Leaving { reason } = replica.state() else {
            return;
        };
        // Refused as the last one, or nothing is known: it may come back; if it does not, the
        // managers are asked again.
        let reason = reason.clone();
        // A doubtful one would be asked about again as soon as it is open.
        let at = now + pause;
        replica.enter(State::Down(Down::new(at, at, reason)));
    }
}
