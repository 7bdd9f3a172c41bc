use super::*;

fn target(kind: u8, designator: &[u8]) -> Vec<u8> {
    let mut target = vec![0xe4, 0, 0, 0, 1, kind, 0, designator.len() as u8];
    target.extend(designator);
    target.resize(32, 0);
    target
}

fn naa() -> Vec<u8> {
    target(3, &identity().naa().to_bytes())
}

fn segment(count: u16, from: u64, to: u64, targets: [u16; 2]) -> Vec<u8> {
    let mut segment = vec![2, 0, 0, 0x18];
    segment.extend(targets.iter().flat_map(|index| index.to_be_bytes()));
    segment.extend([0, 0]);
    segment.extend(count.to_be_bytes());
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment
}

fn list(id: u8, targets: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (targets, segments) = (targets.concat(), segments.concat());
    let mut list = vec![id, 0];
    list.extend((targets.len() as u16).to_be_bytes());
    list.extend([0; 4]);
    list.extend((segments.len() as u32).to_be_bytes());
    list.extend([0; 4]);
    [list, targets, segments].concat()
}

fn copy(device: &mut Device, list: &[u8]) -> Done {
    device.run(&cdb_16(0x83, 0, 0, list.len() as u64), list)
}

fn status(device: &mut Device, id: u8) -> Done {
    let mut cdb = cdb_16(0x84, 0, 0, 64);
    cdb[2] = id;
    device.run(&cdb, &[])
}

#[test]
fn each_segment_is_one_operation() {
    let mut device = Device::new();
    let data = pattern(5000, 3);
    device.memory[..5000 * 512].copy_from_slice(&data);
    let segments = [segment(5000, 0, 10_000, [0, 0]), segment(1, 7, 9, [0, 0])];
    assert_good(&copy(&mut device, &list(4, &[naa()], &segments)));
    assert_eq!(device.memory[10_000 * 512..15_000 * 512], data[..]);
    assert_eq!(device.memory[9 * 512..10 * 512], data[7 * 512..8 * 512]);
    assert_eq!(device.seen.len(), 2);
    let done = status(&mut device, 4);
    assert_eq!(done.data_in[..], [0, 0, 0, 8, 1, 0, 2, 1, 0, 0, 9, 0xc4]);
    assert_sense(&status(&mut device, 4), INVALID_FIELD);
}

#[test]
fn a_copy_that_fails_says_so() {
    let mut device = Device::new();
    device.failures.push_back(Failure::Unreadable);
    let parameters = list(1, &[naa()], &[segment(8, 0, 100, [0, 0])]);
    assert_sense(&copy(&mut device, &parameters), (0xa, 0x11, 0));
    assert_eq!(status(&mut device, 1).data_in[4], 2);
}

#[test]
fn only_this_unit_can_be_copied() {
    let mut device = Device::new();
    let one = [segment(1, 0, 1, [0, 0])];
    let vendor = target(
        1,
        &[&b"ANKOLE  "[..], &identity().serial().as_bytes()[..12]].concat(),
    );
    assert_good(&copy(&mut device, &list(1, &[vendor], &one)));
    for other in [
        target(3, &[0x3f; 8]),
        target(1, b"ANKOLE  "),
        target(2, &[1; 8]),
    ] {
        assert_sense(&copy(&mut device, &list(1, &[other], &one)), (0xa, 0x0d, 2));
    }
    let unknown = [segment(1, 0, 1, [0, 1])];
    assert_sense(
        &copy(&mut device, &list(1, &[naa()], &unknown)),
        (0xa, 0x0d, 2),
    );
}

#[test]
fn wrong_parameter_lists_are_refused() {
    let mut device = Device::new();
    let segments = |count| vec![segment(1, 0, 1, [0, 0]); count];
    let good = list(1, &[naa()], &segments(1));
    assert_good(&copy(&mut device, &[]));
    for cut in [1, 15, 16 + 31, 16 + 32 + 27] {
        assert_sense(&copy(&mut device, &good[..cut]), (5, 0x1a, 0));
    }
    let many_targets = list(1, &vec![naa(); 3], &segments(1));
    assert_sense(&copy(&mut device, &many_targets), (5, 0x26, 6));
    assert_sense(
        &copy(&mut device, &list(1, &[naa()], &segments(17))),
        (5, 0x26, 8),
    );
    assert_sense(
        &copy(&mut device, &list(1, &[naa()], &segments(40))),
        (5, 0x1a, 0),
    );
    let mut fibre = good.clone();
    fibre[16] = 0xe0;
    assert_sense(&copy(&mut device, &fibre), (5, 0x26, 7));
    let mut stream = good.clone();
    stream[48] = 3;
    assert_sense(&copy(&mut device, &stream), (5, 0x26, 9));
    let beyond = [segment(2, 0, SECTORS - 1, [0, 0])];
    assert_sense(&copy(&mut device, &list(1, &[naa()], &beyond)), (0xa, 0, 0));
    assert!(device.seen.is_empty());
}

#[test]
fn operating_parameters_tell_the_limits() {
    let mut device = Device::new();
    let done = device.run(&cdb_16(0x84, 3, 0, 1024), &[]);
    assert_good(&done);
    assert_eq!(done.data_in.len(), 46);
    assert_eq!(
        done.data_in[..16],
        [0, 0, 0, 42, 1, 0, 0, 0, 0, 2, 0, 16, 0, 0, 4, 0]
    );
    assert_eq!(done.data_in[43..], [2, 2, 0xe4]);
}
