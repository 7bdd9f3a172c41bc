//! The comparisons for people.

use super::cases::{Comparison, Side};
use super::median;

/// One line for each case and side: medians of the rounds.
pub(super) fn print(comparisons: &[Comparison]) {
    println!(
        "{:30} {:8} {:>9} {:>6} {:>9} {:>9} {:>9} {:>10}",
        "case", "side", "ops/s", "ratio", "p50 us", "p99 us", "p99.9 us", "CPU us/op"
    );
    for comparison in comparisons {
        let rounds = &comparison.rounds;
        let volume = rounds.iter().map(|round| &round.volume).collect();
        line(comparison.case, "volume", Some(comparison.ratio), volume);
        let other = rounds.iter().filter_map(|round| round.other.as_ref());
        if let Some(ratio) = comparison.other_ratio {
            line("", "other", Some(ratio), other.collect());
        }
        line(
            "",
            "tgt",
            None,
            rounds.iter().map(|round| &round.tgt).collect(),
        );
    }
}

fn line(case: &str, name: &str, ratio: Option<f64>, sides: Vec<&Side>) {
    let of = |figure: fn(&Side) -> f64| {
        median(sides.iter().map(|side| figure(side)).collect()).unwrap_or_default()
    };
    println!(
        "{case:30} {name:8} {:>9.0} {:>6} {:>9.0} {:>9.0} {:>9.0} {:>10.0}",
        of(|side| side.report.per_second()),
        ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        of(|side| latency(side, |figures| figures.p50_us)),
        of(|side| latency(side, |figures| figures.p99_us)),
        of(|side| latency(side, |figures| figures.p999_us)),
        of(|side| side.cpu_us_per_operation),
    );
}

/// Of whichever the case does more of.
fn latency(side: &Side, figure: fn(&crate::load::Figures) -> u64) -> f64 {
    let (reads, writes) = (&side.report.reads, &side.report.writes);
    let figures = if reads.operations > writes.operations {
        reads
    } else {
        writes
    };
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let microseconds = figure(figures) as f64;
    microseconds
}
