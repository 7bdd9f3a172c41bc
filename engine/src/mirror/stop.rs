//! The orderly end: take no more, drain, flush and close every replica.
//!
//! A replica that closed in order says `Clean` to the next engine, so nothing is closed unless
//! every mutation is on every required replica.

use ankole_proto::ReplicaId;
use ankole_proto::wire::{ErrorCode, Header, Opcode};
use bytes::Bytes;

use super::event::{Effect, StopReason};
use super::loss::Grace;
use super::replica::{Ask, Kind, Replica, SlotSet};
use super::{Mirror, Phase};
use crate::volume::Moment;

/// How far the end is.
#[derive(Debug)]
pub(super) struct Stopping {
    deadline: Moment,
    stage: StopStage,
}

#[derive(Debug)]
enum StopStage {
    Abandoning,
    Draining,
    Closing { asked: SlotSet, closed: SlotSet },
}

impl Mirror {
    /// Takes no more operations from here on.
    pub(super) fn begin_stop(&mut self, now: Moment) {
        let stage = match self.phase {
            // The replicas have to remember what may differ between them.
            Phase::Starting(_) => StopStage::Abandoning,
            Phase::Serving => StopStage::Draining,
            _ => return,
        };
        let deadline = now + self.config.limits.stop_deadline;
        self.phase = Phase::Stopping(Stopping { deadline, stage });
        self.attention = true;
    }

    /// Goes on with the end as far as it can.
    pub(super) fn tend_stop(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Phase::Stopping(stopping) = &self.phase else {
            return;
        };
        if now >= stopping.deadline {
            let reason = "it was given up at the deadline".to_owned();
            self.end(StopReason::ClosedPartly(reason), effects);
            return;
        }
        match stopping.stage {
            StopStage::Abandoning => {
                let reason = "the volume was not served yet".to_owned();
                self.end(StopReason::ClosedPartly(reason), effects);
            }
            StopStage::Draining => self.close_when_drained(now, effects),
            StopStage::Closing { asked, closed } => self.end_when_closed(asked, closed, effects),
        }
    }

    fn close_when_drained(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.pause_rebuilds(now, effects);
        self.drop_comparison();
        let drained = self.jobs.count() == 0 && self.held.is_empty() && !self.task_is_busy();
        if !drained {
            return;
        }
        let mut asked = SlotSet::default();
        let flush = self.flush_header();
        for replica in self.replicas.values_mut() {
            let live = replica.is_in_sync() && replica.state().kind() == Kind::Live;
            if live && replica.send(Ask::StopFlush, flush, Bytes::new(), now, effects) {
                asked.insert(replica.slot);
            }
        }
        if let Phase::Stopping(stopping) = &mut self.phase {
            let closed = SlotSet::default();
            stopping.stage = StopStage::Closing { asked, closed };
            self.attention = true;
        }
    }

    /// A replica answered the last flush, or Close.
    pub(super) fn stop_reply(
        &mut self,
        id: ReplicaId,
        ask: Ask,
        error: Option<ErrorCode>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(error) = error {
            let reason = format!("could not be closed: {error}");
            self.lose(id, reason, Grace::None, now, effects);
            return;
        }
        self.attention = true;
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        if ask == Ask::StopFlush {
            let mut close = Header::request(Opcode::Close, 0);
            close.watermark = self.window.watermark().raw();
            replica.send(Ask::Close, close, Bytes::new(), now, effects);
        } else if let Phase::Stopping(Stopping {
            stage: StopStage::Closing { closed, .. },
            ..
        }) = &mut self.phase
        {
            closed.insert(replica.slot);
        }
    }

    fn end_when_closed(&mut self, asked: SlotSet, closed: SlotSet, effects: &mut Vec<Effect>) {
        let waits = self.replicas.values().any(|replica| {
            let open = replica.state().kind() == Kind::Live;
            open && asked.contains(replica.slot) && !closed.contains(replica.slot)
        });
        if waits {
            return;
        }
        let open: Vec<String> = self
            .replicas
            .values()
            .filter(|replica| replica.is_in_sync() && !closed.contains(replica.slot))
            .map(Replica::id)
            .map(|id| id.to_string())
            .collect();
        let reason = if open.is_empty() {
            StopReason::Closed
        } else {
            StopReason::ClosedPartly(format!("not closed: {}", open.join(", ")))
        };
        self.end(reason, effects);
    }

    /// When the stop is given up.
    pub(super) fn stop_wake_at(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Stopping(stopping) => Some(stopping.deadline),
            _ => None,
        }
    }
}
