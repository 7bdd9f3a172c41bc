//! Tests of the suite that fail because the suite is wrong. Each is listed with the reason, and must
//! fail: one that passes has no place here any more.

use super::parse::{Test, Verdict};

/// Family, test, and why its failure is right.
const ALLOWED: [(&str, &str, &str); 1] = [(
    "GetLBAStatus",
    "UnmapSingle",
    "asks from LBA i + 1 and wants the first descriptor to begin at i + 8; SBC-3, GET LBA STATUS \
     parameter data: the first descriptor begins at the LBA asked for",
)];

/// Turns the failures that are allowed into [`Verdict::Allowed`], and an allowed one that passes
/// into a failure.
pub(super) fn judge(family: &str, tests: &mut [Test]) {
    for test in tests {
        let entry = ALLOWED
            .iter()
            .find(|entry| (entry.0, entry.1) == (family, &test.name));
        let Some((.., reason)) = entry else { continue };
        (test.verdict, test.reason) = match test.verdict {
            Verdict::Failed => (Verdict::Allowed, (*reason).to_owned()),
            _ => (
                Verdict::Failed,
                "is listed as failing, and passes".to_owned(),
            ),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, verdict: Verdict) -> Verdict {
        let mut tests = [Test {
            name: name.to_owned(),
            verdict,
            reason: String::new(),
        }];
        judge("GetLBAStatus", &mut tests);
        tests[0].verdict
    }

    #[test]
    fn only_listed_failures_are_allowed() {
        assert_eq!(judged("UnmapSingle", Verdict::Failed), Verdict::Allowed);
        assert_eq!(judged("UnmapSingle", Verdict::Passed), Verdict::Failed);
        assert_eq!(judged("Simple", Verdict::Failed), Verdict::Failed);
        assert_eq!(judged("Simple", Verdict::Passed), Verdict::Passed);
    }
}
