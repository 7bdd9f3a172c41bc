//! SCSI commands: data both ways, order, window and memory.

use super::*;

#[test]
fn a_read_is_answered_in_segments_and_bursts_with_the_status_last() {
    let mut script = logged_in("MaxRecvDataSegmentLength=512\0MaxBurstLength=1024\0");
    script.send(command(READ_10, 1, FIRST, 3), b"");
    let (task, request) = script.executed().pop().unwrap();
    assert_eq!((request.nexus, request.expected_bytes), (NexusId(3), 1536));
    script.finish(task, good(&[5; 1536]));
    let seen = script.seen();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|pdu| pdu.opcode() == DATA_IN && pdu.data == [5; 512])
    );
    assert_eq!(
        seen.iter().map(|pdu| pdu.word(36)).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(
        seen.iter().map(|pdu| pdu.word(40)).collect::<Vec<_>>(),
        [0, 512, 1024]
    );
    assert_eq!(
        seen.iter().map(|pdu| pdu.header[1]).collect::<Vec<_>>(),
        [0, 0x80, 0x81]
    );
    assert_eq!(seen[2].word(28), FIRST + 1, "ExpCmdSN");
    assert_eq!(seen[2].word(32), FIRST + limit::COMMAND_WINDOW, "MaxCmdSN");
}

#[test]
fn data_in_is_not_copied() {
    let mut script = logged_in("MaxRecvDataSegmentLength=65536\0");
    script.send(command(READ_10, 1, FIRST, 8), b"");
    let (task, _) = script.executed().pop().unwrap();
    let done = good(&[9; 4096]);
    let held = done.data_in.clone();
    script.finish(task, done);
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let used = script.session.output.slices(&mut slices);
    assert!(
        slices[..used]
            .iter()
            .any(|slice| slice.as_ptr() == held.as_ptr())
    );
}

#[test]
fn residuals_tell_what_was_not_moved() {
    let mut script = logged_in("");
    let mut short = command(READ_10, 1, FIRST, 1);
    put(&mut short, 20, 100);
    script.send(short, b"");
    let (task, _) = script.executed().pop().unwrap();
    script.finish(task, good(&[1; 512]));
    let pdu = script.seen().pop().unwrap();
    assert_eq!(
        (pdu.header[1], pdu.word(44), pdu.data.len()),
        (0x85, 412, 100),
        "overflow"
    );
    let mut long = command(READ_10, 2, FIRST + 1, 1);
    put(&mut long, 20, 1000);
    script.send(long, b"");
    let (task, _) = script.executed().pop().unwrap();
    script.finish(task, good(&[1; 512]));
    let pdu = script.seen().pop().unwrap();
    assert_eq!(
        (pdu.header[1], pdu.word(44), pdu.data.len()),
        (0x83, 488, 512),
        "underflow"
    );
    let mut wide = command(WRITE_10, 3, FIRST + 2, 1);
    put(&mut wide, 20, 1024);
    script.send(wide, &[3; 1024]);
    let (task, request) = script.executed().pop().unwrap();
    assert_eq!(request.data_out, vec![3; 512]);
    script.finish(task, good(b""));
    let pdu = script.seen().pop().unwrap();
    assert_eq!(
        (pdu.opcode(), pdu.header[1], pdu.word(44)),
        (RESPONSE, 0x82, 512)
    );
}

#[test]
fn a_write_is_gathered_from_all_three_kinds_of_data() {
    let keys = "InitialR2T=No\0FirstBurstLength=1024\0MaxBurstLength=1024\0";
    let mut script = logged_in(keys);
    let mut header = command(WRITE_10, 9, FIRST, 4);
    header[1] = 0x20;
    script.send(header, &[1; 512]);
    assert!(script.executed().is_empty() && script.seen().is_empty());
    script.send(data_out(9, u32::MAX, 0, 512, true), &[2; 512]);
    let r2t = script.seen().pop().unwrap();
    assert_eq!((r2t.opcode(), r2t.word(16)), (R2T, 9));
    assert_eq!((r2t.word(40), r2t.word(44)), (1024, 1024));
    script.send(data_out(9, r2t.word(20), 0, 1024, false), &[3; 512]);
    script.send(data_out(9, r2t.word(20), 1, 1536, true), &[4; 512]);
    let (task, request) = script.executed().pop().unwrap();
    let expected = [[1; 512], [2; 512], [3; 512], [4; 512]].concat();
    assert_eq!(request.data_out, expected);
    script.finish(task, good(b""));
    let response = script.seen().pop().unwrap();
    assert_eq!(
        (response.opcode(), response.word(36)),
        (RESPONSE, 1),
        "one R2T was sent"
    );
}

#[test]
fn data_that_breaks_the_rules_ends_its_command_only() {
    let mut script = logged_in("");
    script.send(command(WRITE_10, 1, FIRST, 2), &[1; 512]);
    let r2t = script.seen().pop().unwrap();
    script.send(data_out(1, r2t.word(20), 5, 512, true), &[2; 512]);
    let response = script.seen().pop().unwrap();
    assert_eq!((response.opcode(), response.header[3]), (RESPONSE, 2));
    assert_eq!(
        (response.data[4], &response.data[14..16]),
        (0x0b, &[0x0c, 0x0d][..])
    );
    script.send(data_out(1, r2t.word(20), 0, 512, true), &[2; 512]);
    assert!(
        script.seen().is_empty() && script.executed().is_empty(),
        "late data is dropped"
    );
    script.send(command(READ_10, 1, FIRST + 1, 1), b"");
    assert_eq!(script.executed().len(), 1);
}

#[test]
fn commands_are_executed_in_the_order_of_their_numbers() {
    let mut script = logged_in("");
    for early in [2, 1] {
        script.send(command(READ_10, early, FIRST + early, 1), b"");
        assert!(script.executed().is_empty());
    }
    script.send(command(READ_10, 0, FIRST, 1), b"");
    let order: Vec<u64> = script.executed().iter().map(|(task, _)| task.0).collect();
    assert_eq!(order, [2, 1, 0], "tasks are named as they come");
}

#[test]
fn commands_outside_of_the_window_and_repeated_ones_are_ignored() {
    let mut script = logged_in("");
    for number in [FIRST - 1, FIRST + limit::COMMAND_WINDOW] {
        script.send(command(READ_10, 1, number, 1), b"");
    }
    assert!(script.executed().is_empty() && script.seen().is_empty());
    script.send(command(READ_10, 1, FIRST, 1), b"");
    script.send(command(READ_10, 2, FIRST, 1), b"");
    assert_eq!(script.executed().len(), 1);
}

#[test]
fn an_initiator_that_does_not_read_is_given_no_more_than_the_bound() {
    let mut script = logged_in("MaxRecvDataSegmentLength=1048576\0");
    // Each reads 255 sectors: about 128 KiB.
    for number in 0..5000 {
        script.send(command(READ_10, number, FIRST + number, 255), b"");
        for (task, request) in script.executed() {
            script.finish(task, good(&vec![0; request.expected_bytes as usize]));
        }
    }
    assert!(script.session.output.bytes() <= limit::SESSION_BYTES + (1 << 20));
    let before = script.session.output.bytes();
    assert!(before > limit::SESSION_BYTES / 2);
    // Once it reads, the commands that waited go on.
    script.seen();
    assert!(!script.executed().is_empty());
}

#[test]
fn a_tag_in_use_is_rejected_and_its_number_counts() {
    let mut script = logged_in("");
    script.send(command(READ_10, 1, FIRST, 1), b"");
    script.send(command(READ_10, 1, FIRST + 1, 1), b"");
    let reject = script.seen().pop().unwrap();
    assert_eq!((reject.opcode(), reject.header[2]), (REJECT, 4));
    script.send(command(READ_10, 2, FIRST + 2, 1), b"");
    assert_eq!(script.executed().len(), 2);
}

#[test]
fn a_broken_data_digest_is_rejected_and_ends_the_connection() {
    let mut script = logged_in("DataDigest=CRC32C\0");
    let frame = Frame {
        header: Header::from_bytes(command(WRITE_10, 1, FIRST, 1)),
        data: Bytes::from_static(&[0; 512]),
        data_intact: false,
    };
    script
        .session
        .receive(frame, moment(1), &mut script.actions);
    assert_eq!(script.session.output.contents()[0], REJECT);
    assert_eq!(script.closed(), Some(Ending::DataDigest));
    assert!(script.executed().is_empty());
}

#[test]
fn immediate_commands_are_bounded() {
    let mut script = logged_in("");
    for tag in 0..100 {
        let mut header = command(READ_10, tag, FIRST, 1);
        header[0] |= 0x40;
        script.send(header, b"");
    }
    assert_eq!(script.executed().len(), limit::IMMEDIATE_COMMANDS);
    let rejects = script.seen();
    assert!(
        rejects
            .iter()
            .all(|pdu| (pdu.opcode(), pdu.header[2]) == (REJECT, 6))
    );
}
