use proptest::prelude::*;

use super::*;
use crate::scsi::command::TABLE;

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..2048).prop_map(|data| Outcome::Done(data.into())),
        1 => any::<u64>().prop_map(|first_difference| Outcome::Miscompare { first_difference }),
        1 => prop::sample::select(vec![
            Failure::Unreadable,
            Failure::NoSpace,
            Failure::Unavailable,
            Failure::Stopping,
            Failure::Busy,
        ])
        .prop_map(Outcome::Failed),
    ]
}

/// A CDB of any bytes, mostly of an operation code that exists and near its usage map.
fn any_cdb() -> impl Strategy<Value = [u8; 16]> {
    let near = (0..TABLE.len(), any::<[u8; 16]>()).prop_map(|(at, bytes)| {
        let command = TABLE[at];
        let mut cdb = bytes;
        for (byte, allowed) in cdb.iter_mut().zip(command.usage) {
            *byte &= allowed;
        }
        cdb[0] = command.opcode();
        if let Some(action) = command.action {
            cdb[1] = (cdb[1] & !0x1f) | action;
        }
        cdb
    });
    prop_oneof![4 => near, 1 => any::<[u8; 16]>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic_and_each_request_is_answered_once(
        requests in prop::collection::vec(
            (
                any_cdb(),
                prop::collection::vec(any::<u8>(), 0..600),
                prop_oneof![Just([0_u8; 8]), any::<[u8; 8]>()],
                1_u64..4,
                any::<u32>(),
            ),
            1..12,
        ),
        outcomes in prop::collection::vec(any_outcome(), 1..8),
    ) {
        let size = VolumeSize::from_bytes(64 << 40).unwrap();
        let mut unit = LogicalUnit::new(identity(), size, true);
        unit.nexus_gained(A, port(1));
        unit.nexus_gained(B, port(2));
        let mut outcomes = outcomes.into_iter().cycle();
        for (cdb, data, lun, nexus, expected_bytes) in requests {
            prop_assert!(data_out_bytes(&cdb) <= TRANSFER_BYTES_MAX);
            let mut begun = unit.begin(Request {
                nexus: NexusId(nexus),
                lun,
                cdb,
                data_out: data.into(),
                expected_bytes,
                attribute: Attribute::Simple,
            });
            let mut batches = 0;
            let done = loop {
                match begun {
                    Begun::Done(done) => break done,
                    Begun::Keep(keep) => {
                        prop_assert!(keep.state().len() <= STATE_BYTES_MAX);
                        begun = unit.kept(keep, Ok(()));
                    }
                    Begun::Pending(pending) if pending.waits_for_sanitize() => {
                        let _ = unit.sanitize_outcomes(&[Outcome::Failed(Failure::NoSpace)]);
                        unit.sanitize_kept();
                        begun = unit.resume(pending, Vec::new());
                    }
                    Begun::Pending(mut pending) => {
                        batches += 1;
                        // The longest: an EXTENDED COPY of 16 segments
                        // of 32 MiB, 1 MiB at a time, each read and written.
                        prop_assert!(batches <= 2 * 16 * 33);
                        let operations = pending.operations();
                        prop_assert!(!operations.is_empty());
                        prop_assert!(operations.len() <= Pending::OPERATIONS_MAX);
                        for operation in &operations {
                            check(operation, size)?;
                        }
                        let batch = outcomes.by_ref().take(operations.len()).collect();
                        begun = unit.resume(pending, batch);
                    }
                }
            };
            prop_assert_eq!(done.status == Status::CheckCondition, !done.sense.is_empty());
        }
    }

    #[test]
    fn no_bytes_make_restore_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), sealed in any::<bool>()) {
        let mut bytes = bytes;
        if sealed {
            bytes.insert(0, 2);
            bytes.extend(ankole_proto::crc32c(&bytes).to_le_bytes());
        }
        let size = VolumeSize::from_bytes(1 << 20).unwrap();
        let _ = LogicalUnit::new(identity(), size, true).restore(&bytes);
    }
}

/// What the mirror is promised of every operation.
fn check(operation: &Operation, size: VolumeSize) -> Result<(), TestCaseError> {
    let (extent, data) = match operation {
        Operation::Flush => return Ok(()),
        Operation::Unmap { extent } | Operation::WriteZeroes { extent, .. } => (extent, None),
        Operation::Read { extent } => {
            prop_assert!(extent.length() <= u64::from(TRANSFER_BYTES_MAX));
            (extent, None)
        }
        Operation::Write { extent, data, .. }
        | Operation::Or { extent, data, .. }
        | Operation::CompareAndWrite { extent, data, .. } => (extent, Some(data)),
        Operation::Copy { from, to, .. } => {
            prop_assert!(from.length() == to.length() && size.contains(*from));
            (to, None)
        }
    };
    prop_assert!(!extent.is_empty() && size.contains(*extent));
    if let Some(data) = data {
        prop_assert_eq!(data.len() as u64, extent.length());
        prop_assert!(data.len() <= TRANSFER_BYTES_MAX as usize);
    }
    Ok(())
}

fn report(device: &mut Device, options: u8, opcode: u8, action: u8) -> Done {
    device.run(
        &[
            0xa3, 0x0c, options, opcode, 0, action, 0, 0, 0xff, 0xff, 0, 0,
        ],
        &[],
    )
}

fn is_unknown(done: &Done) -> bool {
    sense(done) == Some((5, 0x20, 0))
}

#[test]
fn what_is_reported_is_what_is_accepted() {
    for opcode in 0..=u8::MAX {
        let mut device = Device::new();
        let reported: Vec<u8> = (0..32)
            .filter(|action| report(&mut device, 3, opcode, *action).data_in[1] == 3)
            .collect();
        for action in 0..32 {
            let mut device = Device::new();
            let mut cdb = [0; 16];
            cdb[..2].copy_from_slice(&[opcode, action]);
            let done = device.run(&cdb, &[]);
            let is_plain = sense(&report(&mut device, 1, opcode, 0)).is_none();
            if reported.is_empty() {
                assert!(is_unknown(&done), "{opcode:02x}");
            } else {
                assert!(!is_unknown(&done), "{opcode:02x}");
                if !is_plain && !reported.contains(&action) {
                    assert_sense(&done, INVALID_FIELD);
                }
            }
        }
    }
}

/// A CDB that its command carries out: everything zero but what must not be.
fn accepted(opcode: u8, action: Option<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut cdb = vec![0; usize::from(Cdb::length(opcode))];
    cdb[0] = opcode;
    if let Some(action) = action {
        cdb[1] = action;
    }
    let mut data = Vec::new();
    match opcode {
        0x1a | 0x5a => cdb[2] = 0x3f,
        0x41 => {
            cdb[8] = 1;
            data = vec![0; 512];
        }
        0x93 => {
            cdb[13] = 1;
            data = vec![0; 512];
        }
        0x48 if action == Some(1) => {
            cdb[8] = 5;
            data = vec![1, 0, 0, 1, 0xee];
        }
        0x0a => {
            cdb[4] = 1;
            data = vec![0; 512];
        }
        _ => {}
    }
    (cdb, data)
}

#[test]
fn every_bit_outside_the_usage_data_is_refused_and_points_there() {
    for command in TABLE {
        let mut device = Device::new();
        let action = command.action;
        let options = if action.is_some() { 2 } else { 1 };
        let done = report(&mut device, options, command.opcode(), action.unwrap_or(0));
        assert_good(&done);
        let usage = &done.data_in[4..];
        assert_eq!(usage.len(), usize::from(command.length()));
        assert_eq!(usage[0], command.opcode());
        let (cdb, data) = accepted(command.opcode(), action);
        for at in 1..cdb.len() {
            for bit in 0..8 {
                if usage[at] & (1 << bit) != 0 || (at == 1 && action.is_some() && bit < 5) {
                    continue;
                }
                let mut device = Device::new();
                let mut wrong = cdb.clone();
                wrong[at] |= 1 << bit;
                let done = device.run(&wrong, &data);
                assert_sense(&done, INVALID_FIELD);
                let pointer = [0xc8 | bit, 0, at as u8];
                assert_eq!(done.sense[15..18], pointer, "{:02x}", command.opcode());
            }
        }
    }
}

#[test]
fn every_command_reported_is_carried_out() {
    let mut device = Device::new();
    let all = report(&mut device, 0, 0, 0);
    assert_good(&all);
    let descriptors: Vec<&[u8]> = all.data_in[4..].chunks(8).collect();
    assert_eq!(descriptors.len(), TABLE.len());
    for descriptor in descriptors {
        let action = (descriptor[5] & 1 != 0).then_some(descriptor[3]);
        assert_eq!(
            usize::from(descriptor[7]),
            usize::from(Cdb::length(descriptor[0]))
        );
        let mut device = Device::new();
        let (cdb, data) = accepted(descriptor[0], action);
        let done = device.run(&cdb, &data);
        let carried_out = match descriptor[0] {
            // Need a parameter list, a registration, or an earlier copy.
            0x5f => sense(&done) == Some((5, 0x1a, 0)),
            0x84 if action == Some(0) => sense(&done) == Some(INVALID_FIELD),
            _ => done.status == Status::Good,
        };
        assert!(carried_out, "{descriptor:02x?}: {done:02x?}");
    }
}

#[test]
fn timeouts_are_told_when_asked_for() {
    let mut device = Device::new();
    let all = report(&mut device, 0x80, 0, 0);
    assert_eq!(all.data_in.len(), 4 + 20 * TABLE.len());
    assert_eq!(all.data_in[9] & 2, 2);
    assert_eq!(all.data_in[12..24], [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 120]);
    let one = report(&mut device, 0x81, 0x28, 0);
    assert_eq!(one.data_in[1], 0x83);
    assert_eq!(one.data_in.len(), 4 + 10 + 12);
    assert_eq!(report(&mut device, 1, 0x49, 0).data_in[..], [0, 1, 0, 0]);
    // Takes as long as the volume is large.
    let sanitize = report(&mut device, 0x82, 0x48, 2).data_in;
    assert_eq!(sanitize[14..], [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_sense(&report(&mut device, 1, 0x9e, 0x10), INVALID_FIELD);
    assert_sense(&report(&mut device, 2, 0x28, 0), INVALID_FIELD);
    assert_sense(&report(&mut device, 4, 0x28, 0), INVALID_FIELD);
}
