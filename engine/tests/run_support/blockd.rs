//! A replica in memory that speaks the block protocol, and can be told to misbehave.

use std::net::SocketAddr;
use std::sync::Arc;

use ankole_proto::wire::body::{LayerLink, Memory, OpenRequest, Opened};
use ankole_proto::wire::{Decoder, ErrorCode, Frame, Header, Opcode};
use ankole_proto::{Epoch, LayerId, VolumeSize};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What it does with the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Serves.
    Good,
    /// Refuses Open with this error.
    RefuseOpen(ErrorCode),
    /// Closes the connection when a request comes.
    HangUp,
    /// Answers each request twice.
    AnswerTwice,
    /// Answers with bytes that are no frame.
    Garble,
    /// Takes everything and never answers Open.
    Silent,
}

/// The stored bytes and what came.
#[derive(Debug)]
pub struct Contents {
    pub data: Vec<u8>,
    pub epoch: u64,
    pub head: u64,
    pub opcodes: Vec<Opcode>,
    pub manner: Manner,
    /// For how long the engine before may still believe in its lease.
    pub lease_remaining_ms: u32,
}

/// The replica; serves until its runtime ends.
#[derive(Debug, Clone)]
pub struct FakeBlockd {
    pub address: SocketAddr,
    pub contents: Arc<Mutex<Contents>>,
}

impl FakeBlockd {
    /// Serves a volume of this many bytes, on the current runtime.
    pub async fn start(bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let blockd = Self {
            address: listener.local_addr().unwrap(),
            contents: Arc::new(Mutex::new(Contents {
                data: vec![0; bytes],
                epoch: 0,
                head: 1,
                opcodes: Vec::new(),
                manner: Manner::Good,
                lease_remaining_ms: 0,
            })),
        };
        let contents = Arc::clone(&blockd.contents);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&contents)));
            }
        });
        blockd
    }

    /// Serves on a thread of its own, until the test ends.
    pub fn spawn(bytes: usize) -> Self {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                sender.send(Self::start(bytes).await).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().unwrap()
    }

    pub fn misbehave(&self, manner: Manner) {
        self.contents.lock().manner = manner;
    }
}

async fn serve(mut stream: tokio::net::TcpStream, contents: Arc<Mutex<Contents>>) {
    let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::new());
    loop {
        while let Some(request) = decoder.decode(&mut buffer).unwrap() {
            let manner = contents.lock().manner;
            let open = request.header.opcode == Opcode::Open;
            match manner {
                Manner::Silent => continue,
                Manner::HangUp if !open => return,
                Manner::Garble if !open => {
                    let _ = stream.write_all(&[0x55; 100]).await;
                    continue;
                }
                _ => {}
            }
            let reply = answer(&mut contents.lock(), &request, manner);
            let mut bytes = reply.header.encode().to_vec();
            bytes.extend_from_slice(&reply.payload);
            if manner == Manner::AnswerTwice && !open {
                bytes.extend_from_within(..);
            }
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn answer(contents: &mut Contents, request: &Frame, manner: Manner) -> Frame {
    let header = request.header;
    contents.opcodes.push(header.opcode);
    let at = usize::try_from(header.offset).unwrap();
    let length = header.length as usize;
    let mut reply = header.reply();
    let mut payload = Bytes::new();
    match header.opcode {
        Opcode::Open => {
            let open = OpenRequest::decode(&request.payload).unwrap();
            if let Manner::RefuseOpen(error) = manner {
                reply.error = Some(error);
                reply.sequence = 77;
                payload = Bytes::from_static(b"because");
            } else {
                payload = opened(contents, &open).encode();
            }
        }
        Opcode::Read => payload = Bytes::copy_from_slice(&contents.data[at..at + length]),
        Opcode::Write => contents.data[at..at + length].copy_from_slice(&request.payload),
        Opcode::Unmap | Opcode::WriteZeroes => contents.data[at..at + length].fill(0),
        _ => {}
    }
    Frame::new(reply, payload)
}

fn opened(contents: &mut Contents, open: &OpenRequest) -> Opened {
    let previous = std::mem::replace(&mut contents.epoch, open.epoch.raw());
    let head = LayerId::from_raw(contents.head).unwrap();
    Opened {
        size: VolumeSize::from_bytes(contents.data.len() as u64).unwrap(),
        head,
        previous_epoch: Epoch::from_raw(previous),
        lease_remaining_ms: contents.lease_remaining_ms,
        memory: Memory::Clean,
        rebuilding: false,
        layers: vec![LayerLink {
            layer: head,
            parent: None,
        }],
        in_flight: Vec::new(),
    }
}

/// A request for these bytes.
pub fn request(opcode: Opcode, request_id: u64, offset: u64, length: u32) -> Header {
    Header {
        offset,
        length,
        ..Header::request(opcode, request_id)
    }
}
