//! Commands of any bytes with any data and any outcomes of their operations: each is answered
//! once, asks only for extents inside the volume, and asks a bounded number of times.
use crate::scsi::{
    Attribute, Begun, Identity, InitiatorPort, LogicalUnit, NexusId, Pending, Request,
    STATE_BYTES_MAX, SanitizeStep, Status, TRANSFER_BYTES_MAX, data_out_bytes,
};
use crate::volume::{Failure, Operation, Outcome};
use ankole_proto::{VolumeId, VolumeSize};
use bytes::Bytes;

const VOLUME_BYTES: u64 = 64 << 20;
/// Of the longest: 31 passes of 4 MiB at a time, each pass flushed, and the end kept.
const SANITIZE_STEPS_MAX: usize = 31 * (16 + 1) + 2;
/// Of the longest command: 16 segments of 32 MiB, each MiB read and written.
const BATCHES_MAX: usize = 2 * 16 * 33;

fn unit() -> LogicalUnit {
    let size = VolumeSize::from_bytes(VOLUME_BYTES).expect("a size");
    let identity = Identity::new(VolumeId::from_bits(1), "iqn.2026-01.test:disk", *b"0001");
    let mut unit = LogicalUnit::new(identity, size, true);
    for number in 1..3 {
        let port = InitiatorPort {
            name: format!("iqn.2026-01.test:host{number}"),
            isid: [0x40, 0, 0, 0, 0, number],
        };
        unit.nexus_gained(NexusId(u64::from(number)), port);
    }
    unit
}

fn check(operation: &Operation) {
    let size = VolumeSize::from_bytes(VOLUME_BYTES).expect("a size");
    let (extent, data) = match operation {
        Operation::Flush => return,
        Operation::Unmap { extent } | Operation::WriteZeroes { extent, .. } => (extent, None),
        Operation::Read { extent } => {
            assert!(extent.length() <= u64::from(TRANSFER_BYTES_MAX));
            (extent, None)
        }
        Operation::Write { extent, data, .. }
        | Operation::Or { extent, data, .. }
        | Operation::CompareAndWrite { extent, data, .. } => (extent, Some(data)),
        Operation::Copy { from, to, .. } => {
            assert!(from.length() == to.length() && size.contains(*from));
            (to, None)
        }
    };
    assert!(
        !extent.is_empty() && size.contains(*extent),
        "{operation:?}"
    );
    if let Some(data) = data {
        assert_eq!(data.len() as u64, extent.length());
    }
}

fn outcome(operation: &Operation, dice: u8) -> Outcome {
    match (dice, operation) {
        (0..16, _) => Outcome::Failed(Failure::Unreadable),
        (16..24, _) => Outcome::Failed(Failure::NoSpace),
        (24..32, _) => Outcome::Failed(Failure::Busy),
        (32..48, Operation::CompareAndWrite { .. }) => Outcome::Miscompare {
            first_difference: u64::from(dice),
        },
        (_, Operation::Read { extent }) => {
            let bytes = usize::try_from(extent.length()).expect("bounded");
            Outcome::Done(Bytes::from(vec![dice; bytes]))
        }
        _ => Outcome::Done(Bytes::new()),
    }
}

fn answer(unit: &mut LogicalUnit, request: Request, dice: &[u8]) {
    let mut dice = dice.iter().copied().cycle();
    let mut begun = unit.begin(request);
    for _ in 0..=BATCHES_MAX {
        match begun {
            Begun::Done(done) => {
                assert_eq!(
                    done.status == Status::CheckCondition,
                    !done.sense.is_empty()
                );
                return;
            }
            Begun::Keep(keep) => {
                assert!(keep.state().len() <= STATE_BYTES_MAX);
                let kept = match dice.next() {
                    Some(0..32) => Err(Failure::Unavailable),
                    _ => Ok(()),
                };
                begun = unit.kept(keep, kept);
            }
            Begun::Pending(pending) if pending.waits_for_sanitize() => {
                sanitize(unit, &mut dice);
                begun = unit.resume(pending, Vec::new());
            }
            Begun::Pending(mut pending) => {
                let operations = pending.operations();
                assert!(!operations.is_empty());
                assert!(operations.len() <= Pending::OPERATIONS_MAX);
                operations.iter().for_each(check);
                let outcomes = operations
                    .iter()
                    .map(|operation| outcome(operation, dice.next().unwrap_or(0xff)))
                    .collect();
                begun = unit.resume(pending, outcomes);
            }
        }
    }
    unreachable!("a command that never ends");
}

/// To its end, well or not.
fn sanitize(unit: &mut LogicalUnit, dice: &mut impl Iterator<Item = u8>) {
    for _ in 0..SANITIZE_STEPS_MAX {
        match unit.sanitize_step() {
            SanitizeStep::Idle => return,
            SanitizeStep::Run(operations) => {
                operations.iter().for_each(check);
                let outcomes: Vec<_> = operations
                    .iter()
                    .map(|operation| match dice.next() {
                        Some(0..4) => Outcome::Failed(Failure::NoSpace),
                        _ => outcome(operation, 0xff),
                    })
                    .collect();
                let _progress = unit.sanitize_outcomes(&outcomes);
            }
            SanitizeStep::Keep(state) => {
                assert!(state.len() <= STATE_BYTES_MAX);
                unit.sanitize_kept();
            }
        }
    }
    unreachable!("a sanitize operation that never ends");
}

/// Runs one input.
pub(super) fn run(data: &[u8]) {
    let mut unit = unit();
    let mut rest = data;
    // nexus and LUN, length of the data, CDB, dice, data
    while let Some((head, after)) = rest.split_first_chunk::<24>() {
        let (flags, low, high) = (head[0], head[1], head[2]);
        let cdb: [u8; 16] = head[8..].try_into().expect("16 bytes");
        let wanted = data_out_bytes(&cdb);
        assert!(wanted <= TRANSFER_BYTES_MAX);
        let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (data_out, after) = after.split_at(length);
        rest = after;
        // As much as the command takes, whatever the input has of it.
        let mut data_out = data_out.to_vec();
        if flags & 0x10 != 0 && wanted <= 1 << 20 {
            data_out.resize(wanted as usize, flags);
        }
        let mut lun = [0; 8];
        lun[1] = flags >> 5;
        let expected_bytes = u32::from_le_bytes([head[3], head[4], head[5], 0]);
        let request = Request {
            nexus: NexusId(u64::from(flags & 3)),
            lun,
            cdb,
            data_out: data_out.into(),
            expected_bytes,
            attribute: match flags & 0x0c {
                0x0c => Attribute::ContingentAllegiance,
                _ => Attribute::Simple,
            },
        };
        answer(&mut unit, request, &head[6..8]);
    }
}
