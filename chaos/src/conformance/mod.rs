//! The SCSI conformance suite of libiscsi (`iscsi-test-cu`), run unmodified, one family at a time.
//!
//! The suite prints one line for each of its tests and a summary for each family; both are read,
//! so that a family that ran nothing is not taken for one that passed.

mod allowed;
mod parse;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use parse::parse;

use crate::cluster::{Cluster, Scratch};
pub use parse::{Test, Verdict};

/// Apart from the ports of an operator's own dev cluster.
const BASE_PORT: u16 = 17_300;
/// A family that runs longer hangs.
const FAMILY_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// The families that the first milestone promises.
pub const BASIC: [&str; 10] = [
    "Read10",
    "Read16",
    "Write10",
    "Write16",
    "Inquiry",
    "ReadCapacity10",
    "ReadCapacity16",
    "TestUnitReady",
    "Mandatory",
    "Unmap",
];

/// Runs one family against a unit.
pub fn run_family(url: &str, family: &str) -> anyhow::Result<Vec<Test>> {
    let log = std::env::temp_dir().join(format!("ankole-conformance-{}.log", std::process::id()));
    let file = std::fs::File::create(&log)?;
    let mut child = Command::new("iscsi-test-cu")
        .args([
            "--dataloss",
            "--allow-sanitize",
            "--test",
            &format!("ALL.{family}"),
            url,
        ])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot run iscsi-test-cu (package libiscsi-bin)")?;
    let deadline = Instant::now() + FAMILY_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!(
                "{family} hangs: no end after {} s; see {}",
                FAMILY_LIMIT.as_secs(),
                log.display()
            );
        }
        std::thread::sleep(POLL);
    }
    let output = std::fs::read(&log)?;
    let mut tests = parse(&String::from_utf8_lossy(&output));
    allowed::judge(family, &mut tests);
    if tests.is_empty() {
        bail!("{family} ran no test; see {}", log.display());
    }
    std::fs::remove_file(&log)?;
    Ok(tests)
}

/// Every family that the installed suite knows.
pub fn families() -> anyhow::Result<Vec<String>> {
    let output = Command::new("iscsi-test-cu")
        .arg("--list")
        .output()
        .context("cannot run iscsi-test-cu (package libiscsi-bin)")?;
    Ok(parse::families(&String::from_utf8_lossy(&output.stdout)))
}

/// Runs families (none named: the basic ones) against a unit (none named: a volume of a cluster
/// of its own), prints a line for each and returns how many tests passed, failed and skipped.
pub fn run(url: Option<&str>, families: &[String]) -> anyhow::Result<(usize, usize, usize)> {
    let basic = BASIC.map(str::to_owned);
    let families = if families.is_empty() {
        &basic
    } else {
        families
    };
    match url {
        Some(url) => Ok(run_families(url, families)),
        None => {
            let folder = Scratch::new("conformance")?;
            let cluster = Cluster::up(folder.path(), BASE_PORT)?;
            let counts = cluster
                .serve("conformance", "1GiB")
                .map(|volume| run_families(&volume.url, families));
            cluster.destroy()?;
            counts
        }
    }
}

fn run_families(url: &str, families: &[String]) -> (usize, usize, usize) {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for family in families {
        let tests = run_family(url, family).unwrap_or_else(|error| {
            let reason = format!("{error:#}");
            vec![Test {
                name: family.clone(),
                verdict: Verdict::Failed,
                reason,
            }]
        });
        let count = |verdict| tests.iter().filter(|test| test.verdict == verdict).count();
        let [good, bad] = [Verdict::Passed, Verdict::Failed].map(count);
        let left_out = tests.len() - good - bad;
        println!("{family:28} {good:3} passed {bad:3} failed {left_out:3} skipped");
        for test in tests.iter().filter(|test| test.verdict != Verdict::Passed) {
            println!("    {:?} {}: {}", test.verdict, test.name, test.reason);
        }
        passed += good;
        failed += bad;
        skipped += left_out;
    }
    (passed, failed, skipped)
}
