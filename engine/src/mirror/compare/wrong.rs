//! Replicas that read otherwise than most: who they are, and their way to the record.

use std::collections::BTreeMap;

use ankole_proto::ReplicaId;
use ankole_proto::wire::rebuild::ContentsDigest;

use crate::mirror::Mirror;
use crate::mirror::event::{Effect, Record, RecordRefusal};
use crate::mirror::replica::Replica;
use crate::volume::Moment;

/// A replica whose loss is to be recorded, as soon as another one has answered what was sent after that
/// came into question (INV-4).
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) reason: String,
    /// `None` while the managers are asked.
    pub(super) ask_at: Option<Moment>,
    /// Since when it is in question.
    pub(super) since: Option<Moment>,
}

impl Mirror {
    /// The replicas read differently, twice.
    pub(super) fn found_difference(
        &mut self,
        digests: &BTreeMap<ReplicaId, ContentsDigest>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let right = self.majority(digests);
        let chunks = self.orders.size.chunks();
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        let place = active.place();
        active.alike.clear();
        active.skipped_in_row = 0;
        active.differing_chunks += 1;
        active.undecided_chunks += u64::from(right.is_none());
        active.advance(chunks);
        let Some(right) = right else {
            return;
        };
        let wrong = digests.iter().filter(|(_, digest)| **digest != right);
        for id in wrong.map(|(id, _)| *id) {
            let reason = format!("it reads otherwise than most replicas {place}");
            self.comparisons.wrong.entry(id).or_insert(Wrong {
                reason,
                ask_at: Some(now),
                since: None,
            });
            self.restart_rebuilds_from(id, now, effects);
        }
    }

    /// What more than half of all in-sync replicas say, two of them independently.
    fn majority(&self, digests: &BTreeMap<ReplicaId, ContentsDigest>) -> Option<ContentsDigest> {
        let in_sync = self.replicas.values().filter(|one| one.is_in_sync());
        let all = in_sync.count();
        let mut said = digests.values().copied();
        said.find(|wanted| {
            let agreeing = digests.iter().filter(|(_, digest)| *digest == wanted);
            let replicas = agreeing.clone().filter_map(|(id, _)| self.replicas.get(id));
            let independent = replicas.filter(|one| {
                one.member.independent && !self.comparisons.copied.contains(&one.id())
            });
            agreeing.count() * 2 > all && independent.count() > 1
        })
    }

    /// Whether the replica is known to differ from the majority.
    pub(in crate::mirror) fn is_wrong(&self, id: ReplicaId) -> bool {
        self.comparisons.wrong.contains_key(&id)
    }

    /// Whether the loss of one that is wrong waits for an answer of another replica.
    pub(in crate::mirror) fn is_any_wrong(&self) -> bool {
        let mut wrong = self.comparisons.wrong.values();
        wrong.any(|wrong| wrong.ask_at.is_some() && wrong.since.is_some())
    }

    /// Has the loss of those that are wrong recorded.
    pub(super) fn ask_about_wrong(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let replicas = &self.replicas;
        let counts = |id: &ReplicaId| replicas.get(id).is_some_and(Replica::is_in_sync);
        self.comparisons.wrong.retain(|id, _| counts(id));
        let due = |wrong: &Wrong| wrong.ask_at.is_some_and(|at| now >= at);
        let wrong = self.comparisons.wrong.iter_mut();
        let mut questioned = Vec::new();
        for (id, wrong) in wrong.filter(|(_, wrong)| due(wrong)) {
            let is_new = wrong.since.is_none();
            questioned.push((*id, *wrong.since.get_or_insert(now), is_new));
        }
        for (id, since, is_new) in questioned {
            if is_new {
                self.ping_others(id, now, effects);
            }
            if self.outlives(id, since, now)
                && let Some(wrong) = self.comparisons.wrong.get_mut(&id)
            {
                (wrong.ask_at, wrong.since) = (None, None);
                let reason = wrong.reason.clone();
                let replica = id;
                effects.push(Effect::Record(Record::ReplicaLost { replica, reason }));
            }
        }
    }

    /// The managers answered whether a loss is on record.
    pub(in crate::mirror) fn difference_recorded(
        &mut self,
        id: ReplicaId,
        refusal: Option<&RecordRefusal>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let pause = self.config.limits.record_pause;
        if let Some(RecordRefusal::Unreachable(_)) = refusal {
            if let Some(wrong) = self.comparisons.wrong.get_mut(&id) {
                wrong.ask_at = Some(now + pause);
            }
        } else if self.comparisons.wrong.remove(&id).is_some() {
            // Also those that had copied all when it was found to be wrong.
            self.restart_rebuilds_from(id, now, effects);
        }
    }
}
