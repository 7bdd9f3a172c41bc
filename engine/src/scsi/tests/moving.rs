//! REGISTER AND MOVE, and registrations on behalf of others (SPEC_I_PT).

use proptest::prelude::*;

use super::*;

const CONFLICT: Status = Status::ReservationConflict;
const LENGTH_ERROR: (u8, u8, u8) = (5, 0x1a, 0);
const NO_ROOM: (u8, u8, u8) = (5, 0x55, 4);
const UNREGISTER: u8 = 2;
const APTPL: u8 = 1;

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const REGISTER_AND_IGNORE: u8 = 6;
const REGISTER_AND_MOVE: u8 = 7;

fn send(device: &mut Device, nexus: NexusId, action: u8, kind: u8, list: &[u8]) -> Done {
    let [high, low] = (list.len() as u16).to_be_bytes();
    device.run_as(nexus, &[0x5f, action, kind, 0, 0, 0, 0, high, low, 0], list)
}

fn keys(key: u64, new: u64) -> Vec<u8> {
    [key.to_be_bytes(), new.to_be_bytes()].concat()
}

fn out(device: &mut Device, nexus: NexusId, action: u8, kind: u8, key: u64, new: u64) -> Done {
    let mut list = keys(key, new);
    list.resize(24, 0);
    send(device, nexus, action, kind, &list)
}

/// A TransportID: format 1 with a number for its ISID, format 0 without.
fn named(host: u8, isid: Option<u8>) -> Vec<u8> {
    let mut name = format!("iqn.2026-01.io.example:host{host}");
    if let Some(isid) = isid {
        name += &format!(",i,0x4000000000{isid:02x}");
    }
    let padded = (name.len() + 1).next_multiple_of(4);
    let mut id = vec![if isid.is_some() { 0x45 } else { 0x05 }, 0, 0, padded as u8];
    id.extend(name.as_bytes());
    id.resize(4 + padded, 0);
    id
}

fn move_list(key: u64, new: u64, flags: u8, id: &[u8]) -> Vec<u8> {
    let mut list = keys(key, new);
    list.extend([0, flags, 0, 1]);
    list.extend((id.len() as u32).to_be_bytes());
    list.extend(id);
    list
}

fn hand_over(device: &mut Device, nexus: NexusId, list: &[u8]) -> Done {
    send(device, nexus, REGISTER_AND_MOVE, 0, list)
}

fn others_list(key: u64, new: u64, ids: &[Vec<u8>]) -> Vec<u8> {
    let ids = ids.concat();
    let mut list = keys(key, new);
    list.extend([0, 0, 0, 0, 8, 0, 0, 0]);
    list.extend((ids.len() as u32).to_be_bytes());
    list.extend(ids);
    list
}

/// PERSISTENT RESERVE IN: the generation, and the descriptors.
fn report(device: &mut Device, action: u8) -> (u32, Vec<u8>) {
    let done = device.run(&[0x5e, action, 0, 0, 0, 0, 0, 0x40, 0, 0], &[]);
    assert_good(&done);
    let generation = u32::from_be_bytes(*done.data_in.first_chunk().unwrap());
    (generation, done.data_in[8..].to_vec())
}

/// The registered keys.
fn registered(device: &mut Device) -> Vec<u64> {
    let (_, keys) = report(device, 0);
    let key = |bytes: &[u8]| u64::from_be_bytes(*bytes.first_chunk().unwrap());
    keys.chunks(8).map(key).collect()
}

fn may_write(device: &mut Device, nexus: NexusId) -> bool {
    let cdb = cdb_10(0x2a, 0, 0, 1);
    device.run_as(nexus, &cdb, &[0; 512]).status == Status::Good
}

/// A holds a reservation of this type, nobody else is registered.
fn held(kind: u8) -> Device {
    let mut device = Device::new();
    assert_good(&out(&mut device, A, REGISTER, 0, 0, 0xa));
    assert_good(&out(&mut device, A, RESERVE, kind, 0xa, 0));
    device
}

#[test]
fn a_reservation_moves_to_another_port_which_is_registered_for_it() {
    for kind in [1, 3, 5, 6] {
        let mut device = held(kind);
        let (before, _) = report(&mut device, 0);
        let list = move_list(0xa, 0xb, APTPL, &named(2, Some(2)));
        assert_good(&hand_over(&mut device, A, &list));
        assert_eq!(report(&mut device, 0).0, before + 1);
        assert_eq!(registered(&mut device), [0xa, 0xb]);
        let (_, reservation) = report(&mut device, 1);
        let key = 0xb_u64.to_be_bytes();
        assert_eq!(
            reservation,
            [&key[..], &[0, 0, 0, 0, 0, kind, 0, 0]].concat()
        );
        assert!(may_write(&mut device, B));
        assert_eq!(may_write(&mut device, A), kind >= 5, "type {kind}");
        for nexus in [A, B] {
            assert_eq!(device.attention(nexus), None);
        }
        let capabilities = device.run(&[0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0], &[]).data_in;
        assert_eq!(capabilities[3] & 1, 1, "APTPL is activated");
    }
}

#[test]
fn the_port_that_gave_the_reservation_away_can_leave() {
    let mut device = held(3);
    assert_good(&out(&mut device, B, REGISTER, 0, 0, 7));
    let list = move_list(0xa, 0xb, UNREGISTER, &named(2, Some(2)));
    assert_good(&hand_over(&mut device, A, &list));
    assert_eq!(registered(&mut device), [0xb], "B's key was changed");
    assert!(!may_write(&mut device, A) && may_write(&mut device, B));
    assert_eq!(hand_over(&mut device, A, &list).status, CONFLICT);
}

#[test]
fn a_port_that_is_not_there_yet_finds_its_reservation_in_the_next_engine() {
    let mut device = held(6);
    let list = move_list(0xa, 0xc, UNREGISTER, &named(9, Some(9)));
    assert_good(&hand_over(&mut device, A, &list));
    let state = device.kept.last().unwrap().clone();
    assert_eq!(state, device.unit.state());
    let mut device = Device::new();
    device.unit.restore(&state).unwrap();
    let late = NexusId(9);
    device.unit.nexus_gained(late, port(9));
    device.attention(late);
    assert!(may_write(&mut device, late));
    assert!(!may_write(&mut device, A) && !may_write(&mut device, B));
}

#[test]
fn an_initiator_device_is_known_by_its_one_port() {
    let mut device = held(1);
    let to_device = |host| move_list(0xa, 0xb, 0, &named(host, None));
    let done = hand_over(&mut device, A, &to_device(8));
    assert_sense(&done, BAD_PARAMETER);
    assert_good(&hand_over(&mut device, A, &to_device(2)));
    let second = InitiatorPort {
        isid: [0x40, 0, 0, 0, 0, 77],
        ..port(1)
    };
    device.unit.nexus_gained(NexusId(77), second);
    device.attention(NexusId(77));
    let back = move_list(0xb, 0xd, 0, &named(1, None));
    let done = hand_over(&mut device, B, &back);
    assert_sense(&done, BAD_PARAMETER);
    assert_good(&hand_over(
        &mut device,
        B,
        &move_list(0xb, 0xd, 0, &named(1, Some(77))),
    ));
    assert!(may_write(&mut device, NexusId(77)));
}

#[test]
fn what_cannot_be_moved_is_refused_and_changes_nothing() {
    let mut device = held(1);
    assert_good(&out(&mut device, B, REGISTER, 0, 0, 0xb));
    let before = device.unit.state();
    let to = named(3, Some(3));
    let good = move_list(0xa, 0xc, 0, &to);
    let with = |at: usize, byte: u8| {
        let mut list = good.clone();
        list[at] = byte;
        list
    };
    let itself = move_list(0xa, 0xc, 0, &named(1, Some(1)));
    let two = move_list(0xa, 0xc, 0, &[to.clone(), to.clone()].concat());
    for (list, expected) in [
        (with(15, 0), BAD_PARAMETER),
        (with(19, 2), BAD_PARAMETER),
        (with(24, 0x46), BAD_PARAMETER),
        (itself, BAD_PARAMETER),
        (two, LENGTH_ERROR),
        (with(23, 8), LENGTH_ERROR),
        (good[..good.len() - 4].to_vec(), LENGTH_ERROR),
        (good[..24].to_vec(), LENGTH_ERROR),
        (good[..17].to_vec(), LENGTH_ERROR),
        (Vec::new(), LENGTH_ERROR),
    ] {
        assert_sense(&hand_over(&mut device, A, &list), expected);
    }
    // The holder alone can, by its key.
    let by_b = move_list(0xb, 0xc, 0, &to);
    assert_eq!(hand_over(&mut device, B, &by_b).status, CONFLICT);
    let stranger = move_list(0, 0xc, 0, &to);
    assert_eq!(hand_over(&mut device, A, &stranger).status, CONFLICT);
    device.keep_failure = Some(Failure::Unavailable);
    assert_sense(&hand_over(&mut device, A, &good), (2, 0x04, 0x0a));
    assert_eq!(device.unit.state(), before);

    for kind in [7, 8] {
        let mut device = held(kind);
        assert_eq!(
            hand_over(&mut device, A, &good).status,
            CONFLICT,
            "type {kind}"
        );
    }
    let mut device = Device::new();
    assert_good(&out(&mut device, A, REGISTER, 0, 0, 0xa));
    assert_sense(&hand_over(&mut device, A, &good), INVALID_FIELD);
}

#[test]
fn others_are_registered_along_with_the_port_that_asks() {
    let mut device = Device::new();
    assert_good(&out(&mut device, B, REGISTER, 0, 0, 0xb));
    let ids = [named(3, Some(3)), named(2, Some(2)), named(1, None)];
    let list = others_list(0, 0xa, &ids);
    assert_good(&send(&mut device, A, REGISTER, 0, &list));
    let mut all = registered(&mut device);
    all.sort_unstable();
    assert_eq!(all, [0xa, 0xa, 0xb], "B keeps its own key");
    assert_eq!(report(&mut device, 0).0, 2, "one change");
    let c = NexusId(3);
    device.unit.nexus_gained(c, port(3));
    device.attention(c);
    assert_good(&out(&mut device, c, RESERVE, 3, 0xa, 0));
    assert!(may_write(&mut device, c) && !may_write(&mut device, A));
}

#[test]
fn registering_others_is_refused_where_it_has_no_meaning() {
    let mut device = Device::new();
    let list = |key, new| others_list(key, new, &[named(3, Some(3))]);
    for action in [RESERVE, 2, 3, 4, 5, REGISTER_AND_IGNORE] {
        let done = send(&mut device, A, action, 1, &list(0, 0xa));
        assert_sense(&done, BAD_PARAMETER);
    }
    assert_eq!(
        send(&mut device, A, REGISTER, 0, &list(5, 6)).status,
        CONFLICT
    );
    assert_good(&send(&mut device, A, REGISTER, 0, &list(0, 0)));
    assert!(registered(&mut device).is_empty());
    let good = list(0, 0xa);
    for length in [24, 27, 28, 31, good.len() - 1] {
        let done = send(&mut device, A, REGISTER, 0, &good[..length]);
        assert_sense(&done, LENGTH_ERROR);
    }
    let mut cut = good.clone();
    cut.truncate(good.len() - 4);
    let left = (cut.len() - 28) as u8;
    cut[27] = left;
    assert_sense(&send(&mut device, A, REGISTER, 0, &cut), LENGTH_ERROR);
    assert!(registered(&mut device).is_empty());
    assert_good(&send(&mut device, A, REGISTER, 0, &good));
    let again = send(&mut device, A, REGISTER, 0, &list(0xa, 0xc));
    assert_sense(&again, INVALID_FIELD);
}

#[test]
fn all_others_are_registered_or_none() {
    let mut device = Device::new();
    let many = |count: u8| -> Vec<_> { (3..3 + count).map(|n| named(n, Some(n))).collect() };
    for count in [128, 200] {
        let list = others_list(0, 0xa, &many(count));
        assert_sense(&send(&mut device, A, REGISTER, 0, &list), NO_ROOM);
        assert!(registered(&mut device).is_empty());
    }
    let list = others_list(0, 0xa, &many(127));
    assert_good(&send(&mut device, A, REGISTER, 0, &list));
    assert_eq!(registered(&mut device), [0xa; 128]);
    assert_good(&out(&mut device, A, RESERVE, 1, 0xa, 0));
    let stays = move_list(0xa, 0xb, 0, &named(250, Some(250)));
    assert_sense(&hand_over(&mut device, A, &stays), NO_ROOM);
    let leaves = move_list(0xa, 0xb, UNREGISTER, &named(250, Some(250)));
    assert_good(&hand_over(&mut device, A, &leaves));
    assert!(device.unit.state().len() <= STATE_BYTES_MAX);
}

/// One PERSISTENT RESERVE OUT of A or B, with keys of which some are right.
fn any_request() -> impl Strategy<Value = (NexusId, u8, u8, Vec<u8>)> {
    let nexus = prop_oneof![Just(A), Just(B)];
    let kind = prop_oneof![Just(1_u8), Just(3), Just(5), Just(6), Just(7), Just(8)];
    let id = (1_u8..5, proptest::option::of(1_u8..5)).prop_map(|(host, isid)| named(host, isid));
    let ids = proptest::collection::vec(id, 1..4);
    (
        nexus,
        0_u8..8,
        kind,
        0_u64..3,
        0_u64..3,
        0_u8..4,
        ids,
        any::<bool>(),
    )
        .prop_map(|(nexus, action, kind, key, new, flags, ids, others)| {
            let list = match action {
                REGISTER_AND_MOVE => move_list(key, new, flags, &ids[0]),
                REGISTER if others => others_list(key, new, &ids),
                _ => [keys(key, new), vec![0; 8]].concat(),
            };
            (nexus, action, kind, list)
        })
}

proptest! {
    #[test]
    fn whatever_is_asked_the_holder_is_registered_and_the_state_comes_back(
        requests in proptest::collection::vec(any_request(), 1..40),
    ) {
        let mut device = Device::new();
        for (nexus, action, kind, list) in requests {
            let before = device.unit.state();
            let (generation, _) = report(&mut device, 0);
            let done = send(&mut device, nexus, action, kind, &list);
            // What others are told is not looked at here.
            for nexus in [A, B] {
                while device.attention(nexus).is_some() {}
            }
            let after = device.unit.state();
            if done.status != Status::Good {
                prop_assert_eq!(&after, &before);
            }
            let (_, reservation) = report(&mut device, 1);
            let (_, status) = report(&mut device, 3);
            let (mut holders, mut count, mut rest) = (0, 0, &status[..]);
            while !rest.is_empty() {
                let id_bytes = u32::from_be_bytes(*rest[20..].first_chunk().unwrap()) as usize;
                holders += usize::from(rest[12] & 1 != 0);
                count += 1;
                rest = &rest[24 + id_bytes..];
            }
            let expected = match reservation.get(13) {
                None => 0,
                Some(7 | 8) => count,
                Some(_) => 1,
            };
            prop_assert_eq!(holders, expected);
            prop_assert!(reservation.is_empty() || count > 0);
            let moved = action == REGISTER_AND_MOVE && done.status == Status::Good;
            prop_assert!(!moved || report(&mut device, 0).0 == generation + 1);
            let size = VolumeSize::from_bytes(VOLUME_BYTES).unwrap();
            let mut next = LogicalUnit::new(identity(), size, true);
            next.restore(&after).unwrap();
            prop_assert_eq!(next.state(), after);
        }
    }
}
