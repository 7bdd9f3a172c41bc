use super::*;

const READS: [u8; 3] = [0x28, 0xa8, 0x88];
const WRITES: [u8; 3] = [0x2a, 0xaa, 0x8a];
const WRITE_AND_VERIFIES: [u8; 3] = [0x2e, 0xae, 0x8e];
const VERIFIES: [u8; 3] = [0x2f, 0xaf, 0x8f];

#[test]
fn what_was_written_is_read_in_every_command_length() {
    let mut device = Device::new();
    for (seed, (write, read)) in WRITES.into_iter().zip(READS).enumerate() {
        let data = pattern(3, seed as u8);
        assert_good(&device.run(&shaped(write, 0, 7, 3), &data));
        let done = device.run(&shaped(read, 0, 7, 3), &[]);
        assert_good(&done);
        assert_eq!(done.data_in, data);
    }
    let data = pattern(1, 9);
    assert_good(&device.run(&[0x0a, 0, 1, 0, 1, 0], &data));
    assert_eq!(device.run(&[0x08, 0, 1, 0, 1, 0], &[]).data_in, data);
    assert_eq!(&device.memory[0x100 * 512..0x101 * 512], &data[..]);
}

#[test]
fn six_byte_commands_move_256_blocks_for_a_count_of_zero() {
    let mut device = Device::new();
    assert_eq!(
        device.run(&[0x08, 0, 0, 0, 0, 0], &[]).data_in.len(),
        256 * 512
    );
    assert_eq!(
        data_out_bytes(&[0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        256 * 512
    );
}

#[test]
fn the_last_block_is_in_range_and_the_next_is_not() {
    let mut device = Device::new();
    for opcode in [READS, WRITES, VERIFIES, WRITE_AND_VERIFIES].concat() {
        let data = pattern(2, 0);
        let takes = |cdb: &[u8]| {
            let mut padded = [0; 16];
            padded[..cdb.len()].copy_from_slice(cdb);
            data_out_bytes(&padded) as usize
        };
        let last = shaped(opcode, 0, SECTORS - 1, 1);
        assert_good(&device.run(&last, &data[..takes(&last)]));
        for (lba, count) in [
            (SECTORS - 1, 2),
            (SECTORS, 1),
            (SECTORS, 0),
            (0xffff_ffff, 1),
            (0xffff_ffff, 0),
        ] {
            let cdb = shaped(opcode, 0, lba, count);
            assert_sense(&device.run(&cdb, &data[..takes(&cdb)]), OUT_OF_RANGE);
        }
        assert_good(&device.run(&shaped(opcode, 0, SECTORS - 1, 0), &[]));
    }
}

#[test]
fn addresses_near_the_top_of_64_bits_do_not_wrap() {
    let mut device = Device::new();
    for opcode in [0x88, 0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91, 0x93] {
        for lba in [u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1, 1 << 63] {
            for count in [0, 1, u64::from(u32::MAX)] {
                let done = device.run(&cdb_16(opcode, 0, lba, count), &[]);
                assert_sense(&done, OUT_OF_RANGE);
            }
        }
    }
    assert!(device.seen.is_empty());
}

#[test]
fn a_transfer_longer_than_the_limit_is_refused_and_asks_for_no_data() {
    let mut device = Device::new();
    let limit = u64::from(TRANSFER_BYTES_MAX) / 512;
    assert_eq!(
        device.run(&cdb_16(0x88, 0, 0, limit), &[]).data_in.len(),
        4 << 20
    );
    for opcode in [0x88, 0x8a, 0x8b, 0x8e, 0x8f] {
        assert_sense(
            &device.run(&cdb_16(opcode, 0, 0, limit + 1), &[]),
            INVALID_FIELD,
        );
        assert_eq!(data_out_bytes(&cdb_16(opcode, 2, 0, limit + 1)), 0);
    }
}

#[test]
fn protection_information_is_refused_and_dpo_accepted() {
    let mut device = Device::new();
    for opcode in [READS, WRITES, VERIFIES, WRITE_AND_VERIFIES].concat() {
        for protect in 1..8 {
            let done = device.run(&shaped(opcode, protect << 5, 0, 1), &pattern(1, 0));
            assert_sense(&done, INVALID_FIELD);
            // Sense key specific: in the CDB, byte 1.
            assert_eq!((done.sense[15] & 0xc8, done.sense[17]), (0xc8, 1));
        }
        assert_good(&device.run(&shaped(opcode, 0x10, 0, 1), &pattern(1, 0)));
    }
}

#[test]
fn fua_and_a_write_cache_that_is_off_make_writes_durable() {
    let mut device = Device::new();
    let fua_of = |device: &Device| match device.seen.last() {
        Some(Operation::Write { fua, .. }) => *fua,
        other => panic!("{other:?}"),
    };
    let data = pattern(1, 0);
    for opcode in WRITES {
        assert_good(&device.run(&shaped(opcode, 0, 0, 1), &data));
        assert!(!fua_of(&device));
        assert_good(&device.run(&shaped(opcode, 0x08, 0, 1), &data));
        assert!(fua_of(&device));
    }
    let size = VolumeSize::from_bytes(VOLUME_BYTES).unwrap();
    device.unit = LogicalUnit::new(identity(), size, false);
    device.unit.nexus_gained(A, port(1));
    device.attention(A);
    for cdb in [shaped(0x2a, 0, 0, 1), vec![0x0a, 0, 0, 0, 1, 0]] {
        assert_good(&device.run(&cdb, &data));
        assert!(fua_of(&device));
    }
}

#[test]
fn a_read_with_fua_flushes_what_is_cached() {
    let mut device = Device::new();
    assert_good(&device.run(&shaped(0x28, 0x08, 0, 1), &[]));
    assert!(device.seen.contains(&Operation::Flush));
}

#[test]
fn less_data_than_the_blocks_need_writes_the_whole_blocks_sent() {
    for opcode in [WRITES, WRITE_AND_VERIFIES].concat() {
        for (bytes, written) in [(0, 0), (200, 0), (512, 512), (1000, 512), (1024, 1024)] {
            let mut device = Device::new();
            device.memory.fill(0xee);
            let data = pattern(2, 1);
            assert_good(&device.run(&shaped(opcode, 0, 0, 2), &data[..bytes]));
            assert_eq!(device.memory[..written], data[..written]);
            assert!(device.memory[written..].iter().all(|byte| *byte == 0xee));
        }
    }
    let mut device = Device::new();
    for opcode in VERIFIES {
        let done = device.run(&shaped(opcode, 0x02, 0, 2), &pattern(1, 0));
        assert_sense(&done, (5, 0x0e, 0x03));
    }
    let done = device.run(&shaped(0x8b, 0, 0, 2), &pattern(1, 0));
    assert_sense(&done, (5, 0x0e, 0x03));
    assert!(device.seen.is_empty());
}

#[test]
fn verify_compares_when_asked_and_names_the_first_difference() {
    let mut device = Device::new();
    let data = pattern(2, 5);
    assert_good(&device.run(&shaped(0x2a, 0, 4, 2), &data));
    let mut other = data.clone();
    other[700] ^= 1;
    for opcode in VERIFIES {
        assert_good(&device.run(&shaped(opcode, 0x02, 4, 2), &data));
        assert_good(&device.run(&shaped(opcode, 0, 4, 2), &[]));
        let done = device.run(&shaped(opcode, 0x02, 4, 2), &other);
        assert_sense(&done, (0xe, 0x1d, 0));
        assert_eq!(done.sense[0], 0xf0);
        assert_eq!(done.sense[3..7], 700_u32.to_be_bytes());
        assert_sense(
            &device.run(&shaped(opcode, 0x04, 4, 2), &data),
            INVALID_FIELD,
        );
    }
}

#[test]
fn write_and_verify_writes_to_the_media_and_reads_back() {
    let mut device = Device::new();
    for (opcode, flags) in WRITE_AND_VERIFIES
        .into_iter()
        .flat_map(|o| [(o, 0), (o, 2)])
    {
        device.seen.clear();
        assert_good(&device.run(&shaped(opcode, flags, 4, 1), &pattern(1, opcode)));
        assert!(matches!(
            device.seen[..],
            [Operation::Write { fua: true, .. }, Operation::Read { .. }]
        ));
        assert_eq!(device.memory[4 * 512..5 * 512], pattern(1, opcode)[..]);
    }
}

#[test]
fn compare_and_write_writes_only_what_matched() {
    let mut device = Device::new();
    let (old, new) = (vec![0; 1024], pattern(2, 3));
    let mut cdb = cdb_16(0x89, 0, 6, 0);
    cdb[13] = 2;
    assert_good(&device.run(&cdb, &[old.clone(), new.clone()].concat()));
    assert_eq!(device.memory[6 * 512..8 * 512], new[..]);
    let done = device.run(&cdb, &[old, new.clone()].concat());
    assert_sense(&done, (0xe, 0x1d, 0));
    assert_eq!(device.memory[6 * 512..8 * 512], new[..]);
    for bytes in [512, 1024, 2047, 4096] {
        assert_sense(&device.run(&cdb, &vec![0; bytes]), INVALID_FIELD);
    }
    cdb[13] = 0;
    assert_sense(&device.run(&cdb, &[0; 256 * 1024]), INVALID_FIELD);
    assert_good(&device.run(&cdb, &[]));
}

#[test]
fn orwrite_sets_bits_only() {
    let mut device = Device::new();
    assert_good(&device.run(&cdb_16(0x8a, 0, 1, 1), &[0x0f; 512]));
    assert_good(&device.run(&cdb_16(0x8b, 0, 1, 1), &[0x31; 512]));
    assert_eq!(device.memory[512..1024], [0x3f; 512]);
}

#[test]
fn synchronize_cache_flushes_and_prefetch_only_checks() {
    let mut device = Device::new();
    for opcode in [0x35, 0x91] {
        device.seen.clear();
        assert_good(&device.run(&shaped(opcode, 0, 0, 0), &[]));
        assert_eq!(device.seen, [Operation::Flush]);
        assert_sense(
            &device.run(&shaped(opcode, 0, SECTORS - 1, 2), &[]),
            OUT_OF_RANGE,
        );
    }
    device.seen.clear();
    for opcode in [0x34, 0x90] {
        assert_good(&device.run(&shaped(opcode, 2, 0, 100), &[]));
        assert_sense(
            &device.run(&shaped(opcode, 0, SECTORS - 1, 2), &[]),
            OUT_OF_RANGE,
        );
    }
    assert!(device.seen.is_empty());
}

#[test]
fn each_failure_has_its_own_answer() {
    let mut device = Device::new();
    let mut fail = |failure| {
        device.failures.push_back(failure);
        device.run(&shaped(0x28, 0, 0, 1), &[])
    };
    assert_sense(&fail(Failure::Unreadable), (3, 0x11, 0));
    assert_sense(&fail(Failure::Lost), (3, 0x0c, 0));
    assert_sense(&fail(Failure::NoSpace), (7, 0x27, 7));
    assert_sense(&fail(Failure::Unavailable), (2, 0x04, 0x0a));
    assert_eq!(fail(Failure::Stopping).status, Status::Busy);
    assert_eq!(fail(Failure::Busy).status, Status::TaskSetFull);
    let done = fail(Failure::Unreadable);
    assert!(done.data_in.is_empty(), "INV-14");
}
