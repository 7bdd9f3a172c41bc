//! One connection as seen by every thread that has something to answer on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_proto::wire::{ErrorCode, Header};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::outbox::Outbox;
use super::socket::{Socket, Wait};
use crate::replica::refusal::Refusal;
use crate::store::ConnectionId;

/// What became of a request.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// It was carried out. What its operation returns, often nothing.
    Done(Bytes),
    /// It was not.
    Refused(Denial),
}

impl From<Result<Bytes, Denial>> for Answer {
    fn from(result: Result<Bytes, Denial>) -> Self {
        result.map_or_else(Self::Refused, Self::Done)
    }
}

/// Why a request was not carried out, as the peer is told.
#[derive(Debug, Clone)]
pub struct Denial {
    /// For machines.
    pub code: ErrorCode,
    /// For people; cut at [`ErrorCode::MESSAGE_BYTES_MAX`].
    pub message: String,
    /// What the reply's header says beside the code.
    pub detail: Detail,
}

/// What a refusal says in the fixed fields of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing: they repeat the request's.
    None,
    /// `Fenced`: the epoch that the replica obeys, in `sequence`.
    Epoch(u64),
    /// `Checksum`: the bad block's offset, in `offset`, and its layer, in `sequence`.
    Damage {
        /// Of the block, in the volume.
        offset: u64,
        /// That holds it.
        layer: u64,
    },
}

impl Denial {
    /// A refusal that says no more than its code and this.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: Detail::None,
        }
    }

    /// The answer to a request that the replica refused.
    pub fn of(error: &dyn Refusal) -> Self {
        let detail = match (error.fenced_by(), error.damaged()) {
            (Some(epoch), _) => Detail::Epoch(epoch.raw()),
            (None, Some(damaged)) => Detail::Damage {
                offset: damaged.block.offset(),
                layer: damaged.layer.raw(),
            },
            (None, None) => Detail::None,
        };
        Self {
            code: error.code(),
            message: error.to_string(),
            detail,
        }
    }

    fn header(&self, request: &Header) -> Header {
        let mut header = request.reply();
        header.error = Some(self.code);
        match self.detail {
            Detail::None => {}
            Detail::Epoch(epoch) => header.sequence = epoch,
            Detail::Damage { offset, layer } => {
                header.offset = offset;
                header.sequence = layer;
            }
        }
        header
    }

    fn payload(&self) -> Bytes {
        let mut end = self.message.len().min(ErrorCode::MESSAGE_BYTES_MAX);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        Bytes::copy_from_slice(self.message.get(..end).unwrap_or_default().as_bytes())
    }
}

/// The socket of a connection and the replies on their way to it.
#[derive(Debug)]
pub(super) struct Link {
    id: ConnectionId,
    socket: Socket,
    outbox: Outbox,
    unanswered: Mutex<usize>,
    all_answered: Condvar,
}

impl Link {
    /// Of a connection that was just accepted.
    pub(super) fn new(id: ConnectionId, socket: Socket) -> Self {
        Self {
            id,
            socket,
            outbox: Outbox::default(),
            unanswered: Mutex::new(0),
            all_answered: Condvar::new(),
        }
    }

    /// Its name.
    pub(super) const fn id(&self) -> ConnectionId {
        self.id
    }

    /// Its socket.
    pub(super) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Requests handed on to other threads and not answered yet.
    pub(super) fn unanswered(&self) -> usize {
        *self.unanswered.lock()
    }

    /// Waits until other threads have answered what they were handed, this long at most.
    pub(super) fn wait_answered(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut unanswered = self.unanswered.lock();
        while *unanswered > 0
            && !self
                .all_answered
                .wait_until(&mut unanswered, until)
                .timed_out()
        {}
    }

    /// Replies that wait to be sent, in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }

    /// Queues the answer to a request that the connection's own thread has carried out.
    pub(super) fn answer(&self, request: &Header, answer: Answer) {
        match answer {
            Answer::Done(payload) => self.outbox.push(request.reply(), payload),
            Answer::Refused(denial) => self.outbox.push(denial.header(request), denial.payload()),
        }
    }

    /// Sends what is queued; waits for room in the socket.
    ///
    /// # Errors
    ///
    /// When the peer is gone, or has read nothing for the send timeout.
    pub(super) fn send(&self) -> std::io::Result<()> {
        self.outbox.send(&self.socket, Wait::ForRoom)
    }

    /// Takes a request to another thread.
    pub(super) fn defer(self: &Arc<Self>, request: Header) -> Deferred {
        *self.unanswered.lock() += 1;
        Deferred {
            link: Arc::clone(self),
            request,
            answered: false,
        }
    }
}

/// A request that another thread is to answer, once: answering consumes it. One that is dropped
/// instead ends the connection, so that the peer does not wait for ever.
#[derive(Debug)]
#[must_use]
pub(super) struct Deferred {
    link: Arc<Link>,
    request: Header,
    answered: bool,
}

impl Deferred {
    /// Answers and sends, without waiting for a peer that does not read.
    pub(super) fn answer(mut self, answer: Answer) {
        self.answered = true;
        self.link.answer(&self.request, answer);
        if self
            .link
            .outbox
            .send(&self.link.socket, Wait::Never)
            .is_err()
        {
            // The connection's own thread finds it dead and says so.
            self.link.socket.shut();
        }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if !self.answered {
            self.link.socket.shut();
        }
        let mut unanswered = self.link.unanswered.lock();
        *unanswered = unanswered.saturating_sub(1);
        if *unanswered == 0 {
            self.link.all_answered.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use ankole_proto::wire::{Decoder, Opcode};
    use bytes::BytesMut;

    use super::*;

    fn pair() -> (Arc<Link>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (
            Arc::new(Link::new(ConnectionId(1), Socket::Unix(ours))),
            theirs,
        )
    }

    #[test]
    fn a_refusal_carries_code_detail_and_a_message_cut_at_its_bound() {
        let (link, mut peer) = pair();
        let denial = Denial {
            code: ErrorCode::Fenced,
            message: "é".repeat(1000),
            detail: Detail::Epoch(9),
        };
        link.answer(&Header::request(Opcode::Write, 3), Answer::Refused(denial));
        link.send().unwrap();
        drop(link);
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        let frame = Decoder::new()
            .decode(&mut BytesMut::from(&bytes[..]))
            .unwrap()
            .unwrap();
        assert_eq!(frame.header.error, Some(ErrorCode::Fenced));
        assert_eq!(frame.header.sequence, 9);
        assert_eq!(frame.header.request_id, 3);
        assert_eq!(frame.payload.len(), ErrorCode::MESSAGE_BYTES_MAX);
        assert!(std::str::from_utf8(&frame.payload).is_ok());
    }

    #[test]
    fn a_forgotten_request_ends_the_connection() {
        let (link, mut peer) = pair();
        let deferred = link.defer(Header::request(Opcode::Flush, 1));
        assert_eq!(link.unanswered(), 1);
        drop(deferred);
        assert_eq!(link.unanswered(), 0);
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
}
