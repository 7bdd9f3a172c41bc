//! Reading what `iscsi-test-cu` prints.

/// What became of one test of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every assertion held.
    Passed,
    /// One did not, or the test did not end.
    Failed,
    /// The suite says that the unit lacks what the test needs.
    Skipped,
    /// It fails because the suite is wrong, see [`super::allowed`].
    Allowed,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Within its family.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
    /// The suite's words for a failure or skip.
    pub reason: String,
}

/// The tests in a run's output. Each begins with `Test: NAME ...` and ends with `passed` or
/// `FAILED`, possibly lines later.
pub(super) fn parse(output: &str) -> Vec<Test> {
    let body = output.split("Run Summary:").next().unwrap_or_default();
    body.split("\n  Test: ").skip(1).filter_map(test).collect()
}

fn test(text: &str) -> Option<Test> {
    let (name, rest) = text.split_once(" ...")?;
    let skip = rest.lines().find(|line| line.contains("[SKIPPED]"));
    // In brackets it is a remark of the suite, as on a unit attention that it goes on from; the
    // verdict stands alone.
    let failed = rest.replace("[FAILED]", "").contains("FAILED");
    let ended = failed || rest.split_whitespace().any(|word| word == "passed");
    let (verdict, reason) = if failed {
        let assertions = rest.lines().filter(|line| line.contains(".c:"));
        let words: Vec<&str> = assertions.map(str::trim).collect();
        (Verdict::Failed, words.join("; "))
    } else if !ended {
        (Verdict::Failed, "did not end".to_owned())
    } else if let Some(skip) = skip {
        let reason = skip.split("[SKIPPED]").nth(1).unwrap_or_default();
        (Verdict::Skipped, reason.trim().to_owned())
    } else {
        (Verdict::Passed, String::new())
    };
    Some(Test {
        name: name.to_owned(),
        verdict,
        reason,
    })
}

/// The families in the output of `--list`: `ALL.Family`, without their tests.
pub(super) fn families(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.trim().strip_prefix("ALL."))
        .filter(|name| !name.is_empty() && !name.contains('.'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nSuite: Inquiry\n  Test: Standard ...passed\n  \
        Test: BlockLimits ...    [SKIPPED] Not thin. Skipping test\npassed\n  \
        Test: EVPD ...FAILED\n    1. test_inquiry_evpd.c:55  - CU_ASSERT_EQUAL(a,b)\n  \
        Test: Remark ...passed    [FAILED] PRIN: UNIT_ATTENTION\n  \
        Test: Last ...\nRun Summary:    Type  Total\n FAILED";

    #[test]
    fn verdicts_are_read_test_by_test() {
        let verdicts: Vec<(String, Verdict)> = parse(OUTPUT)
            .into_iter()
            .map(|test| (test.name, test.verdict))
            .collect();
        let expected = [
            ("Standard", Verdict::Passed),
            ("BlockLimits", Verdict::Skipped),
            ("EVPD", Verdict::Failed),
            ("Remark", Verdict::Passed),
            ("Last", Verdict::Failed),
        ];
        assert_eq!(
            verdicts,
            expected.map(|(name, verdict)| (name.to_owned(), verdict))
        );
    }

    #[test]
    fn families_are_read_without_their_tests() {
        assert_eq!(
            families("ALL\nALL.Read10\nALL.Read10.Simple\nLINUX\n"),
            ["Read10"]
        );
    }
}
