//! Flushes: everything acknowledged before is on the media of every in-sync replica (INV-5).
//!
//! What was acknowledged is on every required replica when the flush comes, so a Flush sent to each
//! of them covers it. A replica that becomes required while a flush waits is flushed, too.

use ankole_proto::ReplicaId;
use ankole_proto::wire::{ErrorCode, Header, Opcode};
use bytes::Bytes;

use super::Mirror;
use super::event::Effect;
use super::job::{Job, JobId, Purpose, Stage};
use super::loss::Grace;
use super::replica::{Ask, Replica, SlotSet};
use crate::volume::{Failure, Moment, OperationId, Outcome};

impl Mirror {
    /// Begins a flush for a user.
    pub(super) fn start_flush(
        &mut self,
        user: OperationId,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.jobs.add(Job {
            user: Some(user),
            extent: self.orders.size.extent(),
            purpose: Purpose::Flush,
            stage: Stage::Locking,
            progress: now,
            begun: false,
        });
        self.watch(id, now);
        if std::mem::take(&mut self.untold_loss) {
            self.answer_job(id, Outcome::Failed(Failure::Lost), now, effects);
            self.finish_job(id);
            return;
        }
        self.flush_for(id, now, effects);
    }

    /// Every in-sync replica may have lost what was acknowledged and not flushed: the flushes that
    /// would cover it fail, those that wait or else the next one, so that whoever wrote it hears
    /// of it (INV-5). What is done and not answered yet may be gone, too.
    pub(super) fn tell_loss(&mut self, effects: &mut Vec<Effect>) {
        if !self.phase.serves() {
            // Nobody was answered by this engine.
            return;
        }
        self.fail_held(Failure::Unavailable, effects);
        let waiting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.purpose, Purpose::Flush) && job.user.is_some())
            .map(|(id, _)| id)
            .collect();
        self.untold_loss = waiting.is_empty();
        for id in waiting {
            self.answer_job(id, Outcome::Failed(Failure::Lost), self.now, effects);
            self.finish_job(id);
        }
    }

    /// Sends the flush that ends a job.
    pub(super) fn flush_for(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(job) = self.jobs.find_mut(id) {
            job.stage = Stage::Flushing {
                done: SlotSet::default(),
            };
        }
        let header = self.flush_header();
        for replica in self
            .replicas
            .values_mut()
            .filter(|replica| replica.counts())
        {
            send_flush(replica, id, header, now, effects);
        }
    }

    pub(super) fn flush_header(&self) -> Header {
        let mut header = Header::request(Opcode::Flush, 0);
        header.watermark = self.window.watermark().raw();
        header
    }

    /// Sends a replica that came back, or became required, the flushes that wait for it.
    pub(super) fn resend_flushes(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let header = self.flush_header();
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        for (job_id, job) in self.jobs.iter() {
            if let Stage::Flushing { done } = job.stage
                && !done.contains(replica.slot)
            {
                send_flush(replica, job_id, header, now, effects);
            }
        }
    }

    /// A replica answered a flush.
    pub(super) fn flush_reply(
        &mut self,
        from: ReplicaId,
        id: JobId,
        error: Option<ErrorCode>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(error) = error {
            let reason = format!("refused a flush: {error}");
            self.lose(from, reason, Grace::None, now, effects);
            return;
        }
        let Some(slot) = self.replicas.get(&from).map(|replica| replica.slot) else {
            return;
        };
        if let Some(job) = self.jobs.find_mut(id)
            && let Stage::Flushing { done } = &mut job.stage
        {
            done.insert(slot);
            self.check_flush(id, now, effects);
        }
    }

    fn check_flush(&mut self, id: JobId, now: Moment, effects: &mut Vec<Effect>) {
        let required = self.required();
        let done = match self.jobs.find(id).map(|job| &job.stage) {
            Some(Stage::Flushing { done }) => *done,
            _ => return,
        };
        if done.covers(required) && !required.is_empty() {
            self.answer_job(id, Outcome::Done(Bytes::new()), now, effects);
            self.finish_job(id);
        }
    }

    /// Looks at every flush again, after the membership changed.
    pub(super) fn check_flushes(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let waiting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.stage, Stage::Flushing { .. }))
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            self.check_flush(id, now, effects);
        }
    }
}

fn send_flush(
    replica: &mut Replica,
    id: JobId,
    header: Header,
    now: Moment,
    effects: &mut Vec<Effect>,
) {
    if replica.receives() {
        replica.send(Ask::Flush(id), header, Bytes::new(), now, effects);
    }
}
