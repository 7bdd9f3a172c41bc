use super::*;

fn lun(first: u8, second: u8) -> [u8; 8] {
    [first, second, 0, 0, 0, 0, 0, 0]
}

fn to_lun(device: &mut Device, lun: [u8; 8], cdb: &[u8]) -> Done {
    let mut padded = [0; 16];
    padded[..cdb.len()].copy_from_slice(cdb);
    device.request(Request {
        nexus: A,
        lun,
        cdb: padded,
        data_out: Bytes::new(),
        expected_bytes: 255,
        attribute: Attribute::Simple,
    })
}

#[test]
fn other_luns_are_told_to_be_absent() {
    let mut device = Device::new();
    for absent in [
        lun(0, 1),
        lun(0x40, 1),
        lun(0xc1, 1),
        [0, 0, 0, 0, 0, 0, 0, 1],
    ] {
        let inquiry = to_lun(&mut device, absent, &[0x12, 0, 0, 0, 36, 0]);
        assert_good(&inquiry);
        assert_eq!((inquiry.data_in[0], inquiry.data_in.len()), (0x7f, 36));
        let page = to_lun(&mut device, absent, &[0x12, 1, 0, 0, 36, 0]);
        assert_sense(&page, INVALID_FIELD);
        for cdb in [&[0; 6][..], &shaped(0x28, 0, 0, 1), &[0xff; 16]] {
            assert_sense(&to_lun(&mut device, absent, cdb), (5, 0x25, 0));
        }
        let request_sense = to_lun(&mut device, absent, &[3, 0, 0, 0, 18, 0]);
        assert_good(&request_sense);
        assert_eq!(
            request_sense.data_in[2..14],
            [5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x25, 0]
        );
        assert_good(&to_lun(&mut device, absent, &report_luns(0)));
    }
    assert_good(&to_lun(&mut device, lun(0x40, 0), &[0; 6]));
}

fn report_luns(select: u8) -> [u8; 12] {
    [0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0]
}

#[test]
fn report_luns_tells_lun_0_alone() {
    let mut device = Device::new();
    for (select, length) in [(0, 8), (2, 8), (1, 0)] {
        let done = device.run(&report_luns(select), &[]);
        assert_good(&done);
        let mut expected = vec![0, 0, 0, length, 0, 0, 0, 0];
        expected.resize(8 + usize::from(length), 0);
        assert_eq!(done.data_in, expected);
    }
    assert_sense(&device.run(&report_luns(3), &[]), INVALID_FIELD);
}

#[test]
fn unit_attentions_are_told_once_and_not_to_inquiry() {
    let mut device = Device::new();
    device.unit.reset(Reset::LogicalUnit);
    assert!(device.unit.take_news() && !device.unit.take_news());
    let sense = device.unit.announce(A).unwrap();
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x29, 3));
    assert_eq!(device.unit.announce(A), None, "one message");
    assert_good(&device.run(&[0x12, 0, 0, 0, 36, 0], &[]));
    assert_good(&device.run(&report_luns(0), &[]));
    assert_eq!(device.attention(A), Some((6, 0x29, 0x03)));
    assert_eq!(device.attention(A), None);
    let done = device.run_as(B, &[3, 0, 0, 0, 252, 0], &[]);
    assert_good(&done);
    assert_eq!(
        (done.data_in[2], done.data_in[12], done.data_in[13]),
        (6, 0x29, 3)
    );
    assert_eq!(device.attention(B), None);
    let done = device.run_as(B, &[3, 1, 0, 0, 252, 0], &[]);
    assert_eq!(done.data_in[..], [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_new_size_is_announced_and_served() {
    let mut device = Device::new();
    let size = VolumeSize::from_bytes(2 * VOLUME_BYTES).unwrap();
    device.unit.set_size(size);
    device.memory.resize(2 * VOLUME_BYTES as usize, 0);
    for nexus in [A, B] {
        assert_eq!(device.attention(nexus), Some((6, 0x2a, 0x09)));
    }
    assert_good(&device.run(&shaped(0x28, 0, 2 * SECTORS - 1, 1), &[]));
    device.unit.set_size(size);
    assert_eq!(device.attention(A), None);
}

#[test]
fn a_session_that_comes_again_is_told_so() {
    let mut device = Device::new();
    device.unit.nexus_lost(A);
    device.unit.nexus_gained(NexusId(3), port(1));
    assert_eq!(device.attention(NexusId(3)), Some((6, 0x29, 0x07)));
    // A command of a session that is gone is our own mistake; it must not end the engine.
    assert_eq!(device.attention(A), Some((0xb, 0x44, 0)));
}

#[test]
fn unknown_commands_and_service_actions_are_told_apart() {
    let mut device = Device::new();
    assert_sense(&device.run(&[0x04, 0, 0, 0, 0, 0], &[]), (5, 0x20, 0));
    assert_sense(
        &device.run(&[0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
        (5, 0x20, 0),
    );
    assert_sense(&device.run(&[0x9e, 0x11], &[]), INVALID_FIELD);
    assert_sense(&device.run(&[0x5e, 4], &[]), INVALID_FIELD);
    // NACA in the control byte.
    assert_sense(&device.run(&[0, 0, 0, 0, 0, 4], &[]), INVALID_FIELD);
}

#[test]
fn stopping_flushes_and_ejecting_is_refused() {
    let mut device = Device::new();
    assert_good(&device.run(&[0x1b, 0, 0, 0, 1, 0], &[]));
    assert!(device.seen.is_empty());
    assert_good(&device.run(&[0x1b, 0, 0, 0, 0, 0], &[]));
    assert_eq!(device.seen, [Operation::Flush]);
    assert_sense(&device.run(&[0x1b, 0, 0, 0, 2, 0], &[]), INVALID_FIELD);
    assert_sense(&device.run(&[0x1b, 0, 0, 0, 0x10, 0], &[]), INVALID_FIELD);
    assert_good(&device.run(&[0x1e, 0, 0, 0, 1, 0], &[]));
    assert_good(&device.run(&[0x1e, 0, 0, 0, 0, 0], &[]));
}

#[test]
fn capacity_is_told_in_both_lengths() {
    let mut device = Device::new();
    let done = device.run(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
    let last = (SECTORS as u32 - 1).to_be_bytes();
    assert_eq!(done.data_in, [last, [0, 0, 2, 0]].concat());
    let done = device.run(&cdb_16(0x9e, 0x10, 0, 32), &[]);
    let mut expected = vec![0; 32];
    expected[4..8].copy_from_slice(&last);
    expected[10] = 2;
    expected[13..15].copy_from_slice(&[3, 0xc0]);
    assert_eq!(done.data_in, expected);
    assert_eq!(
        device.run(&cdb_16(0x9e, 0x10, 0, 12), &[]).data_in.len(),
        12
    );
    device
        .unit
        .set_size(VolumeSize::from_bytes(4 << 40).unwrap());
    device.attention(A);
    let done = device.run(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(done.data_in[..4], [0xff; 4]);
}

#[test]
fn there_are_no_defects() {
    let mut device = Device::new();
    let done = device.run(&[0x37, 0, 0x1d, 0, 0, 0, 0, 0, 255, 0], &[]);
    assert_eq!(done.data_in[..], [0, 0x1d, 0, 0]);
    let done = device.run(&[0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0], &[]);
    assert_eq!(done.data_in[..], [0, 0x0d, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn attributes_that_cannot_be_are_refused() {
    let mut device = Device::new();
    for attribute in [Attribute::ContingentAllegiance, Attribute::Reserved] {
        let done = device.request(Request {
            nexus: A,
            lun: [0; 8],
            cdb: [0; 16],
            data_out: Bytes::new(),
            expected_bytes: 0,
            attribute,
        });
        assert_sense(&done, (5, 0x49, 0));
    }
}
