//! Which commands may be executed: the task set of one session (SAM-5 8.6). Each session has a task
//! set of its own, as the control mode page tells (TST=001b).

use std::collections::BTreeSet;

use super::task::TaskId;
use crate::scsi::Attribute;

/// A command's place among those whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// The commands whose turn has come and that have not ended. Bounded by the command window and the
/// immediate commands beside it (INV-12).
#[derive(Debug, Default)]
pub(super) struct TaskSet {
    next: u64,
    all: BTreeSet<Turn>,
    ordered: BTreeSet<Turn>,
    heads: BTreeSet<Turn>,
    /// Those that have all their data, and wait for others.
    dormant: BTreeSet<(Turn, TaskId)>,
}

impl TaskSet {
    /// A command's turn has come.
    pub(super) fn enter(&mut self, attribute: Attribute) -> Turn {
        let turn = Turn(self.next);
        self.next += 1;
        self.all.insert(turn);
        match attribute {
            Attribute::Ordered => self.ordered.insert(turn),
            Attribute::HeadOfQueue => self.heads.insert(turn),
            _ => true,
        };
        turn
    }

    /// A command has ended.
    pub(super) fn leave(&mut self, turn: Turn, task: TaskId) {
        self.all.remove(&turn);
        self.ordered.remove(&turn);
        self.heads.remove(&turn);
        self.dormant.remove(&(turn, task));
    }

    /// Whether nothing stands before the command: of a HEAD OF QUEUE command nothing ever does, of an
    /// ORDERED one every older one, of a SIMPLE one the older ORDERED ones; of both every HEAD OF QUEUE
    /// command that has not ended.
    pub(super) fn may_begin(&self, turn: Turn, attribute: Attribute) -> bool {
        match attribute {
            Attribute::HeadOfQueue => true,
            Attribute::Ordered => self.heads.is_empty() && self.all.first() == Some(&turn),
            _ => {
                let older = self.ordered.first().is_some_and(|first| *first < turn);
                self.heads.is_empty() && !older
            }
        }
    }

    /// The command waits until others have ended.
    pub(super) fn suspend(&mut self, turn: Turn, task: TaskId) {
        self.dormant.insert((turn, task));
    }

    /// It waits no more.
    pub(super) fn wake(&mut self, turn: Turn, task: TaskId) {
        self.dormant.remove(&(turn, task));
    }

    /// Those that wait, in their order.
    pub(super) fn dormant(&self) -> Vec<TaskId> {
        self.dormant.iter().map(|(_, task)| *task).collect()
    }

    /// Whether anything waits.
    pub(super) fn has_dormant(&self) -> bool {
        !self.dormant.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            3 => Just(Attribute::Simple),
            1 => Just(Attribute::Ordered),
            1 => Just(Attribute::HeadOfQueue),
        ]
    }

    /// The oracle: the rules of SAM-5 8.6, read off a list of what is in the set.
    fn may(list: &[(Turn, Attribute)], at: usize) -> bool {
        let heads = list.iter().any(|(_, it)| *it == Attribute::HeadOfQueue);
        let older = &list[..at];
        match list[at].1 {
            Attribute::HeadOfQueue => true,
            Attribute::Ordered => !heads && older.is_empty(),
            _ => !heads && !older.iter().any(|(_, it)| *it == Attribute::Ordered),
        }
    }

    proptest! {
        #[test]
        fn what_may_begin_agrees_with_a_list(
            acts in prop::collection::vec((any_attribute(), any::<bool>(), 0_usize..64), 1..100),
        ) {
            let mut set = TaskSet::default();
            let mut list: Vec<(Turn, Attribute)> = Vec::new();
            for (attribute, enters, which) in acts {
                if enters || list.is_empty() {
                    list.push((set.enter(attribute), attribute));
                } else {
                    let (turn, _) = list.remove(which % list.len());
                    set.leave(turn, TaskId(0));
                }
                for (at, (turn, attribute)) in list.iter().enumerate() {
                    prop_assert_eq!(set.may_begin(*turn, *attribute), may(&list, at));
                }
            }
        }

        #[test]
        fn whatever_the_attributes_everything_is_executed(
            attributes in prop::collection::vec(any_attribute(), 1..60),
        ) {
            let mut set = TaskSet::default();
            let mut list: Vec<_> = attributes.iter().map(|it| (set.enter(*it), *it)).collect();
            while !list.is_empty() {
                let ready = list.iter().position(|(turn, it)| set.may_begin(*turn, *it));
                let (turn, _) = list.remove(ready.expect("something may begin"));
                set.leave(turn, TaskId(0));
            }
        }
    }
}
