//! Links: opened, judged, watched and closed.

use ankole_proto::wire::body::{Memory, OpenRequest, Opened};
use ankole_proto::wire::{ErrorCode, Frame};
use ankole_proto::{Epoch, ReplicaId};

use super::event::{Effect, LinkFailure, LinkId};
use super::loss::Grace;
use super::rebuild::Rebuild;
use super::replica::{Ask, Doubt, Doubtful, Down, Kind, Promotion, Replica, Session, State};
use super::{Mirror, Phase};
use crate::volume::Moment;

impl Mirror {
    /// Opens a link to every replica that has none and whose pause is over.
    pub(super) fn connect_due(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for replica in self.replicas.values_mut() {
            let (State::Down(down), Some(address)) = (replica.state(), &replica.member.address)
            else {
                continue;
            };
            if now < down.retry_at {
                continue;
            }
            self.last_link += 1;
            let link = LinkId(self.last_link);
            effects.push(Effect::Connect {
                replica: replica.id(),
                link,
                address: address.clone(),
                node: replica.member.node.clone(),
                open: OpenRequest {
                    volume: self.orders.volume,
                    replica: replica.id(),
                    epoch: self.config.epoch,
                    size: self.orders.size,
                    credential: self.orders.credential,
                },
            });
            let before = down.clone();
            replica.enter(State::Connecting {
                link,
                since: now,
                before,
            });
        }
    }

    /// A link is open and the replica has told its state.
    pub(super) fn link_opened(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        opened: Opened,
        sent: Moment,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let doubt = self.doubt(id, &opened);
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if !matches!(replica.state(), State::Connecting { link: ours, .. } if *ours == link) {
            return;
        }
        self.attention = true;
        replica.answered = Some(sent);
        replica.attempts = 0;
        replica.forgetful = matches!(opened.memory, Memory::Restarted | Memory::Lost);
        replica.tree = opened.layers.clone();
        let session = Session::new(link, now);
        if !replica.is_in_sync() && !replica.may_be_in_sync() {
            replica.enter(State::Rebuilding(session, Rebuild::new(now)));
            return;
        }
        if let Phase::Starting(starting) = &mut self.phase {
            starting.opened(&opened, self.config.epoch, now);
        }
        match doubt {
            None => {
                replica.enter(State::Live(session));
                self.resume(id, now, effects);
            }
            Some(doubt) => {
                replica.enter(State::Doubtful(Doubtful { session, doubt }));
            }
        }
    }

    /// Why a replica that opened may not count.
    fn doubt(&self, id: ReplicaId, opened: &Opened) -> Option<Doubt> {
        let unfit = |reason: String| Some(Doubt::Unfit(reason));
        // It may be larger: it has grown for an expansion that is not on record yet.
        if opened.size < self.orders.size {
            return unfit(format!(
                "its size is {}, the volume's is {}",
                opened.size, self.orders.size
            ));
        }
        if self.replicas.get(&id).is_some_and(|replica| replica.missed) {
            return unfit("it is on record as in sync but missed writes".to_owned());
        }
        if opened.rebuilding {
            return unfit("its rebuild was not finished".to_owned());
        }
        let listed = opened.layers.iter().any(|link| link.layer == opened.head);
        if !listed || !self.heads().contains(&opened.head) {
            return unfit(format!(
                "its head is layer {}, the volume's is {}",
                opened.head, self.head
            ));
        }
        match (opened.memory, &self.phase) {
            (Memory::Clean | Memory::Kept, _) => None,
            // This engine knows what was in flight, and will send it again.
            (Memory::Restarted, Phase::Serving | Phase::Stopping(_)) => None,
            (Memory::Restarted, _) => Some(Doubt::Restarted),
            (Memory::Lost, _) => Some(Doubt::Forgetful),
        }
    }

    /// A doubtful replica counts from now on: none better is left.
    pub(super) fn trust(
        &mut self,
        id: ReplicaId,
        doubt: Doubt,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let slot = replica.slot;
        let down = Down::new(now, now, "");
        // Through Down, as the session is owned by the state that is left.
        if let State::Doubtful(doubtful) = replica.enter(State::Down(down)) {
            let link = doubtful.session.link;
            replica.enter(State::Connecting {
                link,
                since: now,
                before: Down::new(now, now, ""),
            });
            replica.enter(State::Live(doubtful.session));
        }
        // Those that were away may hold what this one has lost, or what it never got.
        for other in self.replicas.values_mut() {
            let counts = other.is_in_sync() || other.may_be_in_sync();
            other.missed |= other.id() != id && counts;
        }
        self.begin_rebuilds_again(now, effects);
        if doubt == Doubt::Forgetful {
            self.unflushed_lost = true;
            // What it had acknowledged may be gone with what it had not flushed.
            for (_, mutation) in self.window.iter_mut() {
                mutation.acked.remove(slot);
            }
            self.tell_loss(effects);
        }
        self.resume(id, now, effects);
    }

    /// What was compared with a source holds no longer when the source may have lost some of it.
    fn begin_rebuilds_again(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let targets: Vec<ReplicaId> = self
            .replicas
            .values()
            .filter(|replica| replica.rebuild().is_some())
            .map(Replica::id)
            .collect();
        for id in targets {
            let reason = "its source may have lost what was not flushed".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
        }
    }

    /// A replica counts (again): it gets what it owes.
    fn resume(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        self.attention = true;
        self.spare_others(id, now);
        self.resend_mutations(id, now, effects);
        self.resend_flushes(id, now, effects);
        self.resend_task(id, now, effects);
    }

    /// A link is gone, or could not be had.
    pub(super) fn link_closed(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        failure: LinkFailure,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.replicas.get(&id).and_then(Replica::link);
        if known != Some(link) {
            return;
        }
        let (reason, refused) = match failure {
            LinkFailure::Fenced(epoch) => {
                self.fence(epoch, effects);
                return;
            }
            LinkFailure::Refused(reason) => (reason, true),
            LinkFailure::Transport(reason) => (reason, false),
        };
        let connecting = self
            .replicas
            .get(&id)
            .is_some_and(|replica| matches!(replica.state(), State::Connecting { .. }));
        if connecting {
            self.attempt_failed(id, reason, refused, now);
        } else {
            self.lose(id, reason, Grace::Reconnect, now, effects);
            // The link is gone already: there is nothing to disconnect.
            effects.retain(
                |effect| !matches!(effect, Effect::Disconnect { link: gone, .. } if *gone == link),
            );
        }
    }

    fn attempt_failed(&mut self, id: ReplicaId, reason: String, refused: bool, now: Moment) {
        let limits = &self.config.limits;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let State::Connecting { before, .. } = replica.state() else {
            return;
        };
        let pause = limits
            .reconnect_pause
            .saturating_mul(1 << replica.attempts.min(10))
            .min(limits.reconnect_pause_max);
        let drop_at = if refused { now } else { before.drop_at };
        replica.attempts += 1;
        replica.enter(State::Down(Down {
            retry_at: now + pause,
            drop_at,
            refused,
            reason,
        }));
        self.attention = true;
    }

    /// Gives up what has taken too long.
    pub(super) fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let due: Vec<ReplicaId> = self
            .replicas
            .values()
            .filter(|replica| self.deadline(replica).is_some_and(|at| now >= at))
            .map(Replica::id)
            .collect();
        for id in due {
            let Some(replica) = self.replicas.get(&id) else {
                continue;
            };
            if let State::Connecting { link, .. } = replica.state() {
                let link = *link;
                effects.push(Effect::Disconnect { replica: id, link });
                self.attempt_failed(id, "did not open in time".to_owned(), false, now);
            } else {
                let reason = "did not answer in time".to_owned();
                self.lose(id, reason, Grace::None, now, effects);
            }
        }
    }

    /// When the replica has taken too long.
    fn deadline(&self, replica: &Replica) -> Option<Moment> {
        let limits = &self.config.limits;
        if let State::Connecting { since, .. } = replica.state() {
            return Some((*since + limits.connect_deadline).max(self.excused_until));
        }
        let (quick, patient) = replica.session()?.oldest();
        let quick = quick.map(|sent| sent + limits.write_deadline);
        let patient = patient.map(|sent| sent + limits.sync_deadline);
        let at = quick.into_iter().chain(patient).min()?;
        Some(at.max(self.excused_until))
    }

    /// When something is to be done about the replica.
    pub(super) fn replica_wake_at(&self, replica: &Replica) -> Option<Moment> {
        let own = match replica.state() {
            State::Down(down) => {
                // A past moment waits for something else than time: another replica.
                let connect = replica.member.address.as_ref().map(|_| down.retry_at);
                let drop = (replica.counts() && down.drop_at > self.now).then_some(down.drop_at);
                connect.into_iter().chain(drop).min()
            }
            State::Connecting { before, .. } => {
                (replica.counts() && before.drop_at > self.now).then_some(before.drop_at)
            }
            State::Rebuilding(_, rebuild) => self.rebuild_wake_at(rebuild),
            _ => None,
        };
        let promote = match replica.promotion {
            // Without a link it waits for one, not for time.
            Promotion::Pause(at) if at > self.now => Some(at),
            _ => None,
        };
        [own, promote, self.deadline(replica), self.ping_at(replica)]
            .into_iter()
            .flatten()
            .min()
    }

    /// A frame came back.
    pub(super) fn reply(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let Some(session) = replica.session_mut().filter(|session| session.link == link) else {
            return;
        };
        let Some(owed) = session.answer(frame.header.request_id) else {
            let reason = "answered what nobody asked".to_owned();
            self.lose(id, reason, Grace::None, now, effects);
            return;
        };
        let forgetful = replica.forgetful;
        match frame.header.error {
            Some(ErrorCode::Fenced) => {
                self.fence(Epoch::from_raw(frame.header.sequence), effects);
                return;
            }
            Some(ErrorCode::Stopping) => {
                let reason = "its blockd is stopping".to_owned();
                self.lose(id, reason, Grace::Restart, now, effects);
                return;
            }
            Some(_) => {}
            None => {
                let lease = self.config.limits.lease;
                let had = replica.answered.is_some_and(|sent| now < sent + lease);
                replica.answered = replica.answered.max(Some(owed.sent));
                self.attention |= !had || self.is_any_questioned();
            }
        }
        if forgetful {
            self.remind(id, owed.ask);
        }
        self.answered(id, owed.ask, frame, now, effects);
    }

    /// A replica that forgot what was in flight has heard the watermark with what it answers. It
    /// takes its memory for whole when that has gone on by as much as may have been in flight;
    /// until then it says to every engine that it may lack something, and beside another one that
    /// says so too nobody could tell which has it all. So the watermark goes on at once.
    fn remind(&mut self, id: ReplicaId, ask: Ask) {
        let heard = matches!(
            ask,
            Ask::Mutation(_) | Ask::Read(_) | Ask::Flush(_) | Ask::Ping
        );
        let serving = matches!(self.phase, Phase::Serving);
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if heard && serving && replica.state().kind() == Kind::Live {
            replica.forgetful = false;
            self.window.skip();
            self.attention = true;
        }
    }

    fn answered(
        &mut self,
        id: ReplicaId,
        ask: Ask,
        frame: Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let error = frame.header.error;
        match ask {
            Ask::Mutation(sequence) => self.mutation_reply(id, sequence, error, now, effects),
            Ask::Read(job) => self.read_reply(id, job, frame, now, effects),
            Ask::Flush(job) => self.flush_reply(id, job, error, now, effects),
            Ask::Task => self.task_reply(id, &frame, now, effects),
            Ask::Ping => {
                if let Some(error) = error {
                    let reason = format!("refused a ping: {error}");
                    self.lose(id, reason, Grace::None, now, effects);
                }
            }
            Ask::StopFlush | Ask::Close => self.stop_reply(id, ask, error, now, effects),
            Ask::BeginRebuild | Ask::MarkRebuilt | Ask::SyncRebuilt | Ask::FinishRebuild => {
                self.rebuild_reply(id, ask, &frame, now, effects);
            }
            Ask::Repair(job) => self.repair_reply(id, job, frame, now, effects),
            Ask::Copy(copy) => self.copy_reply(id, copy, frame, now, effects),
            Ask::Compare(look) => self.comparison_reply(id, look, &frame, now, effects),
        }
    }
}
