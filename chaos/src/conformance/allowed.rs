//! Where the suite and the target part: tests that fail because the suite is wrong about the standard,
//! and tests whose own preconditions exclude this unit. Each is listed with the reason and must end
//! so: a failure or a skip that is not listed, and a listed one that passes, are failures.

use super::parse::{Test, Verdict};

/// Family, test, and why its failure is right.
const FAILURES: [(&str, &str, &str); 3] = [
    (
        "GetLBAStatus",
        "UnmapSingle",
        "asks from LBA i + 1 and wants the first descriptor to begin at i + 8; SBC-4, LBA status \
         descriptor relationships: the first descriptor contains the STARTING LOGICAL BLOCK ADDRESS of \
         the CDB",
    ),
    (
        "WriteAtomic16",
        "Simple",
        "writes up to 256 blocks whatever MAXIMUM ATOMIC TRANSFER LENGTH says (8); SBC-4, WRITE ATOMIC \
         (16): a longer transfer is refused with INVALID FIELD IN CDB",
    ),
    (
        "WriteSame10",
        "UnmapUntilEnd",
        "sends blocks of FFh with UNMAP and wants zeros back; SBC-4, WRITE SAME (10): reads behave as \
         if the block that was sent had been written",
    ),
];

const NOT_REMOVABLE: &str = "the medium is not removable";
const NOT_ENCRYPTED: &str =
    "in part: there is no CRYPTOGRAPHIC ERASE, for nothing is encrypted; the rest of it passes";

/// Family, test, and what it wants that this unit is not.
const SKIPS: [(&str, &str, &str); 13] = [
    ("PreventAllow", "Simple", NOT_REMOVABLE),
    ("PreventAllow", "Eject", NOT_REMOVABLE),
    ("PreventAllow", "ITNexusLoss", NOT_REMOVABLE),
    ("PreventAllow", "Logout", NOT_REMOVABLE),
    ("PreventAllow", "WarmReset", NOT_REMOVABLE),
    ("PreventAllow", "ColdReset", NOT_REMOVABLE),
    ("PreventAllow", "LUNReset", NOT_REMOVABLE),
    ("PreventAllow", "2ITNexuses", NOT_REMOVABLE),
    ("StartStopUnit", "Simple", NOT_REMOVABLE),
    ("ReadOnly", "ReadOnlySBC", "the unit is writable"),
    ("Sanitize", "CryptoErase", "nothing is encrypted"),
    ("Sanitize", "Readonly", NOT_ENCRYPTED),
    ("Sanitize", "Reservations", NOT_ENCRYPTED),
];

/// Holds the verdicts against the lists.
pub(super) fn judge(family: &str, tests: &mut [Test]) {
    for test in tests {
        let find = |list: &[(&str, &str, &'static str)]| {
            list.iter()
                .find(|entry| (entry.0, entry.1) == (family, &test.name))
                .map(|entry| entry.2)
        };
        let (verdict, reason) = match (test.verdict, find(&FAILURES), find(&SKIPS)) {
            (Verdict::Failed, Some(reason), _) => (Verdict::Allowed, reason.to_owned()),
            (Verdict::Skipped, _, Some(reason)) => (Verdict::Skipped, reason.to_owned()),
            (Verdict::Skipped, ..) => {
                let reason = format!("is skipped, and not listed: {}", test.reason);
                (Verdict::Failed, reason)
            }
            (Verdict::Passed, Some(_), _) | (Verdict::Passed, _, Some(_)) => {
                let reason = "is listed as failing or skipped, and passes";
                (Verdict::Failed, reason.to_owned())
            }
            _ => continue,
        };
        (test.verdict, test.reason) = (verdict, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(family: &str, name: &str, verdict: Verdict) -> Verdict {
        let mut tests = [Test {
            name: name.to_owned(),
            verdict,
            reason: String::new(),
        }];
        judge(family, &mut tests);
        tests[0].verdict
    }

    #[test]
    fn only_listed_failures_are_allowed() {
        let family = "GetLBAStatus";
        let listed = "UnmapSingle";
        assert_eq!(judged(family, listed, Verdict::Failed), Verdict::Allowed);
        assert_eq!(judged(family, listed, Verdict::Passed), Verdict::Failed);
        assert_eq!(judged(family, "Simple", Verdict::Failed), Verdict::Failed);
        assert_eq!(judged(family, "Simple", Verdict::Passed), Verdict::Passed);
    }

    #[test]
    fn only_listed_skips_are_skips() {
        let family = "PreventAllow";
        assert_eq!(judged(family, "Eject", Verdict::Skipped), Verdict::Skipped);
        assert_eq!(judged(family, "Eject", Verdict::Failed), Verdict::Failed);
        assert_eq!(judged(family, "Eject", Verdict::Passed), Verdict::Failed);
        assert_eq!(
            judged("Read10", "Simple", Verdict::Skipped),
            Verdict::Failed
        );
    }
}
