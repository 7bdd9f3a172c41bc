use super::*;

const CONFLICT: Status = Status::ReservationConflict;
const C: NexusId = NexusId(3);

/// PERSISTENT RESERVE OUT.
fn out(device: &mut Device, nexus: NexusId, action: u8, kind: u8, key: u64, new: u64) -> Done {
    let mut list = [key.to_be_bytes(), new.to_be_bytes()].concat();
    list.resize(24, 0);
    device.run_as(nexus, &[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], &list)
}

/// PERSISTENT RESERVE IN.
fn report(device: &mut Device, action: u8) -> Bytes {
    let done = device.run(&[0x5e, action, 0, 0, 0, 0, 0, 1, 0, 0], &[]);
    assert_good(&done);
    done.data_in
}

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;

/// A holds a reservation of this type; B is registered, C is not.
fn held(kind: u8) -> Device {
    let mut device = Device::new();
    device.unit.nexus_gained(C, port(3));
    device.attention(C);
    assert_good(&out(&mut device, A, REGISTER, 0, 0, 0xa));
    assert_good(&out(&mut device, B, REGISTER, 0, 0, 0xb));
    assert_good(&out(&mut device, A, RESERVE, kind, 0xa, 0));
    device
}

fn may(device: &mut Device, nexus: NexusId) -> (bool, bool) {
    let read = device.run_as(nexus, &shaped(0x28, 0, 0, 1), &[]).status;
    let write = device
        .run_as(nexus, &shaped(0x2a, 0, 0, 1), &[0; 512])
        .status;
    let ok = |status| {
        assert!(status == Status::Good || status == CONFLICT);
        status == Status::Good
    };
    (ok(read), ok(write))
}

#[test]
fn each_type_admits_whom_it_should() {
    for (kind, registrant, stranger) in [
        (1, (true, false), (true, false)),
        (3, (false, false), (false, false)),
        (5, (true, true), (true, false)),
        (6, (true, true), (false, false)),
        (7, (true, true), (true, false)),
        (8, (true, true), (false, false)),
    ] {
        let mut device = held(kind);
        assert_eq!(may(&mut device, A), (true, true), "type {kind}");
        assert_eq!(may(&mut device, B), registrant, "type {kind}");
        assert_eq!(may(&mut device, C), stranger, "type {kind}");
        for harmless in [&[0; 6][..], &[0x12, 0, 0, 0, 36, 0], &[0x1b, 0, 0, 0, 1, 0]] {
            assert_good(&device.run_as(C, harmless, &[]));
        }
        assert_eq!(
            device.run_as(C, &shaped(0x35, 0, 0, 0), &[]).status,
            CONFLICT
        );
    }
    for kind in [0, 2, 4, 9, 0x11] {
        let mut device = held(1);
        assert_good(&out(&mut device, A, RELEASE, 1, 0xa, 0));
        assert_sense(&out(&mut device, A, RESERVE, kind, 0xa, 0), INVALID_FIELD);
    }
}

#[test]
fn registering_needs_the_key_that_is_registered() {
    let mut device = Device::new();
    assert_eq!(out(&mut device, A, REGISTER, 0, 5, 6).status, CONFLICT);
    assert_good(&out(&mut device, A, REGISTER, 0, 0, 0));
    assert_eq!(report(&mut device, 0)[..], [0; 8]);
    assert_good(&out(&mut device, A, REGISTER, 0, 0, 6));
    assert_eq!(out(&mut device, A, REGISTER, 0, 5, 7).status, CONFLICT);
    assert_eq!(
        report(&mut device, 0)[..],
        [0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 6]
    );
    assert_good(&out(&mut device, A, REGISTER_AND_IGNORE, 0, 99, 7));
    assert_good(&out(&mut device, A, REGISTER, 0, 7, 0));
    assert_eq!(report(&mut device, 0)[..], [0, 0, 0, 3, 0, 0, 0, 0]);
    for action in [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        assert_eq!(out(&mut device, A, action, 1, 7, 7).status, CONFLICT);
    }
}

#[test]
fn reserving_again_and_releasing_follow_the_type() {
    let mut device = held(5);
    assert_good(&out(&mut device, A, RESERVE, 5, 0xa, 0));
    assert_eq!(out(&mut device, A, RESERVE, 1, 0xa, 0).status, CONFLICT);
    assert_eq!(out(&mut device, B, RESERVE, 5, 0xb, 0).status, CONFLICT);
    assert_good(&out(&mut device, B, RELEASE, 5, 0xb, 0));
    assert_eq!(
        report(&mut device, 1)[4..],
        [
            0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xa, 0, 0, 0, 0, 0, 5, 0, 0
        ]
    );
    assert_sense(&out(&mut device, A, RELEASE, 1, 0xa, 0), (5, 0x26, 4));
    assert_good(&out(&mut device, A, RELEASE, 5, 0xa, 0));
    assert_eq!(device.attention(B), Some((6, 0x2a, 4)));
    assert_eq!(report(&mut device, 1)[4..], [0; 4]);
}

#[test]
fn a_reservation_of_all_registrants_lasts_as_long_as_one_is_left() {
    let mut device = held(8);
    assert_good(&out(&mut device, B, RESERVE, 8, 0xb, 0));
    assert_good(&out(&mut device, A, REGISTER, 0, 0xa, 0));
    assert_eq!(may(&mut device, B), (true, true));
    assert_eq!(may(&mut device, A), (false, false));
    assert_eq!(
        report(&mut device, 1)[8..16],
        [0; 8],
        "no single holder's key"
    );
    assert_good(&out(&mut device, B, REGISTER, 0, 0xb, 0));
    assert_eq!(may(&mut device, A), (true, true));
}

#[test]
fn the_holder_that_unregisters_gives_up_its_reservation() {
    let mut device = held(6);
    assert_good(&out(&mut device, A, REGISTER, 0, 0xa, 0));
    assert_eq!(device.attention(B), Some((6, 0x2a, 4)));
    assert_eq!(may(&mut device, C), (true, true));
}

#[test]
fn preempting_takes_the_reservation_and_aborts_when_asked() {
    let mut device = held(1);
    assert_eq!(out(&mut device, B, PREEMPT, 3, 0xb, 0xc).status, CONFLICT);
    assert_sense(&out(&mut device, B, PREEMPT, 3, 0xb, 0), BAD_PARAMETER);
    let done = out(&mut device, B, PREEMPT_AND_ABORT, 3, 0xb, 0xa);
    assert_good(&done);
    assert_eq!(done.abort, [A]);
    assert_eq!(device.attention(A), Some((6, 0x2a, 5)));
    assert_eq!(may(&mut device, A), (false, false));
    assert_eq!(may(&mut device, B), (true, true));
}

#[test]
fn preempting_another_registrant_leaves_the_reservation() {
    let mut device = held(5);
    assert_good(&out(&mut device, C, REGISTER, 0, 0, 0xc));
    let done = out(&mut device, C, PREEMPT, 5, 0xc, 0xb);
    assert_good(&done);
    assert!(done.abort.is_empty());
    assert_eq!(device.attention(B), Some((6, 0x2a, 5)));
    assert_eq!(may(&mut device, B), (true, false));
    assert_eq!(may(&mut device, A), (true, true));
}

#[test]
fn preempting_with_no_key_takes_a_reservation_of_all_registrants() {
    let mut device = held(7);
    assert_good(&out(&mut device, B, PREEMPT, 1, 0xb, 0));
    assert_eq!(device.attention(A), Some((6, 0x2a, 5)));
    assert_eq!(may(&mut device, A), (true, false));
    assert_eq!(report(&mut device, 0)[4..8], [0, 0, 0, 8]);
}

#[test]
fn clearing_removes_everything() {
    let mut device = held(3);
    assert_good(&out(&mut device, B, CLEAR, 0, 0xb, 0));
    assert_eq!(device.attention(A), Some((6, 0x2a, 3)));
    assert_eq!(may(&mut device, C), (true, true));
    assert_eq!(report(&mut device, 0)[4..], [0; 4]);
}

#[test]
fn registrations_outlive_sessions_resets_and_engines() {
    let mut device = held(3);
    let state = device.unit.state();
    let size = VolumeSize::from_bytes(VOLUME_BYTES).unwrap();
    device.unit = LogicalUnit::new(identity(), size, true);
    device.unit.restore(&state).unwrap();
    assert_eq!(device.unit.state(), state);
    let again = NexusId(17);
    device.unit.nexus_gained(again, port(1));
    device.unit.nexus_gained(B, port(2));
    device.unit.reset(Reset::TargetCold);
    for nexus in [again, B] {
        assert_eq!(device.attention(nexus), Some((6, 0x29, 0)));
    }
    assert_eq!(may(&mut device, again), (true, true));
    assert_eq!(may(&mut device, B), (false, false));
}

#[test]
fn each_change_hands_out_the_state_to_keep() {
    let mut device = held(1);
    assert_good(&out(&mut device, A, RELEASE, 1, 0xa, 0));
    let state = device.kept.pop().unwrap();
    device.kept.clear();
    assert_eq!(state, device.unit.state());
    assert_good(&out(&mut device, A, RELEASE, 1, 0xa, 0));
    assert!(device.kept.is_empty(), "nothing changed");
    for at in 0..state.len() {
        let mut damaged = state.to_vec();
        damaged[at] ^= 0x10;
        assert!(device.unit.restore(&damaged).is_err());
        assert!(device.unit.restore(&state[..at]).is_err());
    }
    let mut newer = state[..state.len() - 4].to_vec();
    newer[0] = 3;
    newer.extend(ankole_proto::crc32c(&newer).to_le_bytes());
    assert_eq!(device.unit.restore(&newer), Err(RestoreError::Version(3)));
}

#[test]
fn full_status_and_capabilities_have_these_bytes() {
    let mut device = held(3);
    assert_eq!(
        report(&mut device, 2)[..],
        [0, 8, 0x0d, 0x80, 0xea, 1, 0, 0]
    );
    let status = report(&mut device, 3);
    assert_eq!(status[..8], [0, 0, 0, 2, 0, 0, 0, 152]);
    assert_eq!(
        status[8..28],
        [0, 0, 0, 0, 0, 0, 0, 0xa, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(status[28..36], [0, 0, 0, 52, 0x45, 0, 0, 48]);
    assert!(status[36..].starts_with(b"iqn.2026-01.io.example:host1,i,0x400000000001\0"));
}

#[test]
fn wrong_parameter_lists_are_refused() {
    let mut device = Device::new();
    for bytes in [0, 8, 23, 25, 32] {
        let done = device.run(
            &[0x5f, 0, 0, 0, 0, 0, 0, 0, bytes, 0],
            &vec![0; usize::from(bytes)],
        );
        assert_sense(&done, (5, 0x1a, 0));
    }
    let mut list = [0; 24];
    list[20] = 8;
    let done = device.run(&[0x5f, REGISTER_AND_IGNORE, 0, 0, 0, 0, 0, 0, 24, 0], &list);
    assert_sense(&done, BAD_PARAMETER);
}

#[test]
fn registrations_are_bounded() {
    let mut device = Device::new();
    for number in 0..128 {
        let nexus = NexusId(100 + u64::from(number));
        device.unit.nexus_gained(nexus, port(100 + number));
        device.attention(nexus);
        assert_good(&out(&mut device, nexus, REGISTER, 0, 0, 1));
    }
    assert_sense(&out(&mut device, A, REGISTER, 0, 0, 1), (5, 0x55, 4));
}

#[test]
fn the_old_reserve_belongs_to_a_session() {
    for (reserve, release, bytes) in [(0x16, 0x17, 6), (0x56, 0x57, 10)] {
        let cdb = |opcode| {
            let mut cdb = vec![0; bytes];
            cdb[0] = opcode;
            cdb
        };
        let (reserve, release) = (cdb(reserve), cdb(release));
        let mut device = Device::new();
        assert_good(&device.run_as(A, &reserve, &[]));
        assert_eq!(device.run_as(B, &reserve, &[]).status, CONFLICT);
        assert_eq!(device.run_as(B, &[0; 6], &[]).status, CONFLICT);
        assert_good(&device.run_as(B, &[0x12, 0, 0, 0, 36, 0], &[]));
        assert_good(&device.run_as(B, &release, &[]));
        assert_eq!(
            device.run_as(B, &[0; 6], &[]).status,
            CONFLICT,
            "another's release"
        );
        assert_eq!(out(&mut device, A, REGISTER, 0, 0, 1).status, CONFLICT);
        assert_good(&device.run_as(A, &release, &[]));
        assert_good(&device.run_as(B, &[0; 6], &[]));
        assert_good(&device.run_as(A, &reserve, &[]));
        device.unit.nexus_lost(A);
        assert_good(&device.run_as(B, &reserve, &[]));
        device.unit.reset(Reset::LogicalUnit);
        device.unit.nexus_gained(A, port(1));
        device.attention(A);
        assert_good(&device.run_as(A, &[0; 6], &[]));
    }
}

#[test]
fn a_change_that_cannot_be_kept_has_no_effect() {
    let mut device = held(1);
    let before = device.unit.state();
    device.keep_failure = Some(Failure::Unavailable);
    let done = out(&mut device, B, PREEMPT, 1, 0xb, 0xa);
    assert_sense(&done, (2, 0x04, 0x0a));
    assert_eq!(device.unit.state(), before);
    assert_eq!(device.attention(A), None, "nobody was preempted");
    assert_good(&out(&mut device, B, PREEMPT, 1, 0xb, 0xa));
    assert_eq!(device.attention(A), Some((6, 0x2a, 5)));
}

#[test]
fn until_a_change_is_kept_others_are_answered_busy_and_nothing_has_changed() {
    let mut device = held(1);
    let mut list = [0xb_u64.to_be_bytes(), 0xa_u64.to_be_bytes()].concat();
    list.resize(24, 0);
    let mut cdb = [0; 16];
    cdb[..10].copy_from_slice(&[0x5f, PREEMPT_AND_ABORT, 1, 0, 0, 0, 0, 0, 24, 0]);
    let begun = device.unit.begin(Request {
        nexus: B,
        lun: [0; 8],
        cdb,
        data_out: list.into(),
        expected_bytes: 24,
        attribute: Attribute::Simple,
    });
    let Begun::Keep(keep) = begun else {
        panic!("{begun:?}");
    };
    assert_eq!(out(&mut device, A, CLEAR, 0, 0xa, 0).status, Status::Busy);
    assert_eq!(device.run(&[0x16, 0, 0, 0, 0, 0], &[]).status, Status::Busy);
    assert_eq!(may(&mut device, A), (true, true), "A still holds it");
    let Begun::Done(done) = device.unit.kept(keep, Ok(())) else {
        panic!("not done");
    };
    assert_eq!((done.status, done.abort), (Status::Good, vec![A]));
    assert_eq!(device.attention(A), Some((6, 0x2a, 5)));
    assert_eq!(may(&mut device, A), (true, false));
}

#[test]
fn no_more_is_registered_than_can_be_kept() {
    let mut device = Device::new();
    let mut registered = 0;
    for number in 0_u16..200 {
        let nexus = NexusId(100 + u64::from(number));
        let name = format!("iqn.2026-01.io.example:{number:0>200}");
        let isid = [0x40, 0, 0, 0, 0, 1];
        device
            .unit
            .nexus_gained(nexus, InitiatorPort { name, isid });
        device.attention(nexus);
        let done = out(&mut device, nexus, REGISTER, 0, 0, 7);
        if done.status == Status::Good {
            registered += 1;
        } else {
            assert_sense(&done, (5, 0x55, 4));
        }
    }
    assert!((60..100).contains(&registered), "{registered}");
    assert!(device.unit.state().len() <= STATE_BYTES_MAX);
}

#[test]
fn a_state_of_the_first_version_is_read() {
    // As an earlier engine wrote it: one registration, which holds type 1.
    let mut old = vec![1, 0, 5, 0, 0, 0, 1, 0];
    old.extend(0xa_u64.to_le_bytes());
    old.extend(port(1).isid);
    old.push(port(1).name.len() as u8);
    old.extend(port(1).name.as_bytes());
    old.extend([1, 0, 0]);
    old.extend(ankole_proto::crc32c(&old).to_le_bytes());
    let mut device = Device::new();
    device.unit.restore(&old).unwrap();
    assert_eq!(may(&mut device, A), (true, true));
    assert_eq!(may(&mut device, B), (true, false));
}
