use super::*;

const CACHING: [u8; 20] = [8, 18, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CONTROL: [u8; 12] = [10, 10, 0x20, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];

fn sense_6(device: &mut Device, page: u8) -> Done {
    device.run(&[0x1a, 8, page, 0, 255, 0], &[])
}

fn select_6(device: &mut Device, pages: &[u8]) -> Done {
    let list = [&[0; 4], pages].concat();
    device.run(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list)
}

fn control(d_sense: bool, swp: bool) -> [u8; 12] {
    let mut page = CONTROL;
    page[2] |= u8::from(d_sense) << 2;
    page[4] = u8::from(swp) << 3;
    page
}

#[test]
fn mode_data_have_these_bytes() {
    let mut device = Device::new();
    let both = [&CACHING[..], &CONTROL].concat();
    assert_eq!(
        sense_6(&mut device, 8).data_in,
        [&[23, 0, 0x10, 0], &CACHING[..]].concat()
    );
    assert_eq!(
        sense_6(&mut device, 10).data_in,
        [&[15, 0, 0x10, 0], &CONTROL[..]].concat()
    );
    assert_eq!(
        sense_6(&mut device, 0x3f).data_in,
        [&[35, 0, 0x10, 0], &both[..]].concat()
    );
    let descriptor = [0, 0, 0x80, 0, 0, 0, 2, 0];
    let done = device.run(&[0x1a, 0, 0x3f, 0, 255, 0], &[]);
    assert_eq!(
        done.data_in,
        [&[43, 0, 0x10, 8], &descriptor[..], &both].concat()
    );
    let done = device.run(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0], &[]);
    let expected = [&[0, 46, 0, 0x10, 0, 0, 0, 8], &descriptor[..], &both].concat();
    assert_eq!(done.data_in, expected);
    let long = [0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    let done = device.run(&[0x5a, 0x10, 0x3f, 0, 0, 0, 0, 1, 0, 0], &[]);
    let expected = [&[0, 54, 0, 0x10, 1, 0, 0, 16], &long[..], &both].concat();
    assert_eq!(done.data_in, expected);
}

#[test]
fn changeable_bits_are_told_and_saved_values_are_not_kept() {
    let mut device = Device::new();
    let done = sense_6(&mut device, 0x40 | 0x3f);
    let mut expected = vec![35, 0, 0x10, 0, 8, 18, 4];
    expected.resize(24, 0);
    expected.extend([10, 10, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(done.data_in, expected);
    assert_good(&sense_6(&mut device, 0x80 | 8));
    assert_sense(&sense_6(&mut device, 0xc0 | 8), (5, 0x39, 0));
    assert_sense(&sense_6(&mut device, 0x1c), INVALID_FIELD);
    assert_sense(&device.run(&[0x1a, 8, 8, 1, 255, 0], &[]), INVALID_FIELD);
}

#[test]
fn software_write_protection_refuses_every_write() {
    let mut device = Device::new();
    assert_good(&select_6(&mut device, &control(false, true)));
    assert_eq!(device.attention(B), Some((6, 0x2a, 1)));
    assert_eq!(sense_6(&mut device, 8).data_in[2], 0x90);
    let mut cas = cdb_16(0x89, 0, 0, 0);
    cas[13] = 1;
    for cdb in [
        vec![0x0a, 0, 0, 0, 1, 0],
        shaped(0x2a, 0, 0, 1),
        shaped(0x8e, 0, 0, 1),
        shaped(0x93, 0, 0, 1),
        shaped(0x42, 0, 0, 8),
        shaped(0x8b, 0, 0, 1),
        cas.to_vec(),
    ] {
        assert_sense(&device.run(&cdb, &[0; 512]), (7, 0x27, 2));
    }
    assert_good(&device.run(&shaped(0x28, 0, 0, 1), &[]));
    assert!(
        device
            .seen
            .iter()
            .all(|seen| matches!(seen, Operation::Read { .. }))
    );
    assert_good(&select_6(&mut device, &control(false, false)));
    assert_good(&device.run(&shaped(0x2a, 0, 0, 1), &[0; 512]));
}

#[test]
fn d_sense_chooses_descriptor_format() {
    let mut device = Device::new();
    assert_good(&select_6(&mut device, &control(true, false)));
    let done = device.run(&shaped(0x28, 0, SECTORS, 1), &[]);
    assert_eq!(done.sense[..4], [0x72, 5, 0x21, 0]);
    device.unit.reset(Reset::TargetWarm);
    assert_eq!(device.attention(A), Some((6, 0x29, 2)), "fixed again");
}

#[test]
fn turning_the_write_cache_off_flushes_it() {
    let mut device = Device::new();
    let mut page = CACHING;
    page[2] = 0;
    assert_good(&select_6(&mut device, &page));
    assert_eq!(device.seen, [Operation::Flush]);
    assert_good(&device.run(&shaped(0x2a, 0, 0, 1), &[0; 512]));
    assert!(matches!(device.seen[1], Operation::Write { fua: true, .. }));
}

#[test]
fn mode_select_refuses_what_it_cannot_change_and_changes_nothing_then() {
    let mut device = Device::new();
    let before = sense_6(&mut device, 0x3f).data_in;
    let mut caching = CACHING;
    caching[2] = 5;
    assert_sense(&select_6(&mut device, &caching), BAD_PARAMETER);
    let both = [&control(true, true)[..], &caching].concat();
    assert_sense(&select_6(&mut device, &both), BAD_PARAMETER);
    let mut short = control(true, true);
    short[1] = 9;
    assert_sense(&select_6(&mut device, &short[..11]), BAD_PARAMETER);
    assert_sense(
        &select_6(&mut device, &control(true, true)[..7]),
        (5, 0x1a, 0),
    );
    assert_sense(&select_6(&mut device, &[0x1c, 0]), BAD_PARAMETER);
    assert_sense(
        &device.run(&[0x15, 0x11, 0, 0, 16, 0], &[0; 16]),
        INVALID_FIELD,
    );
    assert_sense(
        &device.run(&[0x15, 0x10, 0, 0, 3, 0], &[0; 3]),
        (5, 0x1a, 0),
    );
    assert_good(&device.run(&[0x15, 0x10, 0, 0, 0, 0], &[]));
    assert_eq!(sense_6(&mut device, 0x3f).data_in, before);
}

#[test]
fn mode_select_10_takes_back_what_mode_sense_10_gave() {
    let mut device = Device::new();
    for flags in [0, 0x08, 0x10] {
        let mut list = device
            .run(&[0x5a, flags, 0x3f, 0, 0, 0, 0, 1, 0, 0], &[])
            .data_in
            .to_vec();
        list[..2].fill(0);
        let done = device.run(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list);
        assert_good(&done);
    }
    let mut list = device
        .run(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0], &[])
        .data_in
        .to_vec();
    list[15] = 1;
    let done = device.run(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list);
    assert_sense(&done, BAD_PARAMETER);
}

#[test]
fn a_volume_without_write_cache_writes_through_and_cannot_be_talked_out_of_it() {
    let mut device = Device::new();
    device.unit.set_write_cache(false);
    for nexus in [A, B] {
        assert_eq!(device.attention(nexus), Some((6, 0x2a, 1)));
    }
    device.unit.set_write_cache(false);
    assert_eq!(device.attention(A), None, "nothing changed");
    assert_eq!(sense_6(&mut device, 8).data_in[6], 0, "WCE=0");
    assert_eq!(sense_6(&mut device, 0x48).data_in[6], 0, "not changeable");
    assert_sense(&select_6(&mut device, &CACHING), BAD_PARAMETER);
    device.unit.reset(Reset::LogicalUnit);
    device.attention(A);
    assert_good(&device.run(&shaped(0x2a, 0, 0, 1), &[1; 512]));
    let last = device.seen.last();
    assert!(
        matches!(last, Some(Operation::Write { fua: true, .. })),
        "{last:?}"
    );
    device.unit.set_write_cache(true);
    device.attention(A);
    assert_good(&device.run(&shaped(0x2a, 0, 0, 1), &[1; 512]));
    let last = device.seen.last();
    assert!(matches!(last, Some(Operation::Write { fua: false, .. })));
}
