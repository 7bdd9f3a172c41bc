//! Comparing the in-sync replicas with each other while the volume is served (section 4 of the
//! design: scrub).
//!
//! Checksums find what a disk changed; they do not find a write that a disk, or a bug, lost together
//! with its checksum. So all in-sync replicas are asked, chunk by chunk, for a digest of what each
//! layer changes of what is below ([`ContentsDigest`]), which does not depend on how far their
//! merges are. For a chunk of the head the range is locked as a rebuild locks it: nothing
//! overlapping is in flight while the replicas answer.
//!
//! A difference is asked for twice. Then what more than half of the in-sync replicas say is right, if
//! two of them are independent: one that was made equal to another says what that one says. Each other
//! replica is put on record as lost, so that it is made equal again by a rebuild, which copies what
//! differs; until then it goes on to count, because whatever it holds elsewhere was acknowledged with
//! it. Without such a majority nobody can say who is right: nothing is changed, and the managers are
//! told.
//!
//! Nobody waits for a comparison, and no replica is given up for answering late. A lock is given back
//! when the answers take long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ankole_proto::wire::rebuild::{ContentsDigest, ContentsOf};
use ankole_proto::wire::{ErrorCode, Frame, Header, Opcode};
use ankole_proto::{BLOCK_BYTES, CHUNK_BYTES, ChunkNumber, Extent, LayerId, ReplicaId, VolumeSize};

use super::event::{Effect, LinkId, Record, RecordRefusal};
use super::job::{JobId, Purpose};
use super::loss::Grace;
use super::rebuild::Pace;
use super::replica::{Ask, Replica};
use super::status::ComparisonStatus;
use super::{Mirror, Phase};
use crate::volume::Moment;

/// How often a chunk is tried that cannot be compared: a replica misses a layer that another has
/// merged, or its block is bad and is being repaired.
const TRIES_MAX: u32 = 30;
/// The pause before such a chunk is tried again.
const TRY_PAUSE: Duration = Duration::from_secs(1);
/// So many chunks that cannot be compared, one after the other, and the rest of the layer is given up.
const SKIPPED_IN_ROW_MAX: u32 = 8;
/// When the answers for one chunk take longer, the comparison ends.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// The comparison under way, or the last one, and the questions asked.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    active: Option<Comparison>,
    told: Option<ComparisonStatus>,
    last_look: LookId,
    /// Replicas that differ from the majority, until that is on record.
    wrong: BTreeMap<ReplicaId, Wrong>,
}

/// A replica whose loss is to be recorded.
#[derive(Debug)]
struct Wrong {
    reason: String,
    /// `None` while the managers are asked.
    ask_at: Option<Moment>,
}

/// Names one question to all replicas; what answers an older one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LookId(u64);

/// One pass over all layers.
#[derive(Debug)]
struct Comparison {
    request: u64,
    began: Moment,
    /// The first is under way; the head is the last.
    layers: VecDeque<LayerId>,
    layers_total: u64,
    chunk: u64,
    /// Of the chunk.
    tries: u32,
    resume_at: Moment,
    pace: Pace,
    look: Option<Look>,
    differing_chunks: u64,
    undecided_chunks: u64,
    skipped_chunks: u64,
    skipped_in_row: u32,
    /// Those that were in sync when it began and have answered alike for every chunk until now.
    alike: BTreeSet<ReplicaId>,
}

/// A chunk that the replicas are asked about.
#[derive(Debug)]
struct Look {
    id: LookId,
    began: Moment,
    /// Holds the range of a chunk of the head; asked when it has the lock.
    job: Option<JobId>,
    extent: Extent,
    asked_at: Option<Moment>,
    /// The lock was given back before all had answered.
    is_too_late: bool,
    /// The replicas differed when they were asked before.
    confirms: bool,
    answers: BTreeMap<ReplicaId, (LinkId, Option<Answer>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Is(ContentsDigest),
    /// The replica has no such layer, or removes it.
    Gone,
    /// A block is bad: it is repaired.
    Bad,
    /// Its blockd does not know the question.
    Unable,
}

/// What the answers to a look come to.
enum Judgement {
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
        let Some((_, first)) = answers.first().copied().filter(|_| answers.len() > 1) else {
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
    /// Goes on with the comparison that the orders want, as far as it can.
    pub(super) fn tend_comparison(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        self.ask_about_wrong(now, effects);
        self.begin_comparison(now);
        self.forget_answers_of_absent(now, effects);
        self.limit_look(now);
        let beside_others = self.is_beside_others(now);
        let is_alone = self
            .replicas
            .values()
            .filter(|one| one.is_readable())
            .count()
            < 2;
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        if active.look.is_some() || now < active.free_at(beside_others) {
            return;
        }
        if is_alone && !active.layers.is_empty() {
            // There is nobody to compare with.
            active.resume_at = now + TRY_PAUSE;
        } else {
            self.look(false, now, effects);
        }
    }

    /// When it has something to do that only time brings about.
    pub(super) fn comparison_wake_at(&self) -> Option<Moment> {
        if !matches!(self.phase, Phase::Serving) {
            return None;
        }
        let wrong = self.comparisons.wrong.values().filter_map(|one| one.ask_at);
        let active = self
            .comparisons
            .active
            .as_ref()
            .map(|active| match &active.look {
                Some(look) => self.look_limit(look),
                None => active.free_at(self.is_beside_others(self.now)),
            });
        wrong.chain(active).filter(|at| *at > self.now).min()
    }

    /// How far it is, or what the last one found.
    pub(super) fn comparison_status(&self) -> Option<ComparisonStatus> {
        match &self.comparisons.active {
            Some(active) => Some(active.status(self.orders.size, false, self.now)),
            None => self.comparisons.told.clone(),
        }
    }

    /// A comparison under way is finished before the next one begins.
    fn begin_comparison(&mut self, now: Moment) {
        let told = self.comparisons.told.as_ref();
        let is_made = self.orders.comparison <= told.map_or(0, |told| told.request);
        if is_made || self.comparisons.active.is_some() {
            return;
        }
        let Some(one) = self.replicas.values().find(|one| one.is_readable()) else {
            return;
        };
        let head = self.head;
        let sealed = one.tree.iter().map(|link| link.layer);
        let sealed = sealed.filter(|layer| *layer != head);
        let layers: VecDeque<LayerId> = sealed.chain([head]).collect();
        let in_sync = self.replicas.values().filter(|one| one.is_in_sync());
        self.comparisons.active = Some(Comparison {
            request: self.orders.comparison,
            began: now,
            layers_total: layers.len() as u64,
            layers,
            chunk: 0,
            tries: 0,
            resume_at: now,
            pace: Pace::new(self.config.limits.comparison_bytes_per_second, now),
            look: None,
            differing_chunks: 0,
            undecided_chunks: 0,
            skipped_chunks: 0,
            skipped_in_row: 0,
            alike: in_sync.map(Replica::id).collect(),
        });
    }

    /// The comparison is given up; the next engine begins it again.
    pub(super) fn drop_comparison(&mut self) {
        let active = self.comparisons.active.take();
        if let Some(job) = active.and_then(|active| active.look?.job) {
            self.finish_job(job);
        }
    }

    /// What this replica holds was copied from another one.
    pub(super) fn is_copied(&mut self, id: ReplicaId) {
        if let Some(active) = &mut self.comparisons.active {
            active.alike.remove(&id);
        }
        if let Some(told) = &mut self.comparisons.told {
            told.alike.retain(|one| *one != id);
        }
    }

    /// When somebody has waited for long enough.
    fn look_limit(&self, look: &Look) -> Moment {
        let end = look.began + LOOK_LIMIT;
        let lock = look.asked_at.filter(|_| look.job.is_some());
        let lock = lock.map(|at| at + self.config.limits.write_deadline / 2);
        lock.map_or(end, |lock| lock.min(end))
    }

    /// Gives the lock of a chunk back whose answers take long, and the comparison up when they do not
    /// come.
    fn limit_look(&mut self, now: Moment) {
        let active = self.comparisons.active.as_ref();
        let Some(look) = active.and_then(|active| active.look.as_ref()) else {
            return;
        };
        if now < self.look_limit(look) {
            return;
        }
        let is_over = now >= look.began + LOOK_LIMIT;
        let chunks = self.orders.size.chunks();
        let mut job = None;
        if let Some(active) = &mut self.comparisons.active {
            if let Some(look) = &mut active.look {
                job = look.job.take();
                look.is_too_late = true;
            }
            if is_over {
                active.look = None;
                active.skip_rest(chunks);
                self.attention = true;
            }
        }
        if let Some(job) = job {
            self.finish_job(job);
        }
    }

    /// Begins with the next chunk, or asks about the same again.
    fn look(&mut self, confirms: bool, now: Moment, effects: &mut Vec<Effect>) {
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        let held = active.look.take().and_then(|look| look.job);
        let Some(layer) = active.layers.front().copied() else {
            self.end_comparison(now);
            return;
        };
        let extent = active.extent(self.orders.size);
        let is_head = layer == self.head;
        let locks = is_head && held.is_none();
        let job = if locks {
            Some(self.start_job(None, extent, Purpose::Comparison, now))
        } else {
            held
        };
        self.comparisons.last_look.0 += 1;
        let id = self.comparisons.last_look;
        if let Some(active) = &mut self.comparisons.active {
            active.look = Some(Look {
                id,
                began: now,
                job,
                extent,
                asked_at: None,
                is_too_late: false,
                confirms,
                answers: BTreeMap::new(),
            });
        }
        if !locks {
            self.ask_all(now, effects);
        }
    }

    /// The range of a chunk of the head is locked.
    pub(super) fn comparison_locked(&mut self, job: JobId, now: Moment, effects: &mut Vec<Effect>) {
        let look = self.comparisons.active.as_ref();
        if look.and_then(|active| active.look.as_ref()?.job) == Some(job) {
            self.ask_all(now, effects);
        } else {
            self.finish_job(job);
        }
    }

    fn ask_all(&mut self, now: Moment, effects: &mut Vec<Effect>) {
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
        let readable = self.replicas.values().filter(|one| one.is_readable());
        if readable.count() < 2 {
            self.judge_look(now, effects);
            return;
        }
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
    pub(super) fn comparison_reply(
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
    fn forget_answers_of_absent(&mut self, now: Moment, effects: &mut Vec<Effect>) {
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
    fn judge_look(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let active = self.comparisons.active.as_ref();
        let Some((active, look)) = active.and_then(|one| Some((one, one.look.as_ref()?))) else {
            return;
        };
        let is_head = active.layers.front() == Some(&self.head);
        // What is new at the end of a volume that has grown was not locked.
        let has_grown = look.extent != active.extent(self.orders.size);
        let judgement = match look.judge() {
            _ if look.is_too_late || has_grown => Judgement::Unclear,
            // The head is there; it is this engine that knows it no more, or not yet.
            Judgement::LayerGone if is_head => Judgement::Unclear,
            judgement => judgement,
        };
        if let (Judgement::Differ(_), false) = (&judgement, look.confirms) {
            self.look(true, now, effects);
            return;
        }
        self.attention = true;
        let is_alone = look.answers.len() < 2;
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
            Judgement::Unclear => active.try_again(is_alone, chunks, now),
            Judgement::Differ(digests) => self.found_difference(&digests, now, effects),
        }
        if let Some(job) = job {
            self.finish_job(job);
        }
    }

    /// The replicas read differently, twice.
    fn found_difference(
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
            let ask_at = Some(now);
            self.comparisons
                .wrong
                .entry(id)
                .or_insert(Wrong { reason, ask_at });
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
            let independent = replicas.filter(|one| one.member.independent);
            agreeing.count() * 2 > all && independent.count() > 1
        })
    }

    /// Has the loss of those that are wrong recorded.
    fn ask_about_wrong(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let replicas = &self.replicas;
        let counts = |id: &ReplicaId| replicas.get(id).is_some_and(Replica::is_in_sync);
        self.comparisons.wrong.retain(|id, _| counts(id));
        for (replica, wrong) in &mut self.comparisons.wrong {
            if wrong.ask_at.is_some_and(|at| now >= at) {
                wrong.ask_at = None;
                effects.push(Effect::Record(Record::ReplicaLost {
                    replica: *replica,
                    reason: wrong.reason.clone(),
                }));
            }
        }
    }

    /// The managers answered whether a loss is on record.
    pub(super) fn difference_recorded(
        &mut self,
        id: ReplicaId,
        refusal: Option<&RecordRefusal>,
        now: Moment,
    ) {
        let pause = self.config.limits.record_pause;
        if let Some(RecordRefusal::Unreachable(_)) = refusal
            && let Some(wrong) = self.comparisons.wrong.get_mut(&id)
        {
            wrong.ask_at = Some(now + pause);
        } else {
            self.comparisons.wrong.remove(&id);
        }
    }

    fn end_comparison(&mut self, now: Moment) {
        if let Some(active) = self.comparisons.active.take() {
            let told = active.status(self.orders.size, true, now);
            self.comparisons.told = Some(told);
        }
    }
}

impl Comparison {
    fn free_at(&self, beside_others: bool) -> Moment {
        let paced = if beside_others {
            self.pace.free_beside_others_at()
        } else {
            self.pace.free_at()
        };
        paced.max(self.resume_at)
    }

    /// The chunk under way.
    fn extent(&self, size: VolumeSize) -> Extent {
        ChunkNumber::from_raw(self.chunk).extent_in(size)
    }

    /// The chunk cannot be compared now. With nobody to compare it with, that is not its fault.
    fn try_again(&mut self, is_alone: bool, chunks: u64, now: Moment) {
        self.resume_at = now + TRY_PAUSE;
        self.tries += u32::from(!is_alone);
        if self.tries < TRIES_MAX {
            return;
        }
        self.alike.clear();
        self.skipped_in_row += 1;
        if self.skipped_in_row < SKIPPED_IN_ROW_MAX {
            self.skipped_chunks += 1;
            self.advance(chunks);
        } else {
            self.skipped_chunks += chunks.saturating_sub(self.chunk);
            self.next_layer();
        }
    }

    /// Nothing more can be compared.
    fn skip_rest(&mut self, chunks: u64) {
        self.skipped_chunks += self.left(chunks);
        self.alike.clear();
        self.layers.clear();
        self.chunk = 0;
    }

    /// Goes on to the next chunk.
    fn advance(&mut self, chunks: u64) {
        self.chunk += 1;
        self.tries = 0;
        if self.chunk >= chunks {
            self.next_layer();
        }
    }

    fn next_layer(&mut self) {
        self.layers.pop_front();
        self.chunk = 0;
        self.tries = 0;
    }

    /// Chunks that were not looked at.
    fn left(&self, chunks: u64) -> u64 {
        (self.layers.len() as u64 * chunks).saturating_sub(self.chunk)
    }

    /// Where it is, for people.
    fn place(&self) -> String {
        let chunk = ChunkNumber::from_raw(self.chunk);
        let from = chunk.first_block().offset();
        let layer = self.layers.front().map_or(0, |layer| layer.raw());
        let to = from + CHUNK_BYTES;
        format!("in bytes {from} to {to} of layer {layer:016x}")
    }

    fn status(&self, size: VolumeSize, is_finished: bool, now: Moment) -> ComparisonStatus {
        let chunks = size.chunks();
        let total = self.layers_total * chunks;
        let bytes = |part: u64| part.saturating_mul(CHUNK_BYTES);
        let done_bytes = bytes(total.saturating_sub(self.left(chunks)));
        let milliseconds = now.since(self.began).as_millis().max(1);
        let rate = u128::from(done_bytes) * 1000 / milliseconds;
        ComparisonStatus {
            request: self.request,
            is_finished,
            done_bytes,
            total_bytes: bytes(total),
            bytes_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            differing_chunks: self.differing_chunks,
            undecided_chunks: self.undecided_chunks,
            skipped_chunks: self.skipped_chunks,
            alike: if is_finished {
                self.alike.iter().copied().collect()
            } else {
                Vec::new()
            },
        }
    }
}
