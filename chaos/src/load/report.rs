//! The figures of a load.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer latencies, of an hour, count as so long.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Latencies of one kind of operation.
#[derive(Debug, Clone)]
pub struct Latencies {
    microseconds: Histogram<u64>,
    bytes: u64,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        let microseconds = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .unwrap_or_else(|error| unreachable!("legal bounds: {error}"));
        Self {
            microseconds,
            bytes: 0,
        }
    }

    /// One more.
    pub fn record(&mut self, latency: Duration, bytes: u64) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.saturating_record(microseconds.max(1));
        self.bytes += bytes;
    }

    fn figures(&self, seconds: f64) -> Figures {
        let quantile = |q| self.microseconds.value_at_quantile(q);
        Figures {
            operations: self.microseconds.len(),
            per_second: per_second(self.microseconds.len(), seconds),
            mib_per_second: per_second(self.bytes, seconds) / f64::from(1 << 20),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: self.microseconds.max(),
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// Counts and percentiles of one kind of operation.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// Completed.
    pub operations: u64,
    /// Per second.
    pub per_second: f64,
    /// Bytes, in MiB per second.
    pub mib_per_second: f64,
    /// Median latency in microseconds.
    pub p50_us: u64,
    /// 90 in 100 were faster.
    pub p90_us: u64,
    /// 99 in 100 were faster.
    pub p99_us: u64,
    /// 999 in 1000 were faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

/// What a load saw.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How long it ran.
    pub seconds: f64,
    /// Reads.
    pub reads: Figures,
    /// Writes.
    pub writes: Figures,
    /// Flushes.
    pub flushes: Figures,
    /// Operations that failed.
    pub errors: u64,
    /// Operations that the target asked to send again.
    pub retries: u64,
    /// Blocks that did not hold what they must.
    pub mismatches: u64,
    /// The longest time without any completion while something was in flight, in milliseconds.
    pub longest_gap_ms: u64,
}

impl Report {
    /// The figures of these latencies over this time.
    pub fn new(
        elapsed: Duration,
        reads: &Latencies,
        writes: &Latencies,
        flushes: &Latencies,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self {
            seconds,
            reads: reads.figures(seconds),
            writes: writes.figures(seconds),
            flushes: flushes.figures(seconds),
            errors: 0,
            retries: 0,
            mismatches: 0,
            longest_gap_ms: 0,
        }
    }

    /// All operations per second.
    pub fn per_second(&self) -> f64 {
        self.reads.per_second + self.writes.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_reach_from_microseconds_to_minutes() {
        let mut latencies = Latencies::new();
        for us in [10, 20, 30, 70_000_000] {
            latencies.record(Duration::from_micros(us), 4096);
        }
        let figures = latencies.figures(2.0);
        assert_eq!((figures.p50_us, figures.operations), (20, 4));
        assert!(figures.max_us.abs_diff(70_000_000) < 100_000, "{figures:?}");
        assert!((figures.per_second - 2.0).abs() < f64::EPSILON);
    }
}
