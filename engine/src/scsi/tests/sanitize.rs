use super::*;

const OVERWRITE: u8 = 1;
const BLOCK_ERASE: u8 = 2;
const EXIT_FAILURE_MODE: u8 = 0x1f;
const IMMEDIATE: u8 = 0x80;
const UNRESTRICTED: u8 = 0x20;
const IN_PROGRESS: (u8, u8, u8) = (2, 0x04, 0x1b);
const FAILED: (u8, u8, u8) = (3, 0x31, 3);

fn sanitize(device: &mut Device, flags: u8, list: &[u8]) -> Done {
    let cdb = [0x48, flags, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut cdb = cdb;
    cdb[7..9].copy_from_slice(&(list.len() as u16).to_be_bytes());
    device.run(&cdb, list)
}

fn pattern_list(first: u8, pattern: &[u8]) -> Vec<u8> {
    let mut list = vec![first, 0];
    list.extend((pattern.len() as u16).to_be_bytes());
    list.extend(pattern);
    list
}

#[test]
fn a_block_erase_leaves_zeros() {
    let mut device = Device::new();
    device.memory.fill(7);
    assert_good(&sanitize(&mut device, BLOCK_ERASE, &[]));
    assert!(device.memory.iter().all(|byte| *byte == 0));
    assert_eq!(device.seen.last(), Some(&Operation::Flush));
    assert_eq!(device.kept.len(), 2, "its begin and its end");
    assert_sense(&sanitize(&mut device, BLOCK_ERASE, &[0; 8]), INVALID_FIELD);
}

#[test]
fn an_overwrite_repeats_its_pattern_in_each_block() {
    let mut device = Device::new();
    let list = pattern_list(1, &[1, 2, 3]);
    assert_good(&sanitize(&mut device, OVERWRITE, &list));
    let block: Vec<u8> = [1, 2, 3].into_iter().cycle().take(512).collect();
    assert!(device.memory.chunks(512).all(|found| found == block));
    // Two passes, the first inverted.
    device.seen.clear();
    assert_good(&sanitize(
        &mut device,
        OVERWRITE,
        &pattern_list(0x82, &[0x0f]),
    ));
    assert!(device.memory.iter().all(|byte| *byte == 0x0f));
    let Some(Operation::Write { data, .. }) = device.seen.first() else {
        panic!("nothing written");
    };
    assert!(data.iter().all(|byte| *byte == 0xf0));
    let flushes = device.seen.iter().filter(|it| **it == Operation::Flush);
    assert_eq!(flushes.count(), 2, "one for each pass");
}

#[test]
fn wrong_lists_and_flags_are_refused() {
    let mut device = Device::new();
    for length in [0, 1, 4, 517] {
        let list = vec![1; length];
        assert_sense(&sanitize(&mut device, OVERWRITE, &list), INVALID_FIELD);
    }
    let mut long = pattern_list(1, &[9; 512]);
    long[2..4].copy_from_slice(&513_u16.to_be_bytes());
    for list in [
        pattern_list(0, &[1]),
        pattern_list(0x21, &[1]),
        vec![1, 0, 0, 0, 9],
        long,
    ] {
        assert_sense(&sanitize(&mut device, OVERWRITE, &list), BAD_PARAMETER);
    }
    let short = [1, 0, 0, 9, 1];
    assert_sense(&sanitize(&mut device, OVERWRITE, &short), (5, 0x1a, 0));
    for action in [0, 3, 4, 0x1e] {
        assert_sense(&sanitize(&mut device, action, &[]), INVALID_FIELD);
    }
    assert_good(&sanitize(&mut device, EXIT_FAILURE_MODE, &[]));
    assert!(device.kept.is_empty() && device.seen.is_empty());
}

#[test]
fn everything_else_waits_for_the_end_even_of_a_new_engine() {
    let mut device = Device::new();
    let list = pattern_list(1, &[5]);
    assert_good(&sanitize(&mut device, OVERWRITE | IMMEDIATE, &list));
    for _restart in 0..2 {
        assert!(device.unit.is_sanitizing());
        assert_sense(&device.run(&[0; 6], &[]), IN_PROGRESS);
        assert_sense(&device.run(&shaped(0x28, 0, 0, 1), &[]), IN_PROGRESS);
        assert_sense(&sanitize(&mut device, BLOCK_ERASE, &[]), IN_PROGRESS);
        assert_good(&device.run(&[0x12, 0, 0, 0, 36, 0], &[]));
        let told = device.run(&[3, 0, 0, 0, 252, 0], &[]).data_in;
        assert_eq!((told[2], told[12], told[13], told[15]), (2, 4, 0x1b, 0x80));
        device.unit.reset(Reset::TargetCold);
        assert_eq!(device.attention(A), Some((6, 0x29, 0)));
        let size = VolumeSize::from_bytes(VOLUME_BYTES).unwrap();
        device.unit = LogicalUnit::new(identity(), size, true);
        device.unit.restore(device.kept.last().unwrap()).unwrap();
        device.unit.nexus_gained(A, port(1));
        device.attention(A);
    }
    device.sanitize();
    assert!(device.memory.iter().all(|byte| *byte == 5));
    assert_good(&device.run(&[0; 6], &[]));
}

#[test]
fn progress_is_told_and_what_was_in_flight_goes_no_further() {
    let mut device = Device::new();
    let mut cdb = [0; 16];
    cdb[..16].copy_from_slice(&shaped(0x93, 0, 0, 32_768));
    let begun = device.unit.begin(Request {
        nexus: B,
        lun: [0; 8],
        cdb,
        data_out: pattern(1, 1).into(),
        expected_bytes: 512,
        attribute: Attribute::Simple,
    });
    let Begun::Pending(mut repeat) = begun else {
        panic!("{begun:?}");
    };
    let outcomes = vec![Outcome::Done(Bytes::new()); repeat.operations().len()];
    assert_good(&sanitize(
        &mut device,
        OVERWRITE | IMMEDIATE,
        &pattern_list(1, &[5]),
    ));
    let Begun::Done(done) = device.unit.resume(repeat, outcomes) else {
        panic!("it goes on");
    };
    assert_sense(&done, IN_PROGRESS);
    let SanitizeStep::Run(operations) = device.unit.sanitize_step() else {
        panic!("nothing to do");
    };
    let outcomes = vec![Outcome::Done(Bytes::new()); operations.len()];
    let _ = device.unit.sanitize_outcomes(&outcomes);
    let told = device.run(&[3, 0, 0, 0, 252, 0], &[]).data_in;
    assert_eq!(told[16..18], 0x4000_u16.to_be_bytes(), "a quarter");
    let retry = device
        .unit
        .sanitize_outcomes(&[Outcome::Failed(Failure::Unavailable)]);
    assert_eq!(retry, SanitizeProgress::Retry);
    let stopped = device
        .unit
        .sanitize_outcomes(&[Outcome::Failed(Failure::Stopping)]);
    assert_eq!(stopped, SanitizeProgress::Stopped);
    assert!(device.unit.is_sanitizing(), "the next engine goes on");
}

#[test]
fn a_failure_is_left_by_another_sanitize_or_where_that_was_allowed() {
    for (flags, exits) in [(0, false), (UNRESTRICTED, true)] {
        let mut device = Device::new();
        device.failures.push_back(Failure::NoSpace);
        let list = pattern_list(1, &[5]);
        let done = sanitize(&mut device, OVERWRITE | flags, &list);
        assert_sense(&done, FAILED);
        assert_sense(&device.run(&shaped(0x28, 0, 0, 1), &[]), FAILED);
        let state = device.kept.last().unwrap().clone();
        device.unit.restore(&state).unwrap();
        let exit = sanitize(&mut device, EXIT_FAILURE_MODE, &[]);
        if exits {
            assert_good(&exit);
        } else {
            assert_sense(&exit, INVALID_FIELD);
            let lax = sanitize(&mut device, BLOCK_ERASE | UNRESTRICTED, &[]);
            assert_sense(&lax, INVALID_FIELD);
            assert_good(&sanitize(&mut device, BLOCK_ERASE, &[]));
        }
        assert_good(&device.run(&shaped(0x28, 0, 0, 1), &[]));
    }
}

#[test]
fn an_operation_that_could_not_be_kept_does_not_begin() {
    let mut device = Device::new();
    device.keep_failure = Some(Failure::Unavailable);
    let done = sanitize(&mut device, BLOCK_ERASE, &[]);
    assert_sense(&done, (2, 0x04, 0x0a));
    assert!(!device.unit.is_sanitizing() && device.seen.is_empty());
}
