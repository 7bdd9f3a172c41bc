//! What the daemon's tests share: an engine's side of the block protocol, a store in a temporary
//! directory, and waiting for a condition.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of what stands here"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_blockd::session::{Limits, Server};
use ankole_blockd::store::{Creation, Store};
use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::wire::{Decoder, ErrorCode, Frame, Header, Opcode, flags};
use ankole_proto::{Credential, Epoch, LayerId, ReplicaId, VolumeId, VolumeSize};
use bytes::{Bytes, BytesMut};

/// Longer than anything takes on a busy machine: reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const VOLUME: VolumeId = VolumeId::from_bits(0x77);
pub const REPLICA: ReplicaId = ReplicaId::from_bits(0x99);
pub const CREDENTIAL: Credential = Credential::from_bytes([3; 32]);
pub const VOLUME_BYTES: u64 = 16 << 20;

pub fn size() -> VolumeSize {
    VolumeSize::from_bytes(VOLUME_BYTES).unwrap()
}

pub fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).unwrap()
}

pub fn open_request(epoch: u64) -> OpenRequest {
    OpenRequest {
        volume: VOLUME,
        replica: REPLICA,
        epoch: Epoch::from_raw(epoch),
        size: size(),
        credential: CREDENTIAL,
    }
}

/// Waits until the condition gives something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A store with one replica, behind a server on port 0.
pub struct Node {
    pub store: Arc<Store>,
    pub server: Server,
}

impl Node {
    /// Opens the store in the directory and serves it.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, None, Limits::default())
    }

    pub fn start_with(dir: &Path, unix: Option<&Path>, limits: Limits) -> Self {
        let store = Arc::new(Store::open(&[dir.to_path_buf()]).unwrap());
        let server = Server::start(
            Arc::clone(&store),
            SocketAddr::from(([127, 0, 0, 1], 0)),
            unix,
            limits,
        )
        .unwrap();
        Self { store, server }
    }

    /// The same, with the replica created.
    pub fn start_new(dir: &Path) -> Self {
        let node = Self::start(dir);
        node.create_replica();
        node
    }

    pub fn create_replica(&self) {
        let disk = self.store.disks()[0].id();
        self.store
            .create(&Creation {
                replica: REPLICA,
                volume: VOLUME,
                disk,
                size: size(),
                credential: CREDENTIAL,
                base: layer(1),
            })
            .unwrap();
    }

    pub fn connect(&self) -> Client {
        Client::tcp(self.server.tcp_address())
    }

    /// Connects and opens the replica.
    pub fn open(&self, epoch: u64) -> Client {
        self.open_told(epoch).0
    }

    pub fn open_told(&self, epoch: u64) -> (Client, Opened) {
        let mut client = self.connect();
        let opened = client.open(&open_request(epoch)).unwrap();
        (client, opened)
    }

    /// Stops in order.
    /// As a daemon stops; then nothing holds the store any more, as when a process is gone.
    pub fn stop(self) {
        self.server.stop();
        self.store.close();
        let store = self.store;
        eventually("no thread holds the store", || {
            (Arc::strong_count(&store) == 1).then_some(())
        });
    }
}

/// An engine's side of a connection.
pub struct Client {
    stream: Stream,
    decoder: Decoder,
    buffer: BytesMut,
    next_id: u64,
    pub sequence: u64,
    pub watermark: u64,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What the server did instead of sending a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl Client {
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(Stream::Tcp(stream))
    }

    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(Stream::Unix(stream))
    }

    fn over(stream: Stream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            buffer: BytesMut::new(),
            next_id: 1,
            sequence: 0,
            watermark: 0,
        }
    }

    /// A request header with an id of its own and, for a mutation, the next sequence number.
    pub fn header(&mut self, opcode: Opcode, offset: u64, length: u64) -> Header {
        let mut header = Header::request(opcode, self.next_id);
        self.next_id += 1;
        header.offset = offset;
        header.length = u32::try_from(length).unwrap();
        header.watermark = self.watermark;
        if opcode.is_mutation() {
            self.sequence += 1;
            header.sequence = self.sequence;
        }
        header
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).unwrap();
    }

    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Says that nothing more will come.
    pub fn end_sending(&self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write).unwrap(),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write).unwrap(),
        }
    }

    pub fn send(&mut self, header: Header, payload: &[u8]) {
        self.send_bytes(&encode(header, payload));
    }

    /// The next frame.
    pub fn receive(&mut self) -> Result<Frame, Closed> {
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                assert!(frame.header.is_reply());
                return Ok(frame);
            }
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut piece),
                Stream::Unix(stream) => stream.read(&mut piece),
            };
            match read {
                Ok(0) => return Err(Closed),
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Err(Closed);
                }
                Err(error) => panic!("no frame and no end: {error}"),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, header: Header, payload: &[u8]) -> Result<Frame, Closed> {
        self.send(header, payload);
        let reply = self.receive()?;
        assert_eq!(reply.header.request_id, header.request_id);
        assert_eq!(reply.header.opcode, header.opcode);
        Ok(reply)
    }

    /// The same, for operations that have to succeed.
    pub fn done(&mut self, header: Header, payload: &[u8]) -> Bytes {
        let reply = self.call(header, payload).unwrap();
        assert_eq!(
            reply.header.error,
            None,
            "{:?}: {}",
            header.opcode,
            String::from_utf8_lossy(&reply.payload)
        );
        reply.payload
    }

    /// The same, for operations that have to be refused.
    pub fn refused(&mut self, header: Header, payload: &[u8]) -> ErrorCode {
        let reply = self.call(header, payload).unwrap();
        reply.header.error.expect("it was carried out")
    }

    pub fn open(&mut self, request: &OpenRequest) -> Result<Opened, ErrorCode> {
        let header = self.header(Opcode::Open, 0, 0);
        let reply = self.call(header, &request.encode()).unwrap();
        match reply.header.error {
            None => Ok(Opened::decode(&reply.payload).unwrap()),
            Some(code) => Err(code),
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let header = self.header(Opcode::Write, offset, data.len() as u64);
        self.done(header, data);
        self.watermark = self.sequence;
    }

    pub fn write_fua(&mut self, offset: u64, data: &[u8]) {
        let mut header = self.header(Opcode::Write, offset, data.len() as u64);
        header.flags |= flags::FUA;
        self.done(header, data);
        self.watermark = self.sequence;
    }

    pub fn read(&mut self, offset: u64, length: u64) -> Bytes {
        let header = self.header(Opcode::Read, offset, length);
        let data = self.done(header, &[]);
        assert_eq!(data.len() as u64, length);
        data
    }

    /// An operation without payload that has to succeed.
    pub fn act(&mut self, opcode: Opcode, offset: u64, length: u64) -> Bytes {
        let header = self.header(opcode, offset, length);
        let answer = self.done(header, &[]);
        self.watermark = self.sequence;
        answer
    }
}

/// A frame's bytes.
pub fn encode(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header.with_payload(payload).encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// 4 KiB that say where and which they are.
pub fn block(number: u64, generation: u64) -> Vec<u8> {
    let word = number * 1_000_003 + generation;
    let word = NonZeroU64::new(word).map_or(1, NonZeroU64::get);
    word.to_le_bytes().repeat(512)
}
