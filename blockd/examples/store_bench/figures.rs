//! Timing of operations, and what becomes of many timings.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Timings of operations done one after another.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples {
    nanoseconds: Vec<u64>,
    wall: Duration,
    cpu: Duration,
}

/// What people look at.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) operations: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Of the thread that does the operations; what the kernel does for it later is not in it.
    pub(crate) cpu_us_per_operation: f64,
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

impl Figures {
    /// Of one long act that moved so many units; the times are those of a unit on average.
    pub(crate) fn of_bulk(units: usize, time: Duration) -> Self {
        let each_us = time.as_secs_f64() * 1e6 / as_float(units.max(1));
        Self {
            operations: units,
            per_second: 1e6 / each_us.max(f64::MIN_POSITIVE),
            p50_us: each_us,
            p99_us: each_us,
            p999_us: each_us,
            max_us: each_us,
            cpu_us_per_operation: 0.0,
        }
    }
}

impl Samples {
    /// Does and times so many operations.
    pub(crate) fn take(
        count: usize,
        mut operation: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut nanoseconds = Vec::with_capacity(count);
        let (cpu, begun) = (thread_cpu(), Instant::now());
        let mut last = begun;
        for _ in 0..count {
            operation()?;
            let now = Instant::now();
            nanoseconds.push(nanos(now - last));
            last = now;
        }
        Ok(Self {
            nanoseconds,
            wall: last - begun,
            cpu: thread_cpu().saturating_sub(cpu),
        })
    }

    /// Adds one operation that was timed otherwise.
    pub(crate) fn push(&mut self, time: Duration) {
        self.nanoseconds.push(nanos(time));
        self.wall += time;
    }

    /// What all of them took.
    pub(crate) const fn time(&self) -> Duration {
        self.wall
    }

    /// Operations in a second.
    pub(crate) fn rate(&self) -> f64 {
        as_float(self.nanoseconds.len()) / self.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Takes those of another round.
    pub(crate) fn join(&mut self, other: Self) {
        self.nanoseconds.extend(other.nanoseconds);
        self.wall += other.wall;
        self.cpu += other.cpu;
    }

    pub(crate) fn figures(mut self) -> Figures {
        self.nanoseconds.sort_unstable();
        let last = self.nanoseconds.len().saturating_sub(1);
        let at = |thousandths: usize| {
            let nanoseconds = self.nanoseconds.get(last * thousandths / 1000);
            nanoseconds.map_or(0.0, |ns| Duration::from_nanos(*ns).as_secs_f64() * 1e6)
        };
        Figures {
            operations: self.nanoseconds.len(),
            per_second: self.rate(),
            p50_us: at(500),
            p99_us: at(990),
            p999_us: at(999),
            max_us: at(1000),
            cpu_us_per_operation: self.cpu.as_secs_f64() * 1e6
                / as_float(self.nanoseconds.len().max(1)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn as_float(count: usize) -> f64 {
    count as f64
}

/// The middle of some ratios; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
