//! The rules.

use std::fmt;

use super::repository::{Repository, SourceFile};

/// A place that breaks a rule.
pub(crate) struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn violation(file: &SourceFile, line: usize, what: impl Into<String>) -> Violation {
    Violation {
        path: file.path.clone(),
        line,
        what: what.into(),
    }
}

/// Code without its line comments, so that a rule about code is not about prose.
fn code(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// Whether the word stands in the code, not as a part of a longer one.
fn names(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code(line).match_indices(word).any(|(at, _)| {
        let line = code(line);
        !line[..at].chars().next_back().is_some_and(inside)
            && !line[at + word.len()..].chars().next().is_some_and(inside)
    })
}

const FILE_LINES_MAX: usize = 600;
const TEST_FILE_LINES_MAX: usize = 1000;
const LINE_CHARS_MAX: usize = 120;
/// One row a line, for the eye.
const TABLES: [&str; 1] = ["engine/src/scsi/command/table.rs"];

pub(crate) fn files_are_short(repository: &Repository) -> Vec<Violation> {
    let too_long = |file: &&SourceFile| {
        let limit = if file.is_test() {
            TEST_FILE_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        file.lines_without_tests().len() > limit
    };
    repository
        .rust()
        .filter(too_long)
        .map(|file| violation(file, 1, "split it by noun"))
        .collect()
}

/// Folders of plain synchronous code, which the simulator runs: no clock, randomness, file,
/// socket, thread or runtime, and nothing whose order differs from run to run.
const PURE: [&str; 7] = [
    "engine/src/mirror/",
    "engine/src/scsi/",
    "engine/src/volume/",
    "blockd/src/layer/",
    "blockd/src/replica/",
    "meta/src/state/",
    "meta/src/reconcile/",
];
/// Where these wait for the pure code beside them.
const PURE_EXCEPT: [&str; 1] = ["meta/src/reconcile/drive.rs"];
const IMPURE: [&str; 12] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant",
    "SystemTime",
    "rand",
    "HashMap",
    "HashSet",
    "random",
    "rustix",
    "unix::net",
];

pub(crate) fn pure_folders_only_decide(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in repository.rust().filter(|file| {
        PURE.iter().any(|folder| file.path.starts_with(folder))
            && !PURE_EXCEPT.contains(&file.path.as_str())
            && !file.is_test()
    }) {
        for (number, line) in file.lines_without_tests() {
            for word in IMPURE.iter().filter(|word| names(line, word)) {
                found.push(violation(file, number, format!("{word} in a pure folder")));
            }
        }
    }
    found
}

const VENDORS: [(&str, &[&str]); 3] = [
    ("sled", &["meta/src/store/"]),
    ("openraft", &["meta/src/raft/"]),
    ("libiscsi", &["chaos/src/initiator/", "chaos/build.rs"]),
];

pub(crate) fn vendors_stay_in_their_folder(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in repository
        .rust()
        .filter(|file| !file.path.starts_with("proto/tests/tidy/"))
    {
        for (vendor, folders) in VENDORS {
            if folders.iter().any(|folder| file.path.starts_with(folder)) {
                continue;
            }
            let path = format!("{vendor}::");
            for (number, line) in file.text.lines().enumerate() {
                if names(line, vendor) && code(line).contains(&path) {
                    found.push(violation(
                        file,
                        number + 1,
                        format!("{vendor} outside its folder"),
                    ));
                }
            }
        }
    }
    found
}

const UNSAFE: [&str; 2] = ["blockd/src/disk/", "chaos/src/initiator/"];

pub(crate) fn unsafe_stays_in_its_folders(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in repository.rust().filter(|file| {
        !UNSAFE.iter().any(|folder| file.path.starts_with(folder))
            && !file.path.starts_with("proto/tests/tidy/")
    }) {
        for (number, line) in file.text.lines().enumerate() {
            if names(line, "unsafe") && !code(line).contains('"') {
                found.push(violation(file, number + 1, "unsafe outside its folders"));
            }
        }
    }
    found
}

pub(crate) fn daemons_depend_on_the_contract_only(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in manifests(repository) {
        let member = file.path.split('/').next().unwrap_or_default();
        for (number, line) in file.text.lines().enumerate() {
            let Some(dependency) = line.trim().strip_prefix("ankole-") else {
                continue;
            };
            let dependency = dependency.split(['.', ' ', '=']).next().unwrap_or_default();
            let legal = dependency == "proto" || (member == "chaos" && dependency != "chaos");
            if !legal {
                found.push(violation(
                    file,
                    number + 1,
                    format!("{member} uses {dependency}"),
                ));
            }
        }
    }
    found
}

fn manifests(repository: &Repository) -> impl Iterator<Item = &SourceFile> {
    repository
        .files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml") && !file.path.contains("fuzz/"))
}

pub(crate) fn versions_stand_in_one_table(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in manifests(repository) {
        let mut in_dependencies = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                found.push(violation(
                    file,
                    number + 1,
                    "take it from the workspace's table",
                ));
            }
        }
    }
    found
}

const NAMES_THAT_SAY_NOTHING: [&str; 9] = [
    "util", "utils", "helper", "helpers", "common", "misc", "types", "manager", "shared",
];

pub(crate) fn modules_are_named_for_what_they_own(repository: &Repository) -> Vec<Violation> {
    let bad = |file: &&SourceFile| {
        file.path
            .trim_end_matches(".rs")
            .split('/')
            .any(|part| NAMES_THAT_SAY_NOTHING.contains(&part))
    };
    repository
        .rust()
        .filter(bad)
        .map(|file| violation(file, 1, "name it for its noun"))
        .collect()
}

pub(crate) fn modules_say_what_they_own(repository: &Repository) -> Vec<Violation> {
    let silent = |file: &&SourceFile| {
        let module = ["/mod.rs", "/lib.rs", "/main.rs"]
            .iter()
            .any(|end| file.path.ends_with(end));
        module && !file.text.starts_with("//!")
    };
    repository
        .rust()
        .filter(silent)
        .map(|file| violation(file, 1, "begin it with //!"))
        .collect()
}

const CHILD_ROLE: &str = concat!("#[ign", "ore = \"the role of a child process");
const PUT_OFF: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("#[ign", "ore"),
    concat!("todo", "!("),
    concat!("Placeholder", ": replaced"),
];

pub(crate) fn nothing_is_put_off_or_skipped(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in repository.rust() {
        for (number, line) in file.text.lines().enumerate() {
            // The role that a test's child process plays is a test that only its parent runs.
            if line.starts_with(CHILD_ROLE) {
                continue;
            }
            for mark in PUT_OFF.iter().filter(|mark| line.contains(**mark)) {
                found.push(violation(
                    file,
                    number + 1,
                    format!("{mark}: do it or say it in docs"),
                ));
            }
        }
    }
    found
}

pub(crate) fn accessors_carry_no_prefix(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    // The methods of gRPC services and of openraft's traits are named by others.
    for file in repository.rust().filter(|file| {
        !["meta/src/api/", "meta/src/raft/"]
            .iter()
            .any(|folder| file.path.starts_with(folder))
    }) {
        for (number, line) in file.text.lines().enumerate() {
            if code(line).contains(concat!("fn ge", "t_")) && !file.is_test() {
                found.push(violation(file, number + 1, "leave the prefix out"));
            }
        }
    }
    found
}

pub(crate) fn lines_are_short_and_clean(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in repository.rust() {
        for (number, line) in file.text.lines().enumerate() {
            let wide = line.chars().count() > LINE_CHARS_MAX;
            if wide && !TABLES.contains(&file.path.as_str()) {
                found.push(violation(file, number + 1, "longer than 120 characters"));
            }
            if line.ends_with([' ', '\t']) {
                found.push(violation(file, number + 1, "white space at its end"));
            }
            if line.contains(concat!("/wo", "rk/")) {
                found.push(violation(file, number + 1, "a path of one machine"));
            }
        }
    }
    found
}

pub(crate) fn cited_invariants_exist(repository: &Repository) -> Vec<Violation> {
    const MARK: &str = concat!("IN", "V-");
    let page = repository
        .find("docs/invariants.md")
        .map_or("", |file| &file.text);
    let mut found = Vec::new();
    for file in repository.rust() {
        for (number, line) in file.text.lines().enumerate() {
            for (at, _) in line.match_indices(MARK) {
                let digits: String = line[at + MARK.len()..]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                if digits.is_empty() || page.contains(&format!("## {MARK}{digits} ")) {
                    continue;
                }
                found.push(violation(
                    file,
                    number + 1,
                    format!("{MARK}{digits} is no invariant"),
                ));
            }
        }
    }
    found
}

pub(crate) fn links_lead_somewhere(repository: &Repository) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in repository
        .files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
    {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in file.text.lines().enumerate() {
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split([')', '#']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") {
                    continue;
                }
                let path = resolve(folder, target);
                let exists = repository
                    .files
                    .iter()
                    .any(|other| other.path == path || other.path.starts_with(&format!("{path}/")));
                if !exists {
                    found.push(violation(file, number + 1, format!("no {path}")));
                }
            }
        }
    }
    found
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
