//! Leases: the right to serve, given by the replicas' replies.
//!
//! A reply says that its replica obeyed this engine's epoch after the request was sent. Until the
//! lease's length after that moment nobody else serves the volume, so reads may be served and
//! writes acknowledged, as long as *every* in-sync replica has said so.

use std::collections::VecDeque;

use ankole_proto::ReplicaId;
use ankole_proto::wire::{Header, Opcode};
use bytes::Bytes;

use super::Mirror;
use super::event::Effect;
use super::replica::{Ask, Replica};
use crate::volume::{Failure, Moment, OperationId, Outcome};

/// An outcome that waits for the leases.
#[derive(Debug)]
pub(super) struct Held {
    id: OperationId,
    outcome: Outcome,
    since: Moment,
}

impl Mirror {
    /// Notices that this engine has not been running for a while (stopped, or its host suspended):
    /// with a link open there is a step for each ping. What the replicas answered meanwhile waits
    /// in the sockets, so they get until the next ping to be heard, before any deadline counts.
    pub(super) fn note_pause(&mut self, now: Moment) {
        let ping = self.config.limits.lease / 3;
        if now >= self.now + ping + ping {
            self.excused_until = now + ping;
        }
    }

    /// Whether the replica has answered a request sent less than a lease ago.
    pub(super) fn has_lease(&self, replica: &Replica, now: Moment) -> bool {
        replica
            .answered
            .is_some_and(|sent| now < sent + self.config.limits.lease)
    }

    /// Whether every in-sync replica's lease is running. A doubtful one gives none: what it had
    /// acknowledged may be gone, so nothing is answered before its loss is on record (INV-3). One
    /// that may be on record as in sync, as the managers' answer is not known, is treated alike.
    pub(super) fn may_serve(&self, now: Moment) -> bool {
        self.phase.serves()
            && self
                .replicas
                .values()
                .filter(|replica| replica.is_in_sync() || replica.may_be_in_sync())
                .all(|replica| self.has_lease(replica, now) && !replica.is_doubtful())
    }

    /// Answers an operation, at once or when the leases are back. Failures need no lease.
    pub(super) fn answer(
        &mut self,
        id: OperationId,
        outcome: Outcome,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let free = matches!(outcome, Outcome::Failed(_));
        if free || (self.held.is_empty() && self.may_serve(now)) {
            effects.push(Effect::Complete { id, outcome });
        } else {
            self.held.push_back(Held {
                id,
                outcome,
                since: now,
            });
        }
    }

    /// Lets out what waited for the leases, or has waited too long.
    pub(super) fn release_held(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.held.is_empty() {
            return;
        }
        if self.may_serve(now) {
            for Held { id, outcome, .. } in self.held.drain(..) {
                effects.push(Effect::Complete { id, outcome });
            }
            return;
        }
        let limit = self.config.limits.hold_limit;
        while let Some(held) = self.held.pop_front_if(|held| now >= held.since + limit) {
            effects.push(Effect::Complete {
                id: held.id,
                outcome: Outcome::Failed(Failure::Unavailable),
            });
        }
    }

    /// When the oldest held outcome fails.
    pub(super) fn held_until(held: &VecDeque<Held>, limit: std::time::Duration) -> Option<Moment> {
        held.front().map(|held| held.since + limit)
    }

    /// Answers everything that is held with a failure.
    pub(super) fn fail_held(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        for Held { id, .. } in self.held.drain(..) {
            effects.push(Effect::Complete {
                id,
                outcome: Outcome::Failed(failure),
            });
        }
    }

    /// When the replica is to be pinged, so that its lease never runs out while it answers.
    pub(super) fn ping_at(&self, replica: &Replica) -> Option<Moment> {
        // A doubtful one, too: a blockd closes connections that stay idle.
        let third = self.config.limits.lease / 3;
        let session = replica.session()?;
        let renewed = replica
            .answered
            .map_or(session.pinged, |sent| sent.max(session.pinged));
        Some(renewed + third)
    }

    /// Pings whoever has not renewed its lease for a third of it.
    pub(super) fn ping_idle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let due: Vec<_> = self
            .replicas
            .values()
            .filter(|replica| self.ping_at(replica).is_some_and(|at| now >= at))
            .map(Replica::id)
            .collect();
        self.ping(due, now, effects);
    }

    /// Asks all in-sync replicas but one whether they still answer.
    pub(super) fn ping_others(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let others: Vec<_> = self
            .replicas
            .values()
            .filter(|replica| replica.id() != id && replica.is_readable())
            .map(Replica::id)
            .collect();
        self.ping(others, now, effects);
    }

    fn ping(&mut self, replicas: Vec<ReplicaId>, now: Moment, effects: &mut Vec<Effect>) {
        let mut header = Header::request(Opcode::Ping, 0);
        header.watermark = self.window.watermark().raw();
        for id in replicas {
            if let Some(replica) = self.replicas.get_mut(&id) {
                replica.send(Ask::Ping, header, Bytes::new(), now, effects);
                if let Some(session) = replica.session_mut() {
                    session.pinged = now;
                }
            }
        }
    }
}
