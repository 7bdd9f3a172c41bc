//! Comparing every block of every layer with its sum, at a pace that the caller keeps.
//!
//! The caller brings the time. How far it is outlives a restart in `scrub.json`: a file of advice,
//! which no other part reads; one that is missing or makes no sense means that nothing was scrubbed.

use std::collections::VecDeque;
use std::path::Path;

use ankole_proto::{BLOCK_BYTES, BlockNumber, Extent, LayerId};
use serde::{Deserialize, Serialize};

use super::damages::{Damage, Damages, News};
use super::descriptor::Descriptor;
use super::rebuild::present_runs;
use super::refusal::{ChecksumMismatch, WorkError};
use super::{Progress, Replica, State};
use crate::disk::Disk;
use crate::layer::Flaw;

/// The file's name in the directory of the replica.
const FILE_NAME: &str = "scrub.json";
/// 255 layers and [`DAMAGES_TOLD`] bad blocks take less.
const BYTES_MAX: usize = 64 << 10;
/// The most chunks that one step looks at.
const CHUNKS_PER_STEP_MAX: u64 = 1024;
/// How many bad blocks are told and written down; all are counted.
pub const DAMAGES_TOLD: usize = 64;

/// What a scrub is at, or was at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// The last scrub that was asked for and begun.
    pub request: u64,
    /// When it began, milliseconds since 1970; 0: never.
    pub started_at_ms: u64,
    /// When it ended; 0: it goes on.
    pub finished_at_ms: u64,
    /// Read until now.
    pub done_bytes: u64,
    /// What there was to read when it began; more, when more was read.
    pub total_bytes: u64,
    /// Bad blocks that it found.
    pub findings: u64,
}

/// The state of scrubbing, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Scrub {
    report: ScrubReport,
    /// Layers that are still to be read; the first is under way.
    layers: VecDeque<LayerId>,
    next_block: u64,
    /// The first bad blocks that were known: to be known again after a restart.
    damages: Vec<(LayerId, u64)>,
    /// What is wrong with each of them, and since when.
    #[serde(default)]
    flaws: Vec<(Flaw, u64)>,
}

impl Scrub {
    /// As an earlier process left it.
    pub(super) fn load<D: Disk>(
        disk: &D,
        directory: &Path,
        descriptor: &Descriptor,
        damages: &mut Damages,
    ) -> Self {
        let read = disk.read_file(&directory.join(FILE_NAME), BYTES_MAX).ok();
        let scrub: Option<Self> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut scrub = scrub.unwrap_or_default();
        let unknown = std::iter::repeat((Flaw::Mismatch, 0));
        let flaws = scrub.flaws.drain(..).chain(unknown);
        let known = scrub.damages.drain(..).take(DAMAGES_TOLD).zip(flaws);
        for ((layer, block), (flaw, found_at_ms)) in known {
            let is_ours = descriptor
                .layer(layer)
                .is_some_and(|layer| block < layer.size.blocks());
            if is_ours {
                let block = BlockNumber::from_raw(block);
                damages.know(Damage {
                    at: ChecksumMismatch { layer, block },
                    flaw,
                    found_at_ms,
                });
            }
        }
        scrub
    }

    fn is_under_way(&self) -> bool {
        self.report.started_at_ms != 0 && self.report.finished_at_ms == 0
    }
}

impl<D: Disk> Replica<D> {
    /// How far scrubbing is.
    pub const fn scrub_report(&self) -> ScrubReport {
        self.scrub.report
    }

    /// Blocks that are known to be bad: how many, and the first [`DAMAGES_TOLD`] of them.
    pub fn damages(&self) -> (u64, Vec<Damage>) {
        (self.damages.count(), self.damages.first(DAMAGES_TOLD))
    }

    /// The bad blocks that were found since the last call, for the log; by whomever.
    pub fn take_news(&mut self) -> News {
        self.damages.take_news()
    }

    /// Whether the last scrub began so long ago that the next one is due.
    pub fn is_scrub_due(&self, period_ms: u64, now_ms: u64) -> bool {
        let next = self.scrub.report.started_at_ms.saturating_add(period_ms);
        !self.scrub.is_under_way() && now_ms >= next
    }

    /// Begins a scrub; one that is under way begins anew, so that all is read after the call.
    /// `request`: the number of the request, or 0 when nobody asked. A request that was begun
    /// already changes nothing. Whether a scrub begins.
    pub fn begin_scrub(&mut self, request: u64, now_ms: u64) -> bool {
        let last = self.scrub.report.request;
        if request != 0 && request <= last || self.check_sound().is_err() {
            return false;
        }
        self.scrub.report = ScrubReport {
            request: request.max(last),
            started_at_ms: now_ms.max(1),
            total_bytes: self.used_bytes(),
            ..ScrubReport::default()
        };
        self.scrub.layers = self.tree.links().iter().map(|link| link.layer).collect();
        self.scrub.next_block = 0;
        self.save_scrub();
        true
    }

    /// Writes down how far the scrub is. When the disk is full the next process begins where it was
    /// written down last; any other failure faults the replica, for a sync may be what failed
    /// (INV-10).
    pub fn save_scrub(&mut self) {
        let damages = self.damages.first(DAMAGES_TOLD);
        let places = damages.iter().map(|damage| damage.at);
        self.scrub.damages = places.map(|at| (at.layer, at.block.raw())).collect();
        let flaws = damages
            .iter()
            .map(|damage| (damage.flaw, damage.found_at_ms));
        self.scrub.flaws = flaws.collect();
        let bytes = serde_json::to_vec(&self.scrub).unwrap_or_default();
        let path = self.directory.join(FILE_NAME);
        if let Err(error) = self.disk.replace_file(&path, &bytes) {
            // A full disk costs no more than what was scrubbed since; a failed sync is final.
            self.failed("writing down the scrub", error);
        }
    }

    /// Compares at most about `budget_blocks` blocks with their sums. Waits while the replica is
    /// being rebuilt, and until sums that an unclean stop left in doubt are settled.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn scrub_step(
        &mut self,
        budget_blocks: u64,
        now_ms: u64,
    ) -> Result<Progress<D>, WorkError> {
        self.damages.now_ms = now_ms;
        self.check_sound()?;
        let unsettled = self.descriptor.layers.iter().any(|layer| layer.unsettled);
        if !self.scrub.is_under_way() || self.state == State::Rebuilding || unsettled {
            return Ok(Progress::Idle);
        }
        let (mut blocks, mut looked_at) = (0, 0);
        while blocks < budget_blocks && looked_at < CHUNKS_PER_STEP_MAX {
            let Some(layer) = self.scrub.layers.front().copied() else {
                self.scrub.report.finished_at_ms = now_ms.max(1);
                self.save_scrub();
                break;
            };
            let end = if self.tree.contains(layer) {
                self.descriptor.size_of(layer).blocks()
            } else {
                // Merged away meanwhile: its blocks were verified by that.
                0
            };
            if self.scrub.next_block >= end {
                self.scrub.layers.pop_front();
                self.scrub.next_block = 0;
                continue;
            }
            let read = self.scrub_part(layer, end, budget_blocks - blocks)?;
            let report = &mut self.scrub.report;
            report.done_bytes = report.done_bytes.saturating_add(read * BLOCK_BYTES);
            // What is written meanwhile is read too.
            report.total_bytes = report.total_bytes.max(report.done_bytes);
            blocks += read;
            looked_at += 1;
        }
        Ok(Progress::Working { blocks })
    }

    /// Compares the next blocks of one chunk; how many were read.
    fn scrub_part(&mut self, layer: LayerId, end: u64, budget: u64) -> Result<u64, WorkError> {
        let first = BlockNumber::from_raw(self.scrub.next_block);
        let chunk = first.chunk();
        let is_head = layer == self.tree.head();
        if is_head {
            // What is read below is the file.
            self.write_sums_of(chunk)?;
        }
        let record = self.record(layer, chunk)?;
        let chunk_end = end.min(chunk.extent_in(self.size).end() / BLOCK_BYTES);
        let (mut at, mut read) = (first.raw(), 0);
        while at < chunk_end && read < budget {
            read += u64::from(
                record
                    .present
                    .contains(BlockNumber::from_raw(at).in_chunk()),
            );
            at += 1;
        }
        self.scrub.next_block = at;
        let length = (at - first.raw()) * BLOCK_BYTES;
        let Some(part) = Extent::new(first.offset(), length) else {
            return Ok(read);
        };
        let mut bad = Vec::new();
        let mut buffer = Vec::new();
        for run in present_runs(&record.present, part) {
            let looked = match self.files.of(&self.disk, layer) {
                Ok(files) => files.bad_blocks(run, &mut buffer, &mut self.sums),
                Err(error) => Err(error),
            };
            bad.extend(looked.map_err(|error| self.failed("reading checksums", error))?);
        }
        let is_bad = |block: &BlockNumber| bad.iter().any(|(one, _)| one == block);
        let sound = part.blocks().filter(|block| !is_bad(block));
        self.damages.mend(layer, sound);
        let report = &mut self.scrub.report;
        report.findings = report.findings.saturating_add(bad.len() as u64);
        for (block, flaw) in bad {
            self.damages.find(ChecksumMismatch { layer, block }, flaw);
        }
        Ok(read)
    }
}
