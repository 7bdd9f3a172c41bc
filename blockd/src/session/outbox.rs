//! Replies on their way out, from whichever thread finished a request.
//!
//! Two locks, so that nobody waits for a peer that does not read: the queue's is held for the
//! moment of an append, the socket's by the one thread that is sending. A thread that finds
//! another sending leaves its reply in the queue; the sender looks again before it goes. Disk
//! threads never wait for room in a socket: what does not fit, the connection's own thread sends.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};

use ankole_proto::wire::{HEADER_BYTES, Header};
use bytes::Bytes;
use parking_lot::Mutex;

use super::socket::{Socket, Wait};

/// Frames that one system call sends at most: two parts each, well below the system's 1024.
const BATCH_FRAMES_MAX: usize = 128;

/// A reply, encoded.
#[derive(Debug)]
struct Outgoing {
    header: [u8; HEADER_BYTES],
    payload: Bytes,
}

/// Frames taken from the queue, the first of them perhaps sent in part.
#[derive(Debug, Default)]
struct Sending {
    frames: VecDeque<Outgoing>,
    first_sent: usize,
}

/// The replies of one connection that are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Vec<Outgoing>>,
    queued_bytes: AtomicUsize,
    sending: Mutex<Sending>,
}

impl Outbox {
    /// Puts a reply at the end of the queue. It is sent by the next [`Outbox::send`].
    pub(super) fn push(&self, header: Header, payload: Bytes) {
        let header = header.with_payload(&payload).encode();
        self.queued_bytes
            .fetch_add(HEADER_BYTES + payload.len(), Ordering::Relaxed);
        self.queue.lock().push(Outgoing { header, payload });
    }

    /// How many bytes wait to be taken by a sender.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Sends what is queued, unless another thread is at it: then that one does.
    ///
    /// # Errors
    ///
    /// When the socket fails, or has had no room for the send timeout: the connection is lost.
    pub(super) fn send(&self, socket: &Socket, wait: Wait) -> io::Result<()> {
        loop {
            let locked = match wait {
                Wait::ForRoom => Some(self.sending.lock()),
                Wait::Never => self.sending.try_lock(),
            };
            let Some(mut sending) = locked else {
                return Ok(());
            };
            let room_left = self.send_all(&mut sending, socket, wait)?;
            drop(sending);
            // Whoever pushed while the lock was held here has gone away trusting this look.
            if !room_left || self.queue.lock().is_empty() {
                return Ok(());
            }
        }
    }

    /// `false` when the socket is full and waiting is not allowed.
    fn send_all(&self, sending: &mut Sending, socket: &Socket, wait: Wait) -> io::Result<bool> {
        loop {
            self.take_queue(sending);
            if sending.frames.is_empty() {
                return Ok(true);
            }
            match sending.send_once(socket, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && wait == Wait::Never => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take_queue(&self, sending: &mut Sending) {
        let taken = std::mem::take(&mut *self.queue.lock());
        let bytes: usize = taken
            .iter()
            .map(|frame| HEADER_BYTES + frame.payload.len())
            .sum();
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        sending.frames.extend(taken);
    }
}

impl Sending {
    fn send_once(&mut self, socket: &Socket, wait: Wait) -> io::Result<()> {
        let mut parts = Vec::with_capacity(2 * self.frames.len().min(BATCH_FRAMES_MAX));
        let mut skip = self.first_sent;
        for frame in self.frames.iter().take(BATCH_FRAMES_MAX) {
            for part in [&frame.header[..], &frame.payload[..]] {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if let Some(left) = part.get(skipped..).filter(|left| !left.is_empty()) {
                    parts.push(IoSlice::new(left));
                }
            }
        }
        let sent = socket.send(&parts, wait)?;
        self.forget(sent);
        Ok(())
    }

    fn forget(&mut self, sent: usize) {
        self.first_sent += sent;
        while let Some(first) = self.frames.front() {
            let bytes = HEADER_BYTES + first.payload.len();
            if self.first_sent < bytes {
                return;
            }
            self.first_sent -= bytes;
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use ankole_proto::wire::{Decoder, Opcode};
    use bytes::BytesMut;

    use super::*;

    fn read_frames(mut stream: UnixStream, count: usize) -> Vec<(u64, usize)> {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        let mut piece = vec![0; 64 << 10];
        while seen.len() < count {
            let got = stream.read(&mut piece).unwrap();
            assert!(got > 0, "the stream ended early");
            buffer.extend_from_slice(&piece[..got]);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                seen.push((frame.header.request_id, frame.payload.len()));
            }
        }
        seen
    }

    #[test]
    fn every_reply_of_many_threads_arrives_once_and_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = Arc::new(Socket::Unix(ours));
        let outbox = Arc::new(Outbox::default());
        let reader = std::thread::spawn(move || read_frames(theirs, 800));
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let (socket, outbox) = (Arc::clone(&socket), Arc::clone(&outbox));
                std::thread::spawn(move || {
                    for i in 0..200 {
                        let id = thread * 1000 + i;
                        let payload = Bytes::from(vec![7; usize::try_from(id % 9).unwrap() * 700]);
                        outbox.push(Header::request(Opcode::Read, id).reply(), payload);
                        outbox.send(&socket, Wait::ForRoom).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut seen = reader.join().unwrap();
        seen.sort_unstable();
        let expected: Vec<(u64, usize)> = (0..4u64)
            .flat_map(|thread| (0..200).map(move |i| thread * 1000 + i))
            .map(|id| (id, usize::try_from(id % 9).unwrap() * 700))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_full_socket_does_not_hold_a_thread_that_may_not_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = Socket::Unix(ours);
        let outbox = Outbox::default();
        for id in 0..64 {
            outbox.push(
                Header::request(Opcode::Read, id).reply(),
                Bytes::from(vec![1; 100_000]),
            );
        }
        outbox.send(&socket, Wait::Never).unwrap();
        let reader = std::thread::spawn(move || read_frames(theirs, 64));
        outbox.send(&socket, Wait::ForRoom).unwrap();
        let ids: Vec<u64> = reader
            .join()
            .unwrap()
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert_eq!(ids, (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn a_dead_peer_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let socket = Socket::Unix(ours);
        let outbox = Outbox::default();
        outbox.push(Header::request(Opcode::Ping, 1).reply(), Bytes::new());
        assert!(outbox.send(&socket, Wait::Never).is_err());
    }
}
