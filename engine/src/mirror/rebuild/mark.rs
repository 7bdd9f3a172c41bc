//! What the target notes of its rebuild, so that the next one need not compare it again.
//!
//! Only sealed layers, and only while all comes from the same source (why: `docs/replication.md`).

use ankole_proto::ReplicaId;
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::{Frame, Header, Opcode};

use super::plan::Plan;
use super::{Rebuild, Stage};
use crate::mirror::Mirror;
use crate::mirror::event::Effect;
use crate::mirror::replica::{Ask, Replica};
use crate::volume::Moment;

/// How far the target's note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Position in the plan.
    marked: u64,
    /// Whether a note is on its way.
    asked: bool,
    next_at: Moment,
}

impl Rebuild {
    /// Whether a note is on its way.
    pub(super) fn is_marking(&self) -> bool {
        self.marks.is_some_and(|marks| marks.asked)
    }
}

impl Mirror {
    /// The target has the source's tree and told what it knows to be equal.
    pub(super) fn rebuild_begun(
        &mut self,
        target: ReplicaId,
        frame: &Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        // One that keeps no note says nothing.
        let Ok(before) = RebuildCursor::decode(&frame.payload) else {
            self.set_rebuild_stage(target, Stage::Copying);
            return;
        };
        let usable = self.is_usable(target, &before);
        let Some(source) = self.rebuild_of(target).and_then(|rebuild| rebuild.source) else {
            return;
        };
        if !usable && !before.is_nothing() {
            // Taken back before anything is copied: it says what was equal to another replica.
            self.send_mark(target, &RebuildCursor::nothing(source), now, effects);
            return;
        }
        let (head, size) = (self.head, self.orders.size);
        let Some(replica) = self.replicas.get_mut(&target) else {
            return;
        };
        let tree = replica.tree.clone();
        if let Some(rebuild) = replica.rebuild_mut() {
            if usable {
                rebuild.source = Some(before.source);
            }
            rebuild.plan = Plan::new(&tree, head, size, &before);
            rebuild.marks = Some(Marks {
                marked: rebuild.plan.noted(),
                asked: false,
                next_at: now,
            });
        }
        self.set_rebuild_stage(target, Stage::Copying);
    }

    /// Whether all of the rebuild can come from the replica that the note speaks of.
    fn is_usable(&self, target: ReplicaId, before: &RebuildCursor) -> bool {
        let Some(replica) = self.replicas.get(&target) else {
            return false;
        };
        let source = self.replicas.get(&before.source);
        let same_tree = |source: &Replica| {
            let mut links = source.tree.iter();
            source.tree.len() == replica.tree.len() && links.all(|one| replica.tree.contains(one))
        };
        let readable = source.is_some_and(|source| source.is_readable() && same_tree(source));
        let able = !replica.unable_sources.contains(&before.source);
        // A source that lost what was not flushed may not be what was compared.
        !before.is_nothing() && readable && able && !self.unflushed_lost
    }

    /// Has the target note how far it is, now and then.
    pub(super) fn mark(&mut self, target: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        let pause = self.config.limits.rebuild_mark_pause;
        let Some(rebuild) = self.rebuild_of(target) else {
            return;
        };
        let (Some(source), Some(marks)) = (rebuild.source, &mut rebuild.marks) else {
            return;
        };
        let done = rebuild.plan.done(rebuild.copies.keys().copied());
        let position = rebuild.plan.markable(done, marks.marked);
        // At the head nothing more will come.
        let due = now >= marks.next_at || rebuild.plan.is_at_head(done);
        if marks.asked || position <= marks.marked || !due {
            return;
        }
        *marks = Marks {
            marked: position,
            asked: true,
            next_at: now + pause,
        };
        let cursor = rebuild.plan.cursor(position, source);
        self.send_mark(target, &cursor, now, effects);
    }

    /// The target has noted it.
    pub(super) fn marked(&mut self, target: ReplicaId) {
        self.attention = true;
        let Some(rebuild) = self.rebuild_of(target) else {
            return;
        };
        if rebuild.stage == Stage::Beginning {
            // That it knows of nothing.
            rebuild.marks = Some(Marks {
                marked: 0,
                asked: false,
                next_at: rebuild.began,
            });
            rebuild.stage = Stage::Copying;
        } else if let Some(marks) = &mut rebuild.marks {
            marks.asked = false;
        }
    }

    fn send_mark(
        &mut self,
        target: ReplicaId,
        cursor: &RebuildCursor,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let body = cursor.encode();
        let header = Header::request(Opcode::MarkRebuilt, 0).with_payload(&body);
        if let Some(replica) = self.replicas.get_mut(&target) {
            Replica::send(replica, Ask::MarkRebuilt, header, body, now, effects);
        }
    }
}
