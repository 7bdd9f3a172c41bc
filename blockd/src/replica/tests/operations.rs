//! Random sequences of every operation on a replica and its clones, compared with the models.

use proptest::prelude::*;

use super::pair::Pair;
use super::steps::{Operation, Work, step};
use super::support::cases;

/// Two chunks and a short third: every border is there, and a case is quick.
const BLOCKS: u64 = 1030;
const SECTORS: u64 = BLOCKS * 8;

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn a_replica_and_its_clones_read_as_their_models_after_every_sequence(
        steps in prop::collection::vec(step(SECTORS), 1..60),
    ) {
        let mut pair = Pair::new(BLOCKS);
        for step in &steps {
            pair.apply(step).unwrap();
        }
        let disk = pair.disk.clone();
        for world in &mut pair.worlds() {
            world.compare();
            world.end_all().unwrap();
            world.merge_all().unwrap();
        }
        for world in &mut pair.worlds() {
            world.compare();
            // A reloaded replica may have lost sums; what was settled and written back has them.
            world.settle().unwrap();
            world.apply(&Operation::Do(Work::Writeback)).unwrap();
            let found = crate::replica::verify(&disk, world.rig.place.directory()).unwrap();
            prop_assert_eq!((found.damaged, found.unsettled_blocks), (0, 0));
        }
    }
}
