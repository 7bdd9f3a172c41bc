//! The fuzz targets of the engine and of blockd's disks on a stable compiler: inputs composed as each
//! target reads them, mutated, and run for a while, one target on each core. What is found is printed
//! as the command that finds it again.
//!
//! `cargo fuzz` (nightly) runs the same bodies with coverage as its guide, for longer.

mod disk;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ankole_engine::fuzzing::{Dice, TARGETS as ENGINE_TARGETS, Target};
use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Inputs between two looks at the clock.
const ROUND: u64 = 64;

/// What a run is to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// For how long each target is fuzzed.
    pub time: Duration,
    /// Where chance begins.
    pub seed: u64,
    /// Which targets; none named: all.
    pub targets: &'a [String],
    /// One input only, as printed when it was found.
    pub input: Option<u64>,
}

/// What became of one target.
struct Found {
    target: &'static str,
    inputs: u64,
    failure: Option<Failure>,
}

struct Failure {
    number: u64,
    words: String,
}

/// Fuzzes, one target on each core at a time, and prints a line for each. Returns how many passed and failed.
///
/// # Errors
///
/// When there is no such target.
pub fn run(plan: &Plan<'_>) -> anyhow::Result<(usize, usize)> {
    let all = || ENGINE_TARGETS.into_iter().chain(disk::TARGETS);
    let targets: Vec<Target> = all()
        .filter(|target| {
            plan.targets.is_empty() || plan.targets.iter().any(|name| name == target.name)
        })
        .collect();
    if targets.is_empty() {
        let names: Vec<&str> = all().map(|target| target.name).collect();
        bail!("there is no such target; there are: {}", names.join(", "));
    }
    if let Some(number) = plan.input {
        for target in &targets {
            let input = input(target, plan.seed, number);
            println!("{} {number}: {}", target.name, hexadecimal(&input));
            (target.run)(&input);
        }
        return Ok((targets.len(), 0));
    }
    let (mut passed, mut failed) = (0, 0);
    for pair in targets.chunks(threads()) {
        for found in fuzz(pair, plan)? {
            match &found.failure {
                None => passed += 1,
                Some(failure) => {
                    failed += 1;
                    println!("{} failed: {}", found.target, failure.words);
                    println!(
                        "again: ankole-chaos fuzz --target {} --seed {} --input {}",
                        found.target, plan.seed, failure.number
                    );
                }
            }
            println!("{:14} {:9} inputs", found.target, found.inputs);
        }
    }
    Ok((passed, failed))
}

/// One target on each core.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn fuzz(targets: &[Target], plan: &Plan<'_>) -> anyhow::Result<Vec<Found>> {
    // A failure is told by this module, once, with what finds it again.
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::thread::scope(|scope| {
        let running: Vec<_> = targets
            .iter()
            .map(|target| scope.spawn(move || fuzz_one(target, plan)))
            .collect();
        let ended = running.into_iter().map(|thread| thread.join().ok());
        ended.collect::<Option<Vec<_>>>()
    });
    let _ours = std::panic::take_hook();
    found.context("the fuzzer itself failed")
}

fn fuzz_one(target: &Target, plan: &Plan<'_>) -> Found {
    let deadline = Instant::now() + plan.time;
    let mut number = 0;
    loop {
        for _ in 0..ROUND {
            let input = input(target, plan.seed, number);
            let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            if let Err(panic) = ran {
                let words = words_of(panic.as_ref());
                return Found {
                    target: target.name,
                    inputs: number,
                    failure: Some(Failure { number, words }),
                };
            }
            number += 1;
        }
        if Instant::now() >= deadline {
            return Found {
                target: target.name,
                inputs: number,
                failure: None,
            };
        }
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(words) = panic.downcast_ref::<String>() {
        return words.clone();
    }
    let words = panic.downcast_ref::<&str>();
    words
        .map_or("a panic without words", |words| words)
        .to_owned()
}

/// The input of this number: the same for the same seed, whatever ran before.
fn input(target: &Target, seed: u64, number: u64) -> Vec<u8> {
    let name = target.name.bytes().fold(0_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = StdRng::seed_from_u64(seed ^ name.rotate_left(17));
    let base: u64 = random.random();
    let mut random = StdRng::seed_from_u64(base.wrapping_add(number));
    let mut source = || random.random();
    let mut dice = Dice::new(&mut source);
    let mut input = (target.compose)(&mut dice);
    mutate::mutate(&mut input, target, &mut dice);
    input
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(data: &[u8]) {
        assert!(!data.contains(&0x5a), "the byte is there");
    }

    fn target() -> Target {
        Target {
            name: "failing",
            run: failing,
            compose: |dice| vec![dice.byte()],
            tokens: &[b"ab"],
        }
    }

    #[test]
    fn what_fails_is_found_again_by_its_number() {
        let plan = Plan {
            time: Duration::from_secs(30),
            seed: 9,
            targets: &[],
            input: None,
        };
        let found = fuzz_one(&target(), &plan);
        let failure = found.failure.unwrap();
        assert_eq!(failure.words, "the byte is there");
        assert!(input(&target(), 9, failure.number).contains(&0x5a));
        assert_ne!(input(&target(), 9, 1), input(&target(), 9, 2));
    }

    #[test]
    fn an_unknown_target_is_refused() {
        let plan = Plan {
            time: Duration::ZERO,
            seed: 1,
            targets: &["nothing".to_owned()],
            input: None,
        };
        assert!(run(&plan).is_err());
    }
}
