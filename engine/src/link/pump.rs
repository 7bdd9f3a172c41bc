//! Bytes between the socket and the frames, in both directions.

use std::io::{self, IoSlice};
use std::rc::Rc;

use ankole_proto::wire::{Decoder, Frame};
use bytes::BytesMut;
use tokio::io::Interest;

use super::State;
use super::connect::LinkError;
use super::outgoing::{Outgoing, SLICES_MAX};
use super::socket::Socket;
use crate::mirror::event::Event;

/// Room made for each read: sixteen replies of one block.
const READ_BYTES: usize = 64 << 10;
/// The least room worth a system call.
const READ_BYTES_MIN: usize = 4 << 10;
/// Bytes read before the other connections have their turn.
const READ_TURN_BYTES: usize = 1 << 20;

/// The receiving side of a connection.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    buffer: BytesMut,
    decoder: Decoder,
}

/// Whether everything that had come was taken.
enum Drained {
    /// The socket has nothing more now.
    Yes,
    /// The turn is over.
    No,
}

impl Incoming {
    /// The next frame, waiting for it.
    pub(super) async fn next(&mut self, socket: &Socket) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer)? {
                return Ok(frame);
            }
            socket.ready(Interest::READABLE).await?;
            self.read_once(socket)?;
        }
    }

    /// Reads what is there; `None` when nothing is.
    fn read_once(&mut self, socket: &Socket) -> Result<Option<usize>, LinkError> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(READ_BYTES);
        }
        match socket.try_read(&mut self.buffer) {
            Ok(0) => Err(LinkError::Ended),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_not_now(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers every reply that is there, up to a turn's worth.
    fn read_ready(&mut self, state: &State, socket: &Socket) -> Result<Drained, LinkError> {
        let mut bytes_read = 0;
        loop {
            self.deliver_decoded(state)?;
            if bytes_read >= READ_TURN_BYTES {
                return Ok(Drained::No);
            }
            let room = (self.buffer.capacity() - self.buffer.len()).max(READ_BYTES_MIN);
            match self.read_once(socket)? {
                None => return Ok(Drained::Yes),
                Some(bytes) => {
                    bytes_read += bytes;
                    if bytes < room {
                        self.deliver_decoded(state)?;
                        return Ok(Drained::Yes);
                    }
                }
            }
        }
    }

    fn deliver_decoded(&mut self, state: &State) -> Result<(), LinkError> {
        while let Some(frame) = self.decoder.decode(&mut self.buffer)? {
            let unanswered = state.unanswered.get();
            if !frame.header.is_reply() || unanswered == 0 {
                return Err(LinkError::Unasked(frame.header.opcode));
            }
            state.unanswered.set(unanswered - 1);
            (state.deliver)(Event::Reply {
                replica: state.replica,
                link: state.link,
                frame,
            });
        }
        Ok(())
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Moves bytes both ways until something breaks.
pub(super) async fn run(state: &State, socket: Rc<Socket>, mut incoming: Incoming) -> LinkError {
    loop {
        let interest = if state.outgoing.borrow().is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let ready = tokio::select! {
            ready = socket.ready(interest) => ready,
            () = state.wake.notified() => {
                if state.closed.get() {
                    return LinkError::Ended;
                }
                continue;
            }
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => return error.into(),
        };
        if ready.is_writable() && !state.outgoing.borrow().is_empty() {
            write_ready(state, &socket);
        }
        if ready.is_readable() || ready.is_read_closed() {
            match incoming.read_ready(state, &socket) {
                Ok(Drained::Yes) => {}
                Ok(Drained::No) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
        if state.closed.get() {
            return LinkError::Ended;
        }
    }
}

/// Writes until the queue is empty (true) or the socket full (false); a broken one closes the
/// link.
pub(super) fn write_ready(state: &State, socket: &Socket) -> bool {
    let result = write_some(&mut state.outgoing.borrow_mut(), socket);
    match result {
        Ok(emptied) => emptied,
        Err(error) => {
            state.close(crate::mirror::event::LinkFailure::Transport(format!(
                "the connection broke: {error}"
            )));
            true
        }
    }
}

fn write_some(outgoing: &mut Outgoing, socket: &Socket) -> io::Result<bool> {
    while !outgoing.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let used = outgoing.fill(&mut slices);
        match socket.try_write_vectored(slices.get(..used).unwrap_or_default()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => outgoing.advance(bytes),
            Err(error) if is_not_now(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Sends one frame, waiting for the socket.
pub(super) async fn write_all(socket: &Socket, frame: Frame) -> Result<(), LinkError> {
    let mut outgoing = Outgoing::default();
    outgoing.push(frame);
    while !write_some(&mut outgoing, socket)? {
        socket.ready(Interest::WRITABLE).await?;
    }
    Ok(())
}
