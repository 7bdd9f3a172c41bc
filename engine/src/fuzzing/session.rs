//! A whole connection: any login, or one that succeeds, then PDUs with any headers, with commands
//! that end in any order. Nothing panics, no command is started twice, and what the session holds
//! stays bounded.
use std::rc::Rc;
use std::time::Duration;

use crate::iscsi::login::{CHALLENGE_BYTES, Entropy, IscsiName, Target};
use crate::iscsi::pdu::{Frame, HEADER_BYTES, Header};
use crate::iscsi::session::{Action, DrainId, Session, TaskId};
use crate::scsi::{Done, NexusId, Status};
use crate::volume::Moment;
use bytes::Bytes;

/// More than the command window and the immediate commands beside it.
const EXECUTING_MAX: usize = 128 + 32;

struct Peer {
    session: Session,
    actions: Vec<Action>,
    executing: Vec<TaskId>,
    seconds: u64,
}

fn connect() -> Peer {
    let target = Target {
        name: IscsiName::parse("iqn.2026-01.test:disk").expect("a name"),
        alias: "disk".into(),
        address: "127.0.0.1:3260".into(),
        chap: None,
    };
    let entropy = Entropy {
        identifier: 1,
        challenge: [0; CHALLENGE_BYTES],
    };
    let now = Moment::after_start(Duration::ZERO);
    Peer {
        session: Session::new(Rc::new(target), entropy, now),
        actions: Vec::new(),
        executing: Vec::new(),
        seconds: 0,
    }
}

fn answer() -> Done {
    Done {
        status: Status::Good,
        sense: Bytes::new(),
        data_in: Bytes::from_static(&[7; 700]),
        abort: Vec::new(),
    }
}

impl Peer {
    fn send(&mut self, header: [u8; HEADER_BYTES], data: &[u8]) {
        if !self.session.listens() {
            return;
        }
        let now = Moment::after_start(Duration::from_secs(self.seconds));
        let frame = Frame {
            header: Header::from_bytes(header),
            data: Bytes::copy_from_slice(data),
            data_intact: true,
        };
        self.session.receive(frame, now, &mut self.actions);
        self.act();
    }

    fn log_in(&mut self) {
        let text = b"InitiatorName=iqn.2026-01.test:host\0TargetName=iqn.2026-01.test:disk\0\
            InitialR2T=No\0";
        let mut header = [0; HEADER_BYTES];
        header[0] = 0x43;
        header[1] = 0x87;
        header[8] = 0x80;
        self.send(header, text);
    }

    fn act(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Execute { task, request } => {
                        assert!(!self.executing.contains(&task), "started twice");
                        assert!(request.data_out.len() <= request.expected_bytes as usize);
                        self.executing.push(task);
                    }
                    Action::Purge { request, .. } => {
                        self.session.abort(DrainId(1), None, &mut self.actions);
                        self.session.purged(request, &mut self.actions);
                    }
                    Action::Admit(_) => self.session.admit(1, NexusId(1)),
                    Action::Drained(_) | Action::Close(_) => {}
                }
            }
        }
        assert!(self.executing.len() <= EXECUTING_MAX);
    }

    fn finish(&mut self, at: u8) {
        if self.executing.is_empty() {
            return;
        }
        let task = self
            .executing
            .swap_remove(usize::from(at) % self.executing.len());
        if self.session.wants(task) {
            self.session.finish(task, answer(), &mut self.actions);
        } else {
            self.session.drop_task(task, &mut self.actions);
        }
        self.act();
    }

    fn drain(&mut self) {
        let bytes = usize::try_from(self.session.output().bytes()).expect("bounded");
        self.session.sent(bytes, &mut self.actions);
        self.act();
    }
}

/// Runs one input.
pub(super) fn run(data: &[u8]) {
    let mut peer = connect();
    let Some((&first, mut rest)) = data.split_first() else {
        return;
    };
    if first & 1 == 0 {
        peer.log_in();
    }
    while let Some((&what, after)) = rest.split_first() {
        rest = after;
        match what >> 5 {
            0 => peer.finish(what),
            1 => peer.drain(),
            2 => {
                peer.seconds += u64::from(what & 31);
                let now = Moment::after_start(Duration::from_secs(peer.seconds));
                peer.session.tick(now, &mut peer.actions);
                peer.act();
            }
            3 => peer.session.request_logout(u16::from(what)),
            _ => {
                let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() else {
                    break;
                };
                let mut header = *header;
                let length = usize::from(what & 31) * 37;
                let (data, after) = after.split_at(length.min(after.len()));
                rest = after;
                // The framing has found this length, and no additional segments.
                header[4] = 0;
                header[5] = 0;
                let told = u16::try_from(data.len()).unwrap_or(0);
                header[6..8].copy_from_slice(&told.to_be_bytes());
                peer.send(header, data);
            }
        }
    }
}
