//! Sequences that stop at every call, with every fate for what was not synced. What is found must load
//! and hold what was promised, also when loading it stops and begins again.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::{Model, Stop};
use super::pair::{Pair, Second};
use super::refused::Refused;
use super::steps::{Operation, Step, narrow_sequence, narrow_step, sequence};
use super::support::{Place, Rig, cases, layer, sequences};
use super::world::{World, check_sealed, contents, exported_from, is_faulted};
use crate::disk::Disk;
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::replica::descriptor::Descriptor;
use crate::replica::{Replica, StoredState};

/// One chunk and a bit, so that runs cross a border.
pub(super) const BLOCKS: u64 = 516;

/// What a stopped machine has left, and what of it was promised.
pub(super) struct Left<'a> {
    pub(super) disk: SimDisk,
    pub(super) stop: Stop,
    pub(super) pair: &'a Pair,
}

/// A replica that is to be, or may be, there.
struct Promise<'a> {
    place: Place,
    model: &'a Model,
    is_faulted: bool,
}

impl<'a> Left<'a> {
    /// What is found after each way to stop.
    pub(super) fn in_all_ways(pair: &'a Pair, seed: u64) -> Vec<Self> {
        let cut = |fate| (Stop::PowerCut, pair.disk.crash(fate, seed));
        let killed = (Stop::Kill, pair.disk.kill());
        let ways = Fate::ALL.map(cut).into_iter().chain([killed]);
        ways.map(|(stop, disk)| Self { disk, stop, pair }).collect()
    }

    /// The same after another stop.
    pub(super) fn after(&self, fate: Option<Fate>, seed: u64) -> Self {
        let (disk, stop) = match fate {
            Some(fate) => (self.disk.crash(fate, seed), Stop::PowerCut),
            None => (self.disk.kill(), self.stop),
        };
        Self {
            disk,
            stop,
            ..*self
        }
    }

    fn is_there(&self, place: Place) -> bool {
        self.disk.list(place.directory()).is_ok()
    }

    /// The replicas that are there; one that must be, or must not, is looked for.
    fn promises(&self) -> Vec<Promise<'a>> {
        let original = Promise {
            place: Place::Original,
            model: &self.pair.original.model,
            is_faulted: self.pair.original.is_faulted(),
        };
        let is_there = self.is_there(Place::Clone);
        let second = match &self.pair.second {
            Second::Absent => {
                assert!(!is_there, "the clone is there again");
                None
            }
            Second::Coming(_, model) | Second::Going(model) => is_there.then_some(model),
            Second::Made(model) | Second::Faulted(model) => Some(model),
            Second::Loaded(clone) => Some(&clone.model),
        };
        let is_faulted = match &self.pair.second {
            Second::Loaded(clone) => clone.is_faulted(),
            second => matches!(second, Second::Faulted(_)),
        };
        let second = second.map(|model| Promise {
            place: Place::Clone,
            model,
            is_faulted,
        });
        std::iter::once(original).chain(second).collect()
    }

    /// As a daemon does when it takes a disk: it may find the name of a replica that is not durable.
    fn sync_names(&self) -> std::io::Result<()> {
        self.disk.sync_dir("".as_ref())
    }

    /// Loads and opens what is there.
    fn load(&self) -> Vec<Found<'a>> {
        self.sync_names().unwrap();
        let (failed, sound): (Vec<_>, Vec<_>) = self
            .promises()
            .into_iter()
            .partition(|promise| promise.is_faulted);
        let mut all = sound;
        for promise in failed {
            assert!(
                is_faulted(&self.disk, promise.place),
                "the fault is forgotten"
            );
            check_sealed(&self.disk, promise.place, promise.model);
            // Had the disk not taken the fault before the power failed, all that was flushed would
            // count.
            if self.stop == Stop::PowerCut {
                forget_fault(&self.disk, promise.place);
                all.push(promise);
            }
        }
        let load = |promise| Found::load(&self.disk, promise);
        all.into_iter().map(load).collect()
    }

    /// As a daemon does that starts, until the machine stops.
    fn try_to_load(&self) -> Result<(), Refused> {
        self.sync_names()?;
        for promise in self.promises() {
            let mut replica = Replica::load(&self.disk, promise.place.directory())?;
            let blocks = replica.size().blocks();
            replica.open(&promise.place.open_request(blocks, promise.model.epoch + 1))?;
            replica.settle_step(4)?;
        }
        Ok(())
    }

    /// Everything that was promised is there, and stays so.
    pub(super) fn check(&self) {
        let mut all = self.load();
        for found in &mut all {
            found.check(&self.disk, self.stop);
        }
        // It goes on: what is left to merge is merged, and nothing changes by that.
        for at in 0..all.len() {
            all[at].rig.merge_all();
            for found in &mut all {
                assert!(contents(&mut found.rig) == found.read, "after merging");
            }
        }
        for found in &mut all {
            found.rig.replica.close(found.rig.epoch).unwrap();
        }
        let disk = self.disk.crash(Fate::Dropped, 0);
        for found in &all {
            let mut again = Rig::load_at(&disk, found.promise.place, BLOCKS, EPOCH + 1);
            assert!(contents(&mut again) == found.read, "after closing");
        }
    }
}

const EPOCH: u64 = 1000;

/// Makes a faulted replica one that is merely interrupted.
fn forget_fault(disk: &SimDisk, place: Place) {
    let path = place.directory().join("replica.json");
    let mut descriptor = Descriptor::decode(&disk.read_file(&path, 1 << 20).unwrap()).unwrap();
    descriptor.state = StoredState::Ready;
    disk.replace_file(&path, &descriptor.encode()).unwrap();
}

/// A replica that was found.
struct Found<'a> {
    promise: Promise<'a>,
    rig: Rig<SimDisk>,
    read: Vec<u8>,
}

impl<'a> Found<'a> {
    fn load(disk: &SimDisk, promise: Promise<'a>) -> Self {
        let directory = promise.place.directory();
        let replica = Replica::load(disk, directory).unwrap();
        assert!(
            replica.epoch().raw() >= promise.model.epoch,
            "the epoch is {:?}",
            replica.epoch()
        );
        let mut rig = Rig {
            place: promise.place,
            blocks: replica.size().blocks(),
            replica,
            epoch: ankole_proto::Epoch::from_raw(EPOCH),
            sequence: 0,
        };
        rig.open();
        let read = contents(&mut rig);
        Self { promise, rig, read }
    }

    fn check(&mut self, disk: &SimDisk, stop: Stop) {
        let (place, model) = (self.promise.place, self.promise.model);
        model.check(&self.read, stop);
        check_sealed(disk, place, model);
        self.check_cut_seal(disk);
    }

    /// A seal that was not answered, and was done, has sealed what was there.
    fn check_cut_seal(&self, disk: &SimDisk) {
        let (place, model) = (self.promise.place, self.promise.model);
        let head = layer(model.head);
        if self.rig.replica.head() != head && self.rig.replica.tree.contains(head) {
            let sealed = exported_from(disk, place, model.head);
            assert!(sealed == model.now, "a layer that was sealed at the stop");
        }
    }
}

/// Runs until the machine stops at `call`. `None` when it never stopped.
fn run_until(steps: &[Step], call: u64) -> Option<Pair> {
    let mut pair = Pair::new(BLOCKS);
    pair.disk.fail(pair.disk.calls() + call, Fault::Stop);
    for step in steps {
        let done = pair.apply(step);
        if pair.disk.is_stopped() {
            return Some(pair);
        }
        done.unwrap();
    }
    None
}

/// Tells where in the search a check fails.
pub(super) struct Context<'a>(pub(super) u64, pub(super) u64, pub(super) &'a [Step]);

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("sequence {}, call {}: {:?}", self.0, self.1, self.2);
        }
    }
}

/// Stops these sequences at every call, and has what is left looked at; how often that was.
fn stop_at_every_call(
    seeds: std::ops::Range<u64>,
    sequence: impl Fn(u64) -> Vec<Step>,
    look: impl Fn(&Pair, u64) -> u64,
) -> u64 {
    let mut looked = 0;
    for seed in seeds {
        let steps = sequence(seed);
        for call in 0.. {
            let Some(pair) = run_until(&steps, call) else {
                break;
            };
            let _context = Context(seed, call, &steps);
            looked += look(&pair, seed * 1000 + call);
        }
    }
    looked
}

/// Looks at what is left in every way.
fn check_all(pair: &Pair, seed: u64) -> u64 {
    let all = Left::in_all_ways(pair, seed);
    for left in &all {
        left.check();
    }
    all.len() as u64
}

/// Stops loading what is left in every way, at `call`, or at its end; then it is left again, and looked
/// at. How often it was stopped.
fn stop_loading(pair: &Pair, seed: u64, call: Option<u64>) -> u64 {
    let mut stops = 0;
    for left in Left::in_all_ways(pair, seed) {
        let stops_at = call.unwrap_or(u64::MAX);
        left.disk.fail(stops_at, Fault::Stop);
        let done = left.try_to_load();
        if !left.disk.is_stopped() {
            done.unwrap();
            if call.is_some() {
                continue;
            }
        }
        // What a process that was killed has left is not durable, and so more can become of it.
        let fates: &[Fate] = match left.stop {
            Stop::Kill => &[Fate::Dropped, Fate::Reordered, Fate::Torn],
            Stop::PowerCut => &[Fate::Torn],
        };
        for (fate, seed) in fates.iter().zip(seed..) {
            left.after(Some(*fate), seed).check();
        }
        left.after(None, seed).check();
        stops += 1 + fates.len() as u64;
    }
    stops
}

fn wide(seed: u64, steps: usize) -> Vec<Step> {
    sequence(seed, BLOCKS * 8, steps)
}

/// So many sequences, beginning with this one.
fn seeds(first: u64, least: u64) -> std::ops::Range<u64> {
    first..first + sequences(least)
}

#[test]
fn a_stop_at_every_call_leaves_what_was_promised() {
    let looked = stop_at_every_call(seeds(0, 30), |seed| wide(seed, 16), check_all);
    assert!(looked > 3000, "only {looked} times");
}

#[test]
fn a_stop_at_every_call_of_a_long_sequence_leaves_what_was_promised() {
    let looked = stop_at_every_call(seeds(1_000_000, 8), |seed| wide(seed, 40), check_all);
    assert!(looked > 3000, "only {looked} times");
}

#[test]
fn a_stop_at_every_call_while_few_blocks_change_often_leaves_what_was_promised() {
    let narrow = |seed| narrow_sequence(seed, 24);
    let looked = stop_at_every_call(seeds(4_000_000, 20), narrow, check_all);
    assert!(looked > 3000, "only {looked} times");
}

#[test]
fn a_stop_while_loading_what_a_stop_has_left_leaves_what_was_promised() {
    // Another call of the loading each time, and its end.
    let look = |pair: &Pair, seed| {
        stop_loading(pair, seed, Some(seed * 7 % 31)) + stop_loading(pair, seed, None)
    };
    let looked = stop_at_every_call(seeds(2_000_000, 10), |seed| wide(seed, 16), look);
    assert!(looked > 3000, "only {looked} times");
}

#[test]
fn a_stop_at_every_call_of_loading_what_a_stop_has_left_leaves_what_was_promised() {
    let look = |pair: &Pair, seed| {
        let stops = (0..).map(|call| stop_loading(pair, seed, Some(call)));
        stops.take_while(|stops| *stops > 0).sum()
    };
    let looked = stop_at_every_call(seeds(3_000_000, 1), |seed| wide(seed, 8), look);
    assert!(looked > 1000, "only {looked} times");
}

/// A snapshot that is to be merged into the head, while no engine has the replica open.
fn begin_merge(world: &mut World) {
    let (first, count, byte) = (0, 16, 9);
    let operations = [
        Operation::Write { first, count, byte },
        Operation::Seal,
        Operation::Remove { which: 0 },
        Operation::Close,
    ];
    for operation in &operations {
        world.apply(operation).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn a_stop_after_any_sequence_in_which_few_blocks_change_leaves_what_was_promised(
        is_merging in any::<bool>(),
        steps in prop::collection::vec(narrow_step(), 1..24),
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::new(BLOCKS);
        if is_merging {
            begin_merge(&mut pair.original);
        }
        for step in &steps {
            pair.apply(step).unwrap();
        }
        check_all(&pair, seed);
        let killed = Left {
            disk: pair.disk.kill(),
            stop: Stop::Kill,
            pair: &pair,
        };
        killed.try_to_load().unwrap();
        killed.after(Some(Fate::Dropped), seed).check();
    }
}

#[test]
fn sequences_are_varied() {
    let kinds: BTreeSet<String> = (0..40)
        .flat_map(|seed| wide(seed, 16))
        .map(|step| match step {
            Step::Operate { operation, .. } => format!("{operation:?}"),
            other => format!("{other:?}"),
        })
        .map(|text| text.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    // Three kinds of work, each at once and in parts.
    assert_eq!(kinds.len(), 11 + 9 + 2, "{kinds:?}");
}
