use super::*;

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = Vec::new();
    list.extend((ranges.len() as u16 * 16 + 6).to_be_bytes());
    list.extend((ranges.len() as u16 * 16).to_be_bytes());
    list.extend([0; 4]);
    for (lba, count) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(count.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap(device: &mut Device, ranges: &[(u64, u32)]) -> Done {
    let list = unmap_list(ranges);
    device.run(&cdb_10(0x42, 0, 0, list.len() as u64), &list)
}

#[test]
fn unmapped_blocks_read_as_zeros() {
    let mut device = Device::new();
    assert_good(&device.run(&cdb_16(0x8a, 0, 0, 64), &pattern(64, 1)));
    assert_good(&unmap(&mut device, &[(3, 2), (16, 8), (40, 0)]));
    let mut expected = pattern(64, 1);
    expected[3 * 512..5 * 512].fill(0);
    expected[16 * 512..24 * 512].fill(0);
    assert_eq!(device.memory[..64 * 512], expected[..]);
}

#[test]
fn unmap_holds_to_its_limits() {
    let mut device = Device::new();
    assert_sense(
        &unmap(&mut device, &[(0, 1), (SECTORS - 1, 2)]),
        OUT_OF_RANGE,
    );
    assert_sense(&unmap(&mut device, &[(u64::MAX, 1)]), OUT_OF_RANGE);
    assert_good(&unmap(&mut device, &[(SECTORS, 0)]));
    assert_sense(&unmap(&mut device, &[(0, (1 << 20) + 1)]), BAD_PARAMETER);
    assert_good(&unmap(&mut device, &[]));
    assert_good(&device.run(&cdb_10(0x42, 0, 0, 0), &[]));
    assert_sense(&device.run(&cdb_10(0x42, 0, 0, 7), &[0; 7]), (5, 0x1a, 0));
    assert!(device.seen.is_empty());
    let most: Vec<(u64, u32)> = (0..256).map(|at| (at * 8, 8)).collect();
    assert_good(&unmap(&mut device, &most));
    assert_eq!(device.seen.len(), 256);
    let many: Vec<(u64, u32)> = (0..257).map(|at| (at * 8, 8)).collect();
    assert_sense(&unmap(&mut device, &many), BAD_PARAMETER);
}

#[test]
fn write_same_repeats_any_block() {
    let mut device = Device::new();
    let block = pattern(1, 77);
    for opcode in [0x41, 0x93] {
        for (lba, count) in [(0, 1), (5, 3), (9, 20_000), (SECTORS - 1, 1)] {
            device.memory.fill(0xee);
            assert_good(&device.run(&shaped(opcode, 0, lba, count), &block));
            let (from, to) = (lba as usize * 512, (lba + count) as usize * 512);
            assert!(
                device.memory[from..to]
                    .chunks(512)
                    .all(|found| found == block)
            );
            assert!(device.memory[..from].iter().all(|byte| *byte == 0xee));
            assert!(device.memory[to..].iter().all(|byte| *byte == 0xee));
        }
    }
}

#[test]
fn write_same_of_zeros_is_one_operation() {
    let mut device = Device::new();
    let whole = VolumeSize::from_bytes(VOLUME_BYTES).unwrap().extent();
    for (cdb, data, unmaps) in [
        (shaped(0x93, 0x00, 0, SECTORS), vec![0; 512], false),
        (shaped(0x93, 0x08, 0, SECTORS), vec![0; 512], true),
        (shaped(0x93, 0x01, 0, SECTORS), vec![], false),
        (shaped(0x93, 0x09, 0, SECTORS), vec![], true),
        (shaped(0x41, 0x08, 0, SECTORS), vec![0; 512], true),
    ] {
        device.seen.clear();
        assert_good(&device.run(&cdb, &data));
        let expected = if unmaps {
            Operation::Unmap { extent: whole }
        } else {
            Operation::WriteZeroes {
                extent: whole,
                fua: false,
            }
        };
        assert_eq!(device.seen, [expected]);
    }
}

#[test]
fn write_same_refuses_anchor_and_wrong_data() {
    let mut device = Device::new();
    for opcode in [0x41, 0x93] {
        assert_sense(
            &device.run(&shaped(opcode, 0x10, 0, 1), &[0; 512]),
            INVALID_FIELD,
        );
        let most = 1 << 15;
        assert_good(&device.run(&shaped(opcode, 0, 0, most), &[0; 512]));
        assert_sense(
            &device.run(&shaped(opcode, 8, 0, 1), &[0; 256]),
            (5, 0x0e, 3),
        );
        assert_sense(
            &device.run(&shaped(opcode, 8, 0, 1), &[0; 1024]),
            (5, 0x0e, 3),
        );
        assert_sense(
            &device.run(&shaped(opcode, 0, SECTORS, 1), &[0; 512]),
            OUT_OF_RANGE,
        );
    }
    device
        .unit
        .set_size(VolumeSize::from_bytes(1 << 30).unwrap());
    device.attention(A);
    for opcode in [0x41, 0x93] {
        let done = device.run(&shaped(opcode, 0, 0, (1 << 15) + 1), &[0; 512]);
        assert_sense(&done, INVALID_FIELD);
        // To the end, which is too far.
        let done = device.run(&shaped(opcode, 0, 0, 0), &[0; 512]);
        assert_sense(&done, INVALID_FIELD);
    }
    // NDOB is not in the ten-byte command.
    assert_sense(&device.run(&shaped(0x41, 1, 0, 1), &[]), INVALID_FIELD);
    assert_eq!(data_out_bytes(&cdb_16(0x93, 1, 0, 1)), 0);
    assert_eq!(data_out_bytes(&cdb_16(0x93, 0, 0, 1)), 512);
}

#[test]
fn a_failed_batch_ends_write_same() {
    let mut device = Device::new();
    device.failures.push_back(Failure::NoSpace);
    let done = device.run(&shaped(0x93, 0, 0, 20_000), &pattern(1, 1));
    assert_sense(&done, (7, 0x27, 7));
    assert!(device.seen.len() <= 8);
}

#[test]
fn lba_status_tells_runs_of_blocks() {
    let mut device = Device::new();
    device.memory[4096..12288].fill(1);
    let mut cdb = cdb_16(0x9e, 0x12, 4, 1024);
    let done = device.run(&cdb, &[]);
    assert_good(&done);
    let descriptors: Vec<(u64, u32, u8)> = done.data_in[8..]
        .chunks(16)
        .map(|descriptor| {
            (
                u64::from_be_bytes(descriptor[..8].try_into().unwrap()),
                u32::from_be_bytes(descriptor[8..12].try_into().unwrap()),
                descriptor[12],
            )
        })
        .collect();
    assert_eq!(
        descriptors,
        [(4, 4, 1), (8, 16, 0), (24, SECTORS as u32 - 24, 1)]
    );
    assert_eq!(done.data_in[..4], 52_u32.to_be_bytes());
    cdb[10..14].copy_from_slice(&24_u32.to_be_bytes());
    assert_eq!(device.run(&cdb, &[]).data_in.len(), 24);
    assert_good(&device.run(&cdb_16(0x9e, 0x12, SECTORS - 1, 24), &[]));
    assert_sense(
        &device.run(&cdb_16(0x9e, 0x12, SECTORS, 24), &[]),
        OUT_OF_RANGE,
    );
    assert_sense(
        &device.run(&cdb_16(0x9e, 0x12, u64::MAX, 24), &[]),
        OUT_OF_RANGE,
    );
}

#[test]
fn write_same_of_no_blocks_goes_to_the_end() {
    let mut device = Device::new();
    for opcode in [0x41, 0x93] {
        device.memory.fill(0xee);
        let from = SECTORS - 100;
        assert_good(&device.run(&shaped(opcode, 8, from, 0), &[0; 512]));
        let from = from as usize * 512;
        assert!(device.memory[from..].iter().all(|byte| *byte == 0));
        assert!(device.memory[..from].iter().all(|byte| *byte == 0xee));
        let done = device.run(&shaped(opcode, 0, SECTORS, 0), &[0; 512]);
        assert_sense(&done, OUT_OF_RANGE);
    }
}

#[test]
fn lba_status_looks_on_while_there_is_nothing_and_stops_at_data() {
    let mut device = Device::new();
    assert_good(&device.run(&cdb_16(0x9e, 0x12, 0, 24), &[]));
    let bytes: u64 = device.seen.iter().map(read_bytes).sum();
    assert_eq!(bytes, VOLUME_BYTES, "all of it is empty");
    device.memory[1 << 20..].fill(1);
    device.seen.clear();
    let done = device.run(&cdb_16(0x9e, 0x12, 0, 1024), &[]);
    let second = 8 + 16;
    assert_eq!(done.data_in[second + 12], 0, "mapped");
    let bytes: u64 = device.seen.iter().map(read_bytes).sum();
    assert_eq!(bytes, 9 << 20, "one window, then one batch");
}

fn read_bytes(operation: &Operation) -> u64 {
    match operation {
        Operation::Read { extent } => extent.length(),
        _ => 0,
    }
}

fn write_atomic(device: &mut Device, lba: u64, count: u8, data: &[u8]) -> Done {
    let mut cdb = cdb_16(0x9c, 0, lba, 0);
    cdb[13] = count;
    device.run(&cdb, data)
}

#[test]
fn an_atomic_write_is_one_block_of_the_store() {
    let mut device = Device::new();
    let block = pattern(8, 3);
    assert_good(&write_atomic(&mut device, 16, 8, &block));
    assert_eq!(device.memory[16 * 512..24 * 512], block[..]);
    assert_eq!(device.seen.len(), 1);
    assert_good(&write_atomic(&mut device, 16, 0, &[]));
    for (lba, count) in [(16, 1), (16, 7), (17, 8), (16, 16), (16, 9)] {
        let data = vec![0; usize::from(count) * 512];
        assert_sense(&write_atomic(&mut device, lba, count, &data), INVALID_FIELD);
    }
    let short = write_atomic(&mut device, 16, 8, &block[..512]);
    assert_sense(&short, (5, 0x0e, 3));
    assert_sense(&write_atomic(&mut device, SECTORS, 8, &block), OUT_OF_RANGE);
    let mut bounded = cdb_16(0x9c, 0, 16, 0);
    bounded[10..14].copy_from_slice(&[0, 1, 0, 8]);
    assert_sense(&device.run(&bounded, &block), INVALID_FIELD);
}
