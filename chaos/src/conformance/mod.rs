//! The SCSI conformance suite of libiscsi (`iscsi-test-cu`), run unmodified, one family at a time.
//!
//! The suite prints one line for each of its tests and a summary for each family; both are read,
//! so that a family that ran nothing is not taken for one that passed.

mod allowed;
mod parse;

use std::fmt;
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
/// Overwriting a whole volume takes its time, and the suite looks once a minute whether it is over.
const SANITIZE_LIMIT: Duration = Duration::from_secs(420);
const POLL: Duration = Duration::from_millis(50);

/// Wipes the whole unit, at leisure: it gets a small one of its own.
const SANITIZE: &str = "Sanitize";
/// Compares with what was there before: goes first, while the unit is fresh.
const WANTS_FRESH: &str = "MultipathIO";
/// Families that want several paths to the unit. Elsewhere a second path would do harm: the suite
/// leaves a RESERVE of it behind in Sanitize.
const WANT_PATHS: [&str; 1] = [WANTS_FRESH];

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

/// How many tests ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Every assertion held.
    pub passed: usize,
    /// As nobody expects.
    pub failed: usize,
    /// Because the suite is wrong, see [`allowed`].
    pub allowed: usize,
    /// Wholly or in part, because this unit is not what the suite wants there.
    pub skipped: usize,
}

impl Totals {
    fn add(&mut self, tests: &[Test]) {
        for test in tests {
            let place = match test.verdict {
                Verdict::Passed => &mut self.passed,
                Verdict::Failed => &mut self.failed,
                Verdict::Allowed => &mut self.allowed,
                Verdict::Skipped => &mut self.skipped,
            };
            *place += 1;
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            allowed: self.allowed + other.allowed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} allowed to fail, {} skipped",
            self.passed, self.failed, self.allowed, self.skipped
        )
    }
}

/// Runs one family against a unit that is reached by these paths.
pub fn run_family(urls: &[&str], family: &str) -> anyhow::Result<Vec<Test>> {
    let name = format!("ankole-conformance-{}-{family}.log", std::process::id());
    let log = std::env::temp_dir().join(name);
    let file = std::fs::File::create(&log)?;
    let mut child = Command::new("iscsi-test-cu")
        .args(["--dataloss", "--allow-sanitize", "--test"])
        .arg(format!("ALL.{family}"))
        .args(urls)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot run iscsi-test-cu (package libiscsi-bin)")?;
    let limit = if family == SANITIZE {
        SANITIZE_LIMIT
    } else {
        FAMILY_LIMIT
    };
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!(
                "{family} hangs: no end after {} s; see {}",
                limit.as_secs(),
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

/// Runs families (none named: the basic ones) against a unit (none named: volumes of a cluster of its
/// own), prints a line for each and returns how the tests ended.
pub fn run(url: Option<&str>, families: &[String]) -> anyhow::Result<Totals> {
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
            let totals = run_on(&cluster, families);
            cluster.destroy()?;
            totals
        }
    }
}

/// The one that sanitizes beside all others, each on a volume of its own.
fn run_on(cluster: &Cluster, families: &[String]) -> anyhow::Result<Totals> {
    let (sanitize, mut others): (Vec<_>, Vec<_>) = families
        .iter()
        .cloned()
        .partition(|family| family == SANITIZE);
    others.sort_by_key(|family| family != WANTS_FRESH);
    let volume = cluster.serve("conformance", "1GiB")?;
    let small = match sanitize.is_empty() {
        true => None,
        false => Some(cluster.serve("sanitize", "256MiB")?),
    };
    Ok(std::thread::scope(|scope| {
        let beside = small.as_ref().map(|small| {
            let sanitize = &sanitize;
            scope.spawn(move || run_families(&small.url, sanitize))
        });
        let totals = run_families(&volume.url, &others);
        let beside = beside.and_then(|thread| thread.join().ok());
        totals.with(beside.unwrap_or_default())
    }))
}

fn run_families(url: &str, families: &[String]) -> Totals {
    let mut totals = Totals::default();
    for family in families {
        let paths = match WANT_PATHS.contains(&family.as_str()) {
            true => vec![url, url],
            false => vec![url],
        };
        let tests = run_family(&paths, family).unwrap_or_else(|error| {
            let reason = format!("{error:#}");
            vec![Test {
                name: family.clone(),
                verdict: Verdict::Failed,
                reason,
            }]
        });
        let mut of_family = Totals::default();
        of_family.add(&tests);
        let mut lines = format!("{family:28} {of_family}\n");
        for test in tests.iter().filter(|test| test.verdict != Verdict::Passed) {
            lines += &format!("    {:?} {}: {}\n", test.verdict, test.name, test.reason);
        }
        // In one piece: another family may be printing.
        print!("{lines}");
        totals = totals.with(of_family);
    }
    totals
}
