//! Running a load.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::gap::GapLog;
use super::report::{Latencies, Report};
use super::sector::{SECTOR_BYTES, stamp, verify};
use super::shadow::{Shadow, Shape};
use super::{Durable, Workload};
use crate::initiator::{Command, Completion, Kind, Options, Outcome, Session};

/// How long unanswered operations may take after the last was sent.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_millis(20);
const EXAMPLES_MAX: u64 = 20;

/// Why a load ended early.
pub type LoadError = anyhow::Error;

struct InFlight {
    session: usize,
    kind: Kind,
    block: u64,
    generation: u64,
    low: u64,
    due: Instant,
    covered: Vec<u64>,
}

struct Run<'a> {
    workload: &'a Workload,
    sessions: Vec<Session>,
    shadow: Shadow,
    random: StdRng,
    in_flight: std::collections::HashMap<u64, InFlight>,
    writing: HashSet<u64>,
    next_token: u64,
    next_block: u64,
    submitted: u64,
    writes_since_flush: u64,
    flushing: bool,
    reads: Latencies,
    writes: Latencies,
    flushes: Latencies,
    errors: u64,
    retries: u64,
    mismatches: u64,
    start: Instant,
    last_completion: Instant,
    longest_gap: Duration,
    gaps: Option<GapLog>,
}

/// Carries out the load.
///
/// # Errors
///
/// When the target cannot be reached, or its size does not fit the workload; failures of single
/// operations are counted instead.
pub fn run(workload: &Workload) -> Result<Report, LoadError> {
    let mut run = Run::start(workload)?;
    run.work()?;
    run.drain()?;
    Ok(run.report())
}

impl<'a> Run<'a> {
    fn start(workload: &'a Workload) -> Result<Self, LoadError> {
        let sessions = (0..workload.sessions.max(1))
            .map(|number| {
                let options = Options {
                    name: format!("iqn.2026-01.io.ankole.chaos:load-{number}"),
                    isid: None,
                    header_digest: workload.header_digest,
                    reconnect: workload.reconnect,
                    timeout: workload.timeout,
                };
                Session::connect(&workload.url, &options)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let unit = sessions.first().context("no session")?.geometry().bytes;
        let size = workload
            .size
            .unwrap_or(unit.saturating_sub(workload.offset));
        let fits = workload
            .offset
            .checked_add(size)
            .is_some_and(|end| end <= unit);
        anyhow::ensure!(fits, "the region ends beyond the unit's {unit} bytes");
        let legal = workload.block_bytes > 0 && workload.block_bytes.is_multiple_of(512);
        anyhow::ensure!(legal, "a block is a multiple of 512 bytes");
        let blocks = size / workload.block_bytes;
        anyhow::ensure!(blocks > 0, "the region is smaller than one block");
        let shape = Shape {
            seed: workload.seed,
            block_bytes: workload.block_bytes,
            offset: workload.offset,
            blocks,
        };
        let shadow = match &workload.shadow {
            Some(path) => Shadow::in_file(path, shape)?,
            None => Shadow::in_memory(shape)?,
        };
        let now = Instant::now();
        Ok(Self {
            workload,
            sessions,
            shadow,
            random: StdRng::seed_from_u64(workload.seed),
            in_flight: std::collections::HashMap::new(),
            writing: HashSet::new(),
            next_token: 0,
            next_block: 0,
            submitted: 0,
            writes_since_flush: 0,
            flushing: false,
            reads: Latencies::new(),
            writes: Latencies::new(),
            flushes: Latencies::new(),
            errors: 0,
            retries: 0,
            mismatches: 0,
            start: now,
            last_completion: now,
            longest_gap: Duration::ZERO,
            gaps: workload.gaps.as_deref().map(GapLog::open).transpose()?,
        })
    }

    fn is_over(&self) -> bool {
        let timed_out = self
            .workload
            .duration
            .is_some_and(|limit| self.start.elapsed() >= limit);
        let enough = self
            .workload
            .operations
            .is_some_and(|limit| self.submitted >= limit);
        let stopped = self
            .workload
            .stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Relaxed));
        timed_out || enough || stopped
    }

    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.due_at(now).filter(|due| *due <= now)
    }

    /// When the next operation is to be sent: now, or as the rate says.
    fn due_at(&self, now: Instant) -> Option<Instant> {
        let Some(rate) = self.workload.rate else {
            return Some(now);
        };
        let nanoseconds = u128::from(self.submitted) * 1_000_000_000 / u128::from(rate.max(1));
        Some(self.start + Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
    }

    /// How long answers may be waited for: not beyond the next operation's time, where a rate
    /// gives it one.
    fn patience(&self) -> Duration {
        if self.sessions.len() > 1 {
            return Duration::ZERO;
        }
        let now = Instant::now();
        match (self.workload.rate, self.due_at(now)) {
            (Some(_), Some(due)) if due > now => WAIT.min(due - now),
            _ => WAIT,
        }
    }

    fn work(&mut self) -> Result<(), LoadError> {
        while !self.is_over() {
            for session in 0..self.sessions.len() {
                self.fill(session)?;
            }
            for session in 0..self.sessions.len() {
                self.collect(session)?;
            }
        }
        Ok(())
    }

    fn fill(&mut self, session: usize) -> Result<(), LoadError> {
        while self.sessions[session].in_flight() < self.workload.depth && !self.is_over() {
            let Some(due) = self.due() else { return Ok(()) };
            if !self.submit_next(session, due)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends the next operation; `false` when none can be sent now.
    fn submit_next(&mut self, session: usize, due: Instant) -> Result<bool, LoadError> {
        let flush_every = self.workload.flush_every;
        if flush_every > 0 && self.writes_since_flush >= flush_every && !self.flushing {
            self.flushing = true;
            self.writes_since_flush = 0;
            let covered = self.shadow.acknowledged();
            self.send(session, Kind::Flush, 0, due, covered)?;
            return Ok(true);
        }
        let percent = self.workload.pattern.read_percent(self.workload.mix);
        let read = self.random.random_range(0..100) < percent;
        let Some(block) = self.choose_block(!read) else {
            return Ok(false);
        };
        let kind = if read {
            Kind::Read
        } else {
            Kind::Write {
                fua: self.workload.fua,
            }
        };
        self.send(session, kind, block, due, Vec::new())?;
        self.submitted += 1;
        Ok(true)
    }

    /// A block that no write is in flight for: two at once would leave either.
    fn choose_block(&mut self, write: bool) -> Option<u64> {
        const TRIES: usize = 1000;
        let blocks = self.shadow.shape().blocks;
        for _ in 0..TRIES {
            let block = if self.workload.pattern.is_random() {
                self.random.random_range(0..blocks)
            } else {
                self.next_block += 1;
                (self.next_block - 1) % blocks
            };
            if !write || self.writing.insert(block) {
                return Some(block);
            }
        }
        None
    }

    fn send(
        &mut self,
        session: usize,
        kind: Kind,
        block: u64,
        due: Instant,
        covered: Vec<u64>,
    ) -> Result<(), LoadError> {
        let shape = self.shadow.shape();
        let offset = shape.offset + block * shape.block_bytes;
        let mut buffer = Vec::new();
        let mut generation = 0;
        if kind != Kind::Flush {
            buffer.resize(usize::try_from(shape.block_bytes)?, 0);
        }
        if let Kind::Write { .. } = kind {
            generation = self.shadow.issue(block)?;
            if self.workload.verify {
                stamp(
                    &mut buffer,
                    offset / SECTOR_BYTES as u64,
                    generation,
                    shape.seed,
                );
            }
        }
        let entry = self.shadow.entry(block);
        let low = match self.workload.durable {
            Durable::Acknowledged => entry.acknowledged,
            Durable::Flushed => entry.flushed,
        };
        let token = self.next_token;
        self.next_token += 1;
        self.sessions[session]
            .submit(Command {
                token,
                kind,
                offset,
                buffer,
            })
            .map_err(anyhow::Error::msg)?;
        let in_flight = InFlight {
            session,
            kind,
            block,
            generation,
            low,
            due,
            covered,
        };
        self.in_flight.insert(token, in_flight);
        Ok(())
    }

    fn collect(&mut self, session: usize) -> Result<(), LoadError> {
        let wait = self.patience();
        for completion in self.sessions[session]
            .wait(wait)
            .map_err(anyhow::Error::msg)?
        {
            self.complete(completion)?;
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion) -> Result<(), LoadError> {
        let now = Instant::now();
        let operation = self
            .in_flight
            .remove(&completion.token)
            .context("answered twice by libiscsi")?;
        match &completion.outcome {
            Outcome::Again(_) => {
                self.retries += 1;
                let Completion {
                    token,
                    kind,
                    offset,
                    buffer,
                    ..
                } = completion;
                self.sessions[operation.session]
                    .submit(Command {
                        token,
                        kind,
                        offset,
                        buffer,
                    })
                    .map_err(anyhow::Error::msg)?;
                self.in_flight.insert(token, operation);
                return Ok(());
            }
            Outcome::Failed(reason) => {
                self.errors += 1;
                if self.errors <= EXAMPLES_MAX {
                    eprintln!(
                        "{:?} of block {}: {reason}",
                        operation.kind, operation.block
                    );
                }
            }
            Outcome::Done => {
                let gap = now - self.last_completion;
                self.longest_gap = self.longest_gap.max(gap);
                if let Some(gaps) = &mut self.gaps {
                    gaps.ended(gap)?;
                }
                self.last_completion = now;
                self.done(&operation, &completion, now)?;
            }
        }
        match operation.kind {
            Kind::Write { .. } => {
                self.writing.remove(&operation.block);
                self.writes_since_flush += 1;
            }
            Kind::Flush => self.flushing = false,
            Kind::Read => {}
        }
        Ok(())
    }

    fn done(
        &mut self,
        operation: &InFlight,
        completion: &Completion,
        now: Instant,
    ) -> Result<(), LoadError> {
        let latency = now - operation.due;
        let bytes = completion.buffer.len() as u64;
        match operation.kind {
            Kind::Read => {
                self.reads.record(latency, bytes);
                if self.workload.verify {
                    self.verify(operation, completion);
                }
            }
            Kind::Write { fua } => {
                self.writes.record(latency, bytes);
                self.shadow
                    .acknowledge(operation.block, operation.generation)?;
                if fua {
                    self.shadow
                        .flush_block(operation.block, operation.generation)?;
                }
            }
            Kind::Flush => {
                self.flushes.record(latency, 0);
                self.shadow.flush(&operation.covered)?;
            }
        }
        Ok(())
    }

    fn verify(&mut self, operation: &InFlight, completion: &Completion) {
        let first_sector = completion.offset / SECTOR_BYTES as u64;
        let high = self.shadow.entry(operation.block).issued;
        let seed = self.workload.seed;
        let range = (operation.low, high);
        if let Err(reason) = verify(&completion.buffer, first_sector, seed, range, false) {
            self.mismatches += 1;
            if self.mismatches <= EXAMPLES_MAX {
                eprintln!("block {}: {reason}", operation.block);
            }
        }
    }

    fn drain(&mut self) -> Result<(), LoadError> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while !self.in_flight.is_empty() {
            let left = self.in_flight.len();
            anyhow::ensure!(
                Instant::now() < deadline,
                "{left} operations are never answered"
            );
            for session in 0..self.sessions.len() {
                self.collect(session)?;
            }
        }
        Ok(())
    }

    fn report(self) -> Report {
        let elapsed = self.last_completion - self.start;
        let mut report = Report::new(elapsed, &self.reads, &self.writes, &self.flushes);
        report.errors = self.errors;
        report.retries = self.retries;
        report.mismatches = self.mismatches;
        report.longest_gap_ms = u64::try_from(self.longest_gap.as_millis()).unwrap_or(u64::MAX);
        for session in self.sessions {
            session.log_out();
        }
        report
    }
}
