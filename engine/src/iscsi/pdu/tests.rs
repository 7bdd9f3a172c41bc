use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::iscsi::output::Output;
use crate::iscsi::sequence::Serial;
use crate::scsi::Attribute;

const PLAIN: Framing = Framing {
    digests: Digests {
        header: false,
        data: false,
    },
    segment_bytes_max: 1024,
};
const DIGESTED: Framing = Framing {
    digests: Digests {
        header: true,
        data: true,
    },
    segment_bytes_max: 1024,
};

pub(super) fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn read(bytes: &[u8]) -> RequestPdu {
    let mut received = BytesMut::from(bytes);
    let frame = frame::take(&mut received, PLAIN).unwrap().unwrap();
    assert!(received.is_empty());
    RequestPdu::parse(frame).unwrap()
}

pub(super) fn sent(pdu: ResponsePdu, digests: Digests) -> Vec<u8> {
    let mut output = Output::default();
    let numbers = (
        Some(Serial::from_raw(0x51)),
        Serial::from_raw(0xe1),
        Serial::from_raw(0xa1),
    );
    output.push(pdu.numbered(numbers.0, numbers.1, numbers.2), digests);
    output.contents()
}

#[test]
fn a_write_command_with_immediate_data_has_these_bytes() {
    let bytes = bytes_of(
        "01a10000 00000005 00010000 00000000 00000007 00001000 00000002 00000003
         2a000000 00100000 08000000 00000000 68656c6c 6f000000",
    );
    let mut cdb = [0; 16];
    cdb[0] = 0x2a;
    cdb[5] = 0x10;
    cdb[8] = 0x08;
    assert_eq!(
        read(&bytes),
        RequestPdu::Command(CommandPdu {
            order: Order {
                command: Serial::from_raw(2),
                immediate: false,
            },
            tag: Tag(7),
            is_final: true,
            reads: false,
            writes: true,
            attribute: Attribute::Simple,
            lun: [0, 1, 0, 0, 0, 0, 0, 0],
            expected_bytes: 4096,
            cdb,
            data: Bytes::from_static(b"hello"),
        })
    );
}

#[test]
fn a_login_request_has_these_bytes() {
    let bytes = bytes_of(
        "43870000 00000004 80123456 789a0000 00000001 00050000 00000009 00000000
         00000000 00000000 00000000 00000000 413d4200",
    );
    assert_eq!(
        read(&bytes),
        RequestPdu::Login(LoginRequest {
            tag: Tag(1),
            transit: Some(Stage::FullFeature),
            continues: false,
            stage: Stage::Operational,
            version_min: 0,
            isid: InitiatorSessionId([0x80, 0x12, 0x34, 0x56, 0x78, 0x9a]),
            tsih: 0,
            connection: 5,
            command: Serial::from_raw(9),
            text: Bytes::from_static(b"A=B\0"),
        })
    );
}

#[test]
fn data_out_has_these_bytes() {
    let bytes = bytes_of(
        "05800000 00000004 00000000 00000000 00000007 00000033 00000000 00000000
         00000000 00000002 00000200 00000000 01020304",
    );
    assert_eq!(
        read(&bytes),
        RequestPdu::DataOut(DataOut {
            tag: Tag(7),
            transfer: TransferTag(0x33),
            is_final: true,
            number: 2,
            offset: 512,
            data: Bytes::from_static(&[1, 2, 3, 4]),
        })
    );
}

#[test]
fn task_management_and_logout_have_these_bytes() {
    let bytes = bytes_of(
        "42810000 00000000 00000000 00000000 00000008 00000007 00000004 00000000
         00000003 00000000 00000000 00000000",
    );
    let RequestPdu::TaskManagement(task) = read(&bytes) else {
        panic!("not a task management request");
    };
    assert_eq!(task.function, TaskFunction::AbortTask);
    assert_eq!(
        (task.referenced, task.referenced_command),
        (Tag(7), Serial::from_raw(3))
    );
    assert!(task.order.immediate);
    let bytes = bytes_of(
        "46810000 00000000 00000000 00000000 00000009 00020000 00000004 00000000
         00000000 00000000 00000000 00000000",
    );
    let RequestPdu::Logout(logout) = read(&bytes) else {
        panic!("not a logout request");
    };
    assert_eq!(
        (logout.reason, logout.connection),
        (LogoutReason::CloseConnection, 2)
    );
}

#[test]
fn a_response_with_sense_has_these_bytes() {
    let response = ScsiResponse {
        tag: Tag(7),
        status: 2,
        sense: &[0x70, 0, 5],
        residual: Residual::Underflow(512),
        expected_data: 1,
    };
    assert_eq!(
        sent(response.pdu(), Digests::default()),
        bytes_of(
            "21820002 00000005 00000000 00000000 00000007 00000000 00000051 000000e1
             000000a1 00000001 00000000 00000200 00037000 05000000"
        )
    );
}

#[test]
fn data_in_with_status_has_these_bytes() {
    let data = DataIn {
        tag: Tag(7),
        is_final: true,
        number: 1,
        offset: 8,
        data: Bytes::from_static(b"abcd"),
        good: Some(Residual::Overflow(4)),
    };
    assert_eq!(
        sent(data.pdu(), Digests::default()),
        bytes_of(
            "25850000 00000004 00000000 00000000 00000007 ffffffff 00000051 000000e1
             000000a1 00000001 00000008 00000004 61626364"
        )
    );
}

#[test]
fn r2t_reject_and_async_message_have_these_bytes() {
    let r2t = ReadyToTransfer {
        tag: Tag(7),
        lun: [0; 8],
        transfer: TransferTag(0x33),
        number: 1,
        offset: 0x1000,
        bytes: 0x2000,
    };
    assert_eq!(
        sent(r2t.pdu(), Digests::default()),
        bytes_of(
            "31800000 00000000 00000000 00000000 00000007 00000033 00000051 000000e1
             000000a1 00000001 00001000 00002000"
        )
    );
    let header = Header::from_bytes([0x1f; HEADER_BYTES]);
    let reject = Reject {
        reason: RejectReason::CommandNotSupported,
        header,
    };
    let expected = bytes_of(
        "3f800500 00000030 00000000 00000000 ffffffff 00000000 00000051 000000e1
         000000a1 00000000 00000000 00000000",
    );
    assert_eq!(
        sent(reject.pdu(), Digests::default()),
        [&expected[..], &[0x1f; 48]].concat()
    );
    assert_eq!(
        sent(
            AsyncMessage::LogoutRequested { within_s: 10 }.pdu(),
            Digests::default()
        ),
        bytes_of(
            "32800000 00000000 00000000 00000000 ffffffff 00000000 00000051 000000e1
             000000a1 01000000 0000000a 00000000"
        )
    );
}

#[test]
fn a_login_response_has_these_bytes() {
    let response = LoginResponse {
        tag: Tag(1),
        transit: Some(Stage::FullFeature),
        continues: false,
        stage: Stage::Operational,
        isid: InitiatorSessionId([0x80, 0x12, 0x34, 0x56, 0x78, 0x9a]),
        tsih: 3,
        status: 0,
        text: b"A=B\0".to_vec(),
    };
    assert_eq!(
        sent(response.pdu(), Digests::default()),
        bytes_of(
            "23870000 00000004 80123456 789a0003 00000001 00000000 00000051 000000e1
             000000a1 00000000 00000000 00000000 413d4200"
        )
    );
}

#[test]
fn digests_follow_header_and_padded_data() {
    let nop = NopIn {
        tag: Tag(1),
        transfer: TransferTag::NONE,
        lun: [0; 8],
        data: Bytes::from_static(b"ping!"),
    };
    let bytes = sent(nop.pdu(), DIGESTED.digests);
    assert_eq!(bytes.len(), 48 + 4 + 8 + 4);
    assert_eq!(
        bytes[48..52],
        ankole_proto::crc32c(&bytes[..48]).to_le_bytes()
    );
    assert_eq!(
        bytes[60..],
        ankole_proto::crc32c(&bytes[52..60]).to_le_bytes()
    );
}

#[test]
fn a_flipped_bit_in_header_or_data_is_noticed() {
    let nop = NopIn {
        tag: Tag(1),
        transfer: TransferTag::NONE,
        lun: [0; 8],
        data: Bytes::from_static(b"ping"),
    };
    let whole = sent(nop.pdu(), DIGESTED.digests);
    for bit in 0..whole.len() * 8 {
        let mut bytes = BytesMut::from(&whole[..]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        match frame::take(&mut bytes, DIGESTED) {
            Ok(Some(frame)) => assert!(!frame.data_intact, "bit {bit}"),
            // A flipped length wants more bytes, or more than allowed.
            Ok(None) => assert!((4 * 8..8 * 8).contains(&bit), "bit {bit}"),
            Err(_) => assert!(bit < 52 * 8, "bit {bit}"),
        }
    }
}

#[test]
fn a_segment_longer_than_declared_is_refused_before_it_is_held() {
    let mut bytes = BytesMut::from(&[0_u8; 48][..]);
    bytes[6] = 0x04;
    bytes[7] = 0x01;
    let refused = frame::take(&mut bytes, PLAIN);
    assert_eq!(
        refused,
        Err(FrameError::SegmentTooLong {
            bytes: 1025,
            limit: 1024
        })
    );
}

#[test]
fn opcodes_of_targets_and_reserved_ones_are_no_requests() {
    for opcode in 0..0x40 {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = opcode;
        let frame = Frame {
            header: Header::from_bytes(bytes),
            data: Bytes::new(),
            data_intact: true,
        };
        let known = matches!(opcode, 0..=6 | 0x10);
        let parsed = RequestPdu::parse(frame);
        assert_eq!(
            parsed == Err(RequestError::Opcode(opcode)),
            !known,
            "{opcode:#x}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        header in any::<bool>(),
        data in any::<bool>(),
    ) {
        let framing = Framing { digests: Digests { header, data }, segment_bytes_max: 200 };
        let mut received = BytesMut::new();
        for byte in bytes {
            received.extend_from_slice(&[byte]);
            match frame::take(&mut received, framing) {
                Ok(Some(frame)) => { let _ = RequestPdu::parse(frame); }
                Ok(None) => prop_assert!(received.len() < 48 + 1020 + 4 + 200 + 4),
                Err(_) => break,
            }
        }
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut(
        sizes in prop::collection::vec(0_usize..300, 1..6),
        cut in 1_usize..100,
        digested in any::<bool>(),
    ) {
        let framing = if digested { DIGESTED } else { PLAIN };
        let mut output = Output::default();
        for size in &sizes {
            let data = Bytes::from(vec![0x5a; *size]);
            let nop = NopIn { tag: Tag(1), transfer: TransferTag::NONE, lun: [0; 8], data };
            output.push(nop.pdu(), framing.digests);
        }
        let (mut received, mut lengths) = (BytesMut::new(), Vec::new());
        for piece in output.contents().chunks(cut) {
            received.extend_from_slice(piece);
            while let Some(frame) = frame::take(&mut received, framing).unwrap() {
                prop_assert!(frame.data_intact);
                lengths.push(frame.data.len());
            }
        }
        prop_assert_eq!(lengths, sizes);
    }
}
