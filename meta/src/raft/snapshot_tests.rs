use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId};
use proptest::prelude::*;

use super::*;
use crate::raft::Membership;

fn contents(records: Vec<Record>) -> Contents {
    let nodes = BTreeMap::from([(1, BasicNode::new("a:1"))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes);
    let log_id = LogId::new(CommittedLeaderId::new(2, 1), 9);
    Contents {
        applied: Some(log_id),
        membership: StoredMembership::new(Some(log_id), membership),
        cluster_id: Some(ClusterId::from_bits(7)),
        records,
    }
}

fn published(contents: &Contents) -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let (snapshots, _) = SnapshotDirectory::open(directory.path()).unwrap();
    snapshots.publish(contents).unwrap();
    let bytes = fs::read(directory.path().join(CURRENT)).unwrap();
    (directory, bytes)
}

fn read_back(bytes: &[u8]) -> Result<Contents, SnapshotError> {
    let directory = tempfile::tempdir().unwrap();
    let file = SnapshotDirectory::open(directory.path())?.0.incoming()?;
    file.write(0, bytes).unwrap();
    read_contents(&file)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_snapshot_reads_back_as_it_was_written(
        records in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 0..20),
            proptest::collection::vec(any::<u8>(), 0..300),
            0..40,
        )
    ) {
        let contents = contents(records.into_iter().collect());
        let (_directory, bytes) = published(&contents);
        prop_assert_eq!(read_back(&bytes).unwrap(), contents);
    }

    #[test]
    fn a_flipped_bit_is_found(position: proptest::sample::Index, bit in 0_u8..8) {
        let (_directory, mut bytes) = published(&contents(vec![(vec![1], vec![2; 50])]));
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        prop_assert!(read_back(&bytes).is_err());
    }
}

#[test]
fn a_cut_or_lengthened_snapshot_is_refused() {
    let (_directory, bytes) = published(&contents(vec![(vec![1], vec![2]), (vec![3], vec![])]));
    for length in 0..bytes.len() {
        assert!(read_back(&bytes[..length]).is_err(), "cut at {length}");
    }
    assert!(read_back(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_snapshot_file_keeps_its_bytes() {
    let (_directory, bytes) = published(&contents(vec![(b"k".to_vec(), b"v".to_vec())]));
    let expected = GOLDEN.split_whitespace().collect::<String>();
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, expected);
}

const GOLDEN: &str = "
    414e4b534e415031 4f000000 cc127ad4
    0a06 080210011809
    1218 0a06080210011809 120e 0a030a0101 1207 0801 1203613a31
    1a07 54322d4e312d39
    2220 3030303030303030303030303030303030303030303030303030303030303037
    2801
    06000000 8176d843 0a016b 120176";

#[test]
fn an_interrupted_write_is_cleaned_up() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(ASIDE), b"half").unwrap();
    let (snapshots, contents) = SnapshotDirectory::open(directory.path()).unwrap();
    assert_eq!(contents, None);
    assert!(snapshots.current().unwrap().is_none());
    assert!(!directory.path().join(ASIDE).exists());
}

#[test]
fn an_older_snapshot_does_not_replace_a_newer_one() {
    let directory = tempfile::tempdir().unwrap();
    let (snapshots, _) = SnapshotDirectory::open(directory.path()).unwrap();
    let newer = contents(vec![(vec![1], vec![2])]);
    snapshots.publish(&newer).unwrap();
    let mut older = contents(vec![]);
    older.applied = Some(LogId::new(CommittedLeaderId::new(2, 1), 8));
    let (meta, file) = snapshots.publish(&older).unwrap();
    assert_eq!(meta, newer.meta());
    assert_eq!(read_contents(&file).unwrap(), newer);
}
