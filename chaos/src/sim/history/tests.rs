//! The judge judged.

use super::*;

const A: EngineId = EngineId(1);
const B: EngineId = EngineId(2);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sector() -> Extent {
    Extent::new(0, 512).unwrap()
}

fn written(history: &mut History, begin: u64, end: Option<u64>) -> Vec<u8> {
    let id = history.begin(A, sector(), Content::Number, at(begin));
    if let Some(end) = end {
        history.acknowledge(id, false, at(end));
    }
    history.data(id, sector())
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    let mut history = History::default();
    let old = written(&mut history, 1, Some(2));
    let new = written(&mut history, 3, Some(4));
    assert!(history.read(A, sector(), &new, at(5), at(6)).is_ok());
    assert!(history.read(A, sector(), &old, at(5), at(6)).is_err());
    assert!(history.read(A, sector(), &[0; 512], at(5), at(6)).is_err());
}

#[test]
fn concurrent_writes_may_end_either_way() {
    let mut history = History::default();
    let first = written(&mut history, 1, Some(4));
    let second = written(&mut history, 2, Some(3));
    assert!(history.read(A, sector(), &first, at(5), at(6)).is_ok());
    assert!(history.read(A, sector(), &second, at(5), at(6)).is_ok());
}

#[test]
fn a_read_does_not_go_back_behind_an_earlier_read() {
    let mut history = History::default();
    let old = written(&mut history, 1, Some(2));
    let undecided = written(&mut history, 3, None);
    history.settle(B, at(5));
    assert!(history.read(B, sector(), &old, at(6), at(7)).is_ok());
    assert!(history.read(B, sector(), &undecided, at(8), at(9)).is_ok());
    assert!(history.read(B, sector(), &old, at(10), at(11)).is_err());
}

#[test]
fn an_undecided_write_does_not_come_back_after_it_was_settled() {
    let mut history = History::default();
    let undecided = written(&mut history, 1, None);
    history.settle(B, at(2));
    let new = written(&mut history, 3, Some(4));
    assert!(history.read(B, sector(), &new, at(5), at(6)).is_ok());
    assert!(history.read(B, sector(), &undecided, at(7), at(8)).is_err());
}

#[test]
fn an_unacknowledged_write_of_the_same_engine_is_not_read() {
    let mut history = History::default();
    let data = written(&mut history, 1, None);
    assert!(history.read(A, sector(), &data, at(2), at(3)).is_err());
    assert!(history.read(B, sector(), &data, at(2), at(3)).is_ok());
}

#[test]
fn after_a_power_cut_only_flushed_writes_must_be_there() {
    let mut history = History::default();
    let flushed = written(&mut history, 1, Some(2));
    history.flush(A, at(3));
    let cached = written(&mut history, 4, Some(5));
    history.power_cut();
    history.settle(B, at(6));
    assert!(history.read(B, sector(), &flushed, at(7), at(8)).is_ok());
    assert!(history.read(B, sector(), &cached, at(9), at(10)).is_ok());
    assert!(
        history
            .read(B, sector(), &[0; 512], at(11), at(12))
            .is_err()
    );
}

#[test]
fn torn_and_misplaced_sectors_are_found() {
    let mut history = History::default();
    let mut data = written(&mut history, 1, Some(2));
    data[511] ^= 1;
    assert!(history.read(A, sector(), &data, at(3), at(4)).is_err());
    let elsewhere = Extent::new(512, 512).unwrap();
    let data = history.data(WriteId(1), elsewhere);
    assert!(history.read(A, elsewhere, &data, at(3), at(4)).is_err());
}

#[test]
fn a_flush_after_a_power_cut_answers_for_what_it_claims_to_cover() {
    for claimed in [true, false] {
        let mut history = History::default();
        written(&mut history, 1, Some(2));
        history.power_cut();
        if claimed {
            history.flush(A, at(4));
        } else {
            history.flush_failed(A);
            history.flush(A, at(5));
        }
        let gone = history.read(A, sector(), &[0; 512], at(6), at(7)).is_ok();
        assert_eq!(gone, !claimed);
    }
}

#[test]
fn a_write_of_two_sectors_may_be_half_lost_with_the_power() {
    let mut history = History::default();
    let both = Extent::new(0, 1024).unwrap();
    let old = history.begin(A, both, Content::Number, at(1));
    history.acknowledge(old, true, at(2));
    let new = history.begin(A, both, Content::Number, at(3));
    history.acknowledge(new, false, at(4));
    history.power_cut();
    let mut data = history.data(new, both);
    data[512..].copy_from_slice(&history.data(old, both)[512..]);
    assert!(history.read(B, both, &data, at(5), at(6)).is_ok());
    assert!(history.read(B, both, &data, at(7), at(8)).is_ok());
    let whole = history.data(old, both);
    assert!(history.read(B, both, &whole, at(9), at(10)).is_err());
}

#[test]
fn a_revert_brings_back_the_snapshot_and_nothing_else() {
    let mut history = History::default();
    let old = written(&mut history, 1, Some(2));
    let new = written(&mut history, 6, Some(7));
    let revert = history.begin_revert(at(3), at(4), at(8));
    assert!(history.read(A, sector(), &new, at(9), at(10)).is_ok());
    history.acknowledge(revert, true, at(11));
    assert!(history.read(A, sector(), &old, at(12), at(13)).is_ok());
    assert!(history.read(A, sector(), &new, at(12), at(13)).is_err());
    assert!(
        history
            .read(A, sector(), &[0; 512], at(12), at(13))
            .is_err()
    );
}

#[test]
fn a_refused_write_is_never_read() {
    let mut history = History::default();
    let id = history.begin(A, sector(), Content::Number, at(1));
    history.refuse(id, at(2));
    let data = history.data(id, sector());
    assert!(history.read(A, sector(), &data, at(3), at(4)).is_err());
}

#[test]
fn a_clone_begins_as_the_snapshot_and_goes_its_own_way() {
    let mut source = History::new(1);
    let old = written(&mut source, 1, Some(2));
    let new = written(&mut source, 5, Some(6));
    let mut clone = source.cloned(2, at(3), at(4), at(8));
    assert!(clone.read(A, sector(), &new, at(9), at(10)).is_err());
    assert!(clone.read(A, sector(), &old, at(9), at(10)).is_ok());
    // The same number, of another volume.
    let theirs = written(&mut source, 11, Some(12));
    let _first = written(&mut source, 13, Some(14));
    let ours = written(&mut clone, 11, Some(12));
    let ours_again = written(&mut clone, 13, Some(14));
    assert!(clone.read(A, sector(), &theirs, at(15), at(16)).is_err());
    assert!(clone.read(A, sector(), &ours, at(15), at(16)).is_err());
    assert!(clone.read(A, sector(), &ours_again, at(15), at(16)).is_ok());
}

#[test]
fn a_snapshot_lies_between_what_it_holds_and_what_it_lacks() {
    let mut history = History::default();
    let old = written(&mut history, 1, Some(2));
    let new = written(&mut history, 5, Some(6));
    let bounds = |bytes: &[u8], history: &History| history.bounds(0, bytes, at(9)).unwrap();
    let (holds_old, holds_new) = (bounds(&old, &history), bounds(&new, &history));
    let one_to_six = Bounds {
        after: Some(at(1)),
        before: Some(at(6)),
    };
    assert_eq!(holds_old, one_to_six);
    assert_eq!(holds_new.after, Some(at(5)));
    assert_eq!(bounds(&[0; 512], &history).before, Some(at(2)));
    let later = Bounds {
        after: Some(at(7)),
        before: None,
    };
    assert!(holds_old.and(holds_new).is_possible());
    assert!(!holds_old.and(later).is_possible());
}

#[test]
fn zeros_may_be_of_an_unmap_and_old_data_of_a_return() {
    let mut history = History::default();
    let old = written(&mut history, 1, Some(2));
    let unmap = history.begin(A, sector(), Content::Zeros, at(3));
    history.acknowledge(unmap, false, at(4));
    assert_eq!(
        history.bounds(0, &[0; 512], at(9)).unwrap(),
        Bounds::default()
    );
    let revert = history.begin_revert(at(1), at(2), at(5));
    history.acknowledge(revert, true, at(6));
    assert_eq!(history.bounds(0, &old, at(9)).unwrap(), Bounds::default());
}

#[test]
fn what_a_flush_covered_outlives_the_power_and_the_rest_may_not() {
    let mut history = History::default();
    let old = written(&mut history, 1, Some(2));
    assert!(history.outlives_power(0, &[0; 512]).is_ok());
    history.flush(A, at(3));
    let new = written(&mut history, 4, Some(5));
    assert!(history.outlives_power(0, &old).is_ok());
    assert!(history.outlives_power(0, &new).is_ok());
    let lost = history.outlives_power(0, &[0; 512]);
    assert!(matches!(lost, Err(Unexplained::Superseded(lost)) if lost.was_durable()));
}
