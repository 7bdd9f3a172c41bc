//! One line of the result.

use std::fmt;

use serde::Serialize;

use crate::figures::{Figures, median};

/// A case, measured on the store and on plain files.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) store: Figures,
    pub(crate) plain: Figures,
    /// Operations per second, store by plain file: the median of the rounds.
    pub(crate) ratio: Option<f64>,
    /// The least and the greatest of the rounds.
    pub(crate) ratio_range: Option<(f64, f64)>,
}

impl Row {
    pub(crate) fn beside(
        case: impl Into<String>,
        store: Figures,
        plain: Figures,
        ratios: Vec<f64>,
    ) -> Self {
        let some = !ratios.is_empty();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = ratios.iter().copied().fold(0.0, f64::max);
        Self {
            case: case.into(),
            store,
            plain,
            ratio: some.then(|| median(ratios)),
            ratio_range: some.then_some((least, greatest)),
        }
    }
}

/// For people.
pub(crate) fn print_table(rows: &[Row]) {
    println!(
        "{:51} {:>10} {:>10} {:>6} {:>11}  {:>17} {:>17} {:>13}",
        "case", "store/s", "plain/s", "ratio", "range", "p50/p99 us", "plain", "CPU us/op"
    );
    for row in rows {
        println!("{row}");
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latencies = |of: &Figures| format!("{:.1}/{:.1}", of.p50_us, of.p99_us);
        let (range, plain) = (self.ratio_range.unwrap_or_default(), self.plain);
        write!(
            f,
            "{:51} {:>10.1} {:>10.1} {:>6.2} {:>5.2}-{:<5.2}  {:>17} {:>17} {:>6.2}/{:<6.2}",
            self.case,
            self.store.per_second,
            plain.per_second,
            self.ratio.unwrap_or_default(),
            range.0,
            range.1,
            latencies(&self.store),
            latencies(&plain),
            self.store.cpu_us_per_operation,
            plain.cpu_us_per_operation,
        )
    }
}
