//! Sessions driven by scripted PDUs, and by random ones.

mod commands;
mod random;
mod services;

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::iscsi::login::{CHALLENGE_BYTES, IscsiName};
use crate::iscsi::pdu::{HEADER_BYTES, Header};
use crate::scsi::{Attribute, Request, Reset, Status};

const FIRST: u32 = 100;
const WRITE_10: u8 = 0x2a;
const READ_10: u8 = 0x28;
const DATA_IN: u8 = 0x25;
const RESPONSE: u8 = 0x21;
const R2T: u8 = 0x31;
const REJECT: u8 = 0x3f;
const TASK_RESPONSE: u8 = 0x22;

/// A PDU as the initiator sees it.
#[derive(Debug, Clone)]
struct Seen {
    header: [u8; 48],
    data: Vec<u8>,
}

impl Seen {
    fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }
}

struct Script {
    session: Session,
    actions: Vec<Action>,
}

fn moment(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn connection() -> Script {
    let target = Target {
        name: IscsiName::parse("iqn.2026-01.test:disk").unwrap(),
        alias: "disk".into(),
        address: "[2001:db8::1]:3260".into(),
        chap: None,
    };
    let entropy = Entropy {
        identifier: 1,
        challenge: [0; CHALLENGE_BYTES],
    };
    Script {
        session: Session::new(Rc::new(target), entropy, moment(0)),
        actions: Vec::new(),
    }
}

/// A session in full feature phase, with these keys besides the names.
fn logged_in(keys: &str) -> Script {
    let mut script = connection();
    let text =
        format!("InitiatorName=iqn.2026-01.test:host\0TargetName=iqn.2026-01.test:disk\0{keys}");
    script.send(login_header(), text.as_bytes());
    assert!(matches!(script.actions.pop(), Some(Action::Admit(_))));
    script.session.admit(7, NexusId(3));
    // The last login response still goes without digests.
    let response = script.seen_with(Digests::default()).pop().unwrap();
    assert_eq!(response.header[36..38], [0, 0]);
    script
}

fn login_header() -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = 0x43;
    header[1] = 0x87;
    header[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, 1]);
    put(&mut header, 24, FIRST);
    header
}

fn put(header: &mut [u8; 48], at: usize, word: u32) {
    header[at..at + 4].copy_from_slice(&word.to_be_bytes());
}

/// A READ (10) or WRITE (10) of whole sectors.
fn command(operation: u8, tag: u32, number: u32, sectors: u8) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = 0x01;
    header[1] = if operation == READ_10 { 0xc0 } else { 0xa0 };
    put(&mut header, 16, tag);
    put(&mut header, 20, u32::from(sectors) * 512);
    put(&mut header, 24, number);
    header[32] = operation;
    header[40] = sectors;
    header
}

fn data_out(tag: u32, transfer: u32, number: u32, offset: u32, is_final: bool) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = 0x05;
    header[1] = if is_final { 0x80 } else { 0 };
    put(&mut header, 16, tag);
    put(&mut header, 20, transfer);
    put(&mut header, 36, number);
    put(&mut header, 40, offset);
    header
}

fn management(function: u8, tag: u32, referenced: u32) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = 0x42;
    header[1] = 0x80 | function;
    put(&mut header, 16, tag);
    put(&mut header, 20, referenced);
    put(&mut header, 24, FIRST + 50);
    header
}

fn simple(opcode: u8, flags: u8, tag: u32, number: u32) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = opcode;
    header[1] = flags;
    put(&mut header, 16, tag);
    put(&mut header, 20, u32::MAX);
    put(&mut header, 24, number);
    header
}

fn good(data_in: &[u8]) -> Done {
    Done {
        status: Status::Good,
        sense: Bytes::new(),
        data_in: Bytes::copy_from_slice(data_in),
        abort: Vec::new(),
    }
}

impl Script {
    fn send(&mut self, header: [u8; 48], data: &[u8]) {
        let frame = Frame {
            header: Header::from_bytes(header),
            data: Bytes::copy_from_slice(data),
            data_intact: true,
        };
        self.session.receive(frame, moment(1), &mut self.actions);
    }

    /// What has been sent since the last look.
    fn seen(&mut self) -> Vec<Seen> {
        self.seen_with(self.session.framing().digests)
    }

    fn seen_with(&mut self, digests: Digests) -> Vec<Seen> {
        let mut bytes = BytesMut::from(&self.session.output.contents()[..]);
        self.session.sent(bytes.len(), &mut self.actions);
        let mut seen = Vec::new();
        let framing = Framing {
            digests,
            segment_bytes_max: 1 << 20,
        };
        while let Some(frame) = crate::iscsi::pdu::frame::take(&mut bytes, framing).unwrap() {
            assert!(frame.data_intact);
            seen.push(Seen {
                header: *frame.header.bytes(),
                data: frame.data.to_vec(),
            });
        }
        seen
    }

    /// The commands that SCSI was given since the last look.
    fn executed(&mut self) -> Vec<(TaskId, Request)> {
        let actions = std::mem::take(&mut self.actions);
        let executes = |action| match action {
            Action::Execute { task, request } => Some((task, request)),
            _ => None,
        };
        actions.into_iter().filter_map(executes).collect()
    }

    fn finish(&mut self, task: TaskId, done: Done) {
        self.session.finish(task, done, &mut self.actions);
    }

    fn closed(&self) -> Option<Ending> {
        self.actions.iter().find_map(|action| match action {
            Action::Close(ending) => Some(*ending),
            _ => None,
        })
    }
}
