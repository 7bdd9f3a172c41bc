use ankole_proto::rpc::v1::ComparisonProgress;
use serde::Serialize;

use super::{eta, left, time};
use crate::size;

/// The comparison of a volume's replicas with each other that is under way, or the last one.
#[derive(Debug, Serialize)]
pub(crate) struct ComparisonView {
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_second: u64,
    differing_chunks: u64,
    undecided_chunks: u64,
    skipped_chunks: u64,
    finished_at_ms: u64,
    eta_seconds: Option<u64>,
}

impl From<ComparisonProgress> for ComparisonView {
    fn from(progress: ComparisonProgress) -> Self {
        Self {
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
            bytes_per_second: progress.bytes_per_second,
            differing_chunks: progress.differing_chunks,
            undecided_chunks: progress.undecided_chunks,
            skipped_chunks: progress.skipped_chunks,
            finished_at_ms: progress.finished_at_ms,
            eta_seconds: eta(
                progress.done_bytes,
                progress.total_bytes,
                progress.bytes_per_second,
            )
            .filter(|_| progress.finished_at_ms == 0),
        }
    }
}

impl ComparisonView {
    /// What it has found, in one line.
    pub(crate) fn line(&self) -> String {
        let mut found = match (self.differing_chunks, self.undecided_chunks) {
            (0, _) => "no difference".to_owned(),
            (1, 0) => "1 chunk differed".to_owned(),
            (1, _) => "1 chunk differed, without a majority".to_owned(),
            (differing, 0) => format!("{differing} chunks differed"),
            (differing, undecided) => {
                format!("{differing} chunks differed, {undecided} of them without a majority")
            }
        };
        if self.skipped_chunks > 0 {
            found.push_str(&format!(", {} could not be compared", self.skipped_chunks));
        }
        if self.finished_at_ms > 0 {
            let when = time::utc(self.finished_at_ms);
            return format!("replicas compared with each other {when}: {found}");
        }
        format!(
            "replicas are being compared with each other: {} of {}, {}/s{}, {found}",
            size::show(self.done_bytes),
            size::show(self.total_bytes),
            size::show(self.bytes_per_second),
            left(self.eta_seconds),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_how_far_it_is_and_then_what_it_found() {
        let under_way = ComparisonProgress {
            done_bytes: 1 << 30,
            total_bytes: 3 << 30,
            bytes_per_second: 1 << 28,
            ..Default::default()
        };
        let line = ComparisonView::from(under_way).line();
        assert!(line.contains("1.0 GiB of 3.0 GiB"), "{line}");
        assert!(line.contains("8 s left, no difference"), "{line}");
        let ended = ComparisonProgress {
            differing_chunks: 3,
            undecided_chunks: 1,
            skipped_chunks: 2,
            finished_at_ms: 951_782_400_000,
            ..under_way
        };
        let line = ComparisonView::from(ended).line();
        let wanted = "3 chunks differed, 1 of them without a majority, 2 could not be compared";
        assert!(line.ends_with(wanted), "{line}");
        assert!(!line.contains("left"), "{line}");
    }
}
