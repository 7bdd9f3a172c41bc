//! What each kind of task asks of the replicas.

use ankole_proto::LayerId;
use ankole_proto::wire::body::{Expand, Revert, Seal};
use ankole_proto::wire::{Header, Opcode};
use bytes::Bytes;

use crate::mirror::event::{GroupStage, Task, TaskKind};

impl Task {
    /// The empty layer that the task leaves as head; `None` when it changes no layers.
    pub(in crate::mirror) fn new_head(&self) -> Option<LayerId> {
        match self.kind {
            TaskKind::Seal { new_head, .. } | TaskKind::Revert { new_head, .. } => Some(new_head),
            TaskKind::Expand { .. } => None,
        }
    }

    /// The layer below it.
    pub(super) fn parent(&self) -> Option<LayerId> {
        match self.kind {
            TaskKind::Seal { head, .. } => Some(head),
            TaskKind::Revert { to, .. } => Some(to),
            TaskKind::Expand { .. } => None,
        }
    }

    /// How far its group is, when it is one of several volumes' seals.
    pub(super) fn group(&self) -> Option<GroupStage> {
        match self.kind {
            TaskKind::Seal { group, .. } => group,
            _ => None,
        }
    }

    /// Whether no mutation may be in flight while the replicas carry it out.
    pub(super) fn stops_mutations(&self) -> bool {
        !matches!(self.kind, TaskKind::Expand { .. })
    }

    pub(super) fn frame(&self) -> (Header, Bytes) {
        let (opcode, body) = match self.kind {
            TaskKind::Seal { head, new_head, .. } => {
                (Opcode::Seal, Seal { head, new_head }.encode())
            }
            TaskKind::Revert { to, new_head } => (Opcode::Revert, Revert { to, new_head }.encode()),
            TaskKind::Expand { size } => (Opcode::Expand, Expand { size }.encode()),
        };
        (Header::request(opcode, 0).with_payload(&body), body)
    }
}
