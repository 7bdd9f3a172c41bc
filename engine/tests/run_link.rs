//! One connection to one replica, against a replica in memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod run_support;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use ankole_engine::link::{Link, LinkSpec};
use ankole_engine::mirror::event::{Event, LinkFailure, LinkId};
use ankole_proto::wire::body::OpenRequest;
use ankole_proto::wire::{ErrorCode, Frame, Opcode, REQUESTS_IN_FLIGHT_MAX};
use ankole_proto::{Credential, Epoch, NodeName, ReplicaAddress, ReplicaId, VolumeId, VolumeSize};
use bytes::Bytes;
use run_support::PATIENCE;
use run_support::blockd::{FakeBlockd, Manner, request};
use tokio::sync::Notify;
use tokio::task::LocalSet;

const BYTES: usize = 16 << 20;

#[derive(Clone, Default)]
struct Events {
    events: Rc<RefCell<Vec<Event>>>,
    arrived: Rc<Notify>,
}

impl Events {
    fn open(&self, spec: LinkSpec) -> Link {
        let this = self.clone();
        Link::open(
            spec,
            Rc::new(move |event| {
                this.events.borrow_mut().push(event);
                this.arrived.notify_one();
            }),
        )
    }

    /// The events, once there are this many.
    async fn wait_for(&self, count: usize) -> Vec<Event> {
        let enough = async {
            while self.events.borrow().len() < count {
                self.arrived.notified().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, enough).await;
        assert!(waited.is_ok(), "only {:?}", self.events.borrow());
        self.events.borrow_mut().drain(..).collect()
    }

    async fn opened(&self) {
        let events = self.wait_for(1).await;
        assert!(
            matches!(events[..], [Event::LinkOpened { .. }]),
            "{events:?}"
        );
    }

    async fn closed(&self) -> LinkFailure {
        let mut events = self.wait_for(1).await;
        match events.pop() {
            Some(Event::LinkClosed { reason, .. }) if events.is_empty() => reason,
            other => panic!("{other:?} after {events:?}"),
        }
    }
}

fn spec(blockd: &FakeBlockd) -> LinkSpec {
    let node: NodeName = "a".parse().unwrap();
    let replica = ReplicaId::from_bits(2);
    LinkSpec {
        replica,
        link: LinkId(5),
        address: ReplicaAddress {
            tcp: blockd.address,
            unix: Some("/nowhere/to/be/found".into()),
        },
        node: node.clone(),
        own_node: node,
        open: OpenRequest {
            volume: VolumeId::from_bits(1),
            replica,
            epoch: Epoch::from_raw(3),
            size: VolumeSize::from_bytes(BYTES as u64).unwrap(),
            credential: Credential::from_bytes([1; 32]),
        },
        clock_start: Instant::now(),
    }
}

fn test<F: Future>(test: impl FnOnce(FakeBlockd, Events) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let blockd = FakeBlockd::start(BYTES).await;
        test(blockd, Events::default()).await;
    });
}

#[test]
fn what_is_written_is_read_back_over_one_link() {
    test(|blockd, events| async move {
        let link = events.open(spec(&blockd));
        events.opened().await;
        let block = |number: u64| Bytes::from(vec![u8::try_from(number).unwrap(); 4096]);
        for number in 0..200 {
            let header = request(Opcode::Write, number, number * 4096, 4096);
            link.queue(Frame::new(header, block(number)));
        }
        link.flush();
        let written = events.wait_for(200).await;
        assert!(written.iter().all(|event| matches!(
            event,
            Event::Reply { frame, .. } if frame.header.error.is_none()
        )));
        for number in 0..200 {
            let header = request(Opcode::Read, 1000 + number, number * 4096, 4096);
            link.queue(Frame::new(header, Bytes::new()));
        }
        link.flush();
        for (number, event) in events.wait_for(200).await.into_iter().enumerate() {
            let Event::Reply { frame, .. } = event else {
                panic!("{event:?}");
            };
            assert_eq!(frame.payload, block(number as u64));
        }
    });
}

#[test]
fn more_than_the_socket_takes_at_once_still_arrives() {
    test(|blockd, events| async move {
        let link = events.open(spec(&blockd));
        events.opened().await;
        let data = Bytes::from(
            (0..4 << 20)
                .map(|i| u8::try_from(i % 251).unwrap())
                .collect::<Vec<u8>>(),
        );
        for number in 0..4_u64 {
            let header = request(Opcode::Write, number, number * (4 << 20), 4 << 20);
            link.queue(Frame::new(header, data.clone()));
        }
        link.flush();
        events.wait_for(4).await;
        let contents = blockd.contents.lock();
        assert!(contents.data.chunks(4 << 20).all(|chunk| *chunk == data));
    });
}

#[test]
fn a_refused_open_says_whether_another_try_may_help() {
    test(|blockd, events| async move {
        for (error, expected) in [
            (ErrorCode::Fenced, LinkFailure::Fenced(Epoch::from_raw(77))),
            (
                ErrorCode::BadCredential,
                LinkFailure::Refused(
                    "the replica refused Open: wrong credential: because".to_owned(),
                ),
            ),
            (
                ErrorCode::Stopping,
                LinkFailure::Transport(
                    "the replica refused Open: daemon is stopping: because".to_owned(),
                ),
            ),
        ] {
            blockd.misbehave(Manner::RefuseOpen(error));
            let _link = events.open(spec(&blockd));
            assert_eq!(events.closed().await, expected);
        }
    });
}

#[test]
fn each_way_to_fail_closes_the_link_exactly_once() {
    test(|blockd, events| async move {
        for (manner, replies) in [
            (Manner::HangUp, 0),
            (Manner::Garble, 0),
            (Manner::AnswerTwice, 1),
        ] {
            blockd.misbehave(manner);
            let link = events.open(spec(&blockd));
            events.opened().await;
            link.queue(Frame::new(request(Opcode::Ping, 1, 0, 0), Bytes::new()));
            link.flush();
            let mut came = events.wait_for(replies + 1).await;
            let last = came.pop();
            assert!(
                matches!(
                    last,
                    Some(Event::LinkClosed {
                        reason: LinkFailure::Transport(_),
                        ..
                    })
                ),
                "{manner:?}: {last:?}"
            );
            // A closed link takes what it is given and says nothing more.
            link.queue(Frame::new(request(Opcode::Ping, 2, 0, 0), Bytes::new()));
            link.flush();
            tokio::task::yield_now().await;
            assert!(events.events.borrow().is_empty(), "{manner:?}");
        }
    });
}

#[test]
fn a_port_that_nobody_listens_on_closes_the_link() {
    test(|mut blockd, events| async move {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        blockd.address = free.local_addr().unwrap();
        drop(free);
        let _link = events.open(spec(&blockd));
        assert!(matches!(events.closed().await, LinkFailure::Transport(_)));
    });
}

#[test]
fn a_replica_that_never_answers_open_is_given_up() {
    test(|blockd, events| async move {
        blockd.misbehave(Manner::Silent);
        let _link = events.open(spec(&blockd));
        let LinkFailure::Transport(reason) = events.closed().await else {
            panic!("not a transport failure");
        };
        assert!(reason.contains("in time"), "{reason}");
    });
}

#[test]
fn more_requests_than_the_protocol_allows_are_not_sent() {
    test(|blockd, events| async move {
        let link = events.open(spec(&blockd));
        events.opened().await;
        for number in 0..=REQUESTS_IN_FLIGHT_MAX as u64 {
            link.queue(Frame::new(
                request(Opcode::Ping, number, 0, 0),
                Bytes::new(),
            ));
        }
        link.flush();
        assert!(matches!(events.closed().await, LinkFailure::Transport(_)));
        assert_eq!(blockd.contents.lock().opcodes, [Opcode::Open]);
    });
}

#[test]
fn a_dropped_link_says_nothing() {
    test(|blockd, events| async move {
        let first = events.open(spec(&blockd));
        events.opened().await;
        first.queue(Frame::new(request(Opcode::Ping, 1, 0, 0), Bytes::new()));
        first.flush();
        drop(first);
        // By the time a second link has done its round, the first would have spoken.
        let second = events.open(spec(&blockd));
        events.opened().await;
        second.queue(Frame::new(request(Opcode::Ping, 2, 0, 0), Bytes::new()));
        second.flush();
        assert!(matches!(
            events.wait_for(1).await[..],
            [Event::Reply { ref frame, .. }] if frame.header.request_id == 2
        ));
    });
}
