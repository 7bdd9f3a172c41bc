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

mod look;
mod pass;
mod wrong;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ankole_proto::{LayerId, ReplicaId};

use super::event::Effect;
use super::job::Purpose;
use super::rebuild::Pace;
use super::replica::Replica;
use super::status::ComparisonStatus;
use super::{Mirror, Phase};
use crate::volume::Moment;
use look::Look;
pub(super) use look::LookId;
use pass::Comparison;
use wrong::Wrong;

/// The pause before a chunk that cannot be compared is tried again.
const TRY_PAUSE: Duration = Duration::from_secs(1);
/// When the answers for one chunk take longer, the comparison ends.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// How often layers are added that came about while the others were looked at.
const EXTENSIONS_MAX: u32 = 4;

/// The comparison under way, or the last one, and the questions asked.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    active: Option<Comparison>,
    told: Option<ComparisonStatus>,
    last_look: LookId,
    /// Replicas that differ from the majority, until that is on record.
    wrong: BTreeMap<ReplicaId, Wrong>,
    /// Those of which a block was copied from another one since all were found alike; the orders may not
    /// know yet.
    copied: BTreeSet<ReplicaId>,
}

impl Comparisons {
    /// What this replica holds was copied from another one.
    pub(super) fn is_copied(&mut self, id: ReplicaId) {
        self.copied.insert(id);
        if let Some(active) = &mut self.active {
            active.alike.remove(&id);
        }
        if let Some(told) = &mut self.told {
            told.alike.retain(|one| *one != id);
        }
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
        let is_short = self.is_short_of_replicas();
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        if active.look.is_some() || now < active.free_at(beside_others) {
            return;
        }
        if is_short && !active.layers.is_empty() {
            // One that is away for a moment is waited for: without it nobody knows who is right.
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
            listed: layers.iter().copied().collect(),
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
            extensions: 0,
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

    /// When somebody has waited for long enough.
    fn look_limit(&self, look: &Look) -> Moment {
        let since = look.asked_at.unwrap_or(look.began);
        if look.job.is_some() {
            since + self.config.limits.write_deadline / 2
        } else {
            since + LOOK_LIMIT
        }
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
        let has_lock = look.asked_at.is_some();
        let is_over = look.job.is_none();
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
            } else if !has_lock {
                active.look = None;
                active.try_again(true, chunks, now);
            }
            self.attention = true;
        }
        if let Some(job) = job {
            self.finish_job(job);
        }
    }

    /// Whether not all in-sync replicas can be asked, or there are none to compare.
    fn is_short_of_replicas(&self) -> bool {
        let in_sync = || self.replicas.values().filter(|one| one.is_in_sync());
        in_sync().count() < 2 || !in_sync().all(Replica::is_readable)
    }

    /// All that were listed have been looked at. Layers that have come about meanwhile hold what was
    /// written since, and what was merged into them of those that went.
    fn extend_comparison(&mut self) -> bool {
        let one = self.replicas.values().find(|one| one.is_readable());
        let tree = one.map(|one| one.tree.clone()).unwrap_or_default();
        let (head, chunks) = (self.head, self.orders.size.chunks());
        let Some(active) = &mut self.comparisons.active else {
            return false;
        };
        let sealed = tree.iter().map(|link| link.layer);
        let new = sealed.filter(|layer| *layer != head).chain([head]);
        let new: Vec<LayerId> = new.filter(|layer| active.listed.insert(*layer)).collect();
        if new.is_empty() {
            return false;
        }
        active.layers.extend(new);
        active.extensions += 1;
        if active.extensions > EXTENSIONS_MAX {
            active.skip_rest(chunks);
        }
        !active.layers.is_empty()
    }

    /// Begins with the next chunk, or asks about the same again.
    fn look(&mut self, confirms: bool, now: Moment, effects: &mut Vec<Effect>) {
        let Some(active) = &mut self.comparisons.active else {
            return;
        };
        let held = active.look.take().and_then(|look| look.job);
        let Some(layer) = active.layers.front().copied() else {
            if !self.comparisons.wrong.is_empty() {
                // What was found goes on record before the end is told.
                active.resume_at = now + TRY_PAUSE;
            } else if self.extend_comparison() {
                self.attention = true;
            } else {
                self.end_comparison(now);
            }
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

    fn end_comparison(&mut self, now: Moment) {
        if let Some(active) = self.comparisons.active.take() {
            let told = active.status(self.orders.size, true, now);
            if !told.alike.is_empty() {
                self.comparisons.copied.clear();
            }
            self.comparisons.told = Some(told);
        }
    }
}
