//! The simulator is deterministic, and its checkers bite.

use super::*;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let (mut first, mut second) = (Trace::off(), Trace::off());
        let results = (run_seed(seed, &mut first), run_seed(seed, &mut second));
        assert_eq!(first.fingerprint(), second.fingerprint(), "seed {seed}");
        assert_eq!(results.0.is_ok(), results.1.is_ok());
        assert!(first.lines() > 100, "seed {seed} did nothing");
    }
}

#[test]
fn different_seeds_give_different_traces() {
    let (mut first, mut second) = (Trace::off(), Trace::off());
    let _ = run_seed(1, &mut first);
    let _ = run_seed(2, &mut second);
    assert_ne!(first.fingerprint(), second.fingerprint());
}

/// Seeds that once found something, each with what it was. What a seed does changes with the
/// simulator, so they are kept for what they are: cheap, and once interesting.
const REGRESSIONS: [(u64, &str); 4] = [
    (
        334,
        "a replica whose store faulted during its rebuild was never replaced",
    ),
    (
        405,
        "a disk that refuses to tell its space ended the blockd's heartbeats",
    ),
    (591, "as 405, with a volume that is being created"),
    (
        4086,
        "an unmap that full disks refused was done in part, by one replica more than by the others",
    ),
];

#[test]
fn seeds_that_once_found_something_find_nothing_any_more() {
    for (seed, what) in REGRESSIONS {
        let result = run_seed(seed, &mut Trace::off());
        assert!(result.is_ok(), "{what}: {result:?}");
    }
}

/// Within so many seeds every broken variant must be found.
const SEEDS_MAX: u64 = 5000;

#[test]
fn every_broken_variant_is_found_by_a_checker_of_its_own() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let start = Instant::now();
        let found = find(mutation, SEEDS_MAX);
        match &found {
            Some(violation) => println!(
                "{mutation:?}: {:?} at seed {} in {:?}",
                violation.by,
                violation.seed,
                start.elapsed()
            ),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
