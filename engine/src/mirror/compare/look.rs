//! One chunk that all replicas are asked about, and what their answers come to.

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::wire::rebuild::{ContentsDigest, ContentsOf};
use ankole_proto::wire::{ErrorCode, Frame, Header, Opcode};
use ankole_proto::{BLOCK_BYTES, Extent, LayerId, ReplicaId};

use crate::mirror::Mirror;
use crate::mirror::event::{Effect, LinkId};
use crate::mirror::job::JobId;
use crate::mirror::loss::Grace;
use crate::mirror::replica::Ask;
use crate::volume::Moment;

/// Names one question to all replicas; what answers an older one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::mirror) struct LookId(pub(super) u64);

/// A chunk that the replicas are asked about.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) id: LookId,
    pub(super) began: Moment,
    /// Holds the range of a chunk of the head; asked when it has the lock.
    pub(super) job: Option<JobId>,
    pub(super) extent: Extent,
    pub(super) asked_at: Option<Moment>,
    /// The lock was given back before all had answered.
    pub(super) is_too_late: bool,
    /// The replicas differed when they were asked before.
    pub(super) confirms: bool,
    pub(super) answers: BTreeMap<ReplicaId, (LinkId, Option<Answer>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Is(ContentsDigest),
    /// The replica has no such layer, or removes it.
    Gone,
    /// A block is bad: it is repaired.
    Bad,
    /// Its blockd does not know the question.
    Unable,
}

/// What the answers to a look come to.
pub(super) enum Judgement {
    Equal,
    Differ(BTreeMap<ReplicaId, ContentsDigest>),
    /// The layer is not there any more.
    LayerGone,
    /// A blockd is too old.
    Unable,
    /// It cannot be said now.
    Unclear,
}

impl Look {
    fn is_answered(&self) -> bool {
        self.asked_at.is_some() && self.answers.values().all(|(_, answer)| answer.is_some())
    }

    fn judge(&self) -> Judgement {
        let mut answers = Vec::new();
        for (replica, (_, answer)) in &self.answers {
            match answer {
                Some(Answer::Is(digest)) => answers.push((*replica, *digest)),
                Some(Answer::Gone) => return Judgement::LayerGone,
                Some(Answer::Unable) => return Judgement::Unable,
                Some(Answer::Bad) | None => return Judgement::Unclear,
            }
        }
        let Some((_, first)) = answers.first().copied() else {
            return Judgement::Unclear;
        };
        if answers.iter().any(|(_, one)| one.base != first.base) {
            return Judgement::Unclear;
        }
        if answers.iter().all(|(_, one)| *one == first) {
            return Judgement::Equal;
        }
        Judgement::Differ(answers.into_iter().collect())
    }

    /// What was read for it, by the replica that read most.
    fn bytes(&self) -> u64 {
        let blocks = |answer: &Option<Answer>| match answer {
            Some(Answer::Is(digest)) => digest.blocks,
            _ => 0,
        };
        let most = self.answers.values().map(|(_, answer)| blocks(answer));
        most.max().unwrap_or(0) * BLOCK_BYTES
    }
}

impl Mirror {
    /// The range of a chunk of the head is locked.
    pub(in crate::mirror) fn comparison_locked(
        &mut self,
        job: JobId,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let look = self.comparisons.active.as_ref();
        if look.and_then(|active| active.look.as_ref()?.job) == Some(job) {
            self.ask_all(now, effects);
        } else {
            self.finish_job(job);
        }
    }

    pub(super) fn ask_all(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let watermark = self.window.watermark().raw();
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        let (Some(layer), Some(look)) = (active.layers.front(), &mut active.look) else {
            return;
        };
        let body = ContentsOf(*layer).encode();
        let mut header = Header::request(Opcode::Digest, 0).with_payload(&body);
        header.offset = look.extent.offset();
        header.length = u32::try_from(look.extent.length()).unwrap_or(u32::MAX);
        header.watermark = watermark;
        look.asked_at = Some(now);
        for replica in self.replicas.values_mut().filter(|one| one.is_readable()) {
            let Some(link) = replica.link() else {
                continue;
            };
            let ask = Ask::Compare(look.id);
            if replica.send(ask, header, body.clone(), now, effects) {
                look.answers.insert(replica.id(), (link, None));
            }
        }
    }

    /// A replica answered.
    pub(in crate::mirror) fn comparison_reply(
        &mut self,
        from: ReplicaId,
        id: LookId,
        frame: &Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let answer = match frame.header.error {
            None => match ContentsDigest::decode(&frame.payload) {
                Ok(digest) => Answer::Is(digest),
                Err(_) => Answer::Unable,
            },
            Some(ErrorCode::NoSuchLayer) => Answer::Gone,
            Some(ErrorCode::Malformed) => Answer::Unable,
            Some(ErrorCode::Io | ErrorCode::Faulted) => {
                let reason = "its disk failed while it was compared with the others".to_owned();
                self.lose(from, reason, Grace::None, now, effects);
                return;
            }
            Some(ErrorCode::Checksum) => {
                let layer = LayerId::from_raw(frame.header.sequence);
                self.found_bad_copy(from, layer, frame.header.offset, now);
                Answer::Bad
            }
            Some(_) => Answer::Bad,
        };
        let active = self.comparisons.active.as_mut();
        let look = active.and_then(|active| active.look.as_mut());
        let Some(look) = look.filter(|look| look.id == id) else {
            return;
        };
        if let Some((_, known)) = look.answers.get_mut(&from) {
            *known = Some(answer);
        }
        if look.is_answered() {
            self.judge_look(now, effects);
        }
    }

    /// A replica that has left, or come back over another link, does not answer any more.
    pub(super) fn forget_answers_of_absent(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let replicas = &self.replicas;
        let active = self.comparisons.active.as_mut();
        let Some(look) = active.and_then(|active| active.look.as_mut()) else {
            return;
        };
        let before = look.answers.len();
        look.answers.retain(|id, (link, _)| {
            let replica = replicas.get(id);
            replica.is_some_and(|one| one.is_readable() && one.link() == Some(*link))
        });
        if look.answers.len() < before && look.is_answered() {
            self.judge_look(now, effects);
        }
    }

    /// Everybody has answered.
    pub(super) fn judge_look(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let active = self.comparisons.active.as_ref();
        let Some((active, look)) = active.and_then(|one| Some((one, one.look.as_ref()?))) else {
            return;
        };
        let is_head = active.layers.front() == Some(&self.head);
        // What is new at the end of a volume that has grown was not locked.
        let has_grown = look.extent != active.extent(self.orders.size);
        let mut in_sync = self.replicas.values().filter(|one| one.is_in_sync());
        let is_short =
            look.answers.len() < 2 || !in_sync.all(|one| look.answers.contains_key(&one.id()));
        let judgement = match look.judge() {
            _ if look.is_too_late || has_grown || is_short => Judgement::Unclear,
            // The head is there; it is this engine that knows it no more, or not yet.
            Judgement::LayerGone if is_head => Judgement::Unclear,
            judgement => judgement,
        };
        if let (Judgement::Differ(_), false) = (&judgement, look.confirms) {
            self.look(true, now, effects);
            return;
        }
        self.attention = true;
        let answered: BTreeSet<ReplicaId> = look.answers.keys().copied().collect();
        let (bytes, took) = (look.bytes(), now.since(look.began));
        let rest = took.min(self.config.limits.rebuild_rest_max);
        let chunks = self.orders.size.chunks();
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        let job = active.look.take().and_then(|look| look.job);
        active.pace.take(bytes, now);
        active.pace.rest(rest, now);
        match judgement {
            Judgement::Equal => {
                active.alike.retain(|id| answered.contains(id));
                active.skipped_in_row = 0;
                active.advance(chunks);
            }
            Judgement::LayerGone => active.next_layer(),
            Judgement::Unable => active.skip_rest(chunks),
            Judgement::Unclear => active.try_again(is_short, chunks, now),
            Judgement::Differ(digests) => self.found_difference(&digests, now, effects),
        }
        if let Some(job) = job {
            self.finish_job(job);
        }
    }
}
