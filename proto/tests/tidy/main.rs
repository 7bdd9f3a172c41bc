//! The repository's own rules, as an ordinary test: what no compiler and no lint checks.
//!
//! Each rule is a function from the repository to the places that break it, and each is shown a
//! small offender of its own, so that none of them can go blind.

mod repository;
mod rules;

use repository::{Repository, SourceFile};
use rules::Violation;

type Rule = fn(&Repository) -> Vec<Violation>;

/// A rule, and files that it must object to.
struct Case {
    rule: Rule,
    offender: fn() -> Repository,
}

fn one(path: &str, text: &str) -> Repository {
    Repository {
        files: vec![SourceFile::new(path, text)],
    }
}

const CASES: &[(&str, Case)] = &[
    (
        "files are short",
        Case {
            rule: rules::files_are_short,
            offender: || one("meta/src/raft/long.rs", &"let a = 1;\n".repeat(601)),
        },
    ),
    (
        "pure folders only decide",
        Case {
            rule: rules::pure_folders_only_decide,
            offender: || one("engine/src/mirror/read.rs", "use std::time::Instant;\n"),
        },
    ),
    (
        "vendors stay in their folder",
        Case {
            rule: rules::vendors_stay_in_their_folder,
            offender: || one("meta/src/api/admin.rs", "use openraft::Raft;\n"),
        },
    ),
    (
        "unsafe stays in its folders",
        Case {
            rule: rules::unsafe_stays_in_its_folders,
            offender: || one("engine/src/link/mod.rs", "//! Doc.\nunsafe { f() }\n"),
        },
    ),
    (
        "daemons depend on the contract only",
        Case {
            rule: rules::daemons_depend_on_the_contract_only,
            offender: || {
                one(
                    "engine/Cargo.toml",
                    "[dependencies]\nankole-blockd.workspace = true\n",
                )
            },
        },
    ),
    (
        "versions stand in one table",
        Case {
            rule: rules::versions_stand_in_one_table,
            offender: || one("ctl/Cargo.toml", "[dependencies]\nserde = \"1.0\"\n"),
        },
    ),
    (
        "modules are named for what they own",
        Case {
            rule: rules::modules_are_named_for_what_they_own,
            offender: || one("ctl/src/utils.rs", "fn f() {}\n"),
        },
    ),
    (
        "modules say what they own",
        Case {
            rule: rules::modules_say_what_they_own,
            offender: || one("ctl/src/dev/mod.rs", "mod up;\n"),
        },
    ),
    (
        "nothing is put off or skipped",
        Case {
            rule: rules::nothing_is_put_off_or_skipped,
            offender: || one("ctl/src/a.rs", concat!("// TO", "DO: later\n")),
        },
    ),
    (
        "accessors carry no prefix",
        Case {
            rule: rules::accessors_carry_no_prefix,
            offender: || one("ctl/src/a.rs", concat!("fn ge", "t_name() {}\n")),
        },
    ),
    (
        "lines are short and clean",
        Case {
            rule: rules::lines_are_short_and_clean,
            offender: || one("ctl/src/a.rs", "let a = 1; \n"),
        },
    ),
    (
        "cited invariants exist",
        Case {
            rule: rules::cited_invariants_exist,
            offender: || one("ctl/src/a.rs", concat!("// IN", "V-99\n")),
        },
    ),
    (
        "links lead somewhere",
        Case {
            rule: rules::links_lead_somewhere,
            offender: || one("docs/a.md", "see [b](b.md)\n"),
        },
    ),
];

#[test]
fn every_rule_objects_to_its_offender() {
    for (name, case) in CASES {
        assert!(
            !(case.rule)(&(case.offender)()).is_empty(),
            "{name} is blind"
        );
    }
}

#[test]
fn the_repository_keeps_every_rule() {
    let repository = Repository::read();
    assert!(
        repository.files.len() > 100,
        "only {} files found",
        repository.files.len()
    );
    let mut broken = Vec::new();
    for (name, case) in CASES {
        for violation in (case.rule)(&repository) {
            broken.push(format!("{name}: {violation}"));
        }
    }
    assert!(
        broken.is_empty(),
        "{} violations:\n{}",
        broken.len(),
        broken.join("\n")
    );
}
