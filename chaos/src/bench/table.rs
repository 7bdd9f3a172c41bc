//! The comparisons for people.

use super::{Comparison, Side};

pub(super) fn print(comparisons: &[Comparison]) {
    println!(
        "{:30} {:>9} {:>9} {:>6}  {:>15} {:>15}  {:>11}",
        "case", "volume/s", "tgt/s", "ratio", "p50/p99 us", "tgt p50/p99 us", "CPU us/op"
    );
    for comparison in comparisons {
        let (ours, theirs) = (&comparison.volume, &comparison.tgt);
        println!(
            "{:30} {:>9.0} {:>9.0} {:>6.2}  {:>15} {:>15}  {:>5.0}/{:<5.0}",
            comparison.case,
            ours.report.per_second(),
            theirs.report.per_second(),
            ours.report.per_second() / theirs.report.per_second().max(f64::MIN_POSITIVE),
            percentiles(ours),
            percentiles(theirs),
            ours.cpu_us_per_operation,
            theirs.cpu_us_per_operation,
        );
    }
}

/// Of whichever the case does more of.
fn percentiles(side: &Side) -> String {
    let (reads, writes) = (side.report.reads, side.report.writes);
    let figures = if reads.operations > writes.operations {
        reads
    } else {
        writes
    };
    format!("{}/{}", figures.p50_us, figures.p99_us)
}
