//! The portal over real sockets, with an initiator of its own that says exactly what it is told to.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed expectation ends the test; all numbers are small"
)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ankole_engine::iscsi::limit;
use ankole_engine::iscsi::login::{IscsiName, Target};
use ankole_engine::iscsi::portal::{Completion, Portal, ReservationKeeper, Volume};
use ankole_engine::scsi::{Identity, LogicalUnit};
use ankole_engine::volume::{Failure, Operation, Outcome};
use ankole_proto::{Extent, VolumeId, VolumeSize};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

const NAME: &str = "iqn.2026-01.test:disk";
const VOLUME_BYTES: u64 = 4 << 20;
const DEADLINE: Duration = Duration::from_secs(120);
const GOOD: u8 = 0;
/// Fewer than any system's queue of connections that wait to be accepted.
const BURST: usize = 64;
const CHECK_CONDITION: u8 = 2;

/// Memory that answers at once, or when told to.
#[derive(Default)]
struct Memory {
    bytes: RefCell<Vec<u8>>,
    holds: Cell<bool>,
    held: RefCell<Vec<(Operation, Completion)>>,
    states: RefCell<Vec<Bytes>>,
}

impl Memory {
    fn carry_out(&self, operation: Operation) -> Outcome {
        let mut bytes = self.bytes.borrow_mut();
        let range = |extent: Extent| extent.offset() as usize..extent.end() as usize;
        match operation {
            Operation::Read { extent } => {
                Outcome::Done(Bytes::copy_from_slice(&bytes[range(extent)]))
            }
            Operation::Write { extent, data, .. } => {
                bytes[range(extent)].copy_from_slice(&data);
                Outcome::Done(Bytes::new())
            }
            Operation::Unmap { extent } => {
                bytes[range(extent)].fill(0);
                Outcome::Done(Bytes::new())
            }
            Operation::Flush => Outcome::Done(Bytes::new()),
            _ => Outcome::Failed(Failure::Unavailable),
        }
    }

    fn release(&self) {
        self.holds.set(false);
        for (operation, completion) in self.held.take() {
            completion.complete(self.carry_out(operation));
        }
    }
}

impl Volume for Memory {
    fn submit(&self, operation: Operation, completion: Completion) {
        if self.holds.get() {
            self.held.borrow_mut().push((operation, completion));
        } else {
            completion.complete(self.carry_out(operation));
        }
    }
}

impl ReservationKeeper for Memory {
    fn keep(&self, state: Bytes, kept: Completion) {
        self.states.borrow_mut().push(state);
        if self.holds.get() {
            self.held.borrow_mut().push((Operation::Flush, kept));
        } else {
            kept.complete(Outcome::Done(Bytes::new()));
        }
    }
}

/// A target on a free port.
struct Bench {
    portal: Portal,
    volume: Rc<Memory>,
    address: std::net::SocketAddr,
    initiators: Rc<RefCell<Vec<u32>>>,
}

async fn bench() -> Bench {
    bench_on("127.0.0.1").await
}

async fn bench_on(host: &str) -> Bench {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = Target {
        name: IscsiName::parse(NAME).unwrap(),
        alias: String::new(),
        address: address.to_string(),
        chap: None,
    };
    let size = VolumeSize::from_bytes(VOLUME_BYTES).unwrap();
    let identity = Identity::new(VolumeId::from_bits(1), NAME, *b"test");
    let unit = Rc::new(RefCell::new(LogicalUnit::new(identity, size, true)));
    let volume = Rc::new(Memory::default());
    volume.bytes.borrow_mut().resize(VOLUME_BYTES as usize, 0);
    let portal = Portal::new(target, unit, volume.clone(), volume.clone());
    let initiators = Rc::new(RefCell::new(Vec::new()));
    let seen = initiators.clone();
    portal.on_initiators(move |count| seen.borrow_mut().push(count));
    let serving = portal.clone();
    spawn_local(async move { serving.serve(listener).await });
    Bench {
        portal,
        volume,
        address,
        initiators,
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(DEADLINE, test())
            .await
            .expect("the test took too long");
    });
}

/// Waits until the condition holds; [`run`] bounds the wait.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// A PDU from the target.
struct Pdu {
    header: [u8; 48],
    data: Vec<u8>,
}

impl Pdu {
    fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }
}

struct Initiator {
    stream: TcpStream,
    number: u32,
}

impl Initiator {
    async fn log_in(bench: &Bench, isid: u8) -> Self {
        let stream = TcpStream::connect(bench.address).await.unwrap();
        let mut initiator = Self { stream, number: 1 };
        initiator.begin_login(isid).await;
        let response = initiator.receive().await.unwrap();
        assert_eq!(
            (response.opcode(), response.header[36]),
            (0x23, 0),
            "logged in"
        );
        // The first command of a session is told what happened before it.
        let test_unit_ready = initiator.command(0, [0; 16], 0, b"").await;
        let told = initiator.receive().await.unwrap();
        assert_eq!(
            (told.word(16), told.header[3]),
            (test_unit_ready, CHECK_CONDITION)
        );
        initiator
    }

    async fn begin_login(&mut self, isid: u8) {
        let mut header = [0; 48];
        header[0] = 0x43;
        header[1] = 0x87;
        header[13] = isid;
        header[27] = 1;
        let text = format!("InitiatorName=iqn.2026-01.test:host\0TargetName={NAME}\0");
        self.send(header, text.as_bytes()).await;
    }

    async fn send(&mut self, mut header: [u8; 48], data: &[u8]) {
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        let mut bytes = [&header[..], data].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// `None` when the target has closed.
    async fn receive(&mut self) -> Option<Pdu> {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data).await.ok()?;
        data.truncate(length);
        Some(Pdu { header, data })
    }

    /// The next PDU that answers a command. Who was idle for long may have been pinged meanwhile.
    async fn receive_answer(&mut self) -> Option<Pdu> {
        const NOP_IN: u8 = 0x20;
        loop {
            let pdu = self.receive().await?;
            if pdu.opcode() != NOP_IN {
                return Some(pdu);
            }
        }
    }

    /// Sends a command and returns its tag, which is also its number.
    async fn command(&mut self, flags: u8, cdb: [u8; 16], expected: u32, data: &[u8]) -> u32 {
        let tag = self.number;
        self.number += 1;
        let mut header = [0; 48];
        header[0] = 0x01;
        header[1] = 0x80 | flags;
        header[16..20].copy_from_slice(&tag.to_be_bytes());
        header[20..24].copy_from_slice(&expected.to_be_bytes());
        header[24..28].copy_from_slice(&tag.to_be_bytes());
        header[32..48].copy_from_slice(&cdb);
        self.send(header, data).await;
        tag
    }

    async fn read(&mut self, sector: u8, sectors: u8) -> u32 {
        let cdb = cdb_10(0x28, sector, sectors);
        self.command(0x40, cdb, u32::from(sectors) * 512, b"").await
    }

    async fn write(&mut self, sector: u8, sectors: u8, data: &[u8]) -> u32 {
        let cdb = cdb_10(0x2a, sector, sectors);
        self.command(0x20, cdb, u32::from(sectors) * 512, data)
            .await
    }

    async fn log_out(&mut self) {
        let mut header = [0; 48];
        header[0] = 0x46;
        header[1] = 0x80;
        header[24..28].copy_from_slice(&self.number.to_be_bytes());
        self.send(header, b"").await;
        let response = self.receive().await.unwrap();
        assert_eq!((response.opcode(), response.header[2]), (0x26, 0));
        assert!(
            self.receive().await.is_none(),
            "the target closes after a logout"
        );
    }
}

fn cdb_10(operation: u8, sector: u8, sectors: u8) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = operation;
    cdb[5] = sector;
    cdb[8] = sectors;
    cdb
}

#[test]
fn what_is_written_is_read_and_initiators_are_counted() {
    run(|| async {
        let bench = bench().await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        assert_eq!(bench.portal.initiators(), 1);
        let data: Vec<u8> = (0..4096_u32).map(|n| (n % 251) as u8).collect();
        let tag = initiator.write(8, 8, &data[..512]).await;
        let r2t = initiator.receive().await.unwrap();
        assert_eq!(
            (r2t.opcode(), r2t.word(40), r2t.word(44)),
            (0x31, 512, 3584)
        );
        let mut header = [0; 48];
        header[0] = 0x05;
        header[1] = 0x80;
        header[16..24].copy_from_slice(&r2t.header[16..24]);
        header[40..44].copy_from_slice(&512_u32.to_be_bytes());
        initiator.send(header, &data[512..]).await;
        let response = initiator.receive().await.unwrap();
        assert_eq!((response.word(16), response.header[3]), (tag, GOOD));
        initiator.read(8, 8).await;
        let answer = initiator.receive().await.unwrap();
        assert_eq!(
            (answer.opcode(), answer.header[1] & 1, answer.data),
            (0x25, 1, data)
        );
        initiator.log_out().await;
        until(|| bench.portal.initiators() == 0).await;
        assert_eq!(*bench.initiators.borrow(), [1, 0]);
    });
}

#[test]
fn a_new_login_of_the_same_port_waits_until_the_old_commands_have_ended() {
    run(|| async {
        let bench = bench().await;
        let mut old = Initiator::log_in(&bench, 1).await;
        bench.volume.holds.set(true);
        old.write(0, 1, &[1; 512]).await;
        until(|| !bench.volume.held.borrow().is_empty()).await;
        let stream = TcpStream::connect(bench.address).await.unwrap();
        let mut new = Initiator { stream, number: 1 };
        new.begin_login(1).await;
        assert!(old.receive().await.is_none(), "the old session ends");
        let early = timeout(Duration::from_millis(200), new.receive()).await;
        assert!(early.is_err(), "the old write is still executed");
        bench.volume.release();
        let response = new.receive().await.unwrap();
        assert_eq!((response.opcode(), response.header[36]), (0x23, 0));
        assert_eq!(bench.portal.initiators(), 1);
    });
}

#[test]
fn a_reset_silences_the_commands_of_all_sessions_and_is_answered_last() {
    run(|| async {
        let bench = bench().await;
        let mut one = Initiator::log_in(&bench, 1).await;
        let mut other = Initiator::log_in(&bench, 2).await;
        bench.volume.holds.set(true);
        other.read(0, 1).await;
        until(|| bench.volume.held.borrow().len() == 1).await;
        let mut header = [0; 48];
        header[0] = 0x42;
        header[1] = 0x85;
        header[19] = 99;
        header[24..28].copy_from_slice(&one.number.to_be_bytes());
        one.send(header, b"").await;
        // The request has been carried out once the other session no longer wants its command.
        let early = timeout(Duration::from_millis(200), async {
            loop {
                let pdu = one.receive().await.unwrap();
                if pdu.opcode() == 0x22 {
                    return;
                }
            }
        });
        assert!(
            early.await.is_err(),
            "the other session's command has not ended"
        );
        bench.volume.release();
        loop {
            let pdu = one.receive().await.unwrap();
            if pdu.opcode() == 0x22 {
                assert_eq!((pdu.word(16), pdu.header[2]), (99, 0));
                break;
            }
            assert_eq!(pdu.opcode(), 0x20, "only the window is told");
        }
        let tag = other.command(0, [0; 16], 0, b"").await;
        let told = loop {
            let pdu = other.receive().await.unwrap();
            if !matches!(pdu.opcode(), 0x20 | 0x32) {
                break pdu;
            }
        };
        assert_eq!(
            (told.opcode(), told.word(16)),
            (0x21, tag),
            "the aborted read is not answered"
        );
        assert_eq!(
            (told.header[3], told.data[4] & 0xf),
            (CHECK_CONDITION, 6),
            "unit attention"
        );
    });
}

#[test]
fn a_planned_stop_asks_for_logout_and_then_closes() {
    run(|| async {
        let bench = bench().await;
        let mut polite = Initiator::log_in(&bench, 1).await;
        let mut deaf = Initiator::log_in(&bench, 2).await;
        let portal = bench.portal.clone();
        let stopping = spawn_local(async move { portal.stop(Duration::from_secs(1)).await });
        let message = polite.receive().await.unwrap();
        assert_eq!((message.opcode(), message.header[36]), (0x32, 1));
        polite.log_out().await;
        assert_eq!(deaf.receive().await.unwrap().opcode(), 0x32);
        let dropped = deaf.receive().await.unwrap();
        assert_eq!((dropped.opcode(), dropped.header[36]), (0x32, 3));
        assert!(deaf.receive().await.is_none());
        stopping.await.unwrap();
        assert_eq!(bench.portal.initiators(), 0);
        until(|| std::net::TcpStream::connect(bench.address).is_err()).await;
    });
}

#[test]
fn a_flood_of_connections_neither_keeps_an_initiator_out_nor_disturbs_one() {
    run(|| async {
        let bench = bench().await;
        let mut inside = Initiator::log_in(&bench, 1).await;
        let mut idle = Vec::new();
        // In bursts, of which the target sees the first only after the last has come. Thousands in
        // all; this side gives up the oldest, for its own limit of open files.
        for _ in 0..limit::LOGIN_CONNECTIONS * 32 / BURST {
            let burst = (0..BURST).map(|_| TcpStream::connect(bench.address));
            idle.extend(futures_util::future::join_all(burst).await);
            if idle.len() > 2 * limit::LOGIN_CONNECTIONS {
                idle.drain(..BURST);
            }
        }
        let mut late = Initiator::log_in(&bench, 2).await;
        for initiator in [&mut inside, &mut late] {
            initiator.read(0, 1).await;
            assert_eq!(initiator.receive_answer().await.unwrap().opcode(), 0x25);
        }
    });
}

#[test]
fn an_initiator_that_does_not_read_disturbs_nobody_and_loses_nothing() {
    const SECTORS: u8 = 255;
    run(|| async {
        let bench = bench().await;
        let mut deaf = Initiator::log_in(&bench, 1).await;
        // A whole window: 16 MiB of answers, more than the sockets hold between them.
        for _ in 0..limit::COMMAND_WINDOW {
            deaf.read(0, SECTORS).await;
        }
        let mut other = Initiator::log_in(&bench, 2).await;
        for _ in 0..10 {
            other.read(0, 1).await;
            assert_eq!(other.receive_answer().await.unwrap().opcode(), 0x25);
        }
        let (mut answered, mut bytes) = (0, 0);
        while answered < limit::COMMAND_WINDOW {
            let pdu = deaf.receive_answer().await.expect("the session lives");
            assert_eq!(pdu.opcode(), 0x25);
            bytes += pdu.data.len();
            // With the status in it.
            answered += u32::from(pdu.header[1] & 1);
        }
        let each = usize::from(SECTORS) * 512;
        assert_eq!(bytes, limit::COMMAND_WINDOW as usize * each);
    });
}

#[test]
fn garbage_ends_its_connection_only() {
    run(|| async {
        let bench = bench().await;
        let mut inside = Initiator::log_in(&bench, 1).await;
        for byte in [0x00, 0x03, 0x43, 0xff] {
            let mut hostile = TcpStream::connect(bench.address).await.unwrap();
            let _ = hostile.write_all(&[byte; 20_000]).await;
            let mut answer = Vec::new();
            let _ = hostile.read_to_end(&mut answer).await;
        }
        let mut broken = Initiator::log_in(&bench, 2).await;
        let mut header = [0; 48];
        header[0] = 0x01;
        header[5..8].fill(0xff);
        broken.stream.write_all(&header).await.unwrap();
        assert!(
            broken.receive().await.is_none(),
            "a segment longer than declared"
        );
        inside.read(0, 1).await;
        assert_eq!(inside.receive().await.unwrap().opcode(), 0x25);
    });
}

#[test]
fn an_operation_that_is_dropped_is_answered_busy() {
    run(|| async {
        let bench = bench().await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        bench.volume.holds.set(true);
        let tag = initiator.read(0, 1).await;
        until(|| !bench.volume.held.borrow().is_empty()).await;
        bench.volume.held.take();
        let response = initiator.receive().await.unwrap();
        assert_eq!((response.word(16), response.header[3]), (tag, 8));
    });
}

impl Initiator {
    /// The next PDU that is neither a message nor a window.
    async fn answer(&mut self) -> Pdu {
        loop {
            let pdu = self.receive().await.unwrap();
            if !matches!(pdu.opcode(), 0x20 | 0x32) {
                return pdu;
            }
        }
    }

    /// How a login without a secret is answered.
    async fn login_status(bench: &Bench, isid: u8) -> [u8; 2] {
        let stream = TcpStream::connect(bench.address).await.unwrap();
        let mut initiator = Self { stream, number: 1 };
        initiator.begin_login(isid).await;
        let response = initiator.receive().await.unwrap();
        [response.header[36], response.header[37]]
    }
}

#[test]
fn a_new_size_works_without_a_new_login_and_harms_nothing_in_flight() {
    run(|| async {
        let bench = bench().await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        bench.volume.holds.set(true);
        let tag = initiator.write(0, 1, &[7; 512]).await;
        until(|| !bench.volume.held.borrow().is_empty()).await;
        let twice = VOLUME_BYTES * 2;
        bench.volume.bytes.borrow_mut().resize(twice as usize, 0);
        bench.portal.resize(VolumeSize::from_bytes(twice).unwrap());
        let message = initiator.receive().await.unwrap();
        assert_eq!((message.opcode(), message.header[36]), (0x32, 0));
        // Behind the length of the sense data.
        let told = [message.data[4], message.data[14], message.data[15]];
        assert_eq!(told, [6, 0x2a, 0x09]);
        bench.volume.release();
        let answer = initiator.answer().await;
        assert_eq!((answer.word(16), answer.header[3]), (tag, GOOD));
        initiator.command(0, [0; 16], 0, b"").await;
        let told = initiator.answer().await;
        let sense = [told.header[3], told.data[4], told.data[14], told.data[15]];
        assert_eq!(sense, [CHECK_CONDITION, 6, 0x2a, 0x09]);
        let mut cdb = cdb_10(0x2a, 0, 1);
        cdb[2..6].copy_from_slice(&((twice / 512 - 1) as u32).to_be_bytes());
        initiator.command(0x20, cdb, 512, &[9; 512]).await;
        assert_eq!(initiator.answer().await.header[3], GOOD);
        assert_eq!(bench.volume.bytes.borrow().last(), Some(&9));
        assert_eq!(bench.portal.initiators(), 1);
    });
}

#[test]
fn secrets_can_be_changed_while_sessions_go_on() {
    use ankole_engine::iscsi::login::{Chap, Credentials, Secret};
    run(|| async {
        let bench = bench().await;
        let mut inside = Initiator::log_in(&bench, 1).await;
        let mut entering = TcpStream::connect(bench.address).await.unwrap();
        // The target has seen it once a later one has logged in.
        let mut later = Initiator::log_in(&bench, 2).await;
        bench.portal.set_chap(Some(Chap {
            initiator: Credentials {
                name: "host".into(),
                secret: Secret::new("a secret of 16 b"),
            },
            target: None,
        }));
        let mut rest = Vec::new();
        let ended = entering.read_to_end(&mut rest).await;
        assert!(ended.is_err() || rest.is_empty(), "its login begins anew");
        assert_eq!(Initiator::login_status(&bench, 3).await, [2, 1]);
        for initiator in [&mut inside, &mut later] {
            initiator.read(0, 1).await;
            assert_eq!(initiator.answer().await.opcode(), 0x25);
        }
        bench.portal.set_chap(None);
        assert_eq!(Initiator::login_status(&bench, 3).await, [0, 0]);
    });
}

#[test]
fn a_reservation_is_answered_once_it_is_kept() {
    run(|| async {
        let bench = bench().await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        bench.volume.holds.set(true);
        let mut cdb = [0; 16];
        cdb[0] = 0x5f;
        cdb[8] = 24;
        let mut list = [0; 24];
        list[15] = 7;
        let tag = initiator.command(0x20, cdb, 24, &list).await;
        until(|| !bench.volume.states.borrow().is_empty()).await;
        let early = timeout(Duration::from_millis(200), initiator.receive()).await;
        assert!(early.is_err(), "it is not kept yet");
        bench.volume.release();
        let answer = initiator.answer().await;
        assert_eq!((answer.word(16), answer.header[3]), (tag, GOOD));
        let mut cdb = [0; 16];
        cdb[0] = 0x5e;
        cdb[8] = 64;
        initiator.command(0x40, cdb, 64, b"").await;
        assert_eq!(initiator.answer().await.data[8..], 7_u64.to_be_bytes());
    });
}

#[test]
fn a_sanitized_volume_is_empty_and_goes_on() {
    run(|| async {
        let bench = bench().await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        initiator.write(0, 1, &[7; 512]).await;
        assert_eq!(initiator.answer().await.header[3], GOOD);
        let mut cdb = [0; 16];
        cdb[..2].copy_from_slice(&[0x48, 0x02]);
        initiator.command(0, cdb, 0, b"").await;
        assert_eq!(initiator.answer().await.header[3], GOOD);
        assert!(bench.volume.bytes.borrow().iter().all(|byte| *byte == 0));
        assert_eq!(bench.volume.states.borrow().len(), 2, "begun and ended");
        initiator.read(0, 1).await;
        assert_eq!(initiator.answer().await.data, [0; 512]);
    });
}

#[test]
fn the_target_is_reached_over_ipv6() {
    run(|| async {
        let bench = bench_on("::1").await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        initiator.write(3, 1, &[5; 512]).await;
        assert_eq!(initiator.answer().await.header[3], GOOD);
        initiator.read(3, 1).await;
        assert_eq!(initiator.answer().await.data, [5; 512]);
        initiator.log_out().await;
    });
}

#[test]
fn a_cache_that_is_turned_off_is_flushed_and_all_are_told() {
    run(|| async {
        let bench = bench().await;
        let mut initiator = Initiator::log_in(&bench, 1).await;
        bench.volume.holds.set(true);
        bench.portal.set_write_cache(false);
        let flushed = bench
            .volume
            .held
            .borrow()
            .iter()
            .any(|(it, _)| *it == Operation::Flush);
        assert!(flushed, "what was cached becomes durable");
        bench.volume.release();
        let message = initiator.receive().await.unwrap();
        assert_eq!(
            [message.data[4], message.data[14], message.data[15]],
            [6, 0x2a, 0x01]
        );
        initiator.command(0, [0; 16], 0, b"").await;
        assert_eq!(initiator.answer().await.header[3], CHECK_CONDITION);
        bench.volume.holds.set(true);
        initiator.write(0, 1, &[1; 512]).await;
        until(|| !bench.volume.held.borrow().is_empty()).await;
        let through = matches!(
            bench.volume.held.borrow().first(),
            Some((Operation::Write { fua: true, .. }, _))
        );
        assert!(through);
        bench.volume.release();
        assert_eq!(initiator.answer().await.header[3], GOOD);
    });
}
